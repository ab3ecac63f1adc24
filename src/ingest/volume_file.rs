//! Scans and label maps in one file: NIfTI, NRRD and MetaImage, recognized by content and not by name.
//!
//! ```
//! use freetumor::ingest::volume_file;
//!
//! let path = std::env::temp_dir().join(format!("freetumor-{}.mha", std::process::id()));
//! let header = "ObjectType = Image\nNDims = 3\nElementSpacing = 0.75 0.75 5\nDimSize = 2 1 1\nElementType = MET_SHORT\n\
//!     ElementDataFile = LOCAL\n";
//! let voxels: Vec<u8> = [-1000i16, 40].iter().flat_map(|hu| hu.to_le_bytes()).collect();
//! std::fs::write(&path, [header.as_bytes(), &voxels].concat())?;
//!
//! let volume = volume_file::read_volume(&path)?;
//! assert_eq!(volume.grid.spacing_mm(), [0.75, 0.75, 5.0]);
//! assert_eq!(volume.voxels.hu(1), 40.0);
//! # std::fs::remove_file(&path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::file::open_regular;
use super::format::{Format, START_BYTES};
use super::raster::{FILE_BLOCK_BYTES, Limits};
use super::{ScanHeader, metaimage, nifti, nrrd};
use crate::error::{Fault, FaultKind};
use crate::ingest::version::FileState;
use crate::volume::{Labels, Volume};

/// Endings of files whose header may name a data file.
const HEADER_ENDINGS: [&str; 4] = ["nhdr", "nrrd", "mhd", "mha"];

/// The files and folders that are read, in the messages of faults.
const READ_FORMATS: &str = "a NIfTI, NRRD or MetaImage file or a DICOM folder";

/// Reads the header of a scan and checks that the file can contain its voxels; no voxel is decoded.
///
/// # Errors
/// Returns every fault of [`read_volume`] that the header shows.
pub fn read_header(path: impl AsRef<Path>) -> Result<ScanHeader, Fault> {
    let path = path.as_ref();
    let (file, bytes, format) = open(path)?;
    match format {
        VolumeFormat::Nifti => nifti::read_header_from(file, bytes),
        VolumeFormat::Nrrd => nrrd::read_header(file, bytes, path),
        VolumeFormat::MetaImage => metaimage::read_header(file, bytes, path),
    }
}

/// Reads a scan in HU, with default [`Limits`].
///
/// # Errors
/// See [`read_volume_within`].
pub fn read_volume(path: impl AsRef<Path>) -> Result<Volume, Fault> {
    read_volume_within(path, &Limits::default())
}

/// Reads a scan in HU. The voxels are i16 if every voxel is an integer in the range of i16, otherwise f32.
///
/// # Errors
/// Returns `missing` or `io` if the file, or its data file, cannot be opened; `unsupported` for another format, which the message names,
/// and for contents that are not one volume of numbers; `truncated`, `corrupt`, `geometry`, `non_finite` and `too_large` as
/// [`nifti::read_volume_from`] in every format.
pub fn read_volume_within(path: impl AsRef<Path>, limits: &Limits) -> Result<Volume, Fault> {
    let path = path.as_ref();
    let (file, bytes, format) = open(path)?;
    match format {
        VolumeFormat::Nifti => nifti::read_volume_from(file, bytes, limits),
        VolumeFormat::Nrrd => nrrd::read_volume(file, bytes, path, limits),
        VolumeFormat::MetaImage => metaimage::read_volume(file, bytes, path, limits),
    }
}

/// Reads a label map, with default [`Limits`].
///
/// # Errors
/// See [`read_labels_within`].
pub fn read_labels(path: impl AsRef<Path>) -> Result<Labels, Fault> {
    read_labels_within(path, &Limits::default())
}

/// Reads a label map. Floats are accepted within 0.001 of a whole number, which is the label.
///
/// # Errors
/// Returns the faults of [`read_volume_within`], and `unsupported` for values that are not integers in 0..65535.
pub fn read_labels_within(path: impl AsRef<Path>, limits: &Limits) -> Result<Labels, Fault> {
    let path = path.as_ref();
    let (file, bytes, format) = open(path)?;
    match format {
        VolumeFormat::Nifti => nifti::read_labels_from(file, bytes, limits),
        VolumeFormat::Nrrd => nrrd::read_labels(file, bytes, path, limits),
        VolumeFormat::MetaImage => metaimage::read_labels(file, bytes, path, limits),
    }
}

/// Reads the names of labels by id that a label map states; empty for a format that states none.
///
/// # Errors
/// See [`read_header`].
pub fn read_label_names(path: impl AsRef<Path>) -> Result<BTreeMap<u16, String>, Fault> {
    let (file, bytes, format) = open(path.as_ref())?;
    match format {
        VolumeFormat::Nifti => nifti::read_label_names_from(file, bytes),
        VolumeFormat::Nrrd => nrrd::read_label_names(file),
        VolumeFormat::MetaImage => Ok(BTreeMap::new()),
    }
}

