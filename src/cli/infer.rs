//! `freetumor infer`: runs a network on one scan, or on one tensor.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::network::{LoadedNetwork, ModelName, NetworkArgs, ScanPrediction};
use super::print::pluralize;
use super::scan::read_scan;
use crate::error::{Error, Fault, Result};
use crate::ingest::nifti::{Datatype, encode_header, encode_series_header};
use crate::nn::weights::{Precision, write_safetensors};
use crate::sink::volume_files::DEFAULT_GZIP_LEVEL;
use crate::store::write_atomic;
use crate::volume::{Array3, Grid};

/// Run a network on a scan or on a tensor
///
/// A scan is oriented, resampled, windowed and cropped as in pipelines; the network runs on overlapping windows, whose predictions are
/// averaged; the result is on the scan's own grid. A tensor (`input` of a safetensors file, of shape [batch, channel, x, y, z]) is passed
/// through the network once, without preprocessing, and the result is the tensor `output`.
#[derive(Args, Clone, Debug)]
pub struct InferArgs {
    /// The kind of network
    #[arg(long, value_enum)]
    pub model: ModelName,
    /// Weights of the network: safetensors, or a .pt checkpoint
    #[arg(long, value_name = "FILE")]
    pub weights: PathBuf,
    #[command(flatten)]
    network: NetworkArgs,
    /// A NIfTI, NRRD or MetaImage file, a DICOM folder (FOLDER#ID for one of several series), or a safetensors file
    #[arg(long, value_name = "IN")]
    pub input: PathBuf,
    /// Output file: .nii or .nii.gz for a scan, .safetensors for a tensor
    #[arg(long, value_name = "OUT")]
    pub output: PathBuf,
    /// Write the probability of each class, one volume per class, instead of the most probable class
    #[arg(long)]
    pub probabilities: bool,
}

/// Runs the network and returns the exit code.
///
/// # Errors
/// If the options contradict each other, a file cannot be read or written, the weights do not match the network, or the output is not
/// finite.
pub fn infer(args: &InferArgs, stdout: &mut dyn Write) -> Result<u8> {
    let start = Instant::now();
    let is_tensor = has_extension(&args.input, &[".safetensors"]);
    check_output(args, is_tensor)?;
    if !is_tensor {
        args.network.check_windows(args.model, &args.weights)?;
    }
    let network = args.network.open(args.model, &args.weights)?;
    let summary = if is_tensor {
        let logits = network.predictor.forward_file(&args.input)?;
        let summary = format!("{}: output {:?}", args.output.display(), logits.dims());
        let tensors = BTreeMap::from([("output".to_owned(), logits)]);
        let write = |out: &mut dyn Write| write_safetensors(out, &tensors, &BTreeMap::new(), Precision::Single);
        write_atomic(&args.output, write).map_err(|error| Error::io("cannot write", &args.output, error))?;
        summary
    } else {
        segment(args, &network)?
    };
    match writeln!(stdout, "{summary}, {:.1} s", start.elapsed().as_secs_f64()) {
        // A closed pipe is not an error.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::new(format!("cannot print: {error}")).with_source(error))
        }
        _ => Ok(0),
    }
}

fn has_extension(path: &Path, endings: &[&str]) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    endings.iter().any(|ending| name.ends_with(ending))
}

