//! The arms of an evaluation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::case_files;
use crate::error::Result;
use crate::volume::Labels;

/// An arm of a comparison: one training configuration, evaluated with one network for each seed.
pub struct Arm {
    /// The name in tables.
    pub name: String,
    /// The predictions of each seed.
    pub networks: Vec<Predictions>,
}

/// A function that segments the scan in a file.
pub type SegmentFn = Box<dyn Fn(&Path) -> Result<Labels> + Send + Sync>;

/// The predictions of one seed.
pub enum Predictions {
    /// Label maps on disk, by case.
    Files(BTreeMap<String, PathBuf>),
    /// A network that segments the scans and may use all threads of the machine.
    Network(SegmentFn),
}

impl Predictions {
    /// Lists the label maps of a folder, or of the data set in the folder.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be read or has no label map.
    pub fn in_folder(path: &Path) -> Result<Self> {
        Ok(Self::Files(case_files::list(&case_files::label_folder(path)?)?))
    }
}