/// Looks for damage of a scan: checks its header, and reads the voxels of a compressed file whose last bytes are not the length that
/// the header requires, such as a file that was copied in part.
///
/// # Errors
/// See [`read_volume_within`].
pub(super) fn check(path: &Path, limits: &Limits) -> Result<(), Fault> {
    read_header(path)?;
    let (file, bytes, format) = open(path)?;
    let content_bytes = match format {
        VolumeFormat::Nifti => nifti::gzip_content_bytes(file, bytes)?,
        VolumeFormat::Nrrd => nrrd::gzip_content_bytes(file, bytes, path)?,
        // The header of a compressed file has the number of compressed bytes.
        VolumeFormat::MetaImage => None,
    };
    match content_bytes {
        // A file of several gzip members ends with the length of the last one: reading the file shows whether it is complete.
        Some(content_bytes)
            if length_at_end(&data_file(path).unwrap_or_else(|| path.to_owned()))? != content_bytes as u32 =>
        {
            read_volume_within(path, limits).map(drop)
        }
        _ => Ok(()),
    }
}

/// Returns the last four bytes of a file: in gzip, the decompressed length modulo 2³² (RFC 1952, section 2.3.1).
fn length_at_end(path: &Path) -> Result<u32, Fault> {
    let (mut file, _) = open_regular(path)?;
    let mut length = [0; 4];
    file.seek(SeekFrom::End(-4))
        .and_then(|_| file.read_exact(&mut length))
        .map_err(|error| Fault::read(FaultKind::Io, format!("the system cannot read the file: {}", error.kind())))?;
    Ok(u32::from_le_bytes(length))
}

/// Returns the states of a file and of the data file that its header names, or of the files below a folder.
pub(super) fn file_states(path: &Path) -> Vec<FileState> {
    let mut states = FileState::of_path(path);
    states.extend(named_data_file(path).map(|path| FileState::of(&path)));
    states
}

/// Returns the path of the data file of a scan as [`data_file`] does, or `None`; opens only files whose ending allows a data file.
pub(super) fn named_data_file(path: &Path) -> Option<PathBuf> {
    may_name_data_file(path).then(|| data_file(path)).flatten()
}

/// Returns whether the ending of a file allows a data file.
pub(super) fn may_name_data_file(path: &Path) -> bool {
    let is_header = |ending: &OsStr| HEADER_ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known));
    path.extension().is_some_and(is_header)
}

/// Returns the path of the data file of a scan, or `None` if `path` is not a readable header whose voxels are in another file.
pub(super) fn data_file(path: &Path) -> Option<PathBuf> {
    let (file, _, format) = open(path).ok()?;
    let data_file = match format {
        VolumeFormat::Nifti => None,
        VolumeFormat::Nrrd => nrrd::data_file(file).ok()?,
        VolumeFormat::MetaImage => metaimage::data_file(file).ok()?,
    };
    Some(path.with_file_name(data_file?.name()))
}

/// A format that is read.
enum VolumeFormat {
    Nifti,
    Nrrd,
    MetaImage,
}

/// Opens a file and recognizes its format; returns the file at its first byte, and its length in bytes.
fn open(path: &Path) -> Result<(BufReader<File>, u64, VolumeFormat), Fault> {
    let (file, bytes) = open_regular(path)?;
    let mut file = BufReader::with_capacity(FILE_BLOCK_BYTES, file);
    let start = file
        .fill_buf()
        .map_err(|error| Fault::read(FaultKind::Io, format!("the system cannot read the file: {}", error.kind())))?;
    let start = &start[..start.len().min(START_BYTES)];
    let format = match Format::of(start) {
        Format::Nifti => VolumeFormat::Nifti,
        Format::Nrrd => VolumeFormat::Nrrd,
        Format::MetaImage => VolumeFormat::MetaImage,
        // The reader of NIfTI has the fault of a file that is empty or too short.
        Format::Unknown if start.len() < 4 => VolumeFormat::Nifti,
        Format::Unknown => {
            let bytes = start[..4].escape_ascii();
            return Err(other_format(FaultKind::Corrupt, &format!("a file that starts with the bytes `{bytes}`")));
        }
        Format::Text => return Err(other_format(FaultKind::Corrupt, "a text file")),
        Format::Dicom => {
            return Err(other_format(FaultKind::Unsupported, "a DICOM file: use the folder of its slices instead"));
        }
        Format::Other(name) => return Err(other_format(FaultKind::Unsupported, name)),
    };
    Ok((file, bytes, format))
}

fn other_format(kind: FaultKind, name: &str) -> Fault {
    Fault::read(kind, format!("expected {READ_FORMATS}, got {name}"))
}
