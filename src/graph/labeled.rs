//! Scans with labeled tumors.

use super::plan::{MaskNode, ScanStages, SourceNode};
use super::split::SplitShares;
use crate::error::Result;
use crate::ingest::ScanEntry;
use crate::record::Split;

/// Mask stages whose scans have labeled tumors, with their sources.
#[derive(Clone, Debug)]
pub struct LabeledScans {
    sources: Vec<SourceNode>,
    masks: Vec<MaskNode>,
    split: SplitShares,
}

impl LabeledScans {
    /// Selects mask stages by name.
    pub fn of(stages: ScanStages, split: SplitShares, is_selected: impl Fn(&str) -> bool) -> Self {
        let masks = stages.masks.into_iter().filter(|mask| is_selected(&mask.name)).collect();
        Self { sources: stages.sources, masks, split }
    }

    /// Returns whether there is no mask stage.
    pub fn is_empty(&self) -> bool {
        self.masks.is_empty()
    }

    /// Lists the scans of training patients, each with its source and mask stage.
    ///
    /// # Errors
    /// If a source cannot be listed.
    pub fn training_scans(&self) -> Result<Vec<(&SourceNode, &MaskNode, ScanEntry)>> {
        let mut scans = Vec::new();
        for mask in &self.masks {
            for &source in &mask.sources {
                let source = &self.sources[source];
                let listed = source.source.list()?.into_iter();
                let training = listed.filter(|entry| self.split.of(entry.patient_key) == Split::Train);
                scans.extend(training.map(|entry| (source, mask, entry)));
            }
        }
        Ok(scans)
    }
}
