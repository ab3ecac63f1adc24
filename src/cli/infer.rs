//! `freetumor infer`: what a network makes of one scan, or of one tensor.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::{Args, ValueEnum};
use flate2::Compression;
use flate2::write::GzEncoder;
use indicatif::ProgressBar;

use super::scan::{read_scan, triple, window};
use crate::error::{Error, Fault, Result, Stage};
use crate::ingest::nifti::{Datatype, encode_header, encode_series_header};
use crate::nn::device::Place;
use crate::nn::network::Model;
use crate::nn::ops::Over;
use crate::nn::predictor::{Predictor, Wanted};
use crate::nn::service::Service;
use crate::nn::weights::Part;
use crate::nn::windows::{Grouping, Importance, SlidingWindows, WindowPlan};
use crate::sink::nifti::DEFAULT_GZIP_LEVEL;
use crate::view::{NetworkConfig, OnScan, Viewer};
use crate::volume::{Array3, Grid, HuWindow, Preprocess};

/// Run a network on a scan or on a tensor
///
/// A scan is oriented, resampled, windowed and cropped as pipelines do it; overlapping windows of it go through the
/// network and are averaged; the result lies on the scan's own grid. A tensor (`input` of a safetensors file, of shape
/// [batch, channel, x, y, z]) goes through the network once, as it is, and becomes `output`.
#[derive(Args, Clone, Debug)]
pub struct InferArgs {
    /// The kind of network
    #[arg(long, value_enum)]
    pub model: ModelName,
    /// Its weights: safetensors, or a .pt checkpoint
    #[arg(long, value_name = "FILE")]
    pub weights: PathBuf,
    /// Which network, where the file holds several
    #[arg(long, value_enum)]
    pub part: Option<PartName>,
    /// Channels of the network's output [default: what the weights have]
    #[arg(long, value_name = "N")]
    pub classes: Option<usize>,
    /// Features where the network is narrowest [default: what the weights have]
    #[arg(long, value_name = "W")]
    pub width: Option<usize>,
    /// Over what the norms of a U-Net take their statistics; it matters for tensors of several samples [default: batch]
    #[arg(long, value_enum)]
    pub norm: Option<NormName>,
    /// Voxels of a window: one number, or three with commas between them
    #[arg(long, value_name = "N|X,Y,Z", default_value = "96", value_parser = triple::<usize>)]
    pub roi: Triple<usize>,
    /// How much of a window the next one shares
    #[arg(long, default_value_t = 0.5)]
    pub overlap: f64,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu)]
    pub device: DeviceName,
    /// A NIfTI file, a DICOM folder (FOLDER#ID for one of several series), or a safetensors file
    #[arg(long, value_name = "IN")]
    pub input: PathBuf,
    /// Where to write: .nii or .nii.gz for a scan, .safetensors for a tensor
    #[arg(long, value_name = "OUT")]
    pub output: PathBuf,
    /// Write how probable each class is, a volume each, in place of the likeliest class
    #[arg(long)]
    pub probabilities: bool,
    /// HU that become 0 and 1
    #[arg(long, value_name = "LOW,HIGH", default_value = "-175,250", allow_hyphen_values = true, value_parser = window)]
    pub window: HuWindow,
    /// Millimetres between the voxels that the network sees
    #[arg(long, value_name = "MM|X,Y,Z", default_value = "1.5", value_parser = triple::<f64>)]
    pub spacing: Triple<f64>,
}

/// Three numbers, along [x, y, z].
pub type Triple<T> = [T; 3];

/// The kinds of networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModelName {
    /// The 3-D U-Net of generator and discriminator.
    #[value(name = "unet3d")]
    UNet3d,
    /// Swin UNETR, second version: the segmentor.
    #[value(name = "swin_unetr")]
    SwinUnetr,
}

/// The networks that training saves together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PartName {
    /// What is under `netG`.
    Generator,
    /// What is under `netD`.
    Discriminator,
    /// What is under `netSeg`.
    Segmentor,
}

