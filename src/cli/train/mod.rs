//! `freetumor train`: the three stages of training.

mod check;
mod scans;
mod summary;
mod task;
mod watch;

use std::io::Write;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};

pub(super) use self::check::{Checked, check, stage_of};
pub(super) use self::scans::Listed;
use self::summary::Summary;
pub(super) use self::task::Task;
use super::network::DeviceName;
use super::print::{print_problems, printed, unprinted};
use crate::error::Result;
use crate::graph::{GraphFile, Registry};

/// Train the networks: a segmentor, a generator with its discriminator, the final segmentor
///
/// The file has sources and stages as any pipeline, and a section [train]. What is trained, how and on what lies in it;
/// where it is written and computed in flags. A run that was stopped goes on with --resume as if it had never stopped,
/// bit for bit. Losses and scores are a Parquet table in the folder, beside curves and slices to look at.
#[derive(Args, Clone, Debug)]
pub struct TrainArgs {
    /// What is trained
    #[arg(value_enum)]
    pub stage: StageName,
    /// The file that says how, such as pipelines/train-segmentor-small.toml
    #[arg(value_name = "CONFIG")]
    pub config: PathBuf,
    /// Folder of the run [default: runs/NAME of the file]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu)]
    pub device: DeviceName,
    /// Override a setting of the file, such as train.steps=2000
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Go on with the run in the folder
    #[arg(long)]
    pub resume: bool,
    /// Threads that make batches [default: one for four cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Memory for scans that are made ready [default: half of the machine's, at most 8 GiB]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Write weights in 16 bits: half as large, for inference. Checkpoints keep all bits
    #[arg(long)]
    pub half: bool,
    /// Take at most this many steps now
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
    /// File with the secret that patient keys are derived with [default: $FREETUMOR_PATIENT_KEY, or one kept in the user's
    /// configuration folder]
    #[arg(long, value_name = "FILE")]
    pub patient_key_file: Option<PathBuf>,
}

/// The stages of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StageName {
    /// A segmentor on real tumors: it judges synthetic ones.
    Segmentor,
    /// A generator and a discriminator, with a segmentor that stays as it is.
    Synthesis,
    /// The final segmentor on real and synthetic tumors.
    Segmentation,
}

impl StageName {
    /// The name in commands and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Segmentor => "segmentor",
            Self::Synthesis => "synthesis",
            Self::Segmentation => "segmentation",
        }
    }
}

/// Runs the command; gives its exit code.
///
/// # Errors
/// What could not be trained, or had to stop.
pub fn train(args: &TrainArgs, registry: &Registry, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<u8> {
    let file = GraphFile::open(&args.config)?.with_sets(&args.set);
    let checked = check(args.stage, &file, registry);
    print_problems(&file, &checked.problems.iter().collect::<Vec<_>>(), stderr)?;
    let Some(task) = checked.task else { return Ok(2) };
    let (report, spoiled) = task.run(args, stderr)?;
    let written = if args.json {
        let json = serde_json::to_writer_pretty(&mut *stdout, &report).map_err(std::io::Error::from);
        json.and_then(|()| writeln!(stdout))
    } else {
        write!(stdout, "{}", Summary(&report))
    };
    printed(written)?;
    if spoiled > 0 {
        let place = report.folder.join("private").join("scans.jsonl");
        let scans = if spoiled == 1 { "1 scan was" } else { &format!("{spoiled} scans were") };
        writeln!(stderr, "warning: {scans} left out; {} says which file each is", place.display())
            .map_err(unprinted)?;
    }
    Ok(u8::from(spoiled > 0))
}
