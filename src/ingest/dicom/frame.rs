//! A compressed slice.

use super::pixels::PixelFormat;
use super::syntax::Syntax;

/// One compressed slice.
pub(super) struct Frame {
    pub syntax: Syntax,
    /// Columns and rows.
    pub shape: [usize; 2],
    pub format: PixelFormat,
    /// The compressed bytes.
    pub bytes: Vec<u8>,
}

impl Frame {
    /// Returns the size of the decoded pixels in bytes.
    pub fn decoded_bytes(&self) -> usize {
        self.shape[0] * self.shape[1] * self.format.bytes
    }
}
