//! The members that are scans, by the patterns of the settings.

use std::path::{Path, PathBuf};

use globset::GlobSet;

use super::names::is_hidden;

/// The pattern of the top folder of an archive.
pub(super) const TOP_FOLDER: &str = ".";

/// The patterns of scans, relative to the top folder of the archive.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    pub include: GlobSet,
    pub exclude: GlobSet,
    /// Whether the top folder of the archive is a DICOM folder.
    pub includes_top: bool,
}

/// The role of a selected member: a scan in one file, or a file of a DICOM folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selected {
    /// The member is a scan.
    Scan,
    /// The member is a file of this DICOM folder.
    Slice(PathBuf),
}

impl Selection {
    /// Returns the role of a member, or `None` if the member is not selected. As in a folder on disk, a folder that is
    /// included is not searched further, and a folder that is excluded is skipped with its content.
    pub fn of(&self, path: &Path) -> Option<Selected> {
        if self.is_excluded(path) {
            return None;
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        let mut folders: Vec<&Path> = parent.ancestors().filter(|folder| !folder.as_os_str().is_empty()).collect();
        folders.reverse();
        if let Some(folder) = folders.into_iter().find(|folder| self.include.is_match(folder)) {
            return (folder == parent).then(|| Selected::Slice(folder.to_owned()));
        }
        if self.include.is_match(path) {
            return Some(Selected::Scan);
        }
        (self.includes_top && parent.as_os_str().is_empty()).then(|| Selected::Slice(PathBuf::new()))
    }

    /// Returns whether a member or one of its folders is excluded or hidden.
    pub fn is_excluded(&self, path: &Path) -> bool {
        is_hidden(path) || path.ancestors().any(|path| !path.as_os_str().is_empty() && self.exclude.is_match(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::folder::patterns;

    #[test]
    fn members_are_scans_or_slices_of_included_folders() {
        let set = |list: &[&str]| {
            let mut errors = Vec::new();
            let list: Vec<String> = list.iter().map(|&pattern| pattern.to_owned()).collect();
            let set = patterns("include", &list, &mut errors);
            assert!(errors.is_empty());
            set
        };
        let selection = Selection {
            include: set(&["*/ct.nii", "*/dicom"]),
            exclude: set(&["old", "**/*.txt"]),
            includes_top: true,
        };
        let of = |path: &str| selection.of(Path::new(path));
        assert_eq!(of("a/ct.nii"), Some(Selected::Scan));
        assert_eq!(of("a/dicom/1"), Some(Selected::Slice("a/dicom".into())));
        assert_eq!(of("1.dcm"), Some(Selected::Slice("".into())));
        for path in
            ["a/b/ct.nii", "a/dicom/sub/1", "old/ct.nii", "a/dicom/note.txt", "a/.ct.nii", "__MACOSX/ct.nii", "a/x"]
        {
            assert_eq!(of(path), None, "{path}");
        }
    }
}
