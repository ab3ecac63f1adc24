//! NIfTI files: `.nii` and `.nii.gz`, versions 1 and 2, every integer and float type, both byte orders.
//!
//! Every value of a header is checked before it is used: sizes are compared with the maximum content of the file
//! and with a memory limit, memory is allocated as voxels are read, and a file that contradicts itself is a
//! [`Fault`] that names the contradiction. Voxels stay on their stored grid; no volume is reoriented here.
//!
//! ```
//! use freetumor::ingest::nifti::{self, Datatype, Limits};
//! use freetumor::volume::{Affine, Grid};
//!
//! let grid = Grid { shape: [2, 1, 1], affine: Affine::from_spacing([0.75, 0.75, 5.0]) };
//! let mut file = nifti::encode_header(&grid, Datatype::I16, "")?.to_vec();
//! file.extend([-1000i16, 40].iter().flat_map(|hu| hu.to_le_bytes()));
//!
//! let volume = nifti::read_volume_from(&file[..], file.len() as u64, &Limits::default())?;
//! assert_eq!(volume.grid, grid);
//! assert_eq!(volume.voxels.hu(1), 40.0);
//! # Ok::<(), freetumor::error::Fault>(())
//! ```

mod decode;
mod encode;
mod extension;
mod header;
mod label_table;
mod placement;
mod stream;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

pub use encode::{encode_header, encode_series_header};
pub use header::{ByteOrder, Datatype, Header, NIFTI1_BYTES, NIFTI2_BYTES, Rescale};
pub use label_table::read_label_names;

use self::decode::{HuVoxels, LabelVoxels};
use self::stream::Stream;
use super::ScanHeader;
use super::file::open_regular;
use crate::error::{Fault, FaultKind};
use crate::volume::{Labels, Volume};

/// Bytes per read from disk.
const FILE_BLOCK_BYTES: usize = 128 * 1024;
/// Bytes per decoded block: small enough for the L2 cache.
const DECODE_BLOCK_BYTES: usize = 128 * 1024;
/// Memory of reading in addition to the voxels: both blocks and the window and tables of the inflater.
const BUFFER_BYTES: u64 = 512 * 1024;
/// Memory that is reserved before reading a gzip file, as a multiple of its bytes on disk. CT compresses by a factor of two to
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

/// Reads a scan in HU, with default [`Limits`].
///
/// # Errors
/// See [`read_volume_from`]; `missing` or `io` if the file cannot be opened.
pub fn read_volume(path: impl AsRef<Path>) -> Result<Volume, Fault> {
    read_volume_within(path, &Limits::default())
}

/// Reads a scan in HU.
///
/// # Errors
/// See [`read_volume_from`]; `missing` or `io` if the file cannot be opened.
pub fn read_volume_within(path: impl AsRef<Path>, limits: &Limits) -> Result<Volume, Fault> {
    let (reader, file_bytes) = open(path.as_ref())?;
    read_volume_from(reader, file_bytes, limits)
}

/// Reads a label map, with default [`Limits`].
///
/// # Errors
/// See [`read_labels_from`]; `missing` or `io` if the file cannot be opened.
pub fn read_labels(path: impl AsRef<Path>) -> Result<Labels, Fault> {
    read_labels_within(path, &Limits::default())
}

/// Reads a label map.
///
/// # Errors
/// See [`read_labels_from`]; `missing` or `io` if the file cannot be opened.
pub fn read_labels_within(path: impl AsRef<Path>, limits: &Limits) -> Result<Labels, Fault> {
    let (reader, file_bytes) = open(path.as_ref())?;
    read_labels_from(reader, file_bytes, limits)
}

/// Reads a header and checks that the file can contain its voxels; no voxel is decoded.
///
/// # Errors
/// Returns every fault of [`read_volume_from`] that the header shows.
pub fn read_header(path: impl AsRef<Path>) -> Result<ScanHeader, Fault> {
    let (reader, file_bytes) = open(path.as_ref())?;
    read_header_from(reader, file_bytes)
}

