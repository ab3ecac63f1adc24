//! A byte stream of known length, so that every length in a file is checked before memory is allocated.

use std::io::{self, Read, Seek, SeekFrom};

use crate::error::{Fault, FaultKind};

/// A byte stream of known length.
pub(super) struct Stream<R> {
    inner: R,
    offset: u64,
    end: u64,
}

impl<R: Read + Seek> Stream<R> {
    /// Creates a stream from the start of `inner`, which has `bytes` bytes.
    pub fn new(inner: R, bytes: u64) -> Self {
        Self { inner, offset: 0, end: bytes }
    }

    /// Returns the position in bytes from the start.
    pub fn position(&self) -> u64 {
        self.offset
    }

    /// Returns the number of bytes up to the end.
    pub fn remaining(&self) -> u64 {
        self.end - self.offset
    }

    /// Reads exactly `bytes.len()` bytes.
    pub fn read(&mut self, bytes: &mut [u8]) -> Result<(), Fault> {
        self.check_remaining(bytes.len() as u64)?;
        self.inner.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => truncated(),
            kind => Fault::read(FaultKind::Io, format!("cannot read a DICOM file: {kind}")),
        })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Reads the next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads the next `length` bytes; no memory is allocated if the stream is shorter.
    pub fn vec(&mut self, length: u64) -> Result<Vec<u8>, Fault> {
        self.check_remaining(length)?;
        let mut bytes = vec![0; length as usize];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    /// Skips `length` bytes.
    pub fn skip(&mut self, length: u64) -> Result<(), Fault> {
        self.check_remaining(length)?;
        self.seek(self.offset + length)
    }

    /// Skips bytes that are zero.
    pub fn skip_zeros(&mut self) -> Result<(), Fault> {
        let mut block = [0; 256];
        while self.remaining() > 0 {
            let start = self.offset;
            let bytes = self.remaining().min(block.len() as u64);
            let block = &mut block[..bytes as usize];
            self.read(block)?;
            if let Some(zeros) = block.iter().position(|byte| *byte != 0) {
                return self.seek(start + zeros as u64);
            }
        }
        Ok(())
    }

    /// Moves to a position in bytes from the start.
    pub fn seek(&mut self, position: u64) -> Result<(), Fault> {
        let failed =
            |error: io::Error| Fault::read(FaultKind::Io, format!("cannot seek in a DICOM file: {}", error.kind()));
        // A relative seek keeps the buffer of a buffered reader.
        match i64::try_from(i128::from(position) - i128::from(self.offset)) {
            Ok(step) => self.inner.seek_relative(step).map_err(failed)?,
            Err(_) => drop(self.inner.seek(SeekFrom::Start(position)).map_err(failed)?),
        }
        self.offset = position;
        Ok(())
    }

    fn check_remaining(&self, length: u64) -> Result<(), Fault> {
        if length <= self.remaining() { Ok(()) } else { Err(truncated()) }
    }
}

fn truncated() -> Fault {
    Fault::read(FaultKind::Truncated, "a DICOM file ends inside an element: copy the file again from its archive")
}
