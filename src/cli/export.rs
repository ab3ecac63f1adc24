//! `freetumor export`: exports samples of a run folder as a training set.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::print::{ignore_closed_pipe, pluralize, print_json};
use super::run::at_least_one;
use crate::error::{ConfigError, Error, Result};
use crate::export::select::{SampleCondition, SelectionConfig};
use crate::export::{ExportLayout, ExportOptions, ExportReport, export as export_samples};
use crate::graph::Registry;
use crate::record::GroupBy;
use crate::record::SampleRow;
use crate::run::{Revision, RunFolder};
use crate::simd::Class;
use crate::sink::{DecathlonConfig, NnunetConfig, WebDatasetConfig};

/// Maximum default number of threads: each holds a scan in memory.
const MAX_DEFAULT_THREADS: usize = 4;

/// Export samples of a run folder as a training set
///
/// Writes the samples that meet the conditions in the layout of nnU-Net, the decathlon (MONAI), WebDataset, or as patches, with the same
/// bytes as a sink of that kind. Whole volumes are reconstructed from scan and patch: every scan is read again and compared with its
/// digest. Repeat the command to resume an export, or to add samples that the run has added since.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// The run folder
    pub run: PathBuf,
    /// Folder to write to: a new or empty one, or that of an earlier export with the same options
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Layout of the training set
    #[arg(long, value_enum)]
    pub layout: LayoutName,
    /// Export only samples whose row meets this condition, such as 'organ = liver' or 'diameter_mm < 20'; if repeated, all conditions must
    /// hold. Without a condition on `verdict`, only accepted samples
    #[arg(long = "where", value_name = "CONDITION")]
    pub conditions: Vec<String>,
    /// Export at most this many samples, those with the lowest ids
    #[arg(long, value_name = "N")]
    pub at_most: Option<usize>,
    /// With --at-most: at most that many of each group of these columns, such as organ,size_class
    #[arg(long, value_name = "COLUMNS", requires = "at_most")]
    pub per: Option<String>,
    /// State of the run folder after this commit, or that a tag names [default: the last one]
    #[arg(long, value_name = "COMMIT|TAG")]
    pub at: Option<Revision>,
    /// Graph file whose sources and masks read the scans, if they were moved since the run
    #[arg(long, value_name = "FILE")]
    pub pipeline: Option<PathBuf>,
    /// Threads, each with a scan in memory [default: one per core, at most 4]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// nnU-Net's id of the data set [default: 900]
    #[arg(long, value_name = "ID")]
    pub dataset_id: Option<u32>,
    /// Name of the data set in its description files [default: FreeTumor, or freetumor for shards]
    #[arg(long, value_name = "NAME")]
    pub dataset_name: Option<String>,
    /// Compression level of volumes, 1 (fast) to 9 (small) [default: 2]
    #[arg(long, value_name = "N")]
    pub gzip_level: Option<u32>,
    /// WebDataset: maximum number of shards of each split in each epoch [default: 4]
    #[arg(long, value_name = "N")]
    pub buckets: Option<u32>,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
}

/// The layout of an exported training set, as a value of the option `--layout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LayoutName {
    /// `DatasetNNN_NAME` of nnU-Net, version 2
    Nnunet,
    /// dataset.json with lists, which MONAI reads
    Decathlon,
    /// Tar shards of whole volumes
    Webdataset,
    /// Tar shards of patches; no scan is read
    Patches,
}

impl ExportArgs {
    /// Returns the layout with its settings.
    fn layout(&self) -> Result<ExportLayout> {
        let name = self.dataset_name.clone();
        let flags = [
            ("--dataset-id", self.dataset_id.is_some(), self.layout == LayoutName::Nnunet),
            ("--gzip-level", self.gzip_level.is_some(), self.layout != LayoutName::Patches),
            ("--buckets", self.buckets.is_some(), self.layout == LayoutName::Webdataset),
        ];
        if let Some((flag, ..)) = flags.iter().find(|(_, given, has_effect)| *given && !has_effect) {
            let layout = self.layout.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
            return Err(Error::new(format!("{flag} has no effect on --layout {layout}")));
        }
        let shards_name = || name.clone().unwrap_or_else(|| "freetumor".to_owned());
        Ok(match self.layout {
            LayoutName::Nnunet => {
                let default = NnunetConfig::default();
                ExportLayout::Nnunet(NnunetConfig {
                    dataset_id: self.dataset_id.unwrap_or(default.dataset_id),
                    dataset_name: name.unwrap_or(default.dataset_name),
                    gzip_level: self.gzip_level.unwrap_or(default.gzip_level),
                })
            }
            LayoutName::Decathlon => {
                let default = DecathlonConfig::default();
                ExportLayout::Decathlon(DecathlonConfig {
                    dataset_name: name.unwrap_or(default.dataset_name),
                    gzip_level: self.gzip_level.unwrap_or(default.gzip_level),
                })
            }
            LayoutName::Webdataset => {
                let default = WebDatasetConfig::default();
                let config = WebDatasetConfig {
                    buckets: self.buckets.unwrap_or(default.buckets),
                    gzip_level: self.gzip_level.unwrap_or(default.gzip_level),
                };
                ExportLayout::Webdataset { name: shards_name(), config }
            }
            LayoutName::Patches => ExportLayout::Patches { name: shards_name() },
        })
    }

