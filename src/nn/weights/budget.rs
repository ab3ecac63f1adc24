//! Bounds of the memory that a file of weights may take.

use crate::error::{Error, Result};

/// How much memory a file may still take: sixteen times its length and a mebibyte in all.
///
/// Stored numbers take twice their bytes here (as they are read, and as a tensor), bytes that become i64 nine times.
/// More than that only a file takes that inflates to a multiple of itself, or repeats one number as a large tensor.
pub(super) struct Budget {
    left: u64,
    file_bytes: u64,
}

impl Budget {
    pub fn of_file(file_bytes: u64) -> Self {
        Self { left: file_bytes.saturating_mul(16).saturating_add(1 << 20), file_bytes }
    }

    pub fn spend(&mut self, bytes: u64) -> Result<()> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Error::new(format!(
                "{bytes} bytes of memory wanted, more than a file of {} bytes explains",
                self.file_bytes
            ))),
        }
    }
}
