//! The versions of the scans of a plan: the files of a scan, those that its masks read, and those of the programs of its stages.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::plan::{Plan, SourceNode};
use crate::error::{Fault, Result};
use crate::id::ScanVersion;
use crate::ingest::{FileState, ScanEntry, VersionHasher};

/// The states of the files that programs read for every scan, by stage.
type ProgramStates = BTreeMap<String, Vec<FileState>>;

impl Plan {
    /// Lists the scans of a source with the versions of all files that their results depend on.
    ///
    /// # Errors
    /// If the source cannot be listed.
    pub fn list(&self, source: usize) -> Result<Vec<ScanEntry>> {
        let programs = self.program_states(source);
        let mut entries = self.sources[source].source.list()?;
        for entry in &mut entries {
            entry.version = self.with_stages(source, entry, entry.version, &programs);
        }
        Ok(entries)
    }

    /// Returns the current version of a scan, to detect changes since [`Plan::list`].
    ///
    /// # Errors
    /// A fault of stage `read` if the scan no longer exists.
    pub fn current_version(&self, source: usize, entry: &ScanEntry) -> Result<ScanVersion, Fault> {
        let own = self.sources[source].source.version(entry)?;
        Ok(self.with_stages(source, entry, own, &self.program_states(source)))
    }

    /// Returns the index of the source with this name, or `None` if the plan has no such source.
    pub fn source_index(&self, name: &str) -> Option<usize> {
        self.sources.iter().position(|node| node.name == name)
    }

    /// Returns whether a mask reads label files for a scan, and none of them exists.
    pub fn is_without_labels(&self, entry: &ScanEntry) -> bool {
        let Some(source) = self.source_index(&entry.source) else { return false };
        let Some(companions) = self.sources[source].source.companions(entry) else { return false };
        let is_absent =
            |states: Vec<FileState>| !states.is_empty() && states.iter().all(|state| *state == FileState::Absent);
        self.masks_of(source).any(|(_, node)| is_absent(node.mask.file_states(&*companions)))
    }

    /// Returns the version of a scan that combines its own version with the files of its stages.
    fn with_stages(&self, source: usize, entry: &ScanEntry, own: ScanVersion, programs: &ProgramStates) -> ScanVersion {
        let SourceNode { source: archive, .. } = &self.sources[source];
        let mut files: Vec<(&str, Vec<FileState>)> =
            programs.iter().map(|(stage, states)| (stage.as_str(), states.clone())).collect();
        if let Some(companions) = archive.companions(entry) {
            let masks =
                self.masks_of(source).map(|(_, node)| (node.name.as_str(), node.mask.file_states(&*companions)));
            files.extend(masks.filter(|(_, states)| !states.is_empty()));
        }
        // Phantoms have no files, and keep the version of their source.
        if files.is_empty() {
            return own;
        }
        let hasher = VersionHasher::new().add_text("scan", &own.to_string());
        files.into_iter().fold(hasher, |hasher, (stage, states)| hasher.add_files(stage, states)).finish()
    }

    /// Returns the states of the files that programs read for every scan of a source.
    fn program_states(&self, source: usize) -> ProgramStates {
        let mut states = ProgramStates::new();
        let mut add = |stage: &str, files: &[PathBuf]| {
            if !files.is_empty() {
                states.insert(
                    format!("program of {stage}"),
                    files.iter().flat_map(|file| FileState::of_path(file)).collect(),
                );
            }
        };
        for (index, mask) in self.masks_of(source) {
            add(&mask.name, mask.mask.program_files());
            for synthesis in self.syntheses_of(index) {
                add(&synthesis.attempts.name, synthesis.attempts.synthesize.program_files());
                for scorer in &synthesis.attempts.scorers {
                    add(&scorer.name, scorer.stage.program_files());
                }
            }
        }
        states
    }
}
