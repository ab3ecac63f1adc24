//! The ids in a patient's labels.

/// The id of the liver.
pub const LIVER: u8 = 1;
/// The id of its tumors.
pub const TUMOR: u8 = 2;
