//! Passes voxels to a program and back, as NIfTI.

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

/// Description in headers, without patient data.
const DESCRIPTION: &str = "freetumor";
/// Memory limit for reading the output of a program, in addition to the bytes of its voxels.
const READ_BYTES: u64 = 64 << 20;
/// Maximum bytes of output per voxel of the input, without the header: doubles, or labels on a finer grid.
const OUTPUT_VOXEL_BYTES: u64 = 16;
/// Voxels per encoded block.
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
    /// Writes an image for the program, compressed if the file's name ends in `.gz`.
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
        write().map_err(|error: io::Error| self.write_fault(&error))
    }

    /// Writes a text file for the program.
    pub fn write_text(&self, path: &Path, text: &str) -> Result<(), Fault> {
        std::fs::write(path, text).map_err(|error| self.write_fault(&error))
    }

    fn write_fault(&self, error: &io::Error) -> Fault {
        self.fault(FaultKind::Io, format!("the system cannot write files for the program: {}", error.kind()))
    }

    /// Encodes one image for a pipe.
    pub fn image_bytes(&self, grid: &Grid, values: Values<'_>) -> Result<Vec<u8>, Fault> {
        let header = encode_header(grid, values.datatype(), DESCRIPTION);
        self.bytes(&header.map_err(|fault| self.fault(fault.kind, fault.message))?, &[values])
    }

    /// Encodes several images on one grid for a pipe: the volumes of one image of four axes.
    pub fn series_bytes(&self, grid: &Grid, images: &[&Array3<f32>]) -> Result<Vec<u8>, Fault> {
        let header = encode_series_header(grid, images.len(), Datatype::F32, DESCRIPTION);
        let values: Vec<Values<'_>> = images.iter().map(|image| Values::F32(image.as_slice())).collect();
        self.bytes(&header.map_err(|fault| self.fault(fault.kind, fault.message))?, &values)
    }

    fn bytes(&self, header: &[u8], images: &[Values<'_>]) -> Result<Vec<u8>, Fault> {
        let mut bytes = header.to_vec();
        images.iter().try_for_each(|values| values.write(&mut bytes)).map_err(|error| self.write_fault(&error))?;
        Ok(bytes)
    }

    /// Reads labels that the program wrote.
    pub fn labels(&self, output: OutputFile<'_>, input: &Grid) -> Result<Labels, Fault> {
        let read = match output {
            OutputFile::File(path) => nifti::read_labels_within(path, &read_limits(input)),
            OutputFile::Bytes(bytes) => nifti::read_labels_from(bytes, bytes.len() as u64, &read_limits(input)),
        };
        read.map_err(|fault| self.output_fault("labels", fault))
    }

    /// Reads an image in HU that the program wrote; the image must be on the grid of the program's input.
    pub fn image(&self, output: OutputFile<'_>, input: &Grid) -> Result<Array3<f32>, Fault> {
        let read = match output {
            OutputFile::File(path) => nifti::read_volume_within(path, &read_limits(input)),
            OutputFile::Bytes(bytes) => nifti::read_volume_from(bytes, bytes.len() as u64, &read_limits(input)),
        };
        let Volume { grid, voxels } = read.map_err(|fault| self.output_fault("an image", fault))?;
        self.check_grid(&grid, input)?;
        Ok(voxels.hu_of(input.region()))
    }

    /// Returns a fault if the output is not on the grid of the input.
    pub fn check_grid(&self, output: &Grid, input: &Grid) -> Result<(), Fault> {
        if input.agrees_with(output) {
            return Ok(());
        }
        let message = if input.shape == output.shape {
            "expected an image with the affine of the box from the program, got another affine".to_owned()
        } else {
            format!("expected an image of the box's shape {:?} from the program, got {:?}", input.shape, output.shape)
        };
        Err(self.fault(FaultKind::Mismatch, message))
    }
}

/// The location of a program's output.
#[derive(Clone, Copy)]
pub(super) enum OutputFile<'a> {
    File(&'a Path),
    /// Bytes of standard output.
    Bytes(&'a [u8]),
}

/// Returns the maximum bytes of output for an input on this grid.
pub(super) fn max_output_bytes(input: &Grid) -> u64 {
    (1 << 20) + OUTPUT_VOXEL_BYTES * input.voxels() as u64
}

fn read_limits(input: &Grid) -> nifti::Limits {
    nifti::Limits { held_bytes: READ_BYTES + OUTPUT_VOXEL_BYTES * input.voxels() as u64 }
}

/// Access to the label files that a program wrote to its output folder.
pub(super) struct Outputs<'a> {
    pub folder: &'a Path,
    pub input: &'a Grid,
}

impl Companions for Outputs<'_> {
    fn labels(&self, pattern: &str) -> Result<Labels, Fault> {
        nifti::read_labels_within(self.folder.join(pattern), &read_limits(self.input))
            .map_err(|fault| fault.at(Stage::Mask))
    }
}
