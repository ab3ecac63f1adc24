//! Where a run stands, as one file.
//!
//! A checkpoint is a safetensors file: weights and moments of every network as `NETWORK.weights.PARAMETER`,
//! `NETWORK.first.PARAMETER`, `NETWORK.second.PARAMETER` and `NETWORK.largest.PARAMETER`, and a [`CheckpointHeader`] as JSON under
//! the metadata `freetumor`. Randomness has no state of its own: every draw is keyed by seed and step.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::learning::TrainedNetwork;
use super::output::write_tensors;
use crate::error::{Error, Result};
use crate::nn::weights::{HEADER_KEY, Precision, read, read_metadata};

/// The version of checkpoints that this program writes and reads.
const FORMAT: u32 = 1;

/// How far a run has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointHeader {
    /// Version of the file.
    pub format: u32,
    /// What is trained: `segmentor`, `synthesis` or `segmentation`.
    pub stage: String,
    /// Steps taken.
    pub step: u64,
    /// What all randomness is derived from.
    pub seed: u64,
    /// SHA-256 of the settings that decide the run.
    pub settings_sha256: String,
    /// Which kernels computed: it decides the last bits.
    pub kernel_class: String,
    /// Steps of each network's optimiser.
    pub optimiser_steps: BTreeMap<String, u64>,
    /// The best validation score so far and its step, where there is one.
    pub best: Option<(f64, u64)>,
}

impl CheckpointHeader {
    /// The standing of a run that has taken no step.
    pub fn start(stage: &str, seed: u64, settings_sha256: String, kernel_class: &str) -> Self {
        Self {
            format: FORMAT,
            stage: stage.to_owned(),
            step: 0,
            seed,
            settings_sha256,
            kernel_class: kernel_class.to_owned(),
            optimiser_steps: BTreeMap::new(),
            best: None,
        }
    }
}

/// Writes a checkpoint over the last one. It is there whole or not at all: where the disk is full, the last one stays.
///
/// # Errors
/// Where a weight is not finite or the file cannot be written.
pub fn save(path: &Path, standing: &CheckpointHeader, networks: &[&TrainedNetwork]) -> Result<()> {
    let mut tensors = BTreeMap::new();
    let mut standing = standing.clone();
    for network in networks {
        network.check_finite()?;
        tensors.extend(network.tensors());
        standing.optimiser_steps.insert(network.name().to_owned(), network.steps());
    }
    let text = serde_json::to_string(&standing)
        .map_err(|cause| Error::new(format!("cannot write a checkpoint: {cause}")).with_source(cause))?;
    write_tensors(path, &tensors, &BTreeMap::from([(HEADER_KEY.to_owned(), text)]), Precision::Single).map_err(
        |error| {
            let before = if path.exists() { "the last one is intact" } else { "there is none before it" };
            let message = format!("cannot save the checkpoint, {before}: {error}");
            Error::new(message).with_hint("free some space and go on with --resume")
        },
    )
}

/// The standing of a checkpoint.
///
/// # Errors
/// Where the file cannot be read, is no checkpoint, or one of another version.
pub fn standing(path: &Path) -> Result<CheckpointHeader> {
    let metadata = read_metadata(path)?;
    let text = metadata.get(HEADER_KEY).ok_or_else(|| {
        Error::new(format!("{} is no checkpoint of `freetumor train`: it has no standing", path.display()))
            .with_hint("weights alone start a run: set `train.network.weights`")
    })?;
    let standing: CheckpointHeader = serde_json::from_str(text).map_err(|cause| {
        Error::new(format!("{}: its standing is not as freetumor writes it: {cause}", path.display()))
    })?;
    if standing.format != FORMAT {
        let message = format!("{}: format {}, this program reads format {FORMAT}", path.display(), standing.format);
        return Err(Error::new(message));
    }
    Ok(standing)
}

/// Takes a checkpoint over into networks of the same settings.
///
/// # Errors
/// Where the file cannot be read, belongs to another run than `expected`, or something is missing in it.
pub fn load(
    path: &Path,
    expected: &CheckpointHeader,
    networks: &mut [&mut TrainedNetwork],
) -> Result<CheckpointHeader> {
    let found = standing(path)?;
    let place = path.display();
    let differs = |what: &str, there: &dyn std::fmt::Display, here: &dyn std::fmt::Display| {
        Error::new(format!("{place} belongs to another run: {what} is {there} there and {here} here"))
            .with_hint("a run keeps to one configuration: write elsewhere with `--out`, or restore what differs")
    };
    if found.stage != expected.stage {
        return Err(differs("the stage", &found.stage, &expected.stage));
    }
    if found.seed != expected.seed {
        return Err(differs("the seed", &found.seed, &expected.seed));
    }
    if found.settings_sha256 != expected.settings_sha256 {
        return Err(differs("the digest of its settings", &found.settings_sha256, &expected.settings_sha256));
    }
    if found.kernel_class != expected.kernel_class {
        let (there, here) = (&found.kernel_class, &expected.kernel_class);
        tracing::warn!(there, here, "another kind of processor goes on: the last bits will differ");
    }
    let tensors = read(path, &Device::Cpu)?;
    for network in networks {
        let steps = found.optimiser_steps.get(network.name()).copied().unwrap_or(0);
        network.restore(&tensors, steps).map_err(|error| Error::new(format!("{place}: {error}")))?;
    }
    Ok(found)
}
