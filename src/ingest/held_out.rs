//! Held-out scans: files and folders whose scans must never be in a training set, and the digests of their contents.
//!
//! A copy of a held-out scan has another name, container or compression, but the same content digest ([`content_digest`]). The digests of
//! all held-out scans are computed once and kept in a [`HeldOutCache`], from which the next process takes those whose files have not
//! changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use super::dicom::{self, Decoder, FolderFilter, Series};
use super::file::{case_name, open_regular};
use super::format::{Format, START_BYTES};
use super::version::VersionHasher;
use super::{content_digest, key_of, nifti, volume_file};
use crate::error::{Error, Fault, FaultKind, Result};
use crate::id::{FieldHasher, ScanDigest, ScanVersion};

/// Maximum number of threads that compute digests: each has a decoded scan in memory.
const MAX_THREADS: usize = 4;

/// Number of new digests after which the cache is saved.
const SAVE_INTERVAL: usize = 32;

/// The digests of the contents of held-out scans.
///
/// ```
/// use freetumor::id::ScanDigest;
/// use freetumor::ingest::HeldOut;
/// let held_out: HeldOut = [ScanDigest::from_bytes([1; 32])].into_iter().collect();
/// assert!(held_out.contains(ScanDigest::from_bytes([1; 32])));
/// assert!(!held_out.contains(ScanDigest::from_bytes([2; 32])));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldOut(Arc<BTreeSet<ScanDigest>>);

impl FromIterator<ScanDigest> for HeldOut {
    fn from_iter<I: IntoIterator<Item = ScanDigest>>(digests: I) -> Self {
        Self(Arc::new(digests.into_iter().collect()))
    }
}

impl HeldOut {
    /// Returns whether scans of this content are held out.
    pub fn contains(&self, digest: ScanDigest) -> bool {
        self.0.contains(&digest)
    }

    /// Returns whether no scan is held out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns a digest of all contents, independent of the number and names of their files.
    pub fn digest(&self) -> String {
        let hash = FieldHasher::new("held-out scans");
        hex::encode(self.0.iter().fold(hash, |hash, digest| hash.add_field(digest.as_bytes())).finish())
    }

    /// Returns the fault of a scan of a held-out content. The message does not contain the path of the held-out scan.
    pub fn fault() -> Fault {
        Fault::read(
            FaultKind::HeldOut,
            "expected a scan that is not held out, got the content of a scan that `never_train` names",
        )
    }
}

/// The known digests of held-out scans, by the path of the scan. Paths may name a person: the cache is stored in a private folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HeldOutCache(BTreeMap<String, CachedDigest>);

/// The digest of a held-out scan with the version of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CachedDigest {
    version: ScanVersion,
    digest: ScanDigest,
}

impl HeldOutCache {
    fn digest(&self, scan: &HeldOutScan) -> Option<ScanDigest> {
        self.0.get(&scan.key).filter(|cached| cached.version == scan.version).map(|cached| cached.digest)
    }
}

/// A held-out scan, listed but not decoded.
#[derive(Debug)]
pub struct HeldOutScan {
    /// The path, followed by `#` and the id of the series for a DICOM series.
    key: String,
    /// The version of the files.
    version: ScanVersion,
    location: Location,
}

#[derive(Debug)]
enum Location {
    File(PathBuf),
    Series(PathBuf, Box<Series>),
}

/// Files and folders whose scans must never be in a training set.
#[derive(Clone, Debug)]
pub struct HeldOutPaths {
    paths: Vec<PathBuf>,
    decoder: Decoder,
}

impl HeldOutPaths {
    /// Creates the list of paths; `decoder` decodes compressed DICOM.
    pub fn new(paths: Vec<PathBuf>, decoder: Decoder) -> Self {
        Self { paths, decoder }
    }

    /// Returns whether there are no paths.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Lists the scans of all paths; no voxel is decoded. In a folder these are the NIfTI, NRRD and MetaImage files and the DICOM series
    /// below it, without names that start with a dot. Label maps are listed too.
    ///
    /// # Errors
    /// If a path does not exist or cannot be read, or a folder has no scan.
    pub fn list(&self) -> Result<Vec<HeldOutScan>> {
        let mut scans = Vec::new();
        for path in &self.paths {
            let metadata = path.metadata().map_err(|cause| unreadable(path, &cause))?;
            let before = scans.len();
            if metadata.is_dir() {
                self.list_folder(path, &mut scans)?;
            } else {
                scans.push(HeldOutScan::of_file(path));
            }
            if scans.len() == before {
                let message = format!("expected at least one scan in the held-out folder {}, got none", path.display());
                return Err(Error::new(message).with_hint("correct `never_train`, or mount the disk of the folder"));
            }
        }
        scans.sort_by(|a, b| a.key.cmp(&b.key));
        scans.dedup_by(|a, b| a.key == b.key);
        Ok(scans)
    }

