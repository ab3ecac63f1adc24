//! MetaImage files: `.mha` with the voxels after the header, and `.mhd` with the voxels in a data file (`.raw`, `.zraw`).
//!
//! Read are three-dimensional images of one number per voxel, of every integer and float type and both byte orders, raw or compressed with
//! zlib. The data file must be in the folder of its header. As in ITK, an absent `TransformMatrix` is the identity, an absent `Offset` is
//! 0, `MET_LONG` has 4 bytes, and the matrix is applied to steps along the axes: its row *i* is the direction of axis *i* towards Left,
//! Posterior, Superior.
//!
//! # Source
//! MetaImage documentation, <https://itk.org/Wiki/ITK/MetaIO/Documentation>.

mod header;

use std::io::{BufRead, Read, Seek};
use std::path::Path;

use self::header::MetaHeader;
use super::ScanHeader;
use super::raster::{self, DataFile, Header, HeaderText, Limits, Stream, VoxelFile, skip_bytes};
use crate::error::{Fault, FaultKind};
use crate::volume::{Labels, Volume};

pub(super) use self::header::is_metaimage;

/// Reads the header of the file at `path`; `reader` reads the `file_bytes` bytes of the file.
pub(super) fn read_header(reader: impl BufRead + Seek, file_bytes: u64, path: &Path) -> Result<ScanHeader, Fault> {
    open(reader, file_bytes, path, |_, header, meta| {
        meta.check_modality()?;
        Ok(raster::scan_header(header))
    })
}

/// Reads the scan of the file at `path`; `reader` reads the `file_bytes` bytes of the file.
pub(super) fn read_volume(
    reader: impl BufRead + Seek,
    file_bytes: u64,
    path: &Path,
    limits: &Limits,
) -> Result<Volume, Fault> {
    open(reader, file_bytes, path, |stream, header, meta| {
        meta.check_modality()?;
        raster::read_volume(stream, header, limits)
    })
}

/// Reads the label map of the file at `path`; `reader` reads the `file_bytes` bytes of the file.
pub(super) fn read_labels(
    reader: impl BufRead + Seek,
    file_bytes: u64,
    path: &Path,
    limits: &Limits,
) -> Result<Labels, Fault> {
    open(reader, file_bytes, path, |stream, header, _| raster::read_labels(stream, header, limits))
}

/// Returns the name of the data file of a header, or `None` if the voxels follow the header.
pub(super) fn data_file(reader: impl BufRead) -> Result<Option<DataFile>, Fault> {
    Ok(MetaHeader::read(&mut HeaderText::new(reader))?.data_file)
}

/// Parses the header and calls `read` with the stream at the first voxel.
fn open<T>(
    reader: impl BufRead + Seek,
    file_bytes: u64,
    path: &Path,
    read: impl FnOnce(&mut Stream<&mut dyn BufRead>, &Header, &MetaHeader) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut text = HeaderText::new(reader);
    let header = MetaHeader::read(&mut text)?;
    let file = text.into_voxel_file(file_bytes, header.data_file.as_ref(), path)?;
    open_voxels(file, &header, read)
}

/// Skips to the first voxel of a file.
fn open_voxels<T>(
    file: VoxelFile<'_>,
    meta: &MetaHeader,
    read: impl FnOnce(&mut Stream<&mut dyn BufRead>, &Header, &MetaHeader) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let VoxelFile { mut reader, bytes, header_bytes } = file;
    let header = meta.to_raster_header(header_bytes as usize);
    let skip = meta.header_size.unwrap_or_else(|| bytes.saturating_sub(header.stored_bytes()));
    let Some(mut left) = bytes.checked_sub(skip) else {
        return Err(Fault::read(
            FaultKind::Truncated,
            format!("expected {skip} bytes before the voxels (`HeaderSize`), the file has {bytes}"),
        ));
    };
    skip_bytes(&mut reader, skip)?;
    if let Some(size) = meta.compressed_bytes {
        if size > left {
            return Err(Fault::read(
                FaultKind::Truncated,
                format!("expected {size} bytes of compressed voxels (`CompressedDataSize`), the file has {left}"),
            ));
        }
        left = size;
    }
    let mut reader = reader.take(left);
    let reader: &mut dyn BufRead = &mut reader;
    let mut stream = match meta.is_compressed {
        true => Stream::compressed(reader, left)?,
        false => Stream::plain(reader, left),
    };
    raster::check_length(&stream, &header)?;
    read(&mut stream, &header, meta)
}
