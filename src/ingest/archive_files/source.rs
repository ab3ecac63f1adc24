//! The source kind `archive`.

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::cache::{ListedArchive, ListingCache};
use super::companions::ArchiveCompanions;
use super::config::ArchiveConfig;
use super::contents::ListingLimits;
use super::files::ArchiveFiles;
use super::listing::{ListedScan, ListingRules, ScanMembers, key_in_archive};
use super::selection::{Selection, TOP_FOLDER};
use super::spill::Spill;
use super::stream::Expansion;
use crate::error::{ConfigError, Fault, FaultKind, Result};
use crate::id::ScanVersion;
use crate::ingest::archive::ArchiveRemarks;
use crate::ingest::dicom::Decoder;
use crate::ingest::file::check_root;
use crate::ingest::folder::{EntryRules, PathKind, Remarks, ScanFolder, log_remarks, patterns};
use crate::ingest::patient::{PatientRule, PatientSecret};
use crate::ingest::{Companions, Scan, ScanEntry, ScanHeader, Source, content_digest, nifti, volume_file};

/// Decompressed bytes up to which the ratio of expansion does not count.
const FREE_BYTES: u64 = 1 << 30;
/// Maximum number of scans whose files are kept after their header was read.
const MAX_RECENT: usize = 4;

/// The source kind `archive`: the scans in tar and zip archives.
///
/// Keys are the path of the archive below its folder, `/` and the path of the scan in the archive; for a DICOM folder, `#` and the id of
/// the series. Members that are refused and damaged archives are also listed; reading them is a fault. The other scans of such an archive
/// are read.
///
/// # Cost
/// Listing reads all of an archive once for each length and modification time of its file: to compute the digests of members of a tar, and
/// the headers of DICOM slices. Of a zip archive, only the table of contents and the DICOM folders are read. Members of a tar that is not
/// compressed and of a zip archive are read directly; those of a compressed tar after decompressing all members before them.
pub struct ArchiveSource {
    files: ArchiveFiles,
    rules: ListingRules,
    limits: ListingLimits,
    secret_file: Option<PathBuf>,
    listed: ListingCache,
    /// The files of scans whose header was read.
    recent: Mutex<VecDeque<RecentScan>>,
}

struct RecentScan {
    key: String,
    version: ScanVersion,
    spill: Arc<Spill>,
}

