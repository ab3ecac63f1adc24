//! The fixed-size header at the start of a NIfTI-1 (348 bytes) or NIfTI-2 (540 bytes) file.
//!
//! Parsing looks at nothing but these bytes. Every number that later steps rely on is checked here, so that a
//! [`Header`] describes a box of voxels that can exist; whether the file holds it is for the reader to find out.

use nifti::NiftiHeader;

use super::place::Placement;
use crate::error::{Fault, FaultKind};
use crate::volume::Grid;

/// Bytes of a NIfTI-1 header, without the four bytes that announce extensions.
pub const NIFTI1_BYTES: usize = 348;
/// Bytes of a NIfTI-2 header, without the four bytes that announce extensions.
pub const NIFTI2_BYTES: usize = 540;

/// How one voxel is stored.
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
    /// Every type that can be read.
    pub const ALL: [Self; 10] =
        [Self::U8, Self::I8, Self::U16, Self::I16, Self::U32, Self::I32, Self::U64, Self::I64, Self::F32, Self::F64];

    /// The number that stands for it in a header.
    pub fn code(self) -> i16 {
        match self {
            Self::U8 => 2,
            Self::I16 => 4,
            Self::I32 => 8,
            Self::F32 => 16,
            Self::F64 => 64,
            Self::I8 => 256,
            Self::U16 => 512,
            Self::U32 => 768,
            Self::I64 => 1024,
            Self::U64 => 1280,
        }
    }

    /// Bytes of one voxel.
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    fn from_code(code: i16) -> Result<Self, Fault> {
        if let Some(found) = Self::ALL.into_iter().find(|datatype| datatype.code() == code) {
            return Ok(found);
        }
        let name = match code {
            1 => "single bits",
            32 => "complex numbers of 64 bits",
            128 => "RGB colours",
            1536 => "floats of 128 bits",
            1792 => "complex numbers of 128 bits",
            2048 => "complex numbers of 256 bits",
            2304 => "RGBA colours",
            _ => return Err(corrupt(format!("expected a NIfTI datatype code, came {code}"))),
        };
        Err(unsupported(format!(
            "voxels are {name} (datatype {code}); a CT scan has integers or floats of up to 64 bits"
        )))
    }
}

/// The order of the bytes in a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// Least significant first.
    Little,
    /// Most significant first.
    Big,
}

/// Slope and intercept that turn stored numbers into HU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rescale {
    /// Multiplies the stored number.
    pub slope: f64,
    /// Is added to the product.
    pub intercept: f64,
}

/// What a NIfTI header says about the voxels behind it, checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Header {
    /// Shape and place. World coordinates are millimetres whatever unit the file is in.
    pub grid: Grid,
    /// How a voxel is stored.
    pub datatype: Datatype,
    /// The order of the bytes of header and voxels.
    pub order: ByteOrder,
    /// From stored numbers to HU; `None` where they are HU already.
    pub rescale: Option<Rescale>,
    /// Where in the (decompressed) file the voxels begin.
    pub voxel_offset: u64,
    /// Bytes of the header itself: [`NIFTI1_BYTES`] or [`NIFTI2_BYTES`].
    pub header_bytes: usize,
}

impl Header {
    /// Bytes that all voxels take in the decompressed file.
    pub fn stored_bytes(&self) -> u64 {
        self.grid.voxels() as u64 * self.datatype.bytes() as u64
    }

    /// The size that the first four bytes of a file announce for its header.
    ///
    /// # Errors
    /// `corrupt` where they announce no NIfTI header.
    pub fn announced_bytes(start: [u8; 4]) -> Result<usize, Fault> {
        match (i32::from_le_bytes(start), i32::from_be_bytes(start)) {
            (348, _) | (_, 348) => Ok(NIFTI1_BYTES),
            (540, _) | (_, 540) => Ok(NIFTI2_BYTES),
            _ => Err(corrupt(format!(
                "expected a NIfTI file, whose first four bytes say 348 or 540; came {}",
                start.map(|byte| format!("{byte:02x}")).join(" ")
            ))),
        }
    }

