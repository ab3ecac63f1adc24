//! The scans of one archive: volume files, and series in its folders.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::archive::{Archive, copy};
use super::contents::{Contents, Member};
use super::selection::{Selected, Selection};
use super::spill::Spill;
use crate::error::Fault;
use crate::ingest::dicom::Series;
use crate::ingest::folder::{EntryRules, Listing, Remarks, ScanFiles, ScanFolder};
use crate::ingest::key::key_of;
use crate::ingest::patient::PatientSecret;
use crate::ingest::version::{FileState, VersionHasher};
use crate::ingest::{ScanEntry, volume_file};

/// Bytes of a header that may name a data file.
const HEADER_BYTES: u64 = 256 << 10;

/// The settings by which archives are listed.
#[derive(Clone, Debug)]
pub(super) struct ListingRules {
    pub entries: EntryRules,
    /// Whether each archive is one patient.
    pub archive_is_patient: bool,
    pub selection: Selection,
    /// The settings of reading scans; the root is replaced by a scratch folder.
    pub scans: ScanFolder,
    /// The folder of scratch folders.
    pub scratch: Option<PathBuf>,
    pub scratch_bytes: u64,
}

/// The key and the file state of an archive.
#[derive(Clone, Copy)]
pub(super) struct ArchiveName<'a> {
    /// The path of the archive below the folder of archives.
    pub key: &'a str,
    /// The time of its last modification in seconds since 1970.
    pub modified_s: i64,
    /// The length of the archive, and its state.
    pub bytes: u64,
    pub state: FileState,
}

/// A listed scan.
pub(super) struct ListedScan {
    pub entry: ScanEntry,
    pub place: ScanMembers,
}

/// The members from which a scan is read.
pub(super) enum ScanMembers {
    /// The volume file at this path.
    File(PathBuf),
    /// The files in this folder; the key is that of one of its series.
    Folder(PathBuf),
    /// The scan cannot be read.
    Fault(Fault),
}

/// The scans of an archive by key.
#[derive(Default)]
pub(super) struct ArchiveScans {
    pub scans: BTreeMap<String, ListedScan>,
    pub remarks: Remarks,
}

/// Returns the key of a scan in its source, from the key of its archive and its key in the archive.
pub(super) fn source_key(archive: &str, key: &str) -> String {
    match key {
        "" => archive.to_owned(),
        key if key.starts_with('#') => format!("{archive}{key}"),
        key => format!("{archive}/{key}"),
    }
}

/// Returns the key of a scan in its archive.
pub(super) fn key_in_archive<'a>(archive: &str, key: &'a str) -> &'a str {
    let rest = key.strip_prefix(archive).unwrap_or(key);
    rest.strip_prefix('/').unwrap_or(rest)
}

impl ListingRules {
    /// Returns the listing of an archive that cannot be read: one entry for the archive itself, with the fault.
    pub fn unlisted(&self, secret: &PatientSecret, name: ArchiveName<'_>, fault: Fault) -> ArchiveScans {
        let mut found = ArchiveScans::default();
        self.add_fault(&mut found, secret, name, "", fault);
        found
    }

    /// Lists the scans of an archive, its members that are refused and its damage.
    ///
    /// # Errors
    /// A transient fault: the scratch folder cannot be written, or the archive changed.
    pub fn list(
        &self,
        secret: &PatientSecret,
        name: ArchiveName<'_>,
        archive: &Archive,
        contents: &Contents,
    ) -> Result<ArchiveScans, Fault> {
        let mut found = ArchiveScans::default();
        let mut folders: BTreeMap<PathBuf, u64> = BTreeMap::new();
        for (path, member) in contents.members() {
            match self.selection.of(path) {
                Some(Selected::Scan) => self.add_file(&mut found, secret, name, (archive, contents), (path, member))?,
                Some(Selected::Slice(folder)) => {
                    let offset = member.location.offset();
                    let first = folders.entry(folder).or_insert(offset);
                    *first = offset.min(*first);
                }
                None => {}
            }
        }
        // In the order of the archive, so that a compressed tar is read once more and not for each folder.
        let mut folders: Vec<(u64, PathBuf)> = folders.into_iter().map(|(folder, offset)| (offset, folder)).collect();
        folders.sort();
        for (_, folder) in folders {
            self.add_folder(&mut found, secret, name, (archive, contents), folder)?;
        }
        for (key, refusal) in &contents.refused {
            let is_excluded = refusal.path.as_ref().is_some_and(|path| self.selection.is_excluded(path));
            if !is_excluded {
                self.add_fault(&mut found, secret, name, key, refusal.fault.clone());
            }
        }
        if let Some(damage) = &contents.damage {
            self.add_fault(&mut found, secret, name, "", damage.clone());
        }
        Ok(found)
    }

    fn add_file(
        &self,
        found: &mut ArchiveScans,
        secret: &PatientSecret,
        name: ArchiveName<'_>,
        (archive, contents): (&Archive, &Contents),
        (path, member): (&Path, &Member),
    ) -> Result<(), Fault> {
        let mut bytes = member.bytes;
        let mut version = VersionHasher::new().add_files("scan", [member.state()]);
        if let Some(data) = self.data_file(archive, path, member)? {
            let data = contents.member(&data);
            bytes += data.map_or(0, |data| data.bytes);
            version = version.add_files("data", [data.map_or(FileState::Absent, Member::state)]);
        }
        let files = ScanFiles { bytes, modified_s: name.modified_s, version: version.finish() };
        let key = key_of(path);
        let place = ScanMembers::File(path.to_owned());
        self.add(found, secret, name, &key, files, place);
        Ok(())
    }