impl ArchiveSource {
    /// Creates the source `name` and checks its settings. The secret for patient keys is loaded by [`PatientSecret::load`] when scans
    /// are listed.
    ///
    /// # Errors
    /// Returns every error in the settings.
    pub fn new(name: &str, config: ArchiveConfig) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let files = ArchiveFiles::new(&config.path).map_err(|more| errors.extend(more)).ok();
        if config.include.is_empty() {
            let error = ConfigError::new("include", "expected at least one pattern, got none");
            errors.push(error.with_hint("for example include = [\"**/ct.nii.gz\"]"));
        }
        if config.dataset.as_ref().is_some_and(String::is_empty) {
            errors.push(ConfigError::new("dataset", "expected a name, got an empty one"));
        }
        let is_top = |pattern: &String| [TOP_FOLDER, "./"].contains(&pattern.as_str());
        let (top, below): (Vec<String>, Vec<String>) = config.include.into_iter().partition(is_top);
        let include = patterns("include", &below, &mut errors);
        let exclude = patterns("exclude", &config.exclude, &mut errors);
        let patient = PatientRule::new(&config.patient, "patient").unwrap_or_else(|more| {
            errors.extend(more);
            PatientRule::PathComponent(0)
        });
        for (field, value) in [
            ("scratch_limit_mib", config.scratch_limit_mib),
            ("max_members", config.max_members as u64),
            ("max_ratio", config.max_ratio),
        ] {
            if value == 0 {
                errors.push(ConfigError::new(field, "expected more than 0, got 0"));
            }
        }
        if let Some(scratch) = config.scratch.as_ref().filter(|folder| !folder.is_dir()) {
            let error = ConfigError::new("scratch", format!("expected an existing folder, got {}", scratch.display()));
            errors.push(error.with_hint("create the folder, or set another one: scratch = \"/var/tmp\""));
        }
        let (Some(files), true) = (files, errors.is_empty()) else { return Err(errors) };
        let dataset = config.dataset.unwrap_or_else(|| name.to_owned());
        let selection = Selection { include, exclude: exclude.clone(), includes_top: !top.is_empty() };
        Ok(Self {
            files,
            rules: ListingRules {
                entries: EntryRules { source: name.to_owned(), dataset, patient },
                archive_is_patient: config.archive_is_patient,
                selection,
                scans: ScanFolder::new(PathBuf::new(), exclude, config.allow_unreadable_files),
                scratch: config.scratch,
                scratch_bytes: config.scratch_limit_mib.saturating_mul(1 << 20),
            },
            limits: ListingLimits {
                members: config.max_members,
                expansion: Expansion { ratio: config.max_ratio, free_bytes: FREE_BYTES },
            },
            secret_file: None,
            listed: ListingCache::default(),
            recent: Mutex::default(),
        })
    }

    /// Sets the file of the secret for patient keys, which is used unless the environment variable is set.
    #[must_use]
    pub fn with_secret_file(self, file: Option<PathBuf>) -> Self {
        Self { secret_file: file, ..self }
    }

    /// Sets the decoder of compressed DICOM; by default a decoder in this process.
    #[must_use]
    pub fn with_decoder(mut self, decoder: Decoder) -> Self {
        self.rules.scans.decoder = decoder;
        self
    }

    /// Sets the limits of reading one scan or label file.
    #[must_use]
    pub fn with_limits(mut self, limits: nifti::Limits) -> Self {
        self.rules.scans.limits = limits;
        self
    }

    /// Sets the bytes of decompressed data up to which `max_ratio` does not count; by default 1 GiB.
    #[must_use]
    pub fn with_free_bytes(mut self, bytes: u64) -> Self {
        self.limits.expansion.free_bytes = bytes;
        self
    }

    fn secret(&self) -> Result<PatientSecret> {
        PatientSecret::load(self.secret_file.as_deref())
    }

    /// Returns the archive of a scan as it is now, and the key of the archive.
    fn archive_of(&self, entry: &ScanEntry) -> Result<(Arc<ListedArchive>, String), Fault> {
        let found = self.files.archive_of(&entry.key)?;
        let secret = self.secret().map_err(|error| {
            Fault::read(FaultKind::Interrupted, format!("cannot load the secret of patient keys: {error}"))
        })?;
        let path = self.files.path(&found.key);
        Ok((self.listed.get(&found, &path, &self.rules, self.limits, &secret), found.key))
    }

    /// Returns the files of a scan in a scratch folder, and its key in the archive.
    fn spilled(&self, entry: &ScanEntry) -> Result<SpilledScan, Fault> {
        let (archive, archive_key) = self.archive_of(entry)?;
        let listed = scan_of(&archive, entry)?;
        let (path, is_file) = match &listed.place {
            ScanMembers::File(path) => (path.clone(), true),
            ScanMembers::Folder(path) => (path.clone(), false),
            ScanMembers::Fault(fault) => return Err(fault.clone()),
        };
        let version = listed.entry.version;
        let key = key_in_archive(&archive_key, &entry.key).to_owned();
        let spill = self.take_recent(&entry.key, version);
        let spill = match spill {
            Some(spill) => spill,
            None => {
                let spill = Spill::new(self.rules.scratch.as_deref(), self.rules.scratch_bytes)?;
                let (members, contents) = (&archive.archive, &archive.contents);
                if is_file {
                    spill.extract(members, contents.member(&path).map(|member| (&*path, member)).into_iter())?;
                    let data = volume_file::named_data_file(&spill.root().join(&path));
                    let data = data.and_then(|data| data.file_name().map(|name| path.with_file_name(name)));
                    let data = data.as_ref().and_then(|path| Some((&**path, contents.member(path)?)));
                    spill.extract(members, data.into_iter())?;
                } else {
                    spill.extract(members, contents.members_in(&path))?;
                    spill.add_missing(&contents.missing_in(&path))?;
                }
                Arc::new(spill)
            }
        };
        let scans = self.rules.scans.at(spill.root());
        Ok(SpilledScan { archive, scans, spill, version, key, path })
    }

    fn companions_of(&self, archive: Arc<ListedArchive>, path: PathBuf) -> ArchiveCompanions {
        let ListingRules { scans, scratch, scratch_bytes, .. } = &self.rules;
        ArchiveCompanions::new(archive, scans.clone(), path, scratch.clone(), *scratch_bytes)
    }

    /// Keeps the files of a scan whose header was read, because its voxels are read soon.
    fn keep_recent(&self, key: &str, spilled: &SpilledScan) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let new = RecentScan { key: key.to_owned(), version: spilled.version, spill: Arc::clone(&spilled.spill) };
        recent.retain(|scan| scan.key != key);
        recent.push_back(new);
        let bytes = |recent: &VecDeque<RecentScan>| recent.iter().map(|scan| scan.spill.bytes()).sum::<u64>();
        while recent.len() > MAX_RECENT || bytes(&recent) > self.rules.scratch_bytes {
            recent.pop_front();
        }
    }

    fn take_recent(&self, key: &str, version: ScanVersion) -> Option<Arc<Spill>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let index = recent.iter().position(|scan| scan.key == key && scan.version == version)?;
        recent.remove(index).map(|scan| scan.spill)
    }

    fn check_patient(&self, scan: &SpilledScan) -> Result<(), Fault> {
        if self.rules.is_patient_archive(&scan.key) {
            return Ok(());
        }
        self.rules.entries.check_patient(&scan.key, &scan.scans.locate(&scan.key)?)
    }
}

