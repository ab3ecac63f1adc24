//! Faults of JPEG streams.

use crate::error::{Fault, FaultKind};

/// Returns the fault of a stream that violates the format.
pub(super) fn corrupt(message: impl Into<String>) -> Fault {
    Fault::read(FaultKind::Corrupt, message)
}

/// Returns the fault of a stream with a feature that is not supported.
pub(super) fn unsupported(message: impl Into<String>) -> Fault {
    Fault::read(FaultKind::Unsupported, message)
}

/// Returns the fault of a stream that ends too early.
pub(super) fn truncated(message: impl Into<String>) -> Fault {
    Fault::read(FaultKind::Truncated, message)
}