    /// Returns the path of the data file that a header names.
    fn data_file(&self, archive: &Archive, path: &Path, member: &Member) -> Result<Option<PathBuf>, Fault> {
        if !volume_file::may_name_data_file(path) {
            return Ok(None);
        }
        let spill = Spill::new(self.scratch.as_deref(), HEADER_BYTES)?;
        let file = spill.root().join(path);
        // A header that cannot be read is found when the scan is read.
        let copied = archive.read(vec![((), *member)], &mut |(), _, content| copy(content, &file, Some(HEADER_BYTES)));
        let data = copied.ok().and_then(|()| volume_file::named_data_file(&file));
        Ok(data.and_then(|data| data.file_name().map(|name| path.with_file_name(name))))
    }

    fn add_folder(
        &self,
        found: &mut ArchiveScans,
        secret: &PatientSecret,
        name: ArchiveName<'_>,
        (archive, contents): (&Archive, &Contents),
        folder: PathBuf,
    ) -> Result<(), Fault> {
        let spill = Spill::new(self.scratch.as_deref(), self.scratch_bytes)?;
        let key = key_of(&folder);
        let scans = self.scans.at(spill.root());
        let listed = spill
            .extract(archive, contents.members_in(&folder))
            .and_then(|()| spill.add_missing(&contents.missing_in(&folder)))
            .and_then(|()| scans.list_folder(&spill.root().join(&folder)));
        let states = |paths: &mut dyn Iterator<Item = &Path>| {
            let state = |path: &Path| contents.member(path).map_or(FileState::Absent, Member::state);
            let mut states: Vec<FileState> = paths.map(state).collect();
            states.sort_unstable();
            states
        };
        let files_of = |series: &Series| {
            let root = spill.root();
            let mut paths = series.paths().filter_map(|path| path.strip_prefix(&root).ok());
            ScanFiles::of_series_with(series, states(&mut paths), name.modified_s)
        };
        let mut entries = Vec::new();
        if let Err(fault) = listed.as_ref().map_err(Clone::clone).map(drop)
            && fault.kind.is_transient()
        {
            return Err(fault);
        }
        if let Ok(listed) = listed {
            let listing = Listing { secret, key_of: &|key| source_key(name.key, key), files_of: &files_of };
            entries = self.entries.entries_of_series(&key, listed, &listing, &mut found.remarks);
        }
        if entries.is_empty() {
            // Reading this scan is a fault, of the members or of a folder without a series.
            let members = states(&mut contents.members_in(&folder).map(|(path, _)| path));
            let version = VersionHasher::new().add_files("folder", members).finish();
            let files = ScanFiles { bytes: 0, modified_s: name.modified_s, version };
            self.add(found, secret, name, &key, files, ScanMembers::Folder(folder));
            return Ok(());
        }
        for entry in entries {
            let entry = self.with_patient(secret, name, &key, entry);
            let place = ScanMembers::Folder(folder.clone());
            found.scans.insert(entry.key.clone(), ListedScan { entry, place });
        }
        Ok(())
    }

    fn add_fault(
        &self,
        found: &mut ArchiveScans,
        secret: &PatientSecret,
        name: ArchiveName<'_>,
        key: &str,
        fault: Fault,
    ) {
        let version = VersionHasher::new().add_text("fault", &fault.message);
        // Damage of the archive may be repaired, so that its other scans are found.
        let version = if key.is_empty() { version.add_files("archive", [name.state]) } else { version };
        let bytes = if key.is_empty() { name.bytes } else { 0 };
        let mut files = ScanFiles { bytes, modified_s: name.modified_s, version: version.finish() };
        if fault.kind.is_transient() {
            // As for a folder that cannot be listed: the scans of the archive are not gone.
            (files.bytes, files.modified_s) = (0, 0);
        }
        found.remarks.add_fault(&fault);
        self.add(found, secret, name, key, files, ScanMembers::Fault(fault));
    }

    fn add(
        &self,
        found: &mut ArchiveScans,
        secret: &PatientSecret,
        name: ArchiveName<'_>,
        key: &str,
        files: ScanFiles,
        place: ScanMembers,
    ) {
        let listing = Listing { secret, key_of: &|key| source_key(name.key, key), files_of: &ScanFiles::of_series };
        let entry = self.entries.entry(&listing, key, key, files, None);
        let entry = self.with_patient(secret, name, key, entry);
        found.scans.insert(entry.key.clone(), ListedScan { entry, place });
    }

    /// Returns the entry with the archive as patient, if the settings require it or the scan has no other path.
    fn with_patient(&self, secret: &PatientSecret, name: ArchiveName<'_>, key: &str, entry: ScanEntry) -> ScanEntry {
        match self.is_patient_archive(key) {
            true => ScanEntry { patient_key: secret.patient_key(&self.entries.dataset, name.key), ..entry },
            false => entry,
        }
    }

    /// Returns whether the archive is the patient of a scan with this key in the archive.
    pub fn is_patient_archive(&self, key: &str) -> bool {
        let is_top = key.is_empty() || key.starts_with('#');
        self.archive_is_patient
            || (is_top && self.entries.patient == crate::ingest::patient::PatientRule::PathComponent(0))
    }
}
