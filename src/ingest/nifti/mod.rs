//! NIfTI files: `.nii` and `.nii.gz`, versions 1 and 2, every integer and float type, both byte orders.
//!
//! A header may say anything, so nothing is believed before it is checked: sizes are compared with what the file can
//! possibly hold and with a budget, memory is had as voxels arrive, and a file that contradicts itself is a
//! [`Fault`] that says how. Voxels stay on the grid they are stored on; nothing is reoriented here.
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
mod place;
mod stream;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

pub use encode::{encode_header, encode_series_header};
pub use header::{ByteOrder, Datatype, Header, NIFTI1_BYTES, NIFTI2_BYTES, Rescale};

use self::decode::{HuVoxels, LabelVoxels};
use self::stream::Stream;
use super::ScanHeader;
use crate::error::{Fault, FaultKind};
use crate::volume::{Labels, Volume};

/// Bytes that are read from disk at once.
const FILE_BLOCK_BYTES: usize = 128 * 1024;
/// Bytes that are decoded at once: small enough for the second-level cache.
const DECODE_BLOCK_BYTES: usize = 128 * 1024;
/// What reading holds beside the voxels: both blocks and the inflater's window and tables.
const BUFFER_BYTES: u64 = 512 * 1024;
/// Memory that is had ahead, as a multiple of the bytes on disk. CT packs two to three times; sparser files grow as
/// they are read.
const RESERVED_RATIO: u64 = 8;

/// What reading one file may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes that reading may hold at once; a file that needs more is a `too_large` fault.
    pub held_bytes: u64,
}

impl Default for Limits {
    /// 8 GiB: a whole-body scan of 512 × 512 × 4000 voxels in floats.
    fn default() -> Self {
        Self { held_bytes: 8 << 30 }
    }
}

/// Reads a scan in HU, with default [`Limits`].
///
/// # Errors
/// See [`read_volume_from`]; `missing` or `io` where the file cannot be opened.
pub fn read_volume(path: impl AsRef<Path>) -> Result<Volume, Fault> {
    read_volume_within(path, &Limits::default())
}

/// Reads a scan in HU.
///
/// # Errors
/// See [`read_volume_from`]; `missing` or `io` where the file cannot be opened.
pub fn read_volume_within(path: impl AsRef<Path>, limits: &Limits) -> Result<Volume, Fault> {
    let (reader, file_bytes) = open(path.as_ref())?;
    read_volume_from(reader, file_bytes, limits)
}

/// Reads a map of labels, with default [`Limits`].
///
/// # Errors
/// See [`read_labels_from`]; `missing` or `io` where the file cannot be opened.
pub fn read_labels(path: impl AsRef<Path>) -> Result<Labels, Fault> {
    read_labels_within(path, &Limits::default())
}

/// Reads a map of labels.
///
/// # Errors
/// See [`read_labels_from`]; `missing` or `io` where the file cannot be opened.
pub fn read_labels_within(path: impl AsRef<Path>, limits: &Limits) -> Result<Labels, Fault> {
    let (reader, file_bytes) = open(path.as_ref())?;
    read_labels_from(reader, file_bytes, limits)
}

/// Reads what a header promises, and whether the file can hold it; no voxel is decoded.
///
/// # Errors
/// As [`read_volume_from`], as far as the header shows.
pub fn read_header(path: impl AsRef<Path>) -> Result<ScanHeader, Fault> {
    let (reader, file_bytes) = open(path.as_ref())?;
    read_header_from(reader, file_bytes)
}

/// Reads a header from the `file_bytes` bytes of `reader`.
///
/// # Errors
/// As [`read_volume_from`], as far as the header shows.
pub fn read_header_from(reader: impl BufRead, file_bytes: u64) -> Result<ScanHeader, Fault> {
    let mut stream = Stream::new(reader, file_bytes)?;
    let header = start(&mut stream)?;
    let (read_bytes, volume_bytes) = volume_cost(&header);
    Ok(ScanHeader { grid: header.grid, read_bytes, volume_bytes })
}

/// Reads a scan in HU from the `file_bytes` bytes of `reader`, gzip or not.
///
/// The voxels are i16 where every one of them is a whole number in its range after slope and intercept, whatever type
/// the file has, else f32.
///
/// # Errors
/// `truncated` where the file ends early or cannot hold what its header promises; `corrupt` where it contradicts its
/// format (magic, checksum, extensions, bytes after the last voxel); `unsupported` for colours, complex numbers,
/// 128-bit floats, header and voxels in two files, series of volumes; `geometry` for impossible shapes and places;
/// `non_finite` for NaN or infinite voxels; `too_large` where the limits do not allow it; `io` where the system
/// refuses.
pub fn read_volume_from(reader: impl BufRead, file_bytes: u64, limits: &Limits) -> Result<Volume, Fault> {
    let mut stream = Stream::new(reader, file_bytes)?;
    let header = start(&mut stream)?;
    afford(volume_cost(&header).0, limits)?;
    let total = header.grid.voxels();
    let mut voxels = HuVoxels::with_room(first_room(&stream, &header), total)?;
    each_block(&mut stream, &header, |block| voxels.append(block, &header))?;
    Ok(Volume { grid: header.grid, voxels: voxels.into_voxels(header.grid.shape) })
}

