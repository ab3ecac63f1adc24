//! Where samples go: into files of a layout, through a pipe, or to a training.

use std::fmt;
use std::sync::Arc;

use super::{Layout, StreamSink};
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
