//! `freetumor schema`: the schemas of graph files and tables, for editors and programs.

use std::io::Write;

use clap::Args;

use super::print::ignore_closed_pipe;
use crate::error::{Error, Result};
use crate::graph::{Registry, TrainingKind, pipeline_schema, training_schema};
use crate::record::schema::table_json;
use crate::store::canonical;
use crate::suggest::did_you_mean;
use crate::train::segmentation::SegmentationConfig;
use crate::train::synthesis::SynthesisConfig;

/// The names of the schemas.
const NAMES: [&str; 6] = ["pipeline", "training", "samples", "scans", "faults", "quality"];

/// Print a schema
///
/// `pipeline` is the JSON Schema of graph files (with the first line `#:schema schemas/pipeline.schema.json`, editors complete and check
/// them), `training` that of files for `freetumor train`; the others list the columns of a table with their units.
#[derive(Args, Clone, Debug)]
pub struct SchemaArgs {
    /// pipeline, training, samples, scans, faults or quality
    pub name: String,
}

/// Returns the text of a schema, as in the folder `schemas`.
///
/// # Errors
/// If there is no schema with this name.
pub fn schema_text(name: &str, registry: &Registry) -> Result<String> {
    let schema = match name {
        "pipeline" => pipeline_schema(registry),
        "training" => training_schema(
            registry,
            &[
                TrainingKind::of::<SegmentationConfig>(
                    "Settings of `freetumor train segmentor` and `freetumor train segmentation`.",
                ),
                TrainingKind::of::<SynthesisConfig>("Settings of `freetumor train synthesis`."),
            ],
        ),
        table if NAMES.contains(&table) => table_json(table)?,
        other => {
            let error = Error::new(format!("expected one of {}, got `{other}`", NAMES.join(", ")));
            return Err(match did_you_mean(other, NAMES) {
                Some(hint) => error.with_hint(hint),
                None => error,
            });
        }
    };
    canonical::pretty(&schema).map(|text| String::from_utf8_lossy(&text).into_owned())
}

/// Prints the schema of `args` and returns the exit code.
///
/// # Errors
/// If there is no schema with this name, or the output cannot be written.
pub fn schema(args: &SchemaArgs, registry: &Registry, stdout: &mut dyn Write) -> Result<u8> {
    let text = schema_text(&args.name, registry)?;
    ignore_closed_pipe(stdout.write_all(text.as_bytes()))?;
    Ok(0)
}
