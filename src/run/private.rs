//! Where the graph file of a run is: what the relative paths in its pipeline begin at.
//!
//! `RUN/private/pipeline.json` is for commands that read scans again, such as `export`. It differs between equal runs, so it is part
//! of no commit and no digest.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{RunFolder, RunWriter};
use crate::error::{Error, Result};
use crate::store::canonical;

const PIPELINE: &str = "private/pipeline.json";

/// `private/pipeline.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PipelinePlace {
    /// The folder of the graph file, absolute.
    folder: PathBuf,
}

impl RunWriter {
    /// Records the folder of the graph file.
    ///
    /// # Errors
    /// Where it cannot be written, or its name is not UTF-8.
    pub fn record_pipeline_folder(&self, folder: &Path) -> Result<()> {
        let folder = std::path::absolute(folder).map_err(|e| Error::io("cannot find", folder, e))?;
        let text = canonical::pretty(&PipelinePlace { folder })?;
        self.folder().store().replace(PIPELINE, &mut |out| out.write_all(&text))
    }
}

impl RunFolder {
    /// The folder of the graph file when the run was last continued; `None` where it was not recorded.
    ///
    /// # Errors
    /// Where the record cannot be read.
    pub fn pipeline_folder(&self) -> Result<Option<PathBuf>> {
        let place = self.store().place(PIPELINE);
        let text = self.store().read(PIPELINE)?;
        text.map(|text| canonical::parse::<PipelinePlace>(&text, &place).map(|place| place.folder)).transpose()
    }
}
