//! The label files of a scan in an archive, extracted when they are read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::cache::ListedArchive;
use super::contents::Member;
use super::spill::Spill;
use crate::error::{Fault, FaultKind, Stage};
use crate::ingest::dicom::FrameOfReference;
use crate::ingest::folder::{FolderCompanions, ScanFolder};
use crate::ingest::{Companions, FileState, Structures, volume_file};
use crate::volume::{Grid, Labels};

/// The list of label names of a data set.
const DATA_SET_FILE: &str = "dataset.json";

/// The label files of a scan. A pattern is a path relative to the folder that contains the scan in the archive.
pub(super) struct ArchiveCompanions {
    pub archive: Arc<ListedArchive>,
    /// The settings of reading files; the root is replaced by the scratch folder.
    pub scans: ScanFolder,
    /// The path of the file or the DICOM folder of the scan in the archive.
    pub scan: PathBuf,
    pub frame: Option<FrameOfReference>,
    /// The folder of scratch folders.
    pub scratch: Option<PathBuf>,
    pub scratch_bytes: u64,
    spill: OnceLock<Spill>,
}

impl ArchiveCompanions {
    /// Creates access to the label files of the scan whose file or DICOM folder is at a path in an archive.
    pub fn new(
        archive: Arc<ListedArchive>,
        scans: ScanFolder,
        scan: PathBuf,
        scratch: Option<PathBuf>,
        scratch_bytes: u64,
    ) -> Self {
        Self { archive, scans, scan, frame: None, scratch, scratch_bytes, spill: OnceLock::new() }
    }

    /// Sets the frame of reference of the scan.
    pub fn with_frame(self, frame: Option<FrameOfReference>) -> Self {
        Self { frame, ..self }
    }

    /// Returns access to files below a folder that corresponds to the top folder of the archive.
    fn companions_at(&self, root: PathBuf) -> FolderCompanions {
        let scans = self.scans.at(root.clone());
        scans.companions(&root.join(&self.scan)).with_frame(self.frame)
    }

    /// Returns the path of a member that a pattern names, or `None` if the pattern leaves the archive.
    ///
    /// # Errors
    /// `mismatch` if the path of the pattern is not allowed.
    fn path_of(&self, pattern: &str) -> Result<Option<PathBuf>, Fault> {
        // Paths are only compared: no such folder has to exist.
        let root = std::env::temp_dir().join("archive");
        let path = self.companions_at(root.clone()).path_of(pattern)?;
        Ok(path.strip_prefix(crate::ingest::folder::resolve(&root)).ok().map(Path::to_owned))
    }

    /// Returns the members at a path: the file, or the files below the folder.
    fn members<'a>(&'a self, path: &'a Path) -> Vec<(&'a Path, &'a Member)> {
        self.archive.contents.members_below(path).collect()
    }

    fn spill(&self) -> Result<&Spill, Fault> {
        if let Some(spill) = self.spill.get() {
            return Ok(spill);
        }
        let spill = Spill::new(self.scratch.as_deref(), self.scratch_bytes)?;
        // Another thread may have created its folder in the meantime, which is used.
        Ok(self.spill.get_or_init(|| spill))
    }

    /// Extracts the label file that a pattern names, with its data file, and returns access to it.
    fn extracted(&self, pattern: &str) -> Result<FolderCompanions, Fault> {
        let spill = self.spill().map_err(|fault| fault.at(Stage::Mask))?;
        let extract = |members: Vec<(&Path, &Member)>| {
            spill.extract(&self.archive.archive, members.into_iter()).map_err(|fault| fault.at(Stage::Mask))
        };
        if let Some(path) = self.path_of(pattern)? {
            if let Some(refusal) = self.archive.contents.refusal(&path) {
                return Err(refusal.fault.clone().at(Stage::Mask));
            }
            extract(self.members(&path))?;
            if let Some(data) = volume_file::named_data_file(&spill.root().join(&path)) {
                let data = data.file_name().map(|name| path.with_file_name(name)).unwrap_or_default();
                extract(self.archive.contents.member(&data).map(|member| (&*data, member)).into_iter().collect())?;
            }
        }
        Ok(self.companions_at(spill.root()))
    }
}

impl Companions for ArchiveCompanions {
    fn labels(&self, pattern: &str) -> Result<Labels, Fault> {
        self.extracted(pattern)?.labels(pattern)
    }

    fn label_names(&self, pattern: &str) -> Result<BTreeMap<u16, String>, Fault> {
        self.extracted(pattern)?.label_names(pattern)
    }

    fn data_set_label_names(&self, pattern: &str) -> BTreeMap<u16, String> {
        let Ok(Some(path)) = self.path_of(pattern) else { return BTreeMap::new() };
        let files: Vec<PathBuf> = path.ancestors().skip(1).take(2).map(|folder| folder.join(DATA_SET_FILE)).collect();
        let members = files.iter().filter_map(|file| Some((&**file, self.archive.contents.member(file)?)));
        let members: Vec<(&Path, &Member)> = members.collect();
        if members.is_empty() {
            return BTreeMap::new();
        }
        let Ok(spill) = self.spill() else { return BTreeMap::new() };
        match spill.extract(&self.archive.archive, members.into_iter()) {
            Ok(()) => self.companions_at(spill.root()).data_set_label_names(pattern),
            Err(_) => BTreeMap::new(),
        }
    }

    fn structures(&self, pattern: &str) -> Result<Option<Box<dyn Structures>>, Fault> {
        self.extracted(pattern)?.structures(pattern)
    }

    fn file_states(&self, pattern: &str) -> Vec<FileState> {
        let Ok(path) = self.path_of(pattern) else { return Vec::new() };
        let Some(path) = path else { return vec![FileState::Absent] };
        let mut states: Vec<FileState> = self.members(&path).into_iter().map(|(_, member)| member.state()).collect();
        if states.is_empty() {
            return vec![FileState::Absent];
        }
        states.sort_unstable();
        // The content of a header names its data file.
        if volume_file::may_name_data_file(&path)
            && let Ok(spill) = self.spill()
            && spill.extract(&self.archive.archive, self.members(&path).into_iter()).is_ok()
            && let Some(data) = volume_file::named_data_file(&spill.root().join(&path))
        {
            let data = data.file_name().and_then(|name| self.archive.contents.member(&path.with_file_name(name)));
            states.push(data.map_or(FileState::Absent, Member::state));
        }
        states
    }

    fn label_grid(&self, pattern: &str) -> Result<Option<Grid>, Fault> {
        self.extracted(pattern)?.label_grid(pattern)
    }

    fn exists(&self, pattern: &str) -> bool {
        match self.path_of(pattern) {
            Ok(Some(path)) => {
                let contents = &self.archive.contents;
                contents.refusal(&path).is_some() || contents.members_below(&path).next().is_some()
            }
            Ok(None) => false,
            Err(fault) => fault.kind != FaultKind::Missing,
        }
    }
}
