//! The ids in the labels of patients.

/// The id of the liver.
pub const LIVER: u8 = 1;
/// The id of tumors of the liver.
pub const TUMOR: u8 = 2;