/// Over what norms take their statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NormName {
    /// Over all samples of a batch, as published.
    Batch,
    /// Over each sample by itself.
    Instance,
}

/// Where networks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceName {
    /// The processor, all its threads.
    Cpu,
    /// The first NVIDIA card, in a build with CUDA.
    Cuda,
}

impl DeviceName {
    /// The device of that name.
    pub fn place(self) -> Place {
        match self {
            Self::Cpu => Place::Cpu,
            Self::Cuda => Place::Cuda,
        }
    }
}

/// Runs the network and gives the exit code.
///
/// # Errors
/// Where the options contradict each other, a file cannot be read or written, the weights do not fit, or the network
/// gives no numbers.
pub fn infer(args: &InferArgs, stdout: &mut dyn Write) -> Result<u8> {
    let start = Instant::now();
    let is_tensor = named(&args.input, &[".safetensors"]);
    check_output(args, is_tensor)?;
    let model = match args.model {
        ModelName::UNet3d => Model::UNet3D,
        ModelName::SwinUnetr => Model::SwinUnetr,
    };
    let part = match args.part {
        None => Part::Whole,
        Some(PartName::Generator) => Part::Generator,
        Some(PartName::Discriminator) => Part::Discriminator,
        Some(PartName::Segmentor) => Part::Segmentor,
    };
    let norm = match (args.norm, model) {
        (Some(NormName::Batch), Model::SwinUnetr) => {
            return Err(Error::new("--norm batch: swin_unetr has norms per instance").with_hint("leave --norm out"));
        }
        (Some(NormName::Batch), Model::UNet3D) => Some(Over::Batch),
        (Some(NormName::Instance), _) => Some(Over::Instance),
        (None, _) => None,
    };
    let place = args.device.place();
    let divisor = model.side_divisor();
    if !is_tensor && args.roi.iter().any(|side| *side == 0 || side % divisor > 0) {
        return Err(Error::new(format!("--roi {:?}: {model} takes sides that are multiples of {divisor}", args.roi))
            .with_hint(format!("for example --roi {}", args.roi[0].next_multiple_of(divisor).max(divisor))));
    }
    let wanted = Wanted { model, part, classes: args.classes, width: args.width, norm };
    let service = Service::new(place, 1);
    let predictor = Predictor::open(&args.weights, &wanted, &service.device()?)?;
    let said = if is_tensor {
        let shape = predictor.forward_file(&args.input, &args.output)?;
        format!("{}: output {shape:?}", args.output.display())
    } else {
        segment(args, predictor, service)?
    };
    match writeln!(stdout, "{said}, {:.1} s", start.elapsed().as_secs_f64()) {
        // Whoever reads the pipe has seen enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::new(format!("cannot print: {error}")).with_source(error))
        }
        _ => Ok(0),
    }
}

fn named(path: &Path, endings: &[&str]) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    endings.iter().any(|ending| name.ends_with(ending))
}

