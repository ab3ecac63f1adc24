//! Voxels of scan files that are one box of numbers: NIfTI, NRRD and MetaImage.
//!
//! A format parses its header to a [`Header`] and opens a [`Stream`] at its voxels. This module checks the header against the size of the
//! file and the memory limit before it allocates memory, and converts stored numbers to HU or labels block by block. Memory is allocated as
//! voxels are read.

mod decode;
mod geometry;
mod header;
mod stream;
mod text;

use std::io::BufRead;

pub use self::header::{ByteOrder, Datatype, Header, Rescale};

use self::decode::{HuVoxels, LabelVoxels};
pub(super) use self::geometry::{affine_of_lps, checked_affine, shape_of};
pub(super) use self::stream::Stream;
pub(super) use self::text::{DataFile, HeaderText, VoxelFile, decimals, integers, skip_bytes};
use super::ScanHeader;
use crate::error::{Fault, FaultKind};
use crate::volume::{Labels, Volume};

/// Bytes per read from disk.
pub(super) const FILE_BLOCK_BYTES: usize = 128 * 1024;
/// Bytes per decoded block: small enough for the L2 cache.
const DECODE_BLOCK_BYTES: usize = 128 * 1024;
/// Memory of reading in addition to the voxels: both blocks and the window and tables of the inflater.
const BUFFER_BYTES: u64 = 512 * 1024;
/// Memory that is reserved before reading a compressed file, as a multiple of its bytes on disk. CT compresses by a factor of two to
/// three; for files with a higher ratio, the memory grows during reading.
const RESERVED_RATIO: u64 = 8;

/// Limits on the cost of reading one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum bytes that reading may hold at once; a file that needs more is a `too_large` fault.
    pub held_bytes: u64,
}

impl Default for Limits {
    /// Returns a limit of 8 GiB: a whole-body scan of 512 × 512 × 4000 voxels in floats.
    fn default() -> Self {
        Self { held_bytes: 8 << 30 }
    }
}

/// Returns grid and memory cost of a scan with this header.
pub(super) fn scan_header(header: &Header) -> ScanHeader {
    let (read_bytes, volume_bytes) = volume_cost(header);
    ScanHeader { grid: header.grid, read_bytes, volume_bytes }
}

/// Checks that a stream can contain the voxels of its header.
///
/// # Errors
/// Returns `truncated` if the stream is too short at the highest compression ratio.
pub(super) fn check_length<R: BufRead>(stream: &Stream<R>, header: &Header) -> Result<(), Fault> {
    let required_bytes = header.voxel_offset.saturating_add(header.stored_bytes());
    if required_bytes <= stream.max_bytes() {
        return Ok(());
    }
    Err(Fault::read(
        FaultKind::Truncated,
        format!(
            "expected {required_bytes} bytes for {:?} voxels, a file of {} bytes cannot contain them",
            header.grid.shape,
            stream.file_bytes()
        ),
    ))
}

/// Reads a scan in HU from a stream whose next byte is the first voxel.
///
/// # Errors
/// Returns `too_large` if the voxels exceed the limits, `truncated` or `corrupt` if the stream ends early or is damaged, `non_finite` for
/// NaN or infinite voxels, `io` if the system cannot read the file.
pub(super) fn read_volume<R: BufRead>(
    stream: &mut Stream<R>,
    header: &Header,
    limits: &Limits,
) -> Result<Volume, Fault> {
    check_limit(volume_cost(header).0, limits)?;
    let total = header.grid.voxels();
    let mut voxels = HuVoxels::with_capacity(initial_capacity(stream, header), total)?;
    for_each_block(stream, header, |block| voxels.append(block, header))?;
    Ok(Volume { grid: header.grid, voxels: voxels.into_voxels(header.grid.shape) })
}

/// Reads a label map from a stream whose next byte is the first voxel.
///
/// # Errors
/// Returns the faults of [`read_volume`], and `unsupported` for values that are not integers in 0..65535.
pub(super) fn read_labels<R: BufRead>(
    stream: &mut Stream<R>,
    header: &Header,
    limits: &Limits,
) -> Result<Labels, Fault> {
    let total = header.grid.voxels();
    check_limit(BUFFER_BYTES + 2 * total as u64, limits)?;
    let mut ids = LabelVoxels::with_capacity(initial_capacity(stream, header), total)?;
    for_each_block(stream, header, |block| ids.append(block, header))?;
    Ok(Labels { grid: header.grid, ids: ids.into_array(header.grid.shape) })
}

/// Returns the peak bytes of reading a volume, and the bytes of the volume.
fn volume_cost(header: &Header) -> (u64, u64) {
    let voxels = header.grid.voxels() as u64;
    if decode::is_always_i16(header) {
        return (BUFFER_BYTES + 2 * voxels, 2 * voxels);
    }
    // At the first fraction all previous voxels are converted to floats: both vectors are in memory during the conversion.
    (BUFFER_BYTES + 6 * voxels, 4 * voxels)
}

fn check_limit(needed: u64, limits: &Limits) -> Result<(), Fault> {
    if needed <= limits.held_bytes {
        return Ok(());
    }
    Err(Fault::read(
        FaultKind::TooLarge,
        format!("expected at most {} bytes of memory for reading, the file needs {needed}", limits.held_bytes),
    ))
}

/// Returns the number of voxels for which memory is reserved before reading.
fn initial_capacity<R: BufRead>(stream: &Stream<R>, header: &Header) -> usize {
    let estimated_bytes =
        if stream.is_compressed() { stream.file_bytes().saturating_mul(RESERVED_RATIO) } else { stream.file_bytes() };
    (estimated_bytes / header.datatype.bytes() as u64).min(header.grid.voxels() as u64) as usize
}

fn for_each_block<R: BufRead>(
    stream: &mut Stream<R>,
    header: &Header,
    mut decode: impl FnMut(&mut [u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut block = vec![0; DECODE_BLOCK_BYTES];
    let mut left = header.stored_bytes();
    while left > 0 {
        let size = left.min(block.len() as u64) as usize;
        let read = stream.fill(&mut block[..size])?;
        if read < size {
            return Err(Fault::read(
                FaultKind::Truncated,
                format!(
                    "expected {} bytes of voxels, the file ends after {}",
                    header.stored_bytes(),
                    stream.position() - header.voxel_offset
                ),
            ));
        }
        decode(&mut block[..size])?;
        left -= size as u64;
    }
    stream.finish()
}
