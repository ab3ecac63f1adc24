//! Keys of scans: paths below the root of a source, as text.
//!
//! A name of a file may be any bytes, a key is UTF-8. A byte that is not part of a UTF-8 character is written as U+FFFD and two hexadecimal
//! digits; so is every byte of U+FFFD itself. Different paths therefore have different keys, and a key can be converted back to its path.

use std::path::{Path, PathBuf};

/// The character before the hexadecimal digits of a byte that is not part of valid UTF-8.
const ESCAPE: char = char::REPLACEMENT_CHARACTER;

/// Returns the key of a path below the root, with `/` between its components.
pub(crate) fn key_of(relative: &Path) -> String {
    let parts: Vec<String> = relative.iter().map(|part| encoded(part.as_encoded_bytes())).collect();
    parts.join("/")
}

/// The serde representation of a path as text that converts back to it, also for names that are not UTF-8.
pub(crate) mod path_text {
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serializer};

    /// Serializes a path as [`super::key_of`] writes its names.
    ///
    /// # Errors
    /// Returns the error of the serializer.
    pub(crate) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::encoded(path.as_os_str().as_encoded_bytes()))
    }

    /// Deserializes a path.
    ///
    /// # Errors
    /// Returns the error of the deserializer.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        String::deserialize(deserializer).map(|text| super::path_of(&text))
    }
}

/// Returns the text of a name of any bytes.
pub(super) fn encoded(bytes: &[u8]) -> String {
    let mut key = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                ESCAPE => character.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_byte(&mut key, byte)),
                _ => key.push(character),
            }
        }
        chunk.invalid().iter().for_each(|&byte| push_byte(&mut key, byte));
    }
    key
}

fn push_byte(key: &mut String, byte: u8) {
    key.push(ESCAPE);
    key.push_str(&hex::encode([byte]));
}

/// Returns the path of a key.
pub(super) fn path_of(key: &str) -> PathBuf {
    if !key.contains(ESCAPE) {
        return PathBuf::from(key);
    }
    let mut bytes = Vec::new();
    let mut rest = key;
    while let Some((before, after)) = rest.split_once(ESCAPE) {
        bytes.extend(before.as_bytes());
        rest = match after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                &after[2..]
            }
            None => {
                bytes.extend(ESCAPE.encode_utf8(&mut [0; 4]).bytes());
                after
            }
        };
    }
    bytes.extend(rest.as_bytes());
    path_from(bytes)
}

/// Returns the path of these bytes.
#[cfg(unix)]
pub(super) fn path_from(bytes: Vec<u8>) -> PathBuf {
    let name: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(bytes);
    name.into()
}

// Names on other systems are Unicode, so that only U+FFFD itself is escaped.
#[cfg(not(unix))]
pub(super) fn path_from(bytes: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

#[cfg(all(test, unix))]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn utf8_path_is_its_own_key() {
        assert_eq!(key_of(Path::new("a b/ct#1~.nii.gz")), "a b/ct#1~.nii.gz");
        assert_eq!(key_of(Path::new("é")), "é");
        assert_eq!(key_of(Path::new(OsStr::from_bytes(b"a/\xFFb"))), "a/\u{FFFD}ffb");
        assert_eq!(key_of(Path::new("\u{FFFD}ff")), "\u{FFFD}ef\u{FFFD}bf\u{FFFD}bdff");
    }

    proptest! {
        #[test]
        fn key_converts_back_to_any_path(name in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'#'), Just(0xEF), Just(0xBF), Just(0xBD), Just(b'f')], 1..20)) {
            let name: Vec<u8> = name.into_iter().filter(|byte| ![0, b'/'].contains(byte)).collect();
            prop_assume!(!name.is_empty() && name != b"." && name != b"..");
            let path = Path::new(OsStr::from_bytes(&name));
            prop_assert_eq!(path_of(&key_of(path)), path);
        }
    }
}
