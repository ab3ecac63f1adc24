//! Options of an export: samples, layout and folder.

use std::path::PathBuf;

use serde::Serialize;

use super::select::{SelectedSample, SelectionConfig};
use crate::run::RunFolder;
use crate::sink::{DecathlonConfig, NnunetConfig, WebDatasetConfig};

/// The layout of an export.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "layout", rename_all = "snake_case")]
pub enum ExportLayout {
    /// nnU-Net, version 2.
    Nnunet(NnunetConfig),
    /// The Medical Segmentation Decathlon and MONAI.
    Decathlon(DecathlonConfig),
    /// Tar shards of whole volumes.
    Webdataset {
        /// The data set's name in the index and in the names of shards, with the rules of a sink's name.
        name: String,
        /// The sink's settings.
        #[serde(flatten)]
        config: WebDatasetConfig,
    },
    /// Tar shards of patches.
    Patches {
        /// The data set's name in the index, with the rules of a sink's name.
        name: String,
    },
}

/// Options of an export.
#[derive(Debug)]
pub struct ExportOptions {
    /// The folder: new, empty, or that of an earlier export with the same request.
    pub to: PathBuf,
    /// The layout.
    pub layout: ExportLayout,
    /// The selection of samples.
    pub selection: SelectionConfig,
    /// The graph file with the sources and masks for reading scans; the recorded pipeline of the run folder if absent.
    pub pipeline: Option<PathBuf>,
    /// Number of threads, each with one scan in memory at a time.
    pub threads: usize,
}

/// The common input of all layouts.
pub(super) struct ExportJob<'a> {
    pub run: &'a RunFolder,
    /// Sorted by id.
    pub samples: &'a [SelectedSample],
    pub threads: usize,
}