    fn list_folder(&self, root: &Path, scans: &mut Vec<HeldOutScan>) -> Result<()> {
        // The formats of the files of each folder: voxels of a MetaImage file may resemble a slice without preamble.
        let mut folders: BTreeMap<PathBuf, [bool; 3]> = BTreeMap::new();
        let is_visible = |name: &OsStr| !name.as_encoded_bytes().starts_with(b".");
        let walk = WalkDir::new(root).follow_links(true).into_iter();
        for entry in walk.filter_entry(|entry| entry.depth() == 0 || is_visible(entry.file_name())) {
            let entry = match entry {
                Ok(entry) => entry,
                // The content of a parent folder is found without the link.
                Err(error) if error.loop_ancestor().is_some() => continue,
                Err(error) => return Err(unreadable(error.path().unwrap_or(root), &error)),
            };
            if entry.file_type().is_dir() {
                continue;
            }
            let path = entry.path();
            let format = format_of(path).map_err(|fault| unreadable(path, &fault.message))?;
            let is_volume = matches!(format, Format::Nifti | Format::Nrrd | Format::MetaImage)
                || entry.file_name().to_str().is_some_and(|name| case_name(name).is_some());
            if is_volume {
                scans.push(HeldOutScan::of_file(path));
            }
            let formats = folders.entry(path.parent().unwrap_or(root).to_owned()).or_default();
            formats[0] |= format == Format::Dicom;
            formats[1] |= format == Format::Unknown;
            formats[2] |= is_volume;
        }
        for (folder, [is_dicom, is_unknown, has_volumes]) in folders {
            if is_dicom || (is_unknown && !has_volumes) {
                let filter = FolderFilter { decoder: Some(&self.decoder), ..FolderFilter::default() };
                let listed =
                    dicom::list_folder(&folder, &filter).map_err(|fault| unreadable(&folder, &fault.message))?;
                scans.extend(listed.into_scans().into_iter().map(|series| HeldOutScan::of_series(&folder, series)));
            }
        }
        Ok(())
    }

    /// Returns the digests of all held-out scans if `cache` contains all of them; otherwise `None`.
    ///
    /// # Errors
    /// The errors of [`HeldOutPaths::list`].
    pub fn cached_digests(&self, cache: &HeldOutCache) -> Result<Option<HeldOut>> {
        Ok(self.list()?.iter().map(|scan| cache.digest(scan)).collect())
    }

    /// Computes the digests of all held-out scans on at most `threads` threads, and never on more than four. Digests in `cache` are not
    /// computed again; `save` stores the cache with new digests, also after a part of them.
    ///
    /// # Errors
    /// The errors of [`HeldOutPaths::list`] and of `save`; also if a scan cannot be read, because copies of it could not be refused.
    pub fn digests(
        &self,
        threads: usize,
        cache: &HeldOutCache,
        save: &(dyn Fn(&HeldOutCache) -> Result<()> + Sync),
    ) -> Result<HeldOut> {
        let scans = self.list()?;
        let known = |scan: &HeldOutScan| {
            cache.digest(scan).map(|digest| (scan.key.clone(), CachedDigest { version: scan.version, digest }))
        };
        let current = HeldOutCache(scans.iter().filter_map(known).collect());
        let missing: Vec<&HeldOutScan> = scans.iter().filter(|scan| !current.0.contains_key(&scan.key)).collect();
        if missing.is_empty() {
            return Ok(current.0.values().map(|cached| cached.digest).collect());
        }
        tracing::info!("reading {} held-out scans", missing.len());
        let next = AtomicUsize::new(0);
        let state = Mutex::new((current, Ok(())));
        let work = || {
            while let Some(scan) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                let read = self.read_digest(scan);
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                let (current, result) = &mut *state;
                let saved = read.and_then(|digest| {
                    current.0.insert(scan.key.clone(), CachedDigest { version: scan.version, digest });
                    if current.0.len() % SAVE_INTERVAL == 0 { save(current) } else { Ok(()) }
                });
                if let Err(error) = saved {
                    // The other threads end after their scans.
                    next.store(missing.len(), Ordering::Relaxed);
                    if result.is_ok() {
                        *result = Err(error);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.clamp(1, MAX_THREADS).min(missing.len()) {
                scope.spawn(work);
            }
            work();
        });
        let (current, result) = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        save(&current)?;
        result?;
        Ok(current.0.values().map(|cached| cached.digest).collect())
    }

    fn read_digest(&self, scan: &HeldOutScan) -> Result<ScanDigest> {
        let limits = nifti::Limits::default();
        let (path, volume) = match &scan.location {
            Location::File(path) => (path, volume_file::read_volume_within(path, &limits)),
            Location::Series(folder, series) => {
                let limits = dicom::Limits { volume_bytes: limits.held_bytes };
                (folder, dicom::read_series(series, &self.decoder, &limits))
            }
        };
        let volume = volume.map_err(|fault| unreadable(path, &format!("{} ({})", fault.message, fault.kind.name())))?;
        Ok(content_digest(&volume))
    }
}

impl HeldOutScan {
    fn of_file(path: &Path) -> Self {
        let version = VersionHasher::new().add_files("held out", volume_file::file_states(path)).finish();
        Self { key: absolute_key(path), version, location: Location::File(path.to_owned()) }
    }

