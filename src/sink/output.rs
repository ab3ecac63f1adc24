//! The output of a sink: files of a layout, a pipe, or a training run.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Layout, StreamSink, check_name};
use crate::error::ConfigError;
use crate::record::Split;

/// The output of a sink.
#[derive(Clone)]
pub enum Output {
    /// Files in the layout folder of a run.
    Layout(Arc<dyn Layout>),
    /// Files of a run that are written to a pipe or socket.
    Stream(Arc<StreamSink>),
    /// A training run in the same process, without files.
    Trainer,
}

impl Output {
    /// Returns the layout that writes the files; `None` for a trainer.
    pub fn layout(&self) -> Option<&dyn Layout> {
        match self {
            Self::Layout(layout) => Some(&**layout),
            Self::Stream(stream) => Some(&**stream),
            Self::Trainer => None,
        }
    }

    /// Returns the split of a stream; `None` for other outputs.
    pub fn streamed_split(&self) -> Option<Split> {
        match self {
            Self::Stream(stream) => Some(stream.split()),
            Self::Layout(_) | Self::Trainer => None,
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Layout(_) => "Layout",
            Self::Stream(_) => "Stream",
            Self::Trainer => "Trainer",
        })
    }
}

/// Settings of a sink of kind `trainer`: none; `[train.synthetic]` sets the fraction of synthetic crops.
///
/// The accepted tumors of the graph become crops of `freetumor train segmentation`: new tumors for every crop, without files. Batches
/// are made in advance up to the length of the training run's queue: the faster of generator and training run waits for the other. A
/// tumor is a function of seed, step and position in the batch, so the speed of either does not change the result. A crop has one
/// synthetic tumor: `tumors_per_scan` and `negatives` have no effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainerConfig {}

/// Creates the output of a sink of kind `trainer`.
///
/// # Errors
/// If the name is invalid.
pub fn trainer(name: &str, _config: &TrainerConfig) -> Result<Output, Vec<ConfigError>> {
    let mut errors = Vec::new();
    check_name(name, &mut errors);
    if errors.is_empty() { Ok(Output::Trainer) } else { Err(errors) }
}
