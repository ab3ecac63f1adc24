//! Voxels on their way to a program and back, as NIfTI.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::program::Program;
use crate::error::{Fault, FaultKind, Stage};
use crate::ingest::Companions;
use crate::ingest::nifti::{self, Datatype, encode_header, encode_series_header};
use crate::volume::{Array3, Grid, Labels, Volume, Voxels};

/// Says what the file is, and nothing of the patient.
const DESCRIPTION: &str = "freetumor";
/// What reading may hold beside some bytes a voxel.
const READING_BYTES: u64 = 64 << 20;
/// Most bytes that a voxel of an answer takes, header aside: doubles, or labels on a finer grid.
const ANSWER_VOXEL_BYTES: u64 = 16;
/// Voxels that are encoded at once.
const BLOCK: usize = 1 << 15;

/// Values of one image.
#[derive(Clone, Copy)]
pub(super) enum Values<'a> {
    /// HU, or merged labels.
    I16(&'a [i16]),
    F32(&'a [f32]),
    U8(&'a [u8]),
}

impl<'a> From<&'a Voxels> for Values<'a> {
    fn from(voxels: &'a Voxels) -> Self {
        match voxels {
            Voxels::I16(array) => Self::I16(array.as_slice()),
            Voxels::F32(array) => Self::F32(array.as_slice()),
        }
    }
}

impl Values<'_> {
    fn datatype(self) -> Datatype {
        match self {
            Self::I16(_) => Datatype::I16,
            Self::F32(_) => Datatype::F32,
            Self::U8(_) => Datatype::U8,
        }
    }

    fn write(self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::I16(values) => blocks(out, values, |value| value.to_le_bytes()),
            Self::F32(values) => blocks(out, values, |value| value.to_le_bytes()),
            Self::U8(values) => out.write_all(values),
        }
    }
}

fn blocks<T: Copy, const N: usize>(out: &mut dyn Write, values: &[T], bytes: fn(T) -> [u8; N]) -> io::Result<()> {
    let mut block = Vec::with_capacity(N * BLOCK.min(values.len()));
    for part in values.chunks(BLOCK) {
        block.clear();
        part.iter().for_each(|&value| block.extend_from_slice(&bytes(value)));
        out.write_all(&block)?;
    }
    Ok(())
}

impl Program {
    /// Writes an image for the program: compressed where the file's name ends in `.gz`.
    pub fn write_image(&self, path: &Path, grid: &Grid, values: Values<'_>) -> Result<(), Fault> {
        let header = encode_header(grid, values.datatype(), DESCRIPTION)
            .map_err(|fault| self.fault(fault.kind, fault.message))?;
        let write = || {
            let mut file = BufWriter::new(File::create_new(path)?);
            if path.extension().is_some_and(|extension| extension == "gz") {
                let mut packed = GzEncoder::new(file, Compression::fast());
                packed.write_all(&header)?;
                values.write(&mut packed)?;
                return packed.finish()?.flush();
            }
            file.write_all(&header)?;
            values.write(&mut file)?;
            file.flush()
        };
        write().map_err(|error: io::Error| self.unwritten(&error))
    }

    /// Writes a text for the program.
    pub fn write_text(&self, path: &Path, text: &str) -> Result<(), Fault> {
        std::fs::write(path, text).map_err(|error| self.unwritten(&error))
    }

    fn unwritten(&self, error: &io::Error) -> Fault {
        self.fault(FaultKind::Io, format!("the system cannot write files for the program: {}", error.kind()))
    }

    /// One image as it goes over a pipe.
    pub fn image_bytes(&self, grid: &Grid, values: Values<'_>) -> Result<Vec<u8>, Fault> {
        let header = encode_header(grid, values.datatype(), DESCRIPTION);
        self.bytes(&header.map_err(|fault| self.fault(fault.kind, fault.message))?, &[values])
    }

    /// Several images on one grid as they go over a pipe: the volumes of one image of four axes.
    pub fn series_bytes(&self, grid: &Grid, images: &[&Array3<f32>]) -> Result<Vec<u8>, Fault> {
        let header = encode_series_header(grid, images.len(), Datatype::F32, DESCRIPTION);
        let values: Vec<Values<'_>> = images.iter().map(|image| Values::F32(image.as_slice())).collect();
        self.bytes(&header.map_err(|fault| self.fault(fault.kind, fault.message))?, &values)
    }

    fn bytes(&self, header: &[u8], images: &[Values<'_>]) -> Result<Vec<u8>, Fault> {
        let mut bytes = header.to_vec();
        images.iter().try_for_each(|values| values.write(&mut bytes)).map_err(|error| self.unwritten(&error))?;
        Ok(bytes)
    }

    /// The labels that the program gave.
    pub fn labels(&self, answer: OutputFile<'_>, given: &Grid) -> Result<Labels, Fault> {
        let read = match answer {
            OutputFile::File(path) => nifti::read_labels_within(path, &reading(given)),
            OutputFile::Bytes(bytes) => nifti::read_labels_from(bytes, bytes.len() as u64, &reading(given)),
        };
        read.map_err(|fault| self.in_answer("labels", fault))
    }

    /// HU that the program gave, on the grid that it was given.
    pub fn image(&self, answer: OutputFile<'_>, given: &Grid) -> Result<Array3<f32>, Fault> {
        let read = match answer {
            OutputFile::File(path) => nifti::read_volume_within(path, &reading(given)),
            OutputFile::Bytes(bytes) => nifti::read_volume_from(bytes, bytes.len() as u64, &reading(given)),
        };
        let Volume { grid, voxels } = read.map_err(|fault| self.in_answer("an image", fault))?;
        self.same_grid(&grid, given)?;
        Ok(voxels.hu_of(given.region()))
    }

    /// Refuses an answer on another grid.
    pub fn same_grid(&self, answer: &Grid, given: &Grid) -> Result<(), Fault> {
        if given.agrees_with(answer) {
            return Ok(());
        }
        let message = if given.shape == answer.shape {
            "the program's answer lies elsewhere than the box that it was given: keep its affine".to_owned()
        } else {
            format!("expected an answer of the box's shape {:?} of the program, got {:?}", given.shape, answer.shape)
        };
        Err(self.fault(FaultKind::Mismatch, message))
    }
}

/// Where an answer is.
#[derive(Clone, Copy)]
pub(super) enum OutputFile<'a> {
    File(&'a Path),
    /// What came over the pipe.
    Bytes(&'a [u8]),
}

/// Most bytes of an image that answers one on this grid.
pub(super) fn answer_bytes(given: &Grid) -> u64 {
    (1 << 20) + ANSWER_VOXEL_BYTES * given.voxels() as u64
}

fn reading(given: &Grid) -> nifti::Limits {
    nifti::Limits { held_bytes: READING_BYTES + ANSWER_VOXEL_BYTES * given.voxels() as u64 }
}

/// The files of an output folder, as if they lay beside the scan.
pub(super) struct Outputs<'a> {
    pub folder: &'a Path,
    pub given: &'a Grid,
}

impl Companions for Outputs<'_> {
    fn labels(&self, pattern: &str) -> Result<Labels, Fault> {
        nifti::read_labels_within(self.folder.join(pattern), &reading(self.given))
            .map_err(|fault| fault.at(Stage::Mask))
    }
}
