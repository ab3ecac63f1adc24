//! Tumors for a training in this very process.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::durable::Durable;
use super::{FileEntry, Sealed, Sink, Spooled, check_name};
use crate::error::{Complaint, Error, Result};

/// Settings of a sink of kind `trainer`: none; what share of crops is synthetic stands in `[train.synthetic]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainerConfig {}

/// The accepted tumors of the graph as crops of `freetumor train segmentation`: fresh ones for every crop, none of which is
/// ever a file.
///
/// The training asks and the graph answers: batches are made ahead of it, as many as its queue holds. Where the graph is slower the
/// training waits, where it is faster the graph does; and because a tumor is a function of seed, step and place in the batch,
/// neither changes what is learned.
#[derive(Debug)]
pub struct TrainerSink {
    name: String,
}

impl TrainerSink {
    /// A sink.
    ///
    /// # Errors
    /// A bad name.
    pub fn new(name: &str, _config: &TrainerConfig) -> Result<Self, Vec<Complaint>> {
        let mut complaints = Vec::new();
        check_name(name, &mut complaints);
        if complaints.is_empty() { Ok(Self { name: name.to_owned() }) } else { Err(complaints) }
    }

    fn no_files<T>(&self) -> Result<T> {
        Err(Error::new(format!("the sink `{}` is fed by a training, not by a run", self.name))
            .with_hint("freetumor train segmentation FILE"))
    }
}

impl Sink for TrainerSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn index(&self) -> String {
        format!("{}.index", self.name)
    }

    fn gzip_level(&self) -> u32 {
        1
    }

    fn seal(&self, _store: &dyn Durable, _epoch: u64, _samples: &[Spooled]) -> Result<Sealed> {
        self.no_files()
    }

    fn project(&self, _store: &dyn Durable, _index: &[FileEntry]) -> Result<()> {
        self.no_files()
    }

    fn trains(&self) -> bool {
        true
    }
}
