//! What lies beside a scan in a folder: its labels.

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use super::nifti;
use crate::error::{Fault, FaultKind, Stage};
use crate::ingest::Companions;
use crate::ingest::file::stem;
use crate::volume::Labels;

/// Finds label files by pattern.
///
/// A pattern is a path relative to the folder that *contains* the scan's file or DICOM folder. `{stem}` stands for the
/// name of that file without `.nii` and `.nii.gz`, or of that folder. The path must stay below the source's root or
/// beside it (`../labelsTr/{stem}.nii.gz` from a root `…/imagesTr`); links are followed, as they are for scans.
pub(in crate::ingest) struct FolderCompanions {
    /// Patterns may lead anywhere below here.
    bound: PathBuf,
    /// Contains the scan.
    folder: PathBuf,
    stem: OsString,
    limits: nifti::Limits,
}

impl FolderCompanions {
    /// Of the scan at `path` below `root`.
    pub fn new(root: &Path, path: &Path, limits: nifti::Limits) -> Self {
        // `..` is resolved by name: where a link stands in between, the way back is the way that the key shows.
        let absolute = |path: &Path| resolved(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        let root = absolute(root);
        let path = absolute(path);
        let name = path.file_name().unwrap_or_default();
        Self {
            bound: root.parent().map_or_else(|| root.clone(), Path::to_owned),
            folder: path.parent().map_or_else(|| root.clone(), Path::to_owned),
            stem: name.to_str().map_or_else(|| name.to_owned(), |name| stem(name).into()),
            limits,
        }
    }

    fn path_of(&self, pattern: &str) -> Result<PathBuf, Fault> {
        let stem = self.stem.to_string_lossy();
        let relative = pattern.replace("{stem}", &stem);
        let path = resolved(&self.folder.join(&relative));
        if Path::new(&relative).is_absolute() || !path.starts_with(&self.bound) || path == self.bound {
            let message = format!("expected labels in the source's folder or beside it, `{pattern}` leads elsewhere");
            return Err(Fault::mask(FaultKind::Mismatch, message));
        }
        Ok(path)
    }
}

impl Companions for FolderCompanions {
    fn labels(&self, pattern: &str) -> Result<Labels, Fault> {
        nifti::read_labels_within(self.path_of(pattern)?, &self.limits).map_err(|fault| {
            let fault = fault.at(Stage::Mask);
            match fault.kind {
                FaultKind::Missing => {
                    Fault::mask(FaultKind::Missing, format!("no file lies at `{pattern}` beside the scan"))
                }
                _ => fault,
            }
        })
    }
}

/// The path without `.` and `..`, by its names alone.
fn resolved(path: &Path) -> PathBuf {
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
