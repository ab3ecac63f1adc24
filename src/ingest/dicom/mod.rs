//! DICOM series: a folder of slices becomes volumes.
//!
//! [`list_series`] reads headers only and tells apart what shares a folder; [`read_series`] decodes one of them. Slices
//! are ordered by their place along the slice normal, never by name or number, and the spacing between them comes from
//! those places.
//!
//! # What is read
//! CT images, one file a slice, single-sample MONOCHROME2 of 8 or 16 bits, signed or not, in implicit and explicit
//! little-endian, explicit big-endian, deflated, RLE, JPEG lossless (processes 14 and 14 SV1) and JPEG 2000. What
//! else is found becomes a [`Fault`](crate::error::Fault) that says so.
//!
//! # Units
//! HU = slope × stored + intercept, slice by slice. Pixels that the scanner padded outside its field of view keep the
//! HU that this formula gives them (often −2000 or −3024): the volume is bit-exact, and windows clip such values. Whole
//! numbers stay `i16`; a fractional slope, or a value beyond 16 bits, makes the volume `f32`.
//!
//! # Tolerances
//! A slice may lie a tenth of a voxel from its place on the even grid; cosines may differ by 1e-4 and pixel spacings by
//! 1e-4 of themselves; the stacking direction may be half a degree off the normal, which the affine then keeps. A gap of
//! whole steps is a missing slice, any other an uneven stack, a larger angle a tilted gantry.
//!
//! # Patients
//! Names, dates and numbers are not even parsed, and identifiers of series and slices leave this module only as hashes.
//! The exception is [`patient_id`], for keyed hashing.
//!
//! # Hostile files
//! Lengths are believed only as far as a file reaches. Decoders of compressed pixels can crash on bad input:
//! [`Decoder::child`] runs them in another process.

mod codec;
mod codestream;
mod decoder;
mod elements;
mod encoding;
mod frame;
mod geometry;
mod pixels;
mod series;
mod slice;
mod stream;
mod syntax;
mod worker;

pub use decoder::Decoder;
pub use series::{Series, list_series, patient_id, read_header, read_series};
pub use worker::serve;

/// Bounds that a series must keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a decoded volume.
    pub volume_bytes: u64,
}

impl Default for Limits {
    /// 8 GiB, far above any CT scan.
    fn default() -> Self {
        Self { volume_bytes: 8 << 30 }
    }
}