    fn selection(&self) -> Result<SelectionConfig> {
        let conditions = self
            .conditions
            .iter()
            .map(|text| text.parse::<SampleCondition>().map_err(|error| invalid(&format!("--where {text:?}"), error)));
        let per = self.per.as_deref().map(|text| text.parse().map_err(|error| invalid("--per", error)));
        let at_most = self.at_most.map(|most| at_least_one("--at-most", most)).transpose()?;
        Ok(SelectionConfig {
            conditions: conditions.collect::<Result<_>>()?,
            at_most,
            per: per.transpose()?.unwrap_or_else(GroupBy::<SampleRow>::default),
            at: self.at.as_ref().map(|at| RunFolder::open(&self.run)?.epoch_at(at)).transpose()?,
        })
    }
}

/// Converts a config error to an error of a flag.
fn invalid(flag: &str, error: ConfigError) -> Error {
    let message = Error::new(format!("{flag}: {}", error.message));
    match error.hint {
        Some(hint) => message.with_hint(hint),
        None => message,
    }
}

/// Runs the export and returns the exit code: 1 if samples were omitted.
///
/// # Errors
/// If no export was possible.
pub fn export(args: &ExportArgs, registry: &Registry, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<u8> {
    // A mask of a network has the recorded digest only if it is computed with the kernel class of the run. Without that class, the export
    // refuses every such scan.
    if let Some(class) = RunFolder::kernel_class_of(&args.run).filter(|class| Class::available().contains(class)) {
        Class::select(class)?;
    }
    let absolute = |folder: &Path| std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    if absolute(&args.to).starts_with(absolute(&args.run)) {
        let message = format!("{} is in the run folder, expected a folder outside of it", args.to.display());
        return Err(Error::new(message).with_hint("pass another folder with `--to`"));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let options = ExportOptions {
        to: args.to.clone(),
        layout: args.layout()?,
        selection: args.selection()?,
        pipeline: args.pipeline.clone(),
        threads: at_least_one("--threads", args.threads.unwrap_or(cores.min(MAX_DEFAULT_THREADS)))?,
    };
    let run = RunFolder::open(&args.run)?;
    let report = export_samples(&run, &options, registry)?;
    ignore_closed_pipe(print_missing(&report, stderr))?;
    if args.json {
        print_json(&report, stdout)?;
    } else {
        ignore_closed_pipe(print_summary(&report, stdout))?;
    }
    Ok(u8::from(!report.is_complete()))
}

/// Prints the selected samples that could not be exported.
fn print_missing(report: &ExportReport, out: &mut dyn Write) -> std::io::Result<()> {
    for refusal in &report.refused {
        let (scan_id, samples) = (refusal.scan_id, pluralize(refusal.samples.len(), "sample"));
        writeln!(out, "error: scan {scan_id}: {} ({samples} omitted)", refusal.message)?;
    }
    let without = &report.without_patch;
    if without.samples > 0 {
        let names: Vec<String> = without.first.iter().map(ToString::to_string).collect();
        let more = if without.samples > names.len() { ", …" } else { "" };
        let (samples, names) = (pluralize(without.samples, "selected sample"), names.join(", "));
        writeln!(out, "error: omitted {samples} without a stored patch: {names}{more}")?;
        writeln!(
            out,
            "hint: patches are stored for only some rejected candidates; select those with --where 'patch_length_bytes > 0'"
        )?;
    }
    Ok(())
}

fn print_summary(report: &ExportReport, out: &mut dyn Write) -> std::io::Result<()> {
    let folder = report.folder.display();
    let splits: Vec<String> = report.splits.iter().map(|(split, count)| format!("{count} {split}")).collect();
    let splits = if splits.is_empty() { String::new() } else { format!(" ({})", splits.join(", ")) };
    writeln!(out, "{folder}: {}{splits} in {:.1} s", pluralize(report.samples, "sample"), report.seconds)?;
    let (written, scans) = (pluralize(report.written_files, "file"), pluralize(report.scans_read, "scan"));
    let (kept, bytes) = (report.kept_files, bytesize::ByteSize(report.bytes));
    writeln!(out, "  {written} written, {kept} kept, {bytes} in total; {scans} read")
}
