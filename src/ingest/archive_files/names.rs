//! Names of members: relative paths below the archive. Any other name is refused.

use std::path::{Component, Path, PathBuf};

use crate::ingest::key::path_from;

/// Maximum bytes of a name; the longest path of most systems has 4,096 bytes.
const MAX_NAME_BYTES: usize = 3000;
/// Maximum bytes of one component of a name on most file systems.
const MAX_COMPONENT_BYTES: usize = 255;

/// Parses the name of a member, which may be any bytes, as a relative path; the path of the top folder of the archive is empty. The error
/// is the reason why the name is refused.
pub(super) fn path_of_name(name: &[u8]) -> Result<PathBuf, &'static str> {
    if name.is_empty() {
        return Err("an empty name");
    }
    if name.contains(&0) {
        return Err("a name with a zero byte");
    }
    if name.starts_with(b"/") {
        return Err("an absolute path");
    }
    let parts: Vec<&[u8]> = name.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&&b".."[..]) {
        return Err("a path with `..`");
    }
    if name.len() > MAX_NAME_BYTES || parts.iter().any(|part| part.len() > MAX_COMPONENT_BYTES) {
        return Err("a name that is too long");
    }
    let path = path_from(parts.join(&b'/'));
    // Other systems have other separators and roots.
    match path.components().all(|part| matches!(part, Component::Normal(_))) {
        true => Ok(path),
        false => Err("a path that is not relative"),
    }
}

/// Returns whether a path has a component that starts with a dot, such as `._ct.nii.gz`, or is in the folder `__MACOSX` of copies of
/// attributes.
pub(super) fn is_hidden(path: &Path) -> bool {
    path.iter().any(|part| part.as_encoded_bytes().starts_with(b".") || part == "__MACOSX")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_relative_paths_or_refused() {
        for (name, path) in
            [("a/b.nii", "a/b.nii"), ("./a//./b/", "a/b"), (".", ""), ("./", ""), ("a..b/..c", "a..b/..c")]
        {
            assert_eq!(path_of_name(name.as_bytes()), Ok(PathBuf::from(path)), "{name}");
        }
        let long = "x".repeat(256);
        let deep = "x/".repeat(2000);
        for (name, reason) in [
            ("", "an empty name"),
            ("/etc/passwd", "an absolute path"),
            ("../x", "a path with `..`"),
            ("a/../b", "a path with `..`"),
            ("a\0b", "a name with a zero byte"),
            (&long, "a name that is too long"),
            (&deep, "a name that is too long"),
        ] {
            assert_eq!(path_of_name(name.as_bytes()), Err(reason), "{name}");
        }
        #[cfg(unix)]
        assert!(path_of_name(b"a\xFF/b").is_ok());
        assert!(is_hidden(Path::new("a/.b/c")) && is_hidden(Path::new("__MACOSX/a")) && !is_hidden(Path::new("a/b.c")));
    }
}