/// Reads a header from the `file_bytes` bytes of `reader`.
///
/// # Errors
/// Returns every fault of [`read_volume_from`] that the header shows.
pub fn read_header_from(reader: impl BufRead, file_bytes: u64) -> Result<ScanHeader, Fault> {
    let mut stream = Stream::new(reader, file_bytes)?;
    let header = read_start(&mut stream)?;
    let (read_bytes, volume_bytes) = volume_cost(&header);
    Ok(ScanHeader { grid: header.grid, read_bytes, volume_bytes })
}

/// Reads a scan in HU from the `file_bytes` bytes of `reader`, which may be gzip.
///
/// The voxels are i16 if, after slope and intercept, every voxel is an integer in the range of i16, independent of the type
/// in the file; otherwise the voxels are f32.
///
/// # Errors
/// Returns `truncated` if the file ends early or cannot contain the voxels of its header; `corrupt` if the file contradicts its
/// format (magic, checksum, extensions, bytes after the last voxel); `unsupported` for colours, complex numbers,
/// 128-bit floats, header and voxels in two files, and series of volumes; `geometry` for invalid shapes and affines;
/// `non_finite` for NaN or infinite voxels; `too_large` if the file exceeds the limits; `io` if the system cannot read the
/// file.
pub fn read_volume_from(reader: impl BufRead, file_bytes: u64, limits: &Limits) -> Result<Volume, Fault> {
    let mut stream = Stream::new(reader, file_bytes)?;
    let header = read_start(&mut stream)?;
    check_limit(volume_cost(&header).0, limits)?;
    let total = header.grid.voxels();
    let mut voxels = HuVoxels::with_capacity(initial_capacity(&stream, &header), total)?;
    for_each_block(&mut stream, &header, |block| voxels.append(block, &header))?;
    Ok(Volume { grid: header.grid, voxels: voxels.into_voxels(header.grid.shape) })
}

/// Reads a label map from the `file_bytes` bytes of `reader`, which may be gzip. Floats are accepted if they are
/// whole numbers.
///
/// # Errors
/// Returns the faults of [`read_volume_from`], and `unsupported` for values that are not integers in 0..65535.
pub fn read_labels_from(reader: impl BufRead, file_bytes: u64, limits: &Limits) -> Result<Labels, Fault> {
    let mut stream = Stream::new(reader, file_bytes)?;
    let header = read_start(&mut stream)?;
    let total = header.grid.voxels();
    check_limit(BUFFER_BYTES + 2 * total as u64, limits)?;
    let mut ids = LabelVoxels::with_capacity(initial_capacity(&stream, &header), total)?;
    for_each_block(&mut stream, &header, |block| ids.append(block, &header))?;
    Ok(Labels { grid: header.grid, ids: ids.into_array(header.grid.shape) })
}

fn open(path: &Path) -> Result<(BufReader<File>, u64), Fault> {
    let (file, bytes) = open_regular(path)?;
    Ok((BufReader::with_capacity(FILE_BLOCK_BYTES, file), bytes))
}

/// Reads the header and its extensions, up to the first voxel.
fn read_start<R: BufRead>(stream: &mut Stream<R>) -> Result<Header, Fault> {
    let header = read_main_header(stream)?;
    extension::skip(stream, &header)?;
    Ok(header)
}

/// Reads the header without its extensions, and checks that the file can contain its voxels.
fn read_main_header<R: BufRead>(stream: &mut Stream<R>) -> Result<Header, Fault> {
    let mut bytes = [0; NIFTI2_BYTES];
    let read = stream.fill(&mut bytes[..4])?;
    let Some(first) = bytes[..read].first_chunk().copied() else {
        return Err(Fault::read(
            FaultKind::Truncated,
            format!("expected a NIfTI header, the file ends after {read} bytes"),
        ));
    };
    let size = Header::size(first)?;
    stream.exact(&mut bytes[4..size], "a NIfTI header")?;
    let header = Header::parse(&bytes[..size])?;

    let required_bytes = header.voxel_offset.saturating_add(header.stored_bytes());
    if required_bytes > stream.max_bytes() {
        return Err(Fault::read(
            FaultKind::Truncated,
            format!(
                "expected {required_bytes} bytes for {:?} voxels, a file of {} bytes cannot contain them",
                header.grid.shape,
                stream.file_bytes()
            ),
        ));
    }
    Ok(header)
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