/// Reads a map of labels from the `file_bytes` bytes of `reader`, gzip or not. Floats are accepted where they are
/// whole numbers.
///
/// # Errors
/// As [`read_volume_from`], and `unsupported` for values that are no whole numbers in 0..65535.
pub fn read_labels_from(reader: impl BufRead, file_bytes: u64, limits: &Limits) -> Result<Labels, Fault> {
    let mut stream = Stream::new(reader, file_bytes)?;
    let header = start(&mut stream)?;
    let total = header.grid.voxels();
    afford(BUFFER_BYTES + 2 * total as u64, limits)?;
    let mut ids = LabelVoxels::with_room(first_room(&stream, &header), total)?;
    each_block(&mut stream, &header, |block| ids.append(block, &header))?;
    Ok(Labels { grid: header.grid, ids: ids.into_array(header.grid.shape) })
}

fn open(path: &Path) -> Result<(BufReader<File>, u64), Fault> {
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Fault::read(FaultKind::Missing, "the file is not there"),
        kind => Fault::read(FaultKind::Io, format!("the system cannot open the file: {kind}")),
    };
    // Asked before opening: a named pipe would wait for a writer for ever.
    let metadata = path.metadata().map_err(refused)?;
    if !metadata.is_file() {
        return Err(Fault::read(FaultKind::Unsupported, "expected a file, came a folder, pipe or device"));
    }
    let file = File::open(path).map_err(refused)?;
    Ok((BufReader::with_capacity(FILE_BLOCK_BYTES, file), metadata.len()))
}

/// Reads the header and its extensions, up to the first voxel.
fn start<R: BufRead>(stream: &mut Stream<R>) -> Result<Header, Fault> {
    let mut bytes = [0; NIFTI2_BYTES];
    let came = stream.fill(&mut bytes[..4])?;
    let Some(first) = bytes[..came].first_chunk().copied() else {
        return Err(Fault::read(
            FaultKind::Truncated,
            format!("expected a NIfTI header, the file ends after {came} bytes"),
        ));
    };
    let announced = Header::announced_bytes(first)?;
    stream.exact(&mut bytes[4..announced], "a NIfTI header")?;
    let header = Header::parse(&bytes[..announced])?;

    let promised = header.voxel_offset.saturating_add(header.stored_bytes());
    if promised > stream.most_bytes() {
        return Err(Fault::read(
            FaultKind::Truncated,
            format!(
                "the header promises {promised} bytes for {:?} voxels, a file of {} bytes cannot hold them",
                header.grid.shape,
                stream.file_bytes()
            ),
        ));
    }
    extension::skip(stream, &header)?;
    Ok(header)
}

/// Most bytes held while reading a volume, and bytes of the volume afterwards.
fn volume_cost(header: &Header) -> (u64, u64) {
    let voxels = header.grid.voxels() as u64;
    if decode::is_surely_i16(header) {
        return (BUFFER_BYTES + 2 * voxels, 2 * voxels);
    }
    // The first fraction turns all that came before it into floats: both are held for a moment.
    (BUFFER_BYTES + 6 * voxels, 4 * voxels)
}

fn afford(needed: u64, limits: &Limits) -> Result<(), Fault> {
    if needed <= limits.held_bytes {
        return Ok(());
    }
    Err(Fault::read(
        FaultKind::TooLarge,
        format!("reading needs {needed} bytes of memory, {} are allowed", limits.held_bytes),
    ))
}

/// Voxels to have memory for before any came.
fn first_room<R: BufRead>(stream: &Stream<R>, header: &Header) -> usize {
    let likely =
        if stream.is_compressed() { stream.file_bytes().saturating_mul(RESERVED_RATIO) } else { stream.file_bytes() };
    (likely / header.datatype.bytes() as u64).min(header.grid.voxels() as u64) as usize
}

fn each_block<R: BufRead>(
    stream: &mut Stream<R>,
    header: &Header,
    mut decode: impl FnMut(&mut [u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut block = vec![0; DECODE_BLOCK_BYTES];
    let mut left = header.stored_bytes();
    while left > 0 {
        let size = left.min(block.len() as u64) as usize;
        let came = stream.fill(&mut block[..size])?;
        if came < size {
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
