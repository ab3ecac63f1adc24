//! The header of a box of voxels, in the terms that all formats share.

use crate::volume::Grid;

/// The type of a stored voxel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Datatype {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

impl Datatype {
    /// Every supported type.
    pub const ALL: [Self; 10] =
        [Self::U8, Self::I8, Self::U16, Self::I16, Self::U32, Self::I32, Self::U64, Self::I64, Self::F32, Self::F64];

    /// Returns the bytes of one voxel.
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }
}

/// The byte order of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// Least significant first.
    Little,
    /// Most significant first.
    Big,
}

/// Slope and intercept that convert stored numbers to HU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rescale {
    /// Factor of the stored number.
    pub slope: f64,
    /// Summand of the product.
    pub intercept: f64,
}

/// The header of a NIfTI, NRRD or MetaImage file after validation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Header {
    /// Shape and affine. World coordinates are in millimetres, independent of the unit in the file.
    pub grid: Grid,
    /// The type of a stored voxel.
    pub datatype: Datatype,
    /// The byte order of voxels, and of the header if it is binary.
    pub order: ByteOrder,
    /// Conversion of stored numbers to HU; `None` if stored numbers are HU.
    pub rescale: Option<Rescale>,
    /// Offset of the first voxel in the (decompressed) file; for NRRD and MetaImage, in the part of the file after the header, or in the
    /// data file.
    pub voxel_offset: u64,
    /// Bytes of the header in the file; for NIfTI, [`NIFTI1_BYTES`](super::super::nifti::NIFTI1_BYTES) or
    /// [`NIFTI2_BYTES`](super::super::nifti::NIFTI2_BYTES).
    pub header_bytes: usize,
}

impl Header {
    /// Returns the bytes of all voxels in the decompressed file.
    pub fn stored_bytes(&self) -> u64 {
        self.grid.voxels() as u64 * self.datatype.bytes() as u64
    }
}
