//! NRRD files: `.nrrd` with the voxels after the header, and `.nhdr` with the voxels in a data file.
//!
//! Read are three-dimensional volumes of one number per voxel, of every integer and float type and both byte orders, raw or as gzip, with
//! their position in the patient: `space`, `space directions` and `space origin`. A file without them, such as one with `spacings` only, is
//! a fault, because the sides of the patient are unknown. The data file must be in the folder of its header.
//!
//! # Source
//! Definition of NRRD File Format, <https://teem.sourceforge.net/nrrd/format.html>.

mod fields;
mod header;

use std::collections::BTreeMap;
use std::io::{BufRead, Seek};
use std::path::Path;

use self::header::{NrrdHeader, Skip};
use super::ScanHeader;
use super::raster::{self, DataFile, Header, HeaderText, Limits, Stream, VoxelFile, skip_bytes};
use crate::error::{Fault, FaultKind};
use crate::volume::{Labels, Volume};

/// The first bytes of every NRRD file.
pub(super) const MAGIC: &[u8] = b"NRRD";

/// Reads the header of the file at `path`; `reader` reads the `file_bytes` bytes of the file.
pub(super) fn read_header(reader: impl BufRead + Seek, file_bytes: u64, path: &Path) -> Result<ScanHeader, Fault> {
    open(reader, file_bytes, path, |_, header| Ok(raster::scan_header(header)))
}

/// Reads the scan of the file at `path`; `reader` reads the `file_bytes` bytes of the file.
pub(super) fn read_volume(
    reader: impl BufRead + Seek,
    file_bytes: u64,
    path: &Path,
    limits: &Limits,
) -> Result<Volume, Fault> {
    open(reader, file_bytes, path, |stream, header| raster::read_volume(stream, header, limits))
}

/// Reads the label map of the file at `path`; `reader` reads the `file_bytes` bytes of the file.
pub(super) fn read_labels(
    reader: impl BufRead + Seek,
    file_bytes: u64,
    path: &Path,
    limits: &Limits,
) -> Result<Labels, Fault> {
    open(reader, file_bytes, path, |stream, header| raster::read_labels(stream, header, limits))
}

/// Reads the names of labels by id, which 3D Slicer stores as key/value pairs: `Segment0_Name:=liver`, `Segment0_LabelValue:=1`.
pub(super) fn read_label_names(reader: impl BufRead) -> Result<BTreeMap<u16, String>, Fault> {
    let mut text = HeaderText::new(reader);
    let (mut names, mut ids) = (BTreeMap::new(), BTreeMap::new());
    while let Some(line) = text.line()?.filter(|line| !line.is_empty()) {
        let pair = line.split_once(":=").and_then(|(key, value)| Some((key.split_once('_')?, value.trim())));
        match pair {
            Some(((segment, "Name"), name)) => drop(names.insert(segment.to_owned(), name.to_owned())),
            Some(((segment, "LabelValue"), id)) => drop(ids.insert(segment.to_owned(), id.parse().unwrap_or(0))),
            _ => {}
        }
    }
    let named = ids.into_iter().filter_map(|(segment, id)| Some((id, names.remove(&segment)?)));
    Ok(named.filter(|(id, name)| *id > 0 && !name.is_empty()).collect())
}

/// Returns the name of the data file of a header, or `None` if the voxels follow the header.
pub(super) fn data_file(reader: impl BufRead) -> Result<Option<DataFile>, Fault> {
    Ok(NrrdHeader::read(&mut HeaderText::new(reader))?.data_file)
}

/// Returns the decompressed bytes up to the end of the voxels, or `None` if they are not compressed.
pub(super) fn gzip_content_bytes(
    reader: impl BufRead + Seek,
    file_bytes: u64,
    path: &Path,
) -> Result<Option<u64>, Fault> {
    open(reader, file_bytes, path, |stream, header| {
        Ok(stream.is_compressed().then(|| header.voxel_offset.saturating_add(header.stored_bytes())))
    })
}

/// Parses the header and calls `read` with the stream at the first voxel.
fn open<T>(
    reader: impl BufRead + Seek,
    file_bytes: u64,
    path: &Path,
    read: impl FnOnce(&mut Stream<&mut dyn BufRead>, &Header) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut text = HeaderText::new(reader);
    let header = NrrdHeader::read(&mut text)?;
    let file = text.into_voxel_file(file_bytes, header.data_file.as_ref(), path)?;
    open_voxels(file, &header, read)
}

/// Skips to the first voxel of a file.
fn open_voxels<T>(
    file: VoxelFile<'_>,
    header: &NrrdHeader,
    read: impl FnOnce(&mut Stream<&mut dyn BufRead>, &Header) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let VoxelFile { reader, bytes, header_bytes } = file;
    let mut lines = HeaderText::new(reader);
    for _ in 0..header.line_skip {
        if lines.line()?.is_none() {
            let message = format!("expected {} lines before the voxels (`line skip`), got fewer", header.line_skip);
            return Err(Fault::read(FaultKind::Truncated, message));
        }
    }
    let mut left = bytes.saturating_sub(lines.position());
    let mut reader = lines.into_reader();
    let stored_bytes = header.stored_bytes();
    let skip = match header.byte_skip {
        Skip::Bytes(skip) => skip,
        Skip::ToVoxelsAtEnd => {
            let skip = left.saturating_sub(stored_bytes);
            skip_bytes(&mut reader, skip)?;
            left -= skip;
            0
        }
    };
    let reader: &mut dyn BufRead = &mut reader;
    let mut stream = match header.is_gzip {
        true => Stream::compressed(reader, left)?,
        false => Stream::plain(reader, left),
    };
    let header = header.to_raster_header(skip, header_bytes as usize);
    raster::check_length(&stream, &header)?;
    stream.skip(skip, "the bytes before the voxels (`byte skip`)")?;
    read(&mut stream, &header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_segments_are_read_by_label_value() {
        let header = "NRRD0004\ntype: unsigned char\nSegment0_ID:=Segment_1\nSegment0_LabelValue:=7\nSegment0_Name:=aorta\n\
            Segment0_NameAutoGenerated:=0\nSegment1_Name:=pancreas\nSegment1_LabelValue:=10\nSegment2_Name:=no id\n\nSegment3_Name:=voxels\n";
        let names = read_label_names(header.as_bytes()).unwrap();
        assert_eq!(names, BTreeMap::from([(7, "aorta".to_owned()), (10, "pancreas".to_owned())]));
    }
}
