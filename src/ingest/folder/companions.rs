//! The label files that belong to a scan in a folder.

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use super::nifti;
use crate::error::{Fault, FaultKind, Stage};
use crate::ingest::Companions;
use crate::ingest::file::stem;
use crate::volume::Labels;

/// Finds the label files of a scan by pattern.
///
/// A pattern is a path relative to the folder that *contains* the file or the DICOM folder of the scan. `{stem}` is replaced by the
/// name of the file without `.nii` and `.nii.gz`, or of the DICOM folder. The path must be below the root of the source or
/// next to the root (`../labelsTr/{stem}.nii.gz` from a root `…/imagesTr`); links are followed, as for scans.
pub(in crate::ingest) struct FolderCompanions {
    /// The parent of the root: the paths of patterns must be below it.
    bound: PathBuf,
    /// The folder that contains the scan.
    folder: PathBuf,
    stem: OsString,
    limits: nifti::Limits,
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
            stem: name.to_str().map_or_else(|| name.to_owned(), |name| stem(name).into()),
            limits,
        }
    }

    fn path_of(&self, pattern: &str) -> Result<PathBuf, Fault> {
        let stem = self.stem.to_string_lossy();
        let relative = pattern.replace("{stem}", &stem);
        let path = resolve(&self.folder.join(&relative));
        if Path::new(&relative).is_absolute() || !path.starts_with(&self.bound) || path == self.bound {
            let message = format!("expected a path below the source's folder or next to it, got `{pattern}`");
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
                    Fault::mask(FaultKind::Missing, format!("expected a label file at `{pattern}`, got none"))
                }
                _ => fault,
            }
        })
    }

    fn exists(&self, pattern: &str) -> bool {
        // Any other fault of the path is reported when the file is read.
        self.path_of(pattern).map_or(true, |path| path.exists())
    }
}

/// Resolves `.` and `..` of a path lexically.
fn resolve(path: &Path) -> PathBuf {
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
