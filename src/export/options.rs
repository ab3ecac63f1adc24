//! What is exported, how and where to.

use std::path::PathBuf;

use serde::Serialize;

use super::select::{Selected, SelectionConfig};
use crate::run::RunFolder;
use crate::sink::{DecathlonConfig, NnunetConfig, WebDatasetConfig};

/// In which layout samples are written.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "layout", rename_all = "snake_case")]
pub enum ExportLayout {
    /// nnU-Net, version 2.
    Nnunet(NnunetConfig),
    /// The Medical Segmentation Decathlon and MONAI.
    Decathlon(DecathlonConfig),
    /// Tar shards of whole volumes.
    Webdataset {
        /// The data set's name in the index and in the names of shards: as a sink's.
        name: String,
        /// The sink's settings.
        #[serde(flatten)]
        config: WebDatasetConfig,
    },
    /// Tar shards of patches.
    Patches {
        /// The data set's name in the index: as a sink's.
        name: String,
    },
}

/// What is exported, and where to.
#[derive(Debug)]
pub struct ExportOptions {
    /// The folder: new, empty, or that of an earlier export of the same.
    pub to: PathBuf,
    /// The layout.
    pub layout: ExportLayout,
    /// Which samples.
    pub selection: SelectionConfig,
    /// The graph file whose sources and masks read the scans; those that the run folder records where absent.
    pub pipeline: Option<PathBuf>,
    /// Threads, each with one scan in memory at a time.
    pub threads: usize,
}

/// What every layout needs.
pub(super) struct ExportJob<'a> {
    pub run: &'a RunFolder,
    /// Sorted by id.
    pub samples: &'a [Selected],
    pub threads: usize,
}
