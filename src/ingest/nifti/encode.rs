//! Encoding of the header of a `.nii` file.

use super::header::NIFTI1_BYTES;
use super::placement::Qform;
use crate::error::{Fault, FaultKind, Stage};
use crate::ingest::raster::Datatype;
use crate::volume::Grid;

/// Form code of scanner coordinates.
const SCANNER_ANATOMICAL: i16 = 1;
/// Unit code of millimetres without a unit of time.
const MILLIMETRES: u8 = 2;
/// Bytes of `descrip`; the last byte is zero.
const DESCRIPTION_BYTES: usize = 80;

/// Returns the 352 bytes before the voxels of a single-file NIfTI-1 image: little-endian, no slope, no extensions, equal
/// bytes for equal arguments.
///
/// The sform contains the whole affine. The qform is set, too, if it equals the affine within a hundredth of a voxel;
/// otherwise (shear, or some oblique axes at almost 180°) its code is 0. Numbers are float32: an affine from a NIfTI-1 file
/// is encoded unchanged.
///
/// `description` is truncated to 79 bytes at a character boundary and must not contain personal data.
///
/// # Errors
/// Returns a fault of stage `sink`: `too_large` if an axis is longer than the 32767 voxels that the format supports.
pub fn encode_header(grid: &Grid, datatype: Datatype, description: &str) -> Result<[u8; NIFTI1_BYTES + 4], Fault> {
    encode(grid, None, datatype, description)
}

/// Returns the header of [`encode_header`] for a series of `count` volumes on one grid, stored along a fourth axis.
///
/// # Errors
/// Returns the faults of [`encode_header`], also for the fourth axis.
///
/// ```
/// use freetumor::ingest::nifti::{Datatype, encode_series_header};
/// use freetumor::volume::{Affine, Grid};
/// let grid = Grid { shape: [5, 4, 3], affine: Affine::from_spacing([1.5; 3]) };
/// let header = encode_series_header(&grid, 7, Datatype::F32, "")?;
/// assert_eq!(header[40..50], [4, 0, 5, 0, 4, 0, 3, 0, 7, 0]);
/// # Ok::<(), freetumor::error::Fault>(())
/// ```
pub fn encode_series_header(
    grid: &Grid,
    count: usize,
    datatype: Datatype,
    description: &str,
) -> Result<[u8; NIFTI1_BYTES + 4], Fault> {
    encode(grid, Some(count), datatype, description)
}

fn encode(
    grid: &Grid,
    count: Option<usize>,
    datatype: Datatype,
    description: &str,
) -> Result<[u8; NIFTI1_BYTES + 4], Fault> {
    let mut header = [0; NIFTI1_BYTES + 4];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(NIFTI1_BYTES as i32).to_le_bytes());
    // Always 'r', a requirement of ANALYZE.
    put(38, b"r");
    let axes: i16 = if count.is_some() { 4 } else { 3 };
    put(40, &axes.to_le_bytes());
    let [x, y, z] = grid.shape;
    for (axis, size) in [x, y, z, count.unwrap_or(1), 1, 1, 1].into_iter().enumerate() {
        let size = i16::try_from(size).map_err(|_| {
            let message =
                format!("expected at most {} voxels along an axis in NIfTI-1, got {:?}", i16::MAX, grid.shape);
            Fault::new(Stage::Sink, FaultKind::TooLarge, message)
        })?;
        put(42 + 2 * axis, &size.to_le_bytes());
    }
    put(70, &datatype.code().to_le_bytes());
    put(72, &(8 * datatype.bytes() as i16).to_le_bytes());

    let qform = Qform::from_affine(&grid.affine, grid.shape);
    put(76, &qform.as_ref().map_or(1.0, |qform| qform.qfac as f32).to_le_bytes());
    for (axis, spacing_mm) in grid.affine.spacing_mm().into_iter().enumerate() {
        put(80 + 4 * axis, &(spacing_mm as f32).to_le_bytes());
    }
    put(108, &((NIFTI1_BYTES + 4) as f32).to_le_bytes());
    put(123, &[MILLIMETRES]);
    let mut length = description.len().min(DESCRIPTION_BYTES - 1);
    while !description.is_char_boundary(length) {
        length -= 1;
    }
    put(148, &description.as_bytes()[..length]);
    if let Some(qform) = &qform {
        put(252, &SCANNER_ANATOMICAL.to_le_bytes());
        for (part, value) in qform.quaternion.into_iter().enumerate() {
            put(256 + 4 * part, &(value as f32).to_le_bytes());
        }
        for (axis, row) in grid.affine.0.iter().enumerate() {
            put(268 + 4 * axis, &(row[3] as f32).to_le_bytes());
        }
    }
    put(254, &SCANNER_ANATOMICAL.to_le_bytes());
    for (index, value) in grid.affine.0.iter().flatten().enumerate() {
        put(280 + 4 * index, &(*value as f32).to_le_bytes());
    }
    put(344, b"n+1\0");
    Ok(header)
}
