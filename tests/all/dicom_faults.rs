//! Faults of DICOM folders for tests, checked for personal data.

use std::path::Path;

use freetumor::error::{Fault, FaultKind, Stage};
use freetumor::ingest::dicom::{Decoder, Limits, Series, list_series, read_series};

use crate::dicom_files::{PERSONAL, SliceFile, series, write};

/// Returns the fault of reading the largest series of a folder, and checks that the fault contains no personal data.
pub fn fault_in(folder: &Path) -> Fault {
    let all = list_series(folder).unwrap();
    let largest = all.iter().max_by_key(|series| series.files()).expect("a series");
    let fault = read(largest, &Decoder::in_process()).expect_err("a fault");
    assert_eq!(fault.stage, Stage::Read);
    let shown = format!("{fault} {fault:?} {all:?}");
    let folder = folder.to_string_lossy();
    for value in PERSONAL.into_iter().chain([&*folder]) {
        assert!(!shown.contains(value), "{shown} contains {value}");
    }
    assert!(fault.message.len() > 20 && !fault.message.contains('\n'), "{fault}");
    fault
}

pub fn read(series: &Series, decoder: &Decoder) -> Result<(), Fault> {
    read_series(series, decoder, &Limits::default()).map(drop)
}

pub fn fault_of(slices: &[SliceFile]) -> Fault {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), slices);
    fault_in(folder.path())
}

#[track_caller]
pub fn assert_fault(slices: &[SliceFile], kind: FaultKind, message: &str) {
    let fault = fault_of(slices);
    assert_eq!(fault.kind, kind, "{fault}");
    assert!(fault.message.contains(message), "expected {message:?} in the message, got {fault}");
}

/// Returns a valid series of five slices, after a change of every slice.
pub fn with_all(change: impl Fn(SliceFile) -> SliceFile) -> Vec<SliceFile> {
    series(5).into_iter().map(change).collect()
}

/// Returns a valid series of five slices, after a change of the third slice.
pub fn with_third(change: impl Fn(SliceFile) -> SliceFile) -> Vec<SliceFile> {
    let mut slices = series(5);
    slices[2] = change(slices[2].clone());
    slices
}

/// Returns a file with another transfer syntax in group 2, padded to the same length.
pub fn with_syntax(bytes: &[u8], uid: &str) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = find(&bytes, &[0x02, 0x00, 0x10, 0x00, b'U', b'I']);
    let length = usize::from(u16::from_le_bytes([bytes[at + 6], bytes[at + 7]]));
    let mut value = uid.as_bytes().to_vec();
    assert!(value.len() <= length.max(26));
    value.resize(length.max(value.len() + value.len() % 2), 0);
    bytes[at + 6..at + 8].copy_from_slice(&(value.len() as u16).to_le_bytes());
    bytes.splice(at + 8..at + 8 + length, value);
    bytes
}

pub fn find(bytes: &[u8], pattern: &[u8]) -> usize {
    bytes.windows(pattern.len()).position(|window| window == pattern).expect("the pattern")
}
