//! The scratch folder of one scan: members that were extracted, within a limit of bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use super::archive::{Archive, copy};
use super::contents::Member;
use crate::error::{Fault, FaultKind};

/// The folder of the members in the scratch folder: patterns of label files cannot leave the scratch folder.
const FOLDER: &str = "archive";

/// A scratch folder, which is removed when its last owner is dropped.
pub(super) struct Spill {
    folder: TempDir,
    limit_bytes: u64,
    /// The bytes of the files that were extracted, by path.
    present: Mutex<BTreeMap<PathBuf, u64>>,
}

impl Spill {
    /// Creates an empty scratch folder below `parent`, or below the folder of the system for temporary files.
    ///
    /// # Errors
    /// `io` if the folder cannot be created.
    pub fn new(parent: Option<&Path>, limit_bytes: u64) -> Result<Self, Fault> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("freetumor-archive-");
        let folder = parent.map_or_else(|| builder.tempdir(), |parent| builder.tempdir_in(parent));
        let cannot_create = |error: std::io::Error| {
            let message = format!("cannot create a scratch folder: {}; set one with `scratch`", error.kind());
            Fault::read(FaultKind::Io, message)
        };
        let folder = folder.map_err(cannot_create)?;
        std::fs::create_dir(folder.path().join(FOLDER)).map_err(cannot_create)?;
        Ok(Self { folder, limit_bytes, present: Mutex::default() })
    }

    /// Returns the folder that corresponds to the top folder of the archive.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join(FOLDER)
    }

    /// Returns the bytes of the files in the folder.
    pub fn bytes(&self) -> u64 {
        self.present().values().sum()
    }

    /// Extracts the members that are not in the folder.
    ///
    /// # Errors
    /// `too_large` if the folder would exceed its limit, and the faults of reading the members.
    pub fn extract<'a>(
        &self,
        archive: &Archive,
        members: impl Iterator<Item = (&'a Path, &'a Member)>,
    ) -> Result<(), Fault> {
        let mut present = self.present();
        let members: Vec<(PathBuf, Member)> = members
            .filter(|(path, _)| !present.contains_key(*path))
            .map(|(path, member)| (path.to_owned(), *member))
            .collect();
        let needed = members.iter().map(|(_, member)| member.bytes).fold(0, u64::saturating_add);
        let used: u64 = present.values().sum();
        if used.saturating_add(needed) > self.limit_bytes {
            let message = format!(
                "expected a scan with label files of at most {} bytes in the scratch folder (`scratch_limit_mib`), got {}",
                self.limit_bytes,
                used.saturating_add(needed)
            );
            return Err(Fault::read(FaultKind::TooLarge, message));
        }
        let root = self.root();
        archive.read(members, &mut |path, member, content| {
            copy(content, &root.join(&path), None)?;
            present.insert(path, member.bytes);
            Ok(())
        })
    }

    /// Creates empty files in place of members that cannot be read: a DICOM folder without them would look complete.
    ///
    /// # Errors
    /// `io` if a file cannot be written.
    pub fn add_missing(&self, paths: &[PathBuf]) -> Result<(), Fault> {
        paths.iter().try_for_each(|path| copy(&mut std::io::empty(), &self.root().join(path), None))
    }

    fn present(&self) -> MutexGuard<'_, BTreeMap<PathBuf, u64>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
