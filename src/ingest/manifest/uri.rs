//! URIs of files: paths and `file://` URIs.

use std::path::{Path, PathBuf};

use crate::ingest::folder::resolve;
use crate::ingest::key::path_from;

/// Returns the absolute path that a URI names; a relative path starts at `folder`.
///
/// # Errors
/// Returns a message for another scheme or an invalid URI. The message contains no path.
pub(super) fn path_of_uri(uri: &[u8], folder: &Path) -> Result<PathBuf, String> {
    if uri.contains(&0) {
        return Err("expected a path, got one with a zero byte".to_owned());
    }
    let path = match scheme(uri) {
        None => folder.join(path_from(uri.to_vec())),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("file") => path_from(file_path(rest)?),
        Some((scheme, _)) => {
            return Err(format!(
                "expected a path or a `file://` URI, got the scheme `{scheme}`: copy the file to a disk first"
            ));
        }
    };
    let path = std::path::absolute(&path).map_err(|error| format!("expected a path, got an invalid one: {error}"))?;
    Ok(resolve(&path))
}

/// Returns the scheme of a URI and the rest after `:`, or `None` for a path. A path may contain `:`, but not `://`.
fn scheme(uri: &[u8]) -> Option<(&str, &[u8])> {
    let at = uri.iter().position(|byte| *byte == b':')?;
    let scheme = std::str::from_utf8(&uri[..at]).ok()?;
    let is_scheme = scheme.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter));
    let rest = &uri[at + 1..];
    let is_uri = rest.starts_with(b"//") || (scheme.eq_ignore_ascii_case("file") && rest.starts_with(b"/"));
    (is_scheme && is_uri).then_some((scheme, rest))
}

/// Returns the path of a `file` URI after its scheme: `///path`, `//localhost/path` or `/path`, with `%` escapes.
fn file_path(rest: &[u8]) -> Result<Vec<u8>, String> {
    let path = match rest.strip_prefix(b"//") {
        None => rest,
        Some(rest) => rest.strip_prefix(b"localhost").unwrap_or(rest),
    };
    if !path.starts_with(b"/") {
        return Err(
            "expected a `file://` URI of this machine such as `file:///data/ct.nii.gz`, got another host".to_owned()
        );
    }
    if path.iter().any(|byte| matches!(byte, b'?' | b'#')) {
        return Err("expected a `file://` URI without `?` and `#`, which are written `%3F` and `%23`".to_owned());
    }
    let mut decoded = Vec::new();
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|byte| *byte != 0);
        decoded.push(escaped.ok_or("expected two hexadecimal digits after `%` in a `file://` URI, got others")?);
        rest = &after[2..];
    }
    Ok(decoded)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn paths_and_file_uris_are_resolved() {
        let path =
            |uri: &str| path_of_uri(uri.as_bytes(), Path::new("/data/list")).map(|path| path.display().to_string());
        for (uri, expected) in [
            ("a/ct.nii.gz", "/data/list/a/ct.nii.gz"),
            ("../b/./ct.nii", "/data/b/ct.nii"),
            ("/c.nii", "/c.nii"),
            ("file:///c%20d/%C3%A9.nii", "/c d/é.nii"),
            ("FILE://localhost/c.nii", "/c.nii"),
            ("file:/c.nii", "/c.nii"),
            ("a:b.nii", "/data/list/a:b.nii"),
        ] {
            assert_eq!(path(uri).as_deref(), Ok(expected), "{uri}");
        }
        for (uri, expected) in [
            ("s3://bucket/ct.nii", "the scheme `s3`"),
            ("https://host/ct.nii", "the scheme `https`"),
            ("file://host/ct.nii", "another host"),
            ("file:///a%2", "after `%`"),
            ("file:///a%00", "after `%`"),
            ("file:///a#1", "%23"),
            ("a\0b", "a zero byte"),
        ] {
            let message = path(uri).unwrap_err();
            assert!(message.contains(expected), "{uri}: {message}");
        }
    }
}
