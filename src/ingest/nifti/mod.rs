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

mod encode;
mod extension;
mod header;
mod placement;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

pub use encode::{encode_header, encode_series_header};
pub use header::{NIFTI1_BYTES, NIFTI2_BYTES};

use super::ScanHeader;
use super::file::open_regular;
use super::raster::{self, FILE_BLOCK_BYTES, Stream};
pub use super::raster::{ByteOrder, Datatype, Header, Limits, Rescale};
use crate::error::{Fault, FaultKind};
use crate::volume::{Labels, Volume};

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
    Ok(raster::scan_header(&read_start(&mut stream)?.0))
}

/// Reads a scan in HU from the `file_bytes` bytes of `reader`, which may be gzip.
///
/// The voxels are i16 if, after slope and intercept, every voxel is an integer in the range of i16, independent of the type
/// in the file; otherwise the voxels are f32.
///
/// # Errors
/// Returns `truncated` if the file ends early or cannot contain the voxels of its header; `corrupt` if the file contradicts its
/// format (magic, checksum, extensions); `unsupported` for colours, complex numbers,
/// 128-bit floats, header and voxels in two files, and series of volumes; `geometry` for invalid shapes and affines;
/// `non_finite` for NaN or infinite voxels; `too_large` if the file exceeds the limits; `io` if the system cannot read the
/// file.
pub fn read_volume_from(reader: impl BufRead, file_bytes: u64, limits: &Limits) -> Result<Volume, Fault> {
    let mut stream = Stream::new(reader, file_bytes)?;
    let (header, _) = read_start(&mut stream)?;
    raster::read_volume(&mut stream, &header, limits)
}

/// Reads a label map from the `file_bytes` bytes of `reader`, which may be gzip. Floats are accepted
/// within 0.001 of a whole number, which is the label: integers that are stored with a slope are slightly off.
///
/// # Errors
/// Returns the faults of [`read_volume_from`], and `unsupported` for values that are not integers in 0..65535.
pub fn read_labels_from(reader: impl BufRead, file_bytes: u64, limits: &Limits) -> Result<Labels, Fault> {
    let mut stream = Stream::new(reader, file_bytes)?;
    let (header, _) = read_start(&mut stream)?;
    raster::read_labels(&mut stream, &header, limits)
}

/// Reads the names of labels by id from the header of a label map, from the `file_bytes` bytes of `reader`: TotalSegmentator stores them,
/// most programs do not.
///
/// # Errors
/// Returns the faults of [`read_header`].
pub fn read_label_names_from(reader: impl BufRead, file_bytes: u64) -> Result<BTreeMap<u16, String>, Fault> {
    read_start(&mut Stream::new(reader, file_bytes)?).map(|(_, names)| names)
}

/// Returns the decompressed bytes up to the end of the voxels, or `None` if the file is not gzip.
pub(super) fn gzip_content_bytes(reader: impl BufRead, file_bytes: u64) -> Result<Option<u64>, Fault> {
    let mut stream = Stream::new(reader, file_bytes)?;
    let (header, _) = read_start(&mut stream)?;
    Ok(stream.is_compressed().then(|| header.voxel_offset.saturating_add(header.stored_bytes())))
}

fn open(path: &Path) -> Result<(BufReader<File>, u64), Fault> {
    let (file, bytes) = open_regular(path)?;
    Ok((BufReader::with_capacity(FILE_BLOCK_BYTES, file), bytes))
}

/// Reads the header and the label names in its extensions, up to the first voxel.
fn read_start<R: BufRead>(stream: &mut Stream<R>) -> Result<(Header, BTreeMap<u16, String>), Fault> {
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

    raster::check_length(stream, &header)?;
    let names = extension::read(stream, &header)?;
    Ok((header, names))
}
