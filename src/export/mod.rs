//! Training sets from a run folder after the fact: the samples that meet conditions, in the layout that a trainer reads.
//!
//! This room owns the choice of samples and the folder of an export; it never writes into the run folder.
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

mod options;
mod pairs;
mod parallel;
mod report;
pub mod scans;
pub mod select;
mod shards;
mod target;

use std::sync::Arc;
use std::time::Instant;

pub use options::{ExportLayout, ExportOptions};
pub use report::{ExportReport, Refusal};

use crate::error::{ConfigError, Error, Result};
use crate::graph::Registry;
use crate::run::RunFolder;
use crate::sink::{DecathlonSink, NnunetSink, PatchesConfig, PatchesSink, WebDatasetSink};
use crate::suggest::did_you_mean;
use options::ExportJob;
use scans::ScanReader;
use select::{Selection, SelectionConfig, WithoutPatch, select, values_of};
use target::{ExportRequest, Target};

/// Values of a column that a hint lists, at most.
const MOST_LISTED_VALUES: usize = 12;

/// Exports samples of a run folder.
///
/// # Errors
/// If no sample is selected, the layout's settings are wrong, the folder is in use for something else, the pipeline cannot be built,
/// or files cannot be read or written. Samples that cannot be made are no error: they are in the report.
pub fn export(run: &RunFolder, options: &ExportOptions, registry: &Registry) -> Result<ExportReport> {
    let start = Instant::now();
    let Selection { samples, without_patch } = select(run, &options.selection)?;
    if samples.is_empty() {
        return Err(nothing_selected(run, &options.selection, &without_patch)?);
    }
    let reader = || ScanReader::open(run, &samples, options.pipeline.as_deref(), registry);
    let request = ExportRequest::new(run, options);
    let target = |checked: Result<(), Vec<ConfigError>>| {
        checked.map_err(|errors| bad_settings(&errors))?;
        Target::open(&options.to, &request)
    };
    let job = ExportJob { run, samples: &samples, threads: options.threads };
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

fn nothing_selected(run: &RunFolder, config: &SelectionConfig, without_patch: &WithoutPatch) -> Result<Error> {
    let place = run.store().display_path("");
    let conditions: Vec<String> = config.conditions().iter().map(|text| format!("`{text}`")).collect();
    let conditions = conditions.join(" and ");
    if without_patch.samples > 0 {
        let count = without_patch.samples;
        let message =
            format!("{place} stores no patch of any sample that meets {conditions}: there are {count} such samples");
        let hint = "of rejected samples only some keep their patch: see the column patch_shard";
        return Ok(Error::new(message).with_hint(hint));
    }
    let error = Error::new(format!("no sample of {place} meets {conditions}"));
    for condition in &config.conditions {
        let Some(text) = condition.text() else { continue };
        let column = condition.column();
        let Some(values) = values_of(run, config, column, MOST_LISTED_VALUES)? else { continue };
        if !values.iter().any(|value| value == text) {
            let list = || format!("the values of `{column}` in this run are {}", values.join(", "));
            return Ok(error.with_hint(did_you_mean(text, values.iter().map(String::as_str)).unwrap_or_else(list)));
        }
    }
    if config.has_verdict() {
        return Ok(error.with_hint(format!("`SELECT DISTINCT` over {place}/samples shows the values of a column")));
    }
    Ok(error.with_hint("without a condition on `verdict` only accepted samples are exported"))
}