/// # Errors
/// Where the result could not be written as the output's name says: before the work, not after it.
fn check_output(args: &InferArgs, is_tensor: bool) -> Result<()> {
    let (input, output) = (args.input.display(), args.output.display());
    if is_tensor && !named(&args.output, &[".safetensors"]) {
        return Err(Error::new(format!("--output {output}: the input {input} is a tensor, and so is the result"))
            .with_hint("name the output .safetensors, or give a NIfTI file or a DICOM folder"));
    }
    if !is_tensor && !named(&args.output, &[".nii", ".nii.gz"]) {
        return Err(Error::new(format!("--output {output}: the input {input} is a scan, and so is the result"))
            .with_hint("name the output .nii.gz, or give a safetensors file"));
    }
    let folder = folder(&args.output);
    if folder.is_dir() {
        return Ok(());
    }
    Err(Error::new(format!("--output {output}: there is no folder {}", folder.display())).with_hint("make it first"))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// From scan to labels or probabilities on its own grid; gives a word on what was done.
fn segment(args: &InferArgs, predictor: Predictor, service: Arc<Service>) -> Result<String> {
    let classes = predictor.config().classes;
    if classes < 2 && !args.probabilities {
        return Err(Error::new("a network of one class has no labels to choose from")
            .with_hint("run it on a tensor: --input FILE.safetensors"));
    }
    let preprocess = Preprocess::new(args.spacing, args.window, args.roi).map_err(|complaints| {
        let message = complaints.first().map_or(String::new(), |it| format!("{}: {}", it.field, it.message));
        Error::new(message)
    })?;
    let scan = read_scan(&args.input)?;
    let failed = |fault: Fault| Error::new(format!("{}: {}", args.input.display(), fault.message)).with_source(fault);
    let prepared = preprocess.apply(&scan, None).map_err(failed)?;
    let plan = WindowPlan::new(prepared.image.shape(), args.roi, [args.overlap; 3])?;
    let windows = SlidingWindows { plan, importance: Importance::Constant, grouping: Grouping::Alone };
    let scanned = [0, 1, 2].map(|axis| prepared.scanned.start[axis]..prepared.scanned.end()[axis]);
    let calls = windows.calls(1, &scanned);
    // Drawn on a terminal only.
    let bar = ProgressBar::new(calls as u64);
    let viewer = Viewer::new(Arc::new(predictor), NetworkConfig::new(&args.weights), service, String::new());
    let logits = viewer.look_at_all(Stage::Mask, &prepared, &windows, || bar.inc(1)).map_err(|fault| {
        bar.abandon();
        failed(fault).with_hint("are weights and input of one kind?")
    })?;
    bar.finish_and_clear();
    let probabilities = OnScan::softmax(logits);
    let on_scan = OnScan::new(&scan.grid, &prepared).map_err(failed)?;
    let said = if args.probabilities {
        write_probabilities(&args.output, &on_scan, probabilities)?;
        format!("{classes} probabilities")
    } else {
        let labels = on_scan.labels(probabilities);
        write_labels(&args.output, &scan.grid, &labels, classes)?;
        let labelled = labels.as_slice().iter().filter(|id| **id > 0).count();
        format!("{classes} classes, {labelled} of {} voxels labelled", labels.as_slice().len())
    };
    Ok(format!("{}: {said}, {calls} windows", args.output.display()))
}

fn write_probabilities(path: &Path, on_scan: &OnScan, probabilities: Vec<Array3<f32>>) -> Result<()> {
    let header =
        encode_series_header(&on_scan.grid(), probabilities.len(), Datatype::F32, "probabilities, freetumor");
    write_nifti(path, &header.map_err(unwritable)?, |out| {
        for class in on_scan.classes(probabilities) {
            write_numbers(out, class.as_slice(), |number| number.to_le_bytes())?;
        }
        Ok(())
    })
}

fn unwritable(fault: Fault) -> Error {
    Error::new(format!("the result cannot be written: {}", fault.message)).with_source(fault)
}

fn write_labels(path: &Path, grid: &Grid, labels: &Array3<u16>, classes: usize) -> Result<()> {
    let is_small = classes <= 1 << 8;
    let datatype = if is_small { Datatype::U8 } else { Datatype::U16 };
    let header = encode_header(grid, datatype, "labels of a network, freetumor").map_err(unwritable)?;
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

/// Writes a file that is there whole or not at all.
fn write_nifti(path: &Path, header: &[u8], voxels: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let write = || {
        let staged = tempfile::Builder::new().prefix(".infer-").tempfile_in(folder(path))?;
        let mut file = BufWriter::new(staged.as_file());
        if named(path, &[".gz"]) {
            let mut out = GzEncoder::new(&mut file, Compression::new(DEFAULT_GZIP_LEVEL));
            out.write_all(header)?;
            voxels(&mut out)?;
            out.finish()?;
        } else {
            file.write_all(header)?;
            voxels(&mut file)?;
        }
        file.flush()?;
        drop(file);
        staged.as_file().sync_all()?;
        staged.persist(path).map_err(|error| error.error)?;
        File::open(folder(path))?.sync_all()
    };
    write().map_err(|error| Error::io("cannot write", path, error))
}
