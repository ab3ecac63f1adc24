//! The label files that belong to a scan in a folder.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use crate::error::{Fault, FaultKind, Stage};
use crate::ingest::dicom::{FrameOfReference, StructureFile};
use crate::ingest::file::{is_dicom_slice, stem};
use crate::ingest::key::{key_of, path_of};
use crate::ingest::label_names::data_set_label_names;
use crate::ingest::{Companions, FileState, Structures, nifti, volume_file};
use crate::volume::{Grid, Labels};

/// Memory of reading a structure file, as a multiple of its bytes: the file, its elements and its points or pixels.
const STRUCTURE_MEMORY_RATIO: u64 = 8;

/// Finds the label files of a scan by pattern.
///
/// A pattern is a path relative to the folder that *contains* the file or the DICOM folder of the scan. `{stem}` is replaced by the
/// name of the file without its ending (`.nii.gz`, `.nii`, `.nrrd`, `.nhdr`, `.mha`, `.mhd`), or of the DICOM folder. The path must be
/// below the root of the source or next to the root (`../labelsTr/{stem}.nii.gz` from a root `…/imagesTr`); links are followed, as for
/// scans.
pub(in crate::ingest) struct FolderCompanions {
    /// The parent of the root: the paths of patterns must be below it.
    bound: PathBuf,
    /// The folder that contains the scan.
    folder: PathBuf,
    stem: OsString,
    /// The frame of reference of the scan, if it is DICOM.
    frame: Option<FrameOfReference>,
    /// The label file that a list names for the scan.
    listed: Option<ListedLabel>,
    limits: nifti::Limits,
}

/// The label file that a list names for a scan.
struct ListedLabel {
    /// The pattern of the label file.
    pattern: &'static str,
    /// `None` if the list names no label file.
    path: Option<PathBuf>,
}

impl FolderCompanions {
    /// Provides access to the label files of the scan at `path` below `root`.
    pub fn new(root: &Path, path: &Path, limits: nifti::Limits) -> Self {
        // `..` is resolved lexically, so that the parent of a linked folder is its parent in the key.
        let absolute = |path: &Path| resolve(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        let root = absolute(root);
        let path = absolute(path);
        let name = path.file_name().unwrap_or_default();
        Self {
            bound: root.parent().map_or_else(|| root.clone(), Path::to_owned),
            folder: path.parent().map_or_else(|| root.clone(), Path::to_owned),
            stem: path_of(stem(&key_of(name.as_ref()))).into(),
            frame: None,
            listed: None,
            limits,
        }
    }

    /// Sets the frame of reference of the scan; structures in another one are a fault.
    pub fn with_frame(self, frame: Option<FrameOfReference>) -> Self {
        Self { frame, ..self }
    }

    /// Sets the label file that a list names for the scan: the one at `pattern`.
    pub fn with_label(self, pattern: &'static str, path: Option<PathBuf>) -> Self {
        Self { listed: Some(ListedLabel { pattern, path }), ..self }
    }

    /// Returns the path that a pattern names.
    ///
    /// # Errors
    /// `mismatch` if the path is not allowed, `missing` if the list names no label file.
    pub fn path_of(&self, pattern: &str) -> Result<PathBuf, Fault> {
        if let Some(listed) = self.listed.as_ref().filter(|listed| listed.pattern == pattern) {
            let missing = || Fault::mask(FaultKind::Missing, "the list has no label for this scan");
            return listed.path.clone().ok_or_else(missing);
        }
        // Joined piece by piece: a stem may be any bytes.
        let mut relative = OsString::new();
        for (index, piece) in pattern.split("{stem}").enumerate() {
            if index > 0 {
                relative.push(&self.stem);
            }
            relative.push(piece);
        }
        let path = resolve(&self.folder.join(&relative));
        if Path::new(&relative).is_absolute() || !path.starts_with(&self.bound) || path == self.bound {
            let message = format!("expected a path below the source's folder or next to it, got `{pattern}`");
            return Err(Fault::mask(FaultKind::Mismatch, message));
        }
        Ok(path)
    }

    /// Returns the fault of a label file as a fault of the mask stage. A missing file is named by its pattern, because its path may name a
    /// person.
    fn explained(&self, fault: Fault, pattern: &str, path: &Path) -> Fault {
        let is_listed = self.listed.as_ref().is_some_and(|listed| listed.pattern == pattern);
        match fault.kind {
            FaultKind::Missing if !is_listed && !path.exists() => Fault::mask(
                FaultKind::Missing,
                format!(
                    "expected a label file at `{pattern}`, got none: the path starts at the folder that contains the file or the DICOM folder of the scan"
                ),
            ),
            _ => fault.at(Stage::Mask),
        }
    }
}

impl Companions for FolderCompanions {
    fn labels(&self, pattern: &str) -> Result<Labels, Fault> {
        let path = self.path_of(pattern)?;
        volume_file::read_labels_within(&path, &self.limits).map_err(|fault| self.explained(fault, pattern, &path))
    }

    fn label_names(&self, pattern: &str) -> Result<BTreeMap<u16, String>, Fault> {
        let path = self.path_of(pattern)?;
        volume_file::read_label_names(&path).map_err(|fault| self.explained(fault, pattern, &path))
    }

    fn data_set_label_names(&self, pattern: &str) -> BTreeMap<u16, String> {
        self.path_of(pattern).map(|path| data_set_label_names(&path)).unwrap_or_default()
    }

    fn label_grid(&self, pattern: &str) -> Result<Option<Grid>, Fault> {
        let path = self.path_of(pattern)?;
        if path.is_dir() || is_dicom_slice(&path) {
            return Ok(None);
        }
        let header = volume_file::read_header(&path).map_err(|fault| self.explained(fault, pattern, &path))?;
        Ok(Some(header.grid))
    }

    fn structures(&self, pattern: &str) -> Result<Option<Box<dyn Structures>>, Fault> {
        let path = self.path_of(pattern)?;
        if !path.is_dir() && !is_dicom_slice(&path) {
            return Ok(None);
        }
        let max_bytes = self.limits.held_bytes / STRUCTURE_MEMORY_RATIO;
        let file = StructureFile::read(&path, self.frame, max_bytes);
        file.map(|file| Some(Box::new(file) as Box<dyn Structures>)).map_err(|fault| fault.at(Stage::Mask))
    }

    fn file_states(&self, pattern: &str) -> Vec<FileState> {
        match self.path_of(pattern) {
            Ok(path) => volume_file::file_states(&path),
            Err(fault) if fault.kind == FaultKind::Missing => vec![FileState::Absent],
            Err(_) => Vec::new(),
        }
    }

    fn exists(&self, pattern: &str) -> bool {
        // Any other fault of the path is reported when the file is read.
        self.path_of(pattern).map_or_else(|fault| fault.kind != FaultKind::Missing, |path| path.exists())
    }
}

/// Resolves `.` and `..` of a path lexically.
pub(in crate::ingest) fn resolve(path: &Path) -> PathBuf {
    let mut resolved = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                resolved.pop();
            }
            part => resolved.push::<&OsStr>(part.as_ref()),
        }
    }
    resolved
}
