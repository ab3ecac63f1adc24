//! A stream that knows its end, so that no length is believed which the stream cannot hold.

use std::io::{self, Read, Seek, SeekFrom};

use crate::error::{Fault, FaultKind};

/// Bytes with a known end.
pub(super) struct Stream<R> {
    inner: R,
    at: u64,
    end: u64,
}

impl<R: Read + Seek> Stream<R> {
    /// A stream from the beginning of `inner`, which holds `bytes` bytes.
    pub fn new(inner: R, bytes: u64) -> Self {
        Self { inner, at: 0, end: bytes }
    }

    /// Bytes from the beginning.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Bytes up to the end.
    pub fn remaining(&self) -> u64 {
        self.end - self.at
    }

    /// Fills `bytes`.
    pub fn read(&mut self, bytes: &mut [u8]) -> Result<(), Fault> {
        self.claim(bytes.len() as u64)?;
        self.inner.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => truncated(),
            kind => Fault::read(FaultKind::Io, format!("cannot read a DICOM file: {kind}")),
        })?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    /// The next `length` bytes; nothing is allocated for bytes that are not there.
    pub fn vec(&mut self, length: u64) -> Result<Vec<u8>, Fault> {
        self.claim(length)?;
        let mut bytes = vec![0; length as usize];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    /// Passes over `length` bytes.
    pub fn skip(&mut self, length: u64) -> Result<(), Fault> {
        self.claim(length)?;
        self.seek(self.at + length)
    }

    /// Goes to a byte, counted from the beginning.
    pub fn seek(&mut self, position: u64) -> Result<(), Fault> {
        let failed =
            |error: io::Error| Fault::read(FaultKind::Io, format!("cannot seek in a DICOM file: {}", error.kind()));
        // A relative step keeps what a buffered reader has already read.
        match i64::try_from(i128::from(position) - i128::from(self.at)) {
            Ok(step) => self.inner.seek_relative(step).map_err(failed)?,
            Err(_) => drop(self.inner.seek(SeekFrom::Start(position)).map_err(failed)?),
        }
        self.at = position;
        Ok(())
    }

    fn claim(&self, length: u64) -> Result<(), Fault> {
        if length <= self.remaining() { Ok(()) } else { Err(truncated()) }
    }
}

fn truncated() -> Fault {
    Fault::read(FaultKind::Truncated, "a DICOM file ends inside an element: copy it again from its archive")
}