    /// Parses a header of [`Header::announced_bytes`].
    ///
    /// # Errors
    /// `corrupt` where the bytes contradict the format, `unsupported` where they describe something that is not a
    /// three-dimensional scan in one file, `geometry` where the box or its place cannot exist.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let start = bytes.first_chunk().copied().ok_or_else(|| truncated_header(bytes.len()))?;
        let announced = Self::announced_bytes(start)?;
        if bytes.len() < announced {
            return Err(truncated_header(bytes.len()));
        }
        let order = match i32::from_le_bytes(start) {
            348 | 540 => ByteOrder::Little,
            _ => ByteOrder::Big,
        };
        let raw = if announced == NIFTI1_BYTES {
            RawHeader::nifti1(&bytes[..NIFTI1_BYTES])?
        } else {
            RawHeader::nifti2(Fields { bytes, order })?
        };
        raw.checked(order, announced)
    }
}

/// The fields that matter, widened to the types of NIfTI-2.
struct RawHeader {
    dim: [i64; 8],
    datatype: i16,
    voxel_offset: f64,
    slope: f64,
    intercept: f64,
    placement: Placement,
}

impl RawHeader {
    fn nifti1(bytes: &[u8]) -> Result<Self, Fault> {
        match &bytes[344..348] {
            b"n+1\0" => {}
            b"ni1\0" => return Err(unsupported("a .hdr/.img pair; convert it to a single .nii file")),
            [0, 0, 0, 0] => return Err(unsupported("an ANALYZE 7.5 header, which does not say where the scan lies")),
            other => {
                return Err(corrupt(format!("expected the magic `n+1` at byte 344, came {}", other.escape_ascii())));
            }
        }
        let header = NiftiHeader::from_reader(bytes).map_err(|error| corrupt(format!("no NIfTI header: {error}")))?;
        // The order of its bytes is told by dim[0] there, and by the header's size here: they have to agree.
        if header.sizeof_hdr != NIFTI1_BYTES as i32 {
            let dimensions = [bytes[40], bytes[41]];
            return Err(geometry(format!("expected 3 dimensions, the bytes of dim[0] are {dimensions:02x?}")));
        }
        Ok(Self {
            // Counted in i16 by the format.
            dim: header.dim.map(|size| i64::from(size as i16)),
            datatype: header.datatype,
            voxel_offset: f64::from(header.vox_offset),
            slope: f64::from(header.scl_slope),
            intercept: f64::from(header.scl_inter),
            placement: Placement {
                pixdim: header.pixdim.map(f64::from),
                units: header.xyzt_units,
                qform_code: i32::from(header.qform_code),
                sform_code: i32::from(header.sform_code),
                quaternion: [header.quatern_b, header.quatern_c, header.quatern_d].map(f64::from),
                offset: [header.quatern_x, header.quatern_y, header.quatern_z].map(f64::from),
                sform: [header.srow_x, header.srow_y, header.srow_z].map(|row| row.map(f64::from)),
            },
        })
    }

    fn nifti2(fields: Fields<'_>) -> Result<Self, Fault> {
        match &fields.bytes[4..12] {
            b"n+2\0\r\n\x1a\n" => {}
            b"ni2\0\r\n\x1a\n" => return Err(unsupported("a .hdr/.img pair; convert it to a single .nii file")),
            other => return Err(corrupt(format!("expected the magic `n+2` at byte 4, came {}", other.escape_ascii()))),
        }
        Ok(Self {
            dim: std::array::from_fn(|n| fields.i64(16 + 8 * n)),
            datatype: fields.i16(12),
            voxel_offset: fields.i64(168) as f64,
            slope: fields.f64(176),
            intercept: fields.f64(184),
            placement: Placement {
                pixdim: std::array::from_fn(|n| fields.f64(104 + 8 * n)),
                units: fields.i32(500) as u8,
                qform_code: fields.i32(344),
                sform_code: fields.i32(348),
                quaternion: std::array::from_fn(|n| fields.f64(352 + 8 * n)),
                offset: std::array::from_fn(|n| fields.f64(376 + 8 * n)),
                sform: std::array::from_fn(|row| std::array::from_fn(|n| fields.f64(400 + 32 * row + 8 * n))),
            },
        })
    }

