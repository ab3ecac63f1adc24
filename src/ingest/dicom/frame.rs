//! A slice as its file holds it: compressed.

use super::pixels::Stored;
use super::syntax::Syntax;

/// One compressed slice.
pub(super) struct Frame {
    pub syntax: Syntax,
    /// Columns and rows.
    pub shape: [usize; 2],
    pub stored: Stored,
    pub bytes: Vec<u8>,
}

impl Frame {
    /// Bytes of its pixels.
    pub fn decoded_bytes(&self) -> usize {
        self.shape[0] * self.shape[1] * self.stored.bytes
    }
}
