//! What lies below a root and fits the patterns.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use globset::GlobSet;
use sha2::{Digest, Sha256};
use walkdir::{DirEntry, WalkDir};

/// What a path below the root is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathKind {
    /// A file that fits.
    File,
    /// A folder that fits.
    Folder,
    /// A folder that could not be listed, or a name that is not UTF-8.
    Unreadable,
}

/// A path that fits, or one that hides what may fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MatchedPath {
    pub key: String,
    pub thing: PathKind,
    pub bytes: u64,
    pub modified_s: i64,
}

/// Everything below `root` that is included and not excluded, in no particular order. What vanishes meanwhile is left
/// out, and so is a link to a folder that it lies in, since all it leads to is found anyway.
///
/// # Errors
/// Where the root itself cannot be listed.
pub(super) fn find(root: &Path, include: &GlobSet, exclude: &GlobSet) -> io::Result<Vec<MatchedPath>> {
    std::fs::read_dir(root)?;
    let mut found = Vec::new();
    let mut walk = WalkDir::new(root).min_depth(1).follow_links(true).into_iter();
    while let Some(step) = walk.next() {
        let entry = match step {
            Ok(entry) => entry,
            Err(error) => {
                found.extend(unlisted(root, &error));
                continue;
            }
        };
        let Ok(relative) = entry.path().strip_prefix(root) else { continue };
        let is_folder = entry.file_type().is_dir();
        if is_hidden(&entry) || exclude.is_match(relative) {
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
        let Ok(metadata) = entry.metadata() else { continue };
        let (key, is_text) = key_of(relative);
        let thing = match (is_text, is_folder) {
            (false, _) => PathKind::Unreadable,
            (true, true) => PathKind::Folder,
            (true, false) => PathKind::File,
        };
        found.push(MatchedPath {
            key,
            thing,
            bytes: if is_folder { 0 } else { metadata.len() },
            modified_s: modified_s(&metadata),
        });
    }
    Ok(found)
}

/// A folder that cannot be listed may hold scans: it is reported in their place.
fn unlisted(root: &Path, error: &walkdir::Error) -> Option<MatchedPath> {
    let vanished = error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::NotFound);
    if vanished || error.loop_ancestor().is_some() {
        return None;
    }
    let relative = error.path()?.strip_prefix(root).ok()?;
    let (key, _) = key_of(relative);
    (!key.is_empty()).then_some(MatchedPath { key, thing: PathKind::Unreadable, bytes: 0, modified_s: 0 })
}

/// Files that begin with a dot are other programs' own: `.DS_Store`, `._ct.nii.gz`, unfinished copies.
fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}

/// The path with `/` between its parts, and whether it is that. A name that is not UTF-8 gets its bytes' hash behind it,
/// so that two of them stay two.
fn key_of(relative: &Path) -> (String, bool) {
    let parts: Option<Vec<&str>> = relative.iter().map(OsStr::to_str).collect();
    match parts {
        Some(parts) => (parts.join("/"), true),
        None => {
            let parts: Vec<_> = relative.iter().map(OsStr::to_string_lossy).collect();
            let hash = Sha256::digest(relative.as_os_str().as_encoded_bytes());
            let digits = hex::encode(&hash[..4]);
            (format!("{}~{digits}", parts.join("/")), false)
        }
    }
}

fn modified_s(metadata: &Metadata) -> i64 {
    let Ok(modified) = metadata.modified() else { return 0 };
    match modified.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_secs() as i64,
        Err(before) => -(before.duration().as_secs() as i64),
    }
}
