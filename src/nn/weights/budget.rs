//! The limit of the memory that reading a file of weights may allocate.

use crate::error::{Error, Result};

/// The memory that reading a file may still allocate: sixteen times the file's length plus one mebibyte in total.
///
/// Stored numbers take twice their bytes in memory (as bytes and as a tensor), bytes that are converted to i64 nine times.
/// Only a file that inflates to a multiple of its size, or repeats one number as a large tensor, exceeds the limit.
pub(super) struct Budget {
    left: u64,
    file_bytes: u64,
}

impl Budget {
    /// Returns the budget of a file of `file_bytes`.
    pub fn of_file(file_bytes: u64) -> Self {
        Self { left: file_bytes.saturating_mul(16).saturating_add(1 << 20), file_bytes }
    }

    /// Subtracts `bytes` from the budget.
    ///
    /// # Errors
    /// If the budget is exceeded.
    pub fn spend(&mut self, bytes: u64) -> Result<()> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Error::new(format!(
                "allocating {bytes} more bytes exceeds the memory limit for a file of {} bytes",
                self.file_bytes
            ))),
        }
    }
}
