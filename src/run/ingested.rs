//! The scans of a run folder, by its ingest manifests and private files.

use std::collections::{BTreeMap, BTreeSet};

use super::ingest_manifest::with_keys;
use super::reader::RunFolder;
use super::{IngestEntry, IngestManifest, ingest_name};
use crate::error::{Error, Result};
use crate::id::{ScanId, Tombstone};
use crate::ingest::ScanEntry;

/// The scans and tombstones of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IngestedScans {
    /// The scans, by id.
    pub entries: BTreeMap<ScanId, IngestEntry>,
    /// The tombstones of withdrawn scans.
    pub withdrawn: BTreeSet<Tombstone>,
}

impl RunFolder {
    /// Returns the first epoch without an ingest manifest.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn next_ingest(&self) -> Result<u64> {
        let present = self.list_epochs("ingest")?;
        let first = self.base().map_or(0, |base| base.epoch + 1);
        Ok(first + (first..).take_while(|epoch| present.binary_search(epoch).is_ok()).count() as u64)
    }

    /// Returns the scans and tombstones of the run after the ingest manifests of all epochs before `end`.
    ///
    /// # Errors
    /// If a manifest cannot be read.
    pub fn ingested(&self, end: u64) -> Result<IngestedScans> {
        let mut scans = IngestedScans::default();
        if let Some(base) = self.base() {
            scans.entries = base.entries.iter().map(|entry| (entry.scan_id, entry.clone())).collect();
            scans.withdrawn = base.withdrawn.clone();
        }
        for epoch in self.base().map_or(0, |base| base.epoch + 1)..end {
            let (manifest, _) = self.ingest_manifest(epoch)?;
            for scan_id in &manifest.removed {
                scans.entries.remove(scan_id);
            }
            let entries = manifest.entries.into_iter().chain(manifest.retested);
            scans.entries.extend(entries.map(|entry| (entry.scan_id, entry)));
            scans.withdrawn.extend(manifest.withdrawn);
        }
        Ok(scans)
    }

    /// Reads the ingest manifest of an epoch and computes the SHA-256 of its file.
    ///
    /// # Errors
    /// If the manifest does not exist or cannot be read.
    pub fn ingest_manifest(&self, epoch: u64) -> Result<(IngestManifest, String)> {
        self.read_document(&ingest_name(epoch))
    }

    /// Reads the scans of an ingest manifest with their keys from `RUN/private`; for an epoch up to the base, all scans of the base.
    ///
    /// # Errors
    /// If the private file does not exist or belongs to another manifest.
    pub fn scan_entries(&self, epoch: u64) -> Result<Vec<ScanEntry>> {
        let (entries, name) = match self.base() {
            Some(base) if epoch <= base.epoch => (base.entries.clone(), base.private_file_name()),
            _ => {
                let (manifest, digest) = self.ingest_manifest(epoch)?;
                let name = manifest.private_file_name(&digest);
                (manifest.entries, name)
            }
        };
        let path = self.store().display_path(&name);
        let text = self.store().read(&name)?.ok_or_else(|| {
            Error::new(format!("expected {path}, which maps the scans of epoch {epoch} to their paths, got none"))
                .with_hint(
                    "copy the folder `private` from the machine of the run, or start a new run with another `--out`",
                )
        })?;
        with_keys(&entries, &text, &path)
    }

    /// Reads all scans that the run has ingested before `end`, also earlier versions, with their keys from `RUN/private`.
    ///
    /// # Errors
    /// The errors of [`RunFolder::scan_entries`].
    pub fn for_each_entry(&self, end: u64, visit: &mut dyn FnMut(ScanEntry)) -> Result<()> {
        for epoch in self.base().map_or(0, |base| base.epoch)..end {
            self.scan_entries(epoch)?.into_iter().for_each(&mut *visit);
        }
        Ok(())
    }
}
