//! Identifiers of scans, samples, patients and stages: fixed-size, written as lower-case hexadecimal digits.
//!
//! This module owns the types of identifiers and their text form. An identifier is parsed where text enters the program (a file name, a
//! table, an argument), so that a malformed identifier is an error there. The source of each identifier is documented at its type. Without
//! the patients' secret, no identifier can be traced to its source; digests of content identify no person.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Declares identifiers of a fixed number of bytes.
macro_rules! identifiers {
    ($($(#[doc = $doc:literal])* $name:ident, $bytes:literal, $noun:literal;)*) => {$(
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Creates an identifier from bytes.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// Creates an identifier from the first bytes of a hash.
            ///
            /// # Panics
            /// If the hash is shorter than the identifier.
            pub fn from_hash(hash: &[u8]) -> Self {
                let mut bytes = [0; $bytes];
                bytes.copy_from_slice(&hash[..$bytes]);
                Self(bytes)
            }

            /// Returns the bytes.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut digits = [0u8; 2 * $bytes];
                // The buffer has two digits for each byte, and digits are ASCII.
                hex::encode_to_slice(self.0, &mut digits).map_err(|_| fmt::Error)?;
                f.pad(std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                let mut bytes = [0; $bytes];
                let lower_case = !text.bytes().any(|byte| byte.is_ascii_uppercase());
                match hex::decode_to_slice(text, &mut bytes) {
                    Ok(()) if lower_case => Ok(Self(bytes)),
                    _ => Err(Error::new(format!(
                        "expected {} of {} lower-case hexadecimal digits, got {text:?}", $noun, 2 * $bytes
                    ))),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

identifiers! {
    /// A scan of a source: HMAC-SHA256 of the source's name and the scan's key under the patients' secret.
    ///
    /// ```
    /// use freetumor::id::ScanId;
    /// let id: ScanId = "00ff2a0000000001".parse()?;
    /// assert_eq!(id.to_string(), "00ff2a0000000001");
    /// assert!("00FF2A0000000001".parse::<ScanId>().is_err());
    /// assert!("00ff".parse::<ScanId>().is_err());
    /// # Ok::<(), freetumor::error::Error>(())
    /// ```
    ScanId, 8, "a scan id";
    /// A candidate tumor: a hash of all inputs that its voxels depend on. Two quality tests on one candidate have the same sample id.
    SampleId, 8, "a sample id";
    /// A patient: HMAC-SHA256 of the patient's name or number under the patients' secret.
    PatientKey, 8, "a patient key";
    /// SHA-256 of a scan's voxels, shape and spacing, independent of the file format.
    ScanDigest, 32, "a scan digest";
    /// SHA-256 of the merged labels of an organ mask.
    MaskDigest, 32, "a mask digest";
    /// SHA-256 of a candidate's box, voxels and labels.
    CandidateDigest, 32, "a candidate digest";
    /// SHA-256 of the inputs that the results of one stage depend on: kind, version, settings, weights and, for networks, the kernel
    /// class.
    StageDigest, 32, "a stage digest";
    /// The version of a scan: a hash of the sizes and modification times of all files that its results depend on.
    ScanVersion, 16, "a scan version";
    /// The digest of the part of a graph that a scan passes: settings, weights and versions of its stages, quality tests and sinks.
    GraphDigest, 16, "a graph digest";
    /// A withdrawn scan, patient or content: a hash under the patients' secret, which shows neither.
    Tombstone, 16, "a tombstone";
}

impl ScanVersion {
    /// The version of a scan whose graph changed after it was ingested, which no files have: a later epoch processes the scan.
    pub const OUTDATED: Self = Self([0xFF; 16]);
}

impl ScanId {
    /// Returns a number that assigns scans to workers, the same in every process.
    pub fn partition(self) -> u64 {
        u64::from_be_bytes(self.0)
    }
}

/// A SHA-256 hash over fields. Each field is preceded by its length, so that different lists of fields have different hashes.
///
/// ```
/// use freetumor::id::{FieldHasher, SampleId};
/// let hash = |fields: &[&str]| {
///     SampleId::from_hash(&fields.iter().fold(FieldHasher::new("example"), |hasher, field| hasher.add_field(field)).finish())
/// };
/// assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
/// ```
#[derive(Clone, Debug)]
pub struct FieldHasher(Sha256);

impl FieldHasher {
    /// Creates a hasher for one purpose. Hashes of different purposes are never equal.
    pub fn new(purpose: &str) -> Self {
        Self(Sha256::new()).add_field(purpose)
    }

    /// Adds a field.
    #[must_use]
    pub fn add_field(mut self, field: impl AsRef<[u8]>) -> Self {
        let field = field.as_ref();
        self.0.update((field.len() as u64).to_le_bytes());
        self.0.update(field);
        self
    }

    /// Returns the hash.
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_and_json_round_trip(bytes in any::<[u8; 8]>()) {
            let id = SampleId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse::<SampleId>().unwrap(), id);
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<SampleId>(&json).unwrap(), id);
        }

        #[test]
        fn parsing_malformed_text_fails(text in "[0-9a-fA-F]{0,15}|[0-9a-f]{17,20}|[g-zG-Z]{16}|[0-9A-F]{15}[A-F]") {
            prop_assert!(text.parse::<ScanId>().is_err());
        }
    }
}