/// Checks the output path before the network runs.
///
/// # Errors
/// If the result cannot be written in the format that the output's name implies.
fn check_output(args: &InferArgs, is_tensor: bool) -> Result<()> {
    let (input, output) = (args.input.display(), args.output.display());
    if is_tensor && !has_extension(&args.output, &[".safetensors"]) {
        return Err(Error::new(format!("--output {output}: the input {input} is a tensor, so the output is a tensor"))
            .with_hint("use an output name that ends in .safetensors, or pass a scan as input"));
    }
    if !is_tensor && !has_extension(&args.output, &[".nii", ".nii.gz"]) {
        return Err(Error::new(format!(
            "--output {output}: the input {input} is a scan, so the output is a NIfTI file"
        ))
        .with_hint("use an output name that ends in .nii.gz, or pass a safetensors file as input"));
    }
    let same = |path: &Path| {
        path.canonicalize().is_ok_and(|path| args.output.canonicalize().is_ok_and(|output| output == path))
    };
    if let Some((flag, _)) =
        [("--input", &args.input), ("--weights", &args.weights)].iter().find(|(_, path)| same(path))
    {
        return Err(Error::new(format!("--output {output} is also the file of {flag}, which would be overwritten"))
            .with_hint("pass another output file"));
    }
    let folder = parent_folder(&args.output);
    if folder.is_dir() {
        return Ok(());
    }
    Err(Error::new(format!("--output {output}: there is no folder {}", folder.display()))
        .with_hint("create the folder first"))
}

fn parent_folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes the labels or probabilities of a scan on its own grid; returns a summary.
fn segment(args: &InferArgs, network: &LoadedNetwork) -> Result<String> {
    let classes = network.predictor.config().classes;
    if classes < 2 && !args.probabilities {
        return Err(Error::new("a network of one class predicts no labels")
            .with_hint("write the probability of the class with --probabilities, or run the network on a tensor"));
    }
    let scan = read_scan(&args.input)?;
    let prediction = args.network.infer(network, &scan, &args.input)?;
    let summary = if args.probabilities {
        write_probabilities(&args.output, &prediction)?;
        format!("probabilities of {}", if classes == 1 { "1 class".to_owned() } else { format!("{classes} classes") })
    } else {
        let labels = prediction.labels();
        write_labels(&args.output, &scan.grid, &labels, classes)?;
        let labeled = labels.as_slice().iter().filter(|id| **id > 0).count();
        format!("{classes} classes, {labeled} of {} voxels labeled", labels.as_slice().len())
    };
    Ok(format!("{}: {summary}, {}", args.output.display(), pluralize(prediction.windows, "window")))
}

fn write_probabilities(path: &Path, prediction: &ScanPrediction) -> Result<()> {
    let header =
        encode_series_header(&prediction.grid(), prediction.num_classes(), Datatype::F32, "probabilities, freetumor");
    write_nifti(path, &header.map_err(write_error)?, |out| {
        for class in prediction.classes() {
            write_numbers(out, class.as_slice(), |number| number.to_le_bytes())?;
        }
        Ok(())
    })
}

fn write_error(fault: Fault) -> Error {
    Error::new(format!("cannot write the result: {}", fault.message)).with_source(fault)
}

fn write_labels(path: &Path, grid: &Grid, labels: &Array3<u16>, classes: usize) -> Result<()> {
    let is_small = classes <= 1 << 8;
    let datatype = if is_small { Datatype::U8 } else { Datatype::U16 };
    let header = encode_header(grid, datatype, "labels of a network, freetumor").map_err(write_error)?;
    write_nifti(path, &header, |out| match is_small {
        true => write_numbers(out, labels.as_slice(), |id| [id as u8]),
        false => write_numbers(out, labels.as_slice(), |id| id.to_le_bytes()),
    })
}

fn write_numbers<T: Copy, const N: usize>(
    out: &mut dyn Write,
    numbers: &[T],
    to_bytes: impl Fn(T) -> [u8; N],
) -> std::io::Result<()> {
    for block in numbers.chunks(1 << 16) {
        out.write_all(&block.iter().flat_map(|number| to_bytes(*number)).collect::<Vec<u8>>())?;
    }
    Ok(())
}

/// Writes a file atomically.
fn write_nifti(path: &Path, header: &[u8], voxels: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let fill = |file: &mut dyn Write| {
        if !has_extension(path, &[".gz"]) {
            file.write_all(header)?;
            return voxels(file);
        }
        let mut out = GzEncoder::new(file, Compression::new(DEFAULT_GZIP_LEVEL));
        out.write_all(header)?;
        voxels(&mut out)?;
        out.finish().map(|_| ())
    };
    write_atomic(path, fill).map_err(|error| Error::io("cannot write", path, error))
}
