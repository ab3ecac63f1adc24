//! Where samples go: into files of a layout, through a pipe, or to a training.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Layout, StreamSink, check_name};
use crate::error::ConfigError;
use crate::record::Split;

/// Where the samples of a sink go.
#[derive(Clone)]
pub enum Output {
    /// Files of a run folder in a layout.
    Layout(Arc<dyn Layout>),
    /// Files of a run folder that are written to a pipe or socket.
    Stream(Arc<StreamSink>),
    /// A training in the same process, without a file.
    Trainer,
}

impl Output {
    /// What writes files for it; `None` where there are none.
    pub fn layout(&self) -> Option<&dyn Layout> {
        match self {
            Self::Layout(layout) => Some(&**layout),
            Self::Stream(stream) => Some(&**stream),
            Self::Trainer => None,
        }
    }

    /// The split that it streams, where it is a stream.
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

/// Settings of a sink of kind `trainer`: none; `[train.synthetic]` sets what share of crops is synthetic.
///
/// The accepted tumors of the graph become crops of `freetumor train segmentation`: fresh ones for every crop, none of which is
/// ever a file. Batches are made ahead, as many as the training's queue holds: whichever of the two is slower, the other waits, and
/// because a tumor is a function of seed, step and place in the batch, neither changes what is learned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainerConfig {}

/// Checks the name of a sink of kind `trainer`.
///
/// # Errors
/// A bad name.
pub fn trainer(name: &str, _config: &TrainerConfig) -> Result<Output, Vec<ConfigError>> {
    let mut errors = Vec::new();
    check_name(name, &mut errors);
    if errors.is_empty() { Ok(Output::Trainer) } else { Err(errors) }
}