    fn of_series(folder: &Path, series: Series) -> Self {
        let version = VersionHasher::new().add_files("held out", series.file_states()).finish();
        let mut key = absolute_key(folder);
        // Writing to a string does not fail.
        let _ = write!(key, "#{}", series.id());
        Self { key, version, location: Location::Series(folder.to_owned(), Box::new(series)) }
    }
}

/// Returns the key of a path, which does not depend on the current folder.
fn absolute_key(path: &Path) -> String {
    key_of(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
}

/// Recognizes the format of a file by its first bytes.
fn format_of(path: &Path) -> Result<Format, Fault> {
    let (file, _) = open_regular(path)?;
    let mut start = Vec::new();
    file.take(START_BYTES as u64)
        .read_to_end(&mut start)
        .map_err(|error| Fault::read(FaultKind::Io, format!("the system cannot read the file: {}", error.kind())))?;
    Ok(Format::of(&start))
}

/// Creates the error of a held-out path that cannot be read.
fn unreadable(path: &Path, cause: &dyn std::fmt::Display) -> Error {
    Error::new(format!("cannot read the held-out scans of {}: {cause}", path.display())).with_hint(
        "copies of a scan that cannot be read are not recognized: restore the file, or correct `never_train` of [pipeline]",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::nifti::{Datatype, encode_header};
    use crate::volume::{Affine, Grid};

    fn write(path: &Path, first: i16) {
        let grid = Grid { shape: [2, 1, 2], affine: Affine::from_spacing([1.0; 3]) };
        let mut file = encode_header(&grid, Datatype::I16, "").unwrap().to_vec();
        file.extend([first, 1, 2, 3].iter().flat_map(|hu| hu.to_le_bytes()));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, file).unwrap();
    }

    fn paths(paths: &[PathBuf]) -> HeldOutPaths {
        HeldOutPaths::new(paths.to_vec(), Decoder::in_process())
    }

    #[test]
    fn folder_and_file_are_listed_once_and_other_files_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("a/ct.nii"), 7);
        write(&folder.path().join("b/without-ending"), 8);
        write(&folder.path().join("b/.hidden.nii"), 9);
        std::fs::write(folder.path().join("notes.txt"), "some notes in a text file").unwrap();
        let held_out = paths(&[folder.path().to_owned(), folder.path().join("a/ct.nii")]);
        assert_eq!(held_out.list().unwrap().len(), 2);
        let digests = held_out.digests(8, &HeldOutCache::default(), &|_| Ok(())).unwrap();
        assert_eq!(digests.0.len(), 2);
        assert_ne!(digests.digest(), HeldOut::default().digest());
    }

    #[test]
    fn cached_digest_is_not_computed_again_until_the_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (kept, changed) = (folder.path().join("kept.nii"), folder.path().join("changed.nii"));
        write(&kept, 7);
        write(&changed, 8);
        let held_out = paths(&[kept, changed.clone()]);
        let saved = Mutex::new(HeldOutCache::default());
        let save = |cache: &HeldOutCache| {
            *saved.lock().unwrap() = cache.clone();
            Ok(())
        };
        let first = held_out.digests(1, &HeldOutCache::default(), &save).unwrap();
        let mut cache = saved.lock().unwrap().clone();
        assert_eq!(held_out.cached_digests(&cache).unwrap(), Some(first));
        // A wrong digest shows which scans are read.
        cache.0.values_mut().for_each(|cached| cached.digest = ScanDigest::from_bytes([9; 32]));
        std::fs::File::options().append(true).open(&changed).unwrap().set_len(400).unwrap();
        write(&changed, 10);
        std::fs::File::options().write(true).open(&changed).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(held_out.cached_digests(&cache).unwrap(), None);
        let second = held_out.digests(1, &cache, &save).unwrap();
        assert!(second.contains(ScanDigest::from_bytes([9; 32])) && second.0.len() == 2);
    }

    #[test]
    fn unreadable_and_empty_paths_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.nii");
        let error = paths(std::slice::from_ref(&missing)).list().unwrap_err();
        assert!(error.to_string().contains("missing.nii") && error.hint().unwrap().contains("never_train"), "{error}");
        let empty = folder.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        assert!(paths(&[empty]).list().unwrap_err().to_string().contains("at least one scan"));
        std::fs::write(&missing, [7; 99]).unwrap();
        let saved = AtomicUsize::new(0);
        let save = |_: &HeldOutCache| {
            saved.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        let error = paths(&[missing]).digests(2, &HeldOutCache::default(), &save).unwrap_err();
        assert!(error.to_string().contains("missing.nii: "), "{error}");
        assert_eq!(saved.into_inner(), 1);
    }
}
