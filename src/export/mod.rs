//! Training sets from a run folder after the fact: the samples that meet conditions, in the layout that a trainer reads.
//!
//! A run folder stores what each tumor changed of its scan, as patches. Whole volumes are made of scan and patch: [`scans`] reads each
//! scan once more, with the source and mask of the pipeline that made the run, and refuses one whose voxels or mask have another digest
//! than the rows of its samples. Files have the bytes that a sink of the same kind writes for the same sample.
//!
//! ```text
//! select   rows of `samples` → the samples to export
//! scans    scan id → scan and mask, compared with their digests
//! target   the folder: what is there already, atomic files, a journal by which an export resumes
//! pairs    nnunet, decathlon: an image and a label a sample
//! shards   webdataset, patches: tar shards with an index
//! ```

mod pairs;
mod parallel;
pub mod scans;
pub mod select;
mod shards;
mod target;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::error::{ConfigError, Error, Result};
use crate::graph::Registry;
use crate::id::{SampleId, ScanId};
use crate::record::Split;
use crate::run::RunFolder;
use crate::sink::{
    DecathlonConfig, DecathlonSink, NnunetConfig, NnunetSink, PatchesConfig, PatchesSink, WebDatasetConfig,
    WebDatasetSink,
};
use scans::ScanReader;
use select::{Selection, SelectionConfig, WithoutPatch, select};
use target::{Request, Target};

/// In which layout samples are written.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "layout", rename_all = "snake_case")]
pub enum ExportLayout {
    /// nnU-Net, version 2.
    Nnunet(NnunetConfig),
    /// The Medical Segmentation Decathlon and MONAI.
    Decathlon(DecathlonConfig),
    /// Tar shards of whole volumes.
    Webdataset {
        /// The data set's name in the index and in the names of shards: as a sink's.
        name: String,
        /// The sink's settings.
        #[serde(flatten)]
        config: WebDatasetConfig,
    },
    /// Tar shards of patches.
    Patches {
        /// The data set's name in the index: as a sink's.
        name: String,
    },
}

/// What is exported, and where to.
#[derive(Debug)]
pub struct ExportOptions {
    /// The folder: new, empty, or that of an earlier export of the same.
    pub to: PathBuf,
    /// The layout.
    pub layout: ExportLayout,
    /// Which samples.
    pub selection: SelectionConfig,
    /// The graph file whose sources and masks read the scans; those that the run folder records where absent.
    pub pipeline: Option<PathBuf>,
    /// Threads, each with one scan in memory at a time.
    pub threads: usize,
}

/// What an export did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ExportReport {
    /// The folder.
    pub folder: PathBuf,
    /// Samples in it.
    pub samples: usize,
    /// Samples of each split.
    pub splits: BTreeMap<String, usize>,
    /// Files that were written, without descriptions.
    pub written_files: usize,
    /// Files that an earlier export had written.
    pub kept_files: usize,
    /// Bytes of all these files.
    pub bytes: u64,
    /// Scans that were read.
    pub scans_read: usize,
    /// Scans whose samples are left out, sorted.
    pub refused: Vec<Refusal>,
    /// Selected samples that are left out because the run folder stores no patch of them.
    pub without_patch: WithoutPatch,
    /// Wall time.
    pub seconds: f64,
}

/// A scan of which no volume could be made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Refusal {
    /// The scan.
    pub scan_id: ScanId,
    /// Its samples, which are left out.
    pub samples: Vec<SampleId>,
    /// What was expected and what came.
    pub message: String,
}

impl ExportReport {
    /// Whether everything that was asked for is there.
    pub fn is_complete(&self) -> bool {
        self.refused.is_empty() && self.without_patch.samples == 0
    }

    /// Counts a file.
    fn add_files(&mut self, done: &target::Done, kept: bool) {
        *(if kept { &mut self.kept_files } else { &mut self.written_files }) += done.files.len();
        self.bytes += done.files.iter().map(|file| file.digest.bytes).sum::<u64>();
    }

    fn add_sample(&mut self, split: Split) {
        self.samples += 1;
        *self.splits.entry(split.name().to_owned()).or_default() += 1;
    }
}

/// Exports samples of a run folder.
///
/// # Errors
/// Where no sample is selected, the layout's settings are wrong, the folder is in use for something else, the pipeline cannot be built,
/// or files cannot be read or written. Samples that cannot be made are no error: they are in the report.
pub fn export(run: &RunFolder, options: &ExportOptions, registry: &Registry) -> Result<ExportReport> {
    let start = Instant::now();
    let Selection { samples, without_patch } = select(run, &options.selection)?;
    if samples.is_empty() {
        return Err(nothing_selected(run, &options.selection, &without_patch));
    }
    let reader = || ScanReader::open(run, &samples, options.pipeline.as_deref(), registry);
    let request = Request::new(run, options);
    let target = |checked: Result<(), Vec<ConfigError>>| {
        checked.map_err(|errors| bad_settings(&errors))?;
        Target::open(&options.to, &request)
    };
    let job = Job { run, samples: &samples, threads: options.threads };
    let mut report = match &options.layout {
        ExportLayout::Nnunet(config) => {
            let reader = reader()?;
            let sink = NnunetSink::new("export", config.clone(), Arc::clone(reader.organs()));
            pairs::write(&job, &target(sink.map(drop))?, config, &reader)?
        }
        ExportLayout::Decathlon(config) => {
            let reader = reader()?;
            let sink = DecathlonSink::new("export", config.clone(), Arc::clone(reader.organs()));
            pairs::write(&job, &target(sink.map(drop))?, config, &reader)?
        }
        ExportLayout::Webdataset { name, config } => {
            let sink = WebDatasetSink::new(name, config.clone());
            shards::write_volumes(&job, &target(sink.map(drop))?, name, config, &reader()?)?
        }
        ExportLayout::Patches { name } => {
            let sink = PatchesSink::new(name, &PatchesConfig::default());
            shards::write_patches(&job, &target(sink.map(drop))?, name)?
        }
    };
    report.folder.clone_from(&options.to);
    report.refused.sort();
    report.without_patch = without_patch;
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// What every layout needs.
struct Job<'a> {
    run: &'a RunFolder,
    /// Sorted by id.
    samples: &'a [select::Selected],
    threads: usize,
}

fn bad_settings(errors: &[ConfigError]) -> Error {
    let messages: Vec<String> = errors
        .iter()
        .map(|error| match error.field.as_str() {
            "" => error.message.clone(),
            field => format!("--{}: {}", field.replace('_', "-"), error.message),
        })
        .collect();
    let error = Error::new(messages.join("; "));
    match errors.iter().find_map(|error| error.hint.clone()) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

fn nothing_selected(run: &RunFolder, config: &SelectionConfig, without_patch: &WithoutPatch) -> Error {
    let place = run.store().place("");
    let conditions: Vec<String> = config.conditions().iter().map(|text| format!("`{text}`")).collect();
    let conditions = conditions.join(" and ");
    if without_patch.samples > 0 {
        let count = without_patch.samples;
        let message =
            format!("{place} stores no patch of any sample that meets {conditions}: there are {count} such samples");
        return Error::new(message)
            .with_hint("of rejected samples only some keep their patch: see the column patch_shard");
    }
    Error::new(format!("no sample of {place} meets {conditions}"))
        .with_hint("without a condition on `verdict` only accepted samples are exported")
}
