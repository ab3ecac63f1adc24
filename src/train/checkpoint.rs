//! The state of a training run, as one file.
//!
//! A checkpoint is a safetensors file: weights and moments of every network as `NETWORK.weights.PARAMETER`,
//! `NETWORK.first.PARAMETER`, `NETWORK.second.PARAMETER` and `NETWORK.largest.PARAMETER`, and a [`CheckpointHeader`] as JSON under
//! the metadata `freetumor`. Randomness has no state: every random stream is keyed by seed and step.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::output::write_tensors;
use super::trained_network::TrainedNetwork;
use crate::error::{Error, Result};
use crate::nn::weights::{HEADER_KEY, Precision, read, read_metadata};

/// The version of checkpoints that this program writes and reads.
const FORMAT: u32 = 1;

/// The state of a training run without its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointHeader {
    /// Version of the file.
    pub format: u32,
    /// The stage: `segmentor`, `synthesis` or `segmentation`.
    pub stage: String,
    /// Steps taken.
    pub step: u64,
    /// The seed of all random streams.
    pub seed: u64,
    /// SHA-256 of the settings that determine the result of the training run.
    pub settings_sha256: String,
    /// The class of the compute kernels; weights of two classes differ in the last bits.
    pub kernel_class: String,
    /// Steps taken by the optimizer of each network.
    pub optimiser_steps: BTreeMap<String, u64>,
    /// The best validation score so far and its step; `None` before the first validation.
    pub best: Option<(f64, u64)>,
}

impl CheckpointHeader {
    /// Returns the header of a training run that has taken no step.
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

/// Replaces the checkpoint atomically: if the disk is full, the previous checkpoint is kept.
///
/// # Errors
/// Returns an error if a weight is not finite or the file cannot be written.
pub fn save(path: &Path, header: &CheckpointHeader, networks: &[&TrainedNetwork]) -> Result<()> {
    let mut tensors = BTreeMap::new();
    let mut header = header.clone();
    for network in networks {
        network.check_finite()?;
        tensors.extend(network.tensors());
        header.optimiser_steps.insert(network.name().to_owned(), network.steps());
    }
    let text = serde_json::to_string(&header)
        .map_err(|cause| Error::new(format!("cannot write a checkpoint: {cause}")).with_source(cause))?;
    write_tensors(path, &tensors, &BTreeMap::from([(HEADER_KEY.to_owned(), text)]), Precision::Single).map_err(
        |error| {
            let before = if path.exists() { "the previous one is intact" } else { "there is no previous one" };
            let message = format!("cannot save the checkpoint, {before}: {error}");
            Error::new(message).with_hint("free disk space, then resume with `--resume`")
        },
    )
}

/// Reads the header of a checkpoint.
///
/// # Errors
/// Returns an error if the file cannot be read, is not a checkpoint, or has another version.
pub fn read_header(path: &Path) -> Result<CheckpointHeader> {
    let metadata = read_metadata(path)?;
    let text = metadata.get(HEADER_KEY).ok_or_else(|| {
        Error::new(format!(
            "{} is not a checkpoint of `freetumor train`: expected metadata `{HEADER_KEY}`, got none",
            path.display()
        ))
        .with_hint("to start a training run from weights, set `train.network.weights`")
    })?;
    let header: CheckpointHeader = serde_json::from_str(text)
        .map_err(|cause| Error::new(format!("{}: cannot parse the header: {cause}", path.display())))?;
    if header.format != FORMAT {
        let message = format!("{}: expected format {FORMAT}, got format {}", path.display(), header.format);
        return Err(Error::new(message));
    }
    Ok(header)
}

/// Restores networks with the same settings from a checkpoint.
///
/// # Errors
/// Returns an error if the file cannot be read, belongs to a training run other than `expected`, or lacks a tensor.
pub fn load(
    path: &Path,
    expected: &CheckpointHeader,
    networks: &mut [&mut TrainedNetwork],
) -> Result<CheckpointHeader> {
    let found = read_header(path)?;
    let file = path.display();
    let differs = |setting: &str, checkpoint: &dyn std::fmt::Display, requested: &dyn std::fmt::Display| {
        Error::new(format!("{file} belongs to another training run: expected {setting} {checkpoint}, got {requested}"))
            .with_hint("write to another folder with `--out`, or restore the previous configuration")
    };
    if found.stage != expected.stage {
        return Err(differs("stage", &found.stage, &expected.stage));
    }
    if found.seed != expected.seed {
        return Err(differs("seed", &found.seed, &expected.seed));
    }
    if found.settings_sha256 != expected.settings_sha256 {
        return Err(differs("settings with digest", &found.settings_sha256, &expected.settings_sha256));
    }
    if found.kernel_class != expected.kernel_class {
        let (previous, current) = (&found.kernel_class, &expected.kernel_class);
        tracing::warn!(
            "the training run started with kernels of class {previous} and resumes with class {current}: the weights will differ in \
             the last bits from those of an uninterrupted training run"
        );
    }
    let tensors = read(path, &Device::Cpu)?;
    for network in networks {
        let steps = found.optimiser_steps.get(network.name()).copied().unwrap_or(0);
        network.restore(&tensors, steps).map_err(|error| Error::new(format!("{file}: {error}")))?;
    }
    Ok(found)
}
