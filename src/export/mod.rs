//! Export of training sets from an existing run folder: the samples that meet conditions, in the layout of a trainer.
//!
//! This module owns the selection of samples and the export folder; it never writes into the run folder.
//!
//! A run folder stores the change of a scan by each tumor as a patch. Whole volumes are computed from scan and patch: [`scans`] reads
//! each scan again with the source and mask of the run's pipeline, and rejects a scan whose voxels or mask differ in digest from the
//! rows of its samples. Exported files have the same bytes as those of a sink of the same kind.
//!
//! ```text
//! select   rows of `samples` → the samples to export
//! scans    scan id → scan and mask, verified by digest
//! target   the export folder: existing files, atomic writes, a journal for resuming
//! pairs    nnunet, decathlon: one image and one label per sample
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
use crate::mask::IGNORE_LABEL;
use crate::run::RunFolder;
use crate::sink::{DecathlonSink, NnunetSink, PatchesConfig, PatchesSink, WebDatasetSink};
use crate::suggest::did_you_mean;
use options::ExportJob;
use scans::ScanReader;
use select::{SamplesWithoutPatch, Selection, SelectionConfig, column_values, has_values, select};
use target::{ExportRequest, Target};

/// Maximum number of column values in a hint.
const MAX_LISTED_VALUES: usize = 12;

/// Exports samples of a run folder.
///
/// # Errors
/// If no sample is selected, a setting of the layout is invalid, the folder contains files that are not of an export, the pipeline cannot
/// be built, or files cannot be read or written. Samples that cannot be exported are not an error: the report lists them.
pub fn export(run: &RunFolder, options: &ExportOptions, registry: &Registry) -> Result<ExportReport> {
    let start = Instant::now();
    let Selection { samples, without_patch } = select(run, &options.selection)?;
    if samples.is_empty() {
        return Err(no_sample_error(run, &options.selection, &without_patch)?);
    }
    let reader = || ScanReader::open(run, &samples, options.pipeline.as_deref(), registry);
    let request = ExportRequest::new(run, options)?;
    let target = |checked: Result<(), Vec<ConfigError>>| {
        checked.map_err(|errors| invalid_settings(&errors))?;
        Target::open(&options.to, &request)
    };
    let job = ExportJob { run, samples: &samples, threads: options.threads };
    let mut report = match &options.layout {
        ExportLayout::Nnunet(config) => {
            let reader = reader()?;
            if let Some(mask) = reader.ignoring_mask() {
                let message = format!("`{mask}` labels suspected real tumors {IGNORE_LABEL}, which nnU-Net rejects");
                return Err(Error::new(message)
                    .with_hint("use --layout decathlon, or run with suspected = \"tumor\" in that stage"));
            }
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

fn invalid_settings(errors: &[ConfigError]) -> Error {
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

fn no_sample_error(run: &RunFolder, config: &SelectionConfig, without_patch: &SamplesWithoutPatch) -> Result<Error> {
    let folder = run.store().display_path("");
    let conditions: Vec<String> = config.conditions().iter().map(|text| format!("`{text}`")).collect();
    let conditions = conditions.join(" and ");
    if without_patch.samples > 0 {
        let message = format!("{folder} has no stored patch of any sample that meets {conditions}");
        let hint =
            "select samples with a stored patch: see the column `patch_shard`; only some rejected samples have one";
        return Ok(Error::new(message).with_hint(hint));
    }
    let error = Error::new(format!("no sample of {folder} meets {conditions}"));
    for condition in &config.conditions {
        let column = condition.column();
        if !has_values(run, config, column)? {
            let hint = format!("use another column: `{column}` has no value in any row of this run");
            return Ok(error.with_hint(hint));
        }
        let Some(text) = condition.text() else { continue };
        let Some(values) = column_values(run, config, column, MAX_LISTED_VALUES)? else { continue };
        if !values.iter().any(|value| value == text) {
            let list = || format!("the values of `{column}` in this run are {}", values.join(", "));
            return Ok(error.with_hint(did_you_mean(text, values.iter().map(String::as_str)).unwrap_or_else(list)));
        }
    }
    if config.has_verdict() {
        return Ok(error.with_hint(format!("list the values of a column with `SELECT DISTINCT` over {folder}/samples")));
    }
    Ok(error.with_hint("add a condition on `verdict` to export rejected samples"))
}
