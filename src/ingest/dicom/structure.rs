//! The identity of a structure and of the coordinates of its points.

use sha2::{Digest, Sha256};

use crate::error::{Fault, FaultKind};

/// The hash of the identifier of a frame of reference: positions in files with equal identifiers are comparable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameOfReference([u8; 32]);

impl FrameOfReference {
    pub(super) fn of(uid: &str) -> Self {
        Self(Sha256::digest(uid.trim_matches([' ', '\0'])).into())
    }
}

/// Number and name of a structure, by which it is selected.
pub(super) struct Structure {
    pub number: i64,
    pub name: Option<String>,
}

/// Compares the frame of reference of structures with that of the scan; an unknown one is not compared.
pub(super) fn check_frame(uid: Option<&str>, scan: Option<FrameOfReference>) -> Result<(), Fault> {
    match (uid.map(FrameOfReference::of), scan) {
        (Some(own), Some(scan)) if own != scan => Err(Fault::read(
            FaultKind::Mismatch,
            "expected structures in the frame of reference of the scan, got another frame of reference: the structures belong to another scan",
        )),
        _ => Ok(()),
    }
}
