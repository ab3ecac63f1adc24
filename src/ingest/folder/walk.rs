//! Search for the paths below a root that match the patterns.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use globset::GlobSet;
use walkdir::WalkDir;

use crate::ingest::key::{key_of, path_of};
use crate::ingest::version::{FileState, modified_s};

/// The kind of a path below the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ingest) enum PathKind {
    /// A file that matches.
    File,
    /// A folder that matches.
    Folder,
    /// A folder that cannot be listed.
    Unreadable,
    /// A link whose target does not exist, for example because a disk is not mounted.
    BrokenLink,
}

/// A path that matches, or an unreadable folder that may contain such a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ingest) struct MatchedPath {
    pub key: String,
    pub kind: PathKind,
    pub bytes: u64,
    pub modified_s: i64,
    pub state: FileState,
}

impl MatchedPath {
    /// Returns the state of a path with this key; a path that does not exist is a broken link.
    pub fn of(path: &Path, key: &str) -> Self {
        let metadata = path.metadata();
        let kind = match &metadata {
            Ok(metadata) if metadata.is_dir() => PathKind::Folder,
            Ok(_) => PathKind::File,
            Err(_) => PathKind::BrokenLink,
        };
        let is_file = kind == PathKind::File;
        Self {
            key: key.to_owned(),
            kind,
            bytes: metadata.as_ref().map_or(0, |data| if is_file { data.len() } else { 0 }),
            modified_s: metadata.as_ref().map_or(0, modified_s),
            state: FileState::of(path),
        }
    }
}

/// Finds every path below `root` that is included and not excluded, in no particular order, and the broken links that may have been
/// such a path or a folder with such paths. Paths that are removed during the search are skipped, and so are links to a parent folder,
/// whose content is found anyway.
///
/// # Errors
/// Returns an error if the root itself cannot be listed.
pub(in crate::ingest) fn find(root: &Path, include: &GlobSet, exclude: &GlobSet) -> io::Result<Vec<MatchedPath>> {
    std::fs::read_dir(root)?;
    let mut found = Vec::new();
    let mut walk = WalkDir::new(root).min_depth(1).follow_links(true).into_iter();
    while let Some(step) = walk.next() {
        let entry = match step {
            Ok(entry) => entry,
            Err(error) => {
                found.extend(unlisted(root, &error).filter(|path| {
                    path.kind != PathKind::BrokenLink || is_possible_scan(&path_of(&path.key), include, exclude)
                }));
                continue;
            }
        };
        let Ok(relative) = entry.path().strip_prefix(root) else { continue };
        let is_folder = entry.file_type().is_dir();
        if is_hidden(entry.file_name()) || exclude.is_match(relative) {
            if is_folder {
                walk.skip_current_dir();
            }
            continue;
        }
        if !include.is_match(relative) {
            continue;
        }
        if is_folder {
            walk.skip_current_dir();
        }
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.io_error().map(io::Error::kind) == Some(io::ErrorKind::NotFound) => continue,
            Err(_) => {
                let (kind, state) = (PathKind::Unreadable, FileState::Absent);
                found.push(MatchedPath { key: key_of(relative), kind, bytes: 0, modified_s: 0, state });
                continue;
            }
        };
        found.push(MatchedPath {
            key: key_of(relative),
            kind: if is_folder { PathKind::Folder } else { PathKind::File },
            bytes: if is_folder { 0 } else { metadata.len() },
            modified_s: modified_s(&metadata),
            state: FileState::of_metadata(&metadata),
        });
    }
    Ok(found)
}

/// Returns an entry for a folder that cannot be listed and may contain scans, or for a broken link.
fn unlisted(root: &Path, error: &walkdir::Error) -> Option<MatchedPath> {
    let path = error.path()?;
    let kind = match error.io_error().map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) if path.is_symlink() => PathKind::BrokenLink,
        Some(io::ErrorKind::NotFound) => return None,
        _ if error.loop_ancestor().is_some() => return None,
        _ => PathKind::Unreadable,
    };
    let key = key_of(path.strip_prefix(root).ok()?);
    (!key.is_empty()).then_some(MatchedPath { key, kind, bytes: 0, modified_s: 0, state: FileState::Absent })
}

/// Returns whether the target of a broken link may have been a scan, or a folder with scans: a name without an extension may be a folder.
fn is_possible_scan(relative: &Path, include: &GlobSet, exclude: &GlobSet) -> bool {
    let is_hidden = relative.file_name().is_some_and(is_hidden);
    !is_hidden && !exclude.is_match(relative) && (include.is_match(relative) || relative.extension().is_none())
}

/// Returns whether a name starts with a dot: `.DS_Store`, `._ct.nii.gz`, unfinished copies of other programs.
fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}
