//! The fixed-size header at the start of a NIfTI-1 (348 bytes) or NIfTI-2 (540 bytes) file.
//!
//! Parsing uses these bytes only. Every number that later steps rely on is checked here, so that a
//! [`Header`] describes a valid box of voxels; the reader checks whether the file contains these voxels.

use nifti::NiftiHeader;

use super::placement::Placement;

use crate::error::{Fault, FaultKind};
use crate::ingest::raster::{ByteOrder, Datatype, Header, Rescale};
use crate::volume::Grid;

/// Bytes of a NIfTI-1 header, without the four bytes of the extension flag.
pub const NIFTI1_BYTES: usize = 348;
/// Bytes of a NIfTI-2 header, without the four bytes of the extension flag.
pub const NIFTI2_BYTES: usize = 540;

impl Datatype {
    /// Returns the datatype code in a NIfTI header.
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
            _ => return Err(corrupt(format!("expected a NIfTI datatype code, got {code}"))),
        };
        Err(unsupported(format!(
            "expected integers or floats of up to 64 bits as voxels, got {name} (datatype {code})"
        )))
    }
}

impl Header {
    /// Returns the size of the NIfTI header that the first four bytes of a file state.
    ///
    /// # Errors
    /// Returns `corrupt` if the bytes are not the start of a NIfTI header.
    pub fn size(start: [u8; 4]) -> Result<usize, Fault> {
        match (i32::from_le_bytes(start), i32::from_be_bytes(start)) {
            (348, _) | (_, 348) => Ok(NIFTI1_BYTES),
            (540, _) | (_, 540) => Ok(NIFTI2_BYTES),
            _ => Err(corrupt(format!(
                "expected 348 or 540 in the first four bytes of a NIfTI file, got {}",
                start.map(|byte| format!("{byte:02x}")).join(" ")
            ))),
        }
    }

    /// Parses a NIfTI header of [`Header::size`] bytes.
    ///
    /// # Errors
    /// Returns `corrupt` if the bytes contradict the format, `unsupported` if they do not describe a three-dimensional scan
    /// in one file, `geometry` if the shape or the affine is invalid.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let start = bytes.first_chunk().copied().ok_or_else(|| truncated_header(bytes.len()))?;
        let size = Self::size(start)?;
        if bytes.len() < size {
            return Err(truncated_header(bytes.len()));
        }
        let order = match i32::from_le_bytes(start) {
            348 | 540 => ByteOrder::Little,
            _ => ByteOrder::Big,
        };
        let raw = if size == NIFTI1_BYTES {
            RawHeader::nifti1(&bytes[..NIFTI1_BYTES])?
        } else {
            RawHeader::nifti2(Fields { bytes, order })?
        };
        raw.checked(order, size)
    }
}

/// The used fields of a header, widened to the types of NIfTI-2.
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
            b"ni1\0" => {
                return Err(unsupported("expected a single .nii file, got a .hdr/.img pair: convert the pair first"));
            }
            [0, 0, 0, 0] => {
                return Err(unsupported("expected a NIfTI header, got an ANALYZE 7.5 header, which has no affine"));
            }
            other => {
                return Err(corrupt(format!("expected the magic `n+1` at byte 344, got {}", other.escape_ascii())));
            }
        }
        let header = NiftiHeader::from_reader(bytes)
            .map_err(|error| corrupt(format!("cannot parse the NIfTI header: {error}")))?;
        // The crate derives the byte order from dim[0], this module from the header size: both must agree.
        if header.sizeof_hdr != NIFTI1_BYTES as i32 {
            let dimensions = [bytes[40], bytes[41]];
            return Err(geometry(format!("expected 3 dimensions, got the bytes {dimensions:02x?} in dim[0]")));
        }
        Ok(Self {
            // The format stores sizes as i16.
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
            b"ni2\0\r\n\x1a\n" => {
                return Err(unsupported("expected a single .nii file, got a .hdr/.img pair: convert the pair first"));
            }
            other => return Err(corrupt(format!("expected the magic `n+2` at byte 4, got {}", other.escape_ascii()))),
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
        let affine = self.placement.affine()?;
        let min_offset = header_bytes + 4;
        // f64 is exact far beyond any file size; the comparison also rejects NaN.
        if !(self.voxel_offset >= min_offset as f64 && self.voxel_offset <= 2f64.powi(53))
            || self.voxel_offset.fract() != 0.0
        {
            return Err(corrupt(format!("expected a vox_offset of at least {min_offset}, got {}", self.voxel_offset)));
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
            return Err(geometry(format!("expected 3 dimensions, got {dimensions} in dim[0]")));
        }
        if dimensions < 3 {
            return Err(geometry(format!("expected 3 dimensions, got {dimensions}: a single image is not a scan")));
        }
        let sizes = &self.dim[1..=dimensions as usize];
        if sizes[..3].iter().any(|&size| size <= 0) {
            return Err(geometry(format!("expected at least one voxel along each axis, got {sizes:?}")));
        }
        // The reference implementation takes sizes below one for one.
        if sizes[3..].iter().any(|&size| size > 1) {
            return Err(unsupported(format!(
                "expected one volume of 3 dimensions, got {sizes:?}: split the series first"
            )));
        }
        // The largest voxel has eight bytes; the remaining factor prevents overflow in sums of sizes.
        let voxels = sizes[..3].iter().try_fold(1i64, |product, &size| product.checked_mul(size));
        if voxels.is_none_or(|voxels| voxels > i64::MAX / 64) {
            return Err(geometry(format!("expected a volume that fits into memory, got {sizes:?} voxels")));
        }
        Ok([0, 1, 2].map(|axis| sizes[axis] as usize))
    }

    /// Returns the rescale; with a slope of zero or a slope that is not finite, stored numbers are HU.
    fn rescale(&self) -> Result<Option<Rescale>, Fault> {
        if self.slope == 0.0 || !self.slope.is_finite() {
            return Ok(None);
        }
        if !self.intercept.is_finite() {
            return Err(corrupt(format!(
                "expected a finite intercept with slope {}, got {}",
                self.slope, self.intercept
            )));
        }
        let rescale = Rescale { slope: self.slope, intercept: self.intercept };
        Ok((rescale != Rescale { slope: 1.0, intercept: 0.0 }).then_some(rescale))
    }
}

/// Numbers at fixed offsets of a header whose length was checked.
#[derive(Clone, Copy)]
struct Fields<'a> {
    bytes: &'a [u8],
    order: ByteOrder,
}

impl Fields<'_> {
    fn little_endian<const N: usize>(self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.bytes[at..at + N]);
        if self.order == ByteOrder::Big {
            bytes.reverse();
        }
        bytes
    }

    fn i16(self, at: usize) -> i16 {
        i16::from_le_bytes(self.little_endian(at))
    }

    fn i32(self, at: usize) -> i32 {
        i32::from_le_bytes(self.little_endian(at))
    }

    fn i64(self, at: usize) -> i64 {
        i64::from_le_bytes(self.little_endian(at))
    }

    fn f64(self, at: usize) -> f64 {
        f64::from_le_bytes(self.little_endian(at))
    }
}

fn truncated_header(bytes: usize) -> Fault {
    Fault::read(
        FaultKind::Truncated,
        format!("expected a NIfTI header of {NIFTI1_BYTES} bytes or more, the file ends after {bytes}"),
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