/// A scan whose files are in a scratch folder.
struct SpilledScan {
    archive: Arc<ListedArchive>,
    /// The settings of reading files, with the scratch folder as root.
    scans: ScanFolder,
    spill: Arc<Spill>,
    version: ScanVersion,
    /// The key of the scan in the archive.
    key: String,
    /// The path of its file or DICOM folder in the archive.
    path: PathBuf,
}

fn scan_of<'a>(archive: &'a ListedArchive, entry: &ScanEntry) -> Result<&'a ListedScan, Fault> {
    let missing = || Fault::read(FaultKind::Missing, "the archive no longer contains the scan");
    archive.scans.scans.get(&entry.key).ok_or_else(missing)
}

impl fmt::Debug for ArchiveSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchiveSource").field("files", &self.files).field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Source for ArchiveSource {
    fn list(&self) -> Result<Vec<ScanEntry>> {
        let (entries, remarks) = self.list_archive()?;
        log_remarks(&self.rules.entries.source, &remarks);
        Ok(entries)
    }

    fn list_archive(&self) -> Result<(Vec<ScanEntry>, ArchiveRemarks)> {
        let secret = self.secret()?;
        let mut entries = Vec::new();
        let mut remarks = Remarks::default();
        for found in self.files.list()? {
            if found.kind == PathKind::Folder {
                continue;
            }
            let path = self.files.path(&found.key);
            let listed = self.listed.get(&found, &path, &self.rules, self.limits, &secret);
            entries.extend(listed.scans.scans.values().map(|scan| scan.entry.clone()));
            remarks.extend(&listed.scans.remarks);
        }
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok((entries, remarks.finish()))
    }

    fn explain_empty(&self) -> String {
        let root = self.files.root().display();
        match self.files.list() {
            Ok(found) if found.is_empty() => format!("no archive below {root} matches `path`"),
            Ok(found) => {
                format!("no member of {} archive(s) below {root} matches `include` and not `exclude`", found.len())
            }
            Err(error) => error.to_string(),
        }
    }

    fn check_available(&self) -> Result<()> {
        check_root(self.files.root())
    }

    fn companions(&self, entry: &ScanEntry) -> Option<Arc<dyn Companions>> {
        let (archive, _) = self.archive_of(entry).ok()?;
        let path = match &scan_of(&archive, entry).ok()?.place {
            ScanMembers::File(path) | ScanMembers::Folder(path) => path.clone(),
            ScanMembers::Fault(_) => return None,
        };
        Some(Arc::new(self.companions_of(archive, path)))
    }

    fn patient_secret(&self) -> Result<Option<PatientSecret>> {
        self.secret().map(Some)
    }

    fn version(&self, entry: &ScanEntry) -> Result<ScanVersion, Fault> {
        let (archive, _) = self.archive_of(entry)?;
        scan_of(&archive, entry).map(|scan| scan.entry.version)
    }

    fn header(&self, entry: &ScanEntry) -> Result<ScanHeader, Fault> {
        let scan = self.spilled(entry)?;
        let header = scan.scans.header(&scan.key)?;
        self.keep_recent(&entry.key, &scan);
        Ok(header)
    }

    fn check(&self, entry: &ScanEntry) -> Result<(), Fault> {
        let (archive, _) = self.archive_of(entry)?;
        match &scan_of(&archive, entry)?.place {
            // Listing has reported these faults.
            ScanMembers::Fault(_) => Ok(()),
            // Listing has read the headers of DICOM folders.
            ScanMembers::Folder(_) if entry.key.contains('#') => Ok(()),
            ScanMembers::Folder(_) => self.header(entry).map(drop),
            ScanMembers::File(_) => {
                let scan = self.spilled(entry)?;
                self.check_patient(&scan)?;
                volume_file::check(&scan.spill.root().join(&scan.path), &scan.scans.limits)?;
                self.keep_recent(&entry.key, &scan);
                Ok(())
            }
        }
    }

    fn read(&self, entry: &ScanEntry) -> Result<Scan, Fault> {
        let scan = self.spilled(entry)?;
        self.check_patient(&scan)?;
        let location = scan.scans.locate(&scan.key)?;
        let volume = scan.scans.decode(&location)?;
        let companions =
            self.companions_of(Arc::clone(&scan.archive), scan.path.clone()).with_frame(location.frame_of_reference());
        Ok(Scan {
            acquisition: Default::default(),
            entry: entry.clone(),
            digest: content_digest(&volume),
            volume,
            companions: Arc::new(companions),
        })
    }
}
