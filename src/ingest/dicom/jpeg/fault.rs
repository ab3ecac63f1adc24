//! Faults of JPEG streams.

use crate::error::{Fault, FaultKind};

/// The stream violates its format.
pub(super) fn corrupt(message: impl Into<String>) -> Fault {
    Fault::read(FaultKind::Corrupt, message)
}

/// The stream uses a feature that is not supported.
pub(super) fn unsupported(message: impl Into<String>) -> Fault {
    Fault::read(FaultKind::Unsupported, message)
}

/// The stream ends too early.
pub(super) fn truncated(message: impl Into<String>) -> Fault {
    Fault::read(FaultKind::Truncated, message)
}