    fn checked(&self, order: ByteOrder, header_bytes: usize) -> Result<Header, Fault> {
        let shape = self.shape()?;
        let datatype = Datatype::from_code(self.datatype)?;
        let affine = self.placement.affine(shape)?;
        let least_offset = header_bytes + 4;
        // Exact in f64 far beyond any file size; the comparison also refuses NaN.
        if !(self.voxel_offset >= least_offset as f64 && self.voxel_offset <= 2f64.powi(53))
            || self.voxel_offset.fract() != 0.0
        {
            return Err(corrupt(format!(
                "expected voxels to begin at a byte from {least_offset} on, vox_offset says {}",
                self.voxel_offset
            )));
        }
        Ok(Header {
            grid: Grid { shape, affine },
            datatype,
            order,
            rescale: self.rescale()?,
            voxel_offset: self.voxel_offset as u64,
            header_bytes,
        })
    }

    fn shape(&self) -> Result<[usize; 3], Fault> {
        let dimensions = self.dim[0];
        if !(1..=7).contains(&dimensions) {
            return Err(geometry(format!("expected 3 dimensions, dim[0] says {dimensions}")));
        }
        if dimensions < 3 {
            return Err(geometry(format!("expected 3 dimensions, came {dimensions}: a single image is no scan")));
        }
        let sizes = &self.dim[1..=dimensions as usize];
        if sizes.iter().any(|&size| size <= 0) {
            return Err(geometry(format!("expected at least one voxel along each axis, came {sizes:?}")));
        }
        if sizes[3..].iter().any(|&size| size != 1) {
            return Err(unsupported(format!(
                "expected one volume of 3 dimensions, came {sizes:?}: split the series first"
            )));
        }
        // The largest voxel has eight bytes; half of the address space is left for sums of sizes.
        let voxels = sizes[..3].iter().try_fold(1i64, |product, &size| product.checked_mul(size));
        if voxels.is_none_or(|voxels| voxels > i64::MAX / 64) {
            return Err(geometry(format!("no file holds a volume of {sizes:?} voxels")));
        }
        Ok([0, 1, 2].map(|axis| sizes[axis] as usize))
    }

    /// A slope of zero, or one that is no number, means that stored numbers are HU.
    fn rescale(&self) -> Result<Option<Rescale>, Fault> {
        if self.slope == 0.0 || !self.slope.is_finite() {
            return Ok(None);
        }
        if !self.intercept.is_finite() {
            return Err(corrupt(format!(
                "expected a finite intercept beside slope {}, came {}",
                self.slope, self.intercept
            )));
        }
        let rescale = Rescale { slope: self.slope, intercept: self.intercept };
        Ok((rescale != Rescale { slope: 1.0, intercept: 0.0 }).then_some(rescale))
    }
}

/// Numbers at fixed places of a header that is known to be long enough.
#[derive(Clone, Copy)]
struct Fields<'a> {
    bytes: &'a [u8],
    order: ByteOrder,
}

impl Fields<'_> {
    fn take<const N: usize>(self, at: usize) -> [u8; N] {
        let mut taken = [0; N];
        taken.copy_from_slice(&self.bytes[at..at + N]);
        if self.order == ByteOrder::Big {
            taken.reverse();
        }
        taken
    }

    fn i16(self, at: usize) -> i16 {
        i16::from_le_bytes(self.take(at))
    }

    fn i32(self, at: usize) -> i32 {
        i32::from_le_bytes(self.take(at))
    }

    fn i64(self, at: usize) -> i64 {
        i64::from_le_bytes(self.take(at))
    }

    fn f64(self, at: usize) -> f64 {
        f64::from_le_bytes(self.take(at))
    }
}

fn truncated_header(came: usize) -> Fault {
    Fault::read(
        FaultKind::Truncated,
        format!("expected a NIfTI header of {NIFTI1_BYTES} bytes or more, the file ends after {came}"),
    )
}

fn corrupt(message: impl Into<String>) -> Fault {
    Fault::read(FaultKind::Corrupt, message)
}

fn unsupported(message: impl Into<String>) -> Fault {
    Fault::read(FaultKind::Unsupported, message)
}

fn geometry(message: impl Into<String>) -> Fault {
    Fault::read(FaultKind::Geometry, message)
}
