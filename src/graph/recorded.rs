//! The graph file that a run folder records.

use super::file::GraphFile;
use crate::error::{Error, Result};
use crate::run::RunFolder;

impl GraphFile {
    /// Recreates the graph file of the last start of a run, with its paths from `RUN/private`.
    ///
    /// # Errors
    /// If the run folder has no private pipeline, for example because it was copied without `private`.
    pub fn of_run(run: &RunFolder) -> Result<Self> {
        let path = run.store().display_path("private/pipeline.json");
        let recorded = run.private_pipeline()?.ok_or_else(|| {
            Error::new(format!("expected {path} with the sources of the scans, got none"))
                .with_hint("pass the graph file with `--pipeline`")
        })?;
        Self::from_resolved(&path, &recorded.folder, &recorded.pipeline)
    }
}
