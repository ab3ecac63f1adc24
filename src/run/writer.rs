//! Writing a run folder: ingest manifests first, commits last, each once and in order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::ingest_manifest::private_text;
use super::ingested::IngestedScans;
use super::projection::{project_commit, project_tables};
use super::purge::{finish_purge, write_base};
use super::seal::SealedEpoch;
use super::spool::Spool;
use super::{
    CHECKPOINT_INTERVAL, Commit, Counts, EpochChanges, IngestManifest, MANIFEST, RunFolder, RunHead, RunManifest,
    SourceGraph, checkpoint_name, commit_name, ingest_name, settings_name,
};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{FileEntry, QualityGroup};
use crate::sink::{Layout, LayoutReport};
use crate::store::canonical::{self, ItemCallback, StreamedList};
use crate::store::{self, DurableFolder, DurableStorage, FileDigest, FileLock, FileSystem, LocalFileSystem, STAGING};

/// The writer of a run folder. One process writes; other processes may read.
///
/// The writer keeps the state of the last commit in memory, but not the list of files, which may be long.
pub struct RunWriter {
    folder: RunFolder,
    head: RunHead,
    ingested: u64,
    /// SHA-256 of the run manifest of this writer.
    settings: String,
    /// For each source, the digests of the stages and sinks that its scans pass.
    graphs: BTreeMap<String, SourceGraph>,
    /// The differences of the graph from that of the last epoch.
    graph_change: Vec<String>,
    // Released when the process ends.
    _lock: Option<FileLock>,
}

impl RunFolder {
    /// Creates a run folder, or resumes an existing one.
    ///
    /// # Errors
    /// If the folder belongs to another run, is locked by another process, or cannot be written.
    pub fn create_or_resume(path: impl Into<PathBuf>, manifest: &RunManifest) -> Result<RunWriter> {
        let path = path.into();
        // Check before the first write, which must not go into the folder of another run or into a folder of other files.
        if Self::exists(&path) {
            Self::open(&path)?.check_resumable(manifest)?;
        } else {
            check_unused(&path)?;
        }
        let lock = lock(&path)?;
        let mut writer = Self::create_or_resume_in(Arc::new(DurableFolder::local(path)), manifest)?;
        writer._lock = lock;
        Ok(writer)
    }

    /// Returns whether a process writes to the run folder `path`; `None` if unknown.
    pub fn is_locked(path: &Path) -> Option<bool> {
        store::is_locked(&path.join(STAGING).join("lock"))
    }

    /// Checks that a run folder can be created, without creating it: the path is unused and writable, and its file system has hard links.
    ///
    /// # Errors
    /// If the run folder cannot be created.
    pub fn check_creatable(path: &Path) -> Result<()> {
        check_unused(path)?;
        store::check_writable(path)
    }

    /// Creates or resumes a run folder in any store, without a lock: two writers are still safe, as the slower one is fenced.
    ///
    /// # Errors
    /// The same errors as [`RunFolder::create_or_resume`].
    pub fn create_or_resume_in(store: Arc<dyn DurableStorage>, manifest: &RunManifest) -> Result<RunWriter> {
        if store.exists(MANIFEST)? {
            Self::open_in(Arc::clone(&store))?.check_resumable(manifest)?;
        } else {
            store.create(MANIFEST, &canonical::pretty(manifest)?)?;
        }
        store.make_private()?;
        let folder = Self::open_in(Arc::clone(&store))?;
        // Files of an earlier process may be visible without being durable.
        for (name, epochs) in [("epochs", folder.list_epochs("epochs")?), ("ingest", folder.list_epochs("ingest")?)] {
            if !epochs.is_empty() {
                store.sync_folder(name)?;
            }
        }
        let head = folder.head_at(None)?;
        let ingested = folder.next_ingest()?;
        let text = canonical::pretty(manifest)?;
        let settings = FileDigest::of(&text).sha256;
        let graph_change = folder.check_resumable(manifest)?;
        if settings != folder.manifest_sha256() {
            store.create(&settings_name(&settings), &text)?;
        }
        let graphs = manifest.graphs.clone();
        let writer = RunWriter { folder, head, ingested, settings, graphs, graph_change, _lock: None };
        if ingested < writer.next_epoch() {
            let (next, path) = (writer.next_epoch(), writer.folder.store().display_path("ingest"));
            return Err(Error::new(format!(
                "expected a manifest in {path} for each commit, got {ingested} for {next}"
            ))
            .with_kind(ErrorKind::Damaged)
            .with_hint("the run folder is damaged: restore it from a copy, or start a new run with another `--out`"));
        }
        writer.write_checkpoint()?;
        finish_purge(&writer.folder)?;
        // A process that was killed during a commit may have left outdated table folders.
        project_tables(&writer.folder)?;
        Ok(writer)
    }
}

/// Checks that a folder may become a run folder: it does not exist, is empty, or contains only the staging folder of a started run.
fn check_unused(path: &Path) -> Result<()> {
    let Some(name) = store::first_foreign(path, &[STAGING])? else { return Ok(()) };
    Err(Error::new(format!("expected a run folder or an empty folder, got {} with the entry {name}", path.display()))
        .with_hint("choose an empty or new folder with `--out`"))
}

/// Locks a run folder against other processes; `None` if its file system does not support locks: create-if-absent also prevents two
/// writers.
fn lock(path: &Path) -> Result<Option<FileLock>> {
    let (file_system, staging) = (LocalFileSystem::new(path), path.join(STAGING));
    file_system
        .make_folder("", false)
        .and_then(|()| file_system.make_folder(STAGING, true))
        .map_err(|e| Error::io("cannot create", &staging, e).with_hint("choose a writable folder with `--out`"))?;
    store::lock_if_supported(&staging.join("lock"), || {
        Error::new(format!("{} is being written by another process", path.display()))
            .with_hint("wait until the other process ends, or choose another folder with `--out`")
    })
}

/// The serialized form of a [`Checkpoint`](super::Checkpoint), with fields in the order of their names.
#[derive(Serialize)]
struct StreamedCheckpoint<'a, F> {
    commit: &'a str,
    counts: &'a Counts,
    epoch: u64,
    files: F,
    quality: &'a [(QualityGroup, i64)],
}

impl RunWriter {
    /// Returns a reader of the folder with all commits so far.
    pub fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// Returns how the graph of this writer differs from that of the last epoch that an earlier writer committed; empty if it is the same.
    pub fn graph_change(&self) -> &[String] {
        &self.graph_change
    }

    /// Returns the counts of all committed epochs.
    pub fn counts(&self) -> &Counts {
        &self.head.counts
    }

    /// Returns the first epoch that is not committed.
    pub fn next_epoch(&self) -> u64 {
        self.head.epoch.map_or(0, |epoch| epoch + 1)
    }

    /// Returns the first epoch without an ingest manifest. After a restart, epochs from [`RunWriter::next_epoch`] up to this epoch are
    /// processed again; [`RunFolder::scan_entries`] returns their scans.
    pub fn next_ingest(&self) -> u64 {
        self.ingested
    }

    /// Returns the scans and tombstones of the run, for comparison with a new listing of the sources.
    ///
    /// # Errors
    /// If a manifest cannot be read.
    pub fn ingested(&self) -> Result<IngestedScans> {
        self.folder.ingested(self.ingested)
    }

    pub(super) fn head(&self) -> &RunHead {
        &self.head
    }

    /// Ingests scans, new or changed, and removes scans, as the epoch [`RunWriter::next_ingest`], and returns the epoch. The manifest is
    /// durable on return, so the epoch may start.
    ///
    /// # Errors
    /// If a scan is named twice, the manifest cannot be written, or another writer was faster.
    pub fn ingest(&mut self, changes: &EpochChanges) -> Result<u64> {
        let epoch = self.ingested;
        let manifest = IngestManifest::new(epoch, changes, &self.graphs)?;
        let (text, digest) = manifest.text()?;
        let store = self.folder.store();
        store.create(&manifest.private_file_name(&digest), &private_text(&changes.entries)?)?;
        store.create(&ingest_name(epoch), &text)?;
        self.ingested += 1;
        Ok(epoch)
    }

    /// Commits the next epoch, so that its files exist for readers. All files of `sealed` must be durable.
    ///
    /// # Errors
    /// If `sealed` is not the next epoch, the commit cannot be written, or another writer was faster (fenced).
    pub fn commit(&mut self, sealed: SealedEpoch) -> Result<Commit> {
        let SealedEpoch { epoch, mut add, mut remove, counts, removed } = sealed;
        let next = self.next_epoch();
        if epoch != next || epoch >= self.ingested {
            let ingested = self.ingested;
            return Err(Error::new(format!(
                "expected a commit of epoch {next} of {ingested} ingested epochs, got epoch {epoch}"
            )));
        }
        let (_, ingest) = self.folder.ingest_manifest(epoch)?;
        add.sort_unstable();
        add.dedup();
        remove.sort_unstable();
        remove.dedup();
        let (parent, settings) = (self.head.sha256.clone(), self.settings.clone());
        let commit = Commit { epoch, parent, ingest, settings, add, remove, counts, removed };
        self.folder.check_removals(&commit)?;
        let text = canonical::pretty(&commit)?;
        self.folder.store().create(&commit_name(epoch), &text)?;
        self.head.apply(&commit, FileDigest::of(&text).sha256)?;
        self.graph_change.clear();
        self.folder.refresh()?;
        self.write_checkpoint()?;
        project_commit(&**self.folder.store(), &commit)?;
        Ok(commit)
    }

    /// Keeps the states of the last commit and of the `keep_epochs` commits before it, and removes all earlier states with the files that
    /// no later state names. Returns the paths of the removed files.
    ///
    /// # Errors
    /// If files cannot be read, written or removed.
    pub fn purge(&mut self, keep_epochs: u64) -> Result<Vec<String>> {
        let Some(epoch) = self.head.epoch.and_then(|head| head.checked_sub(keep_epochs)) else {
            return Ok(Vec::new());
        };
        if self.folder.base().is_none_or(|base| base.epoch < epoch) {
            let head = self.folder.head_at(Some(epoch))?;
            self.write_checkpoint_of(epoch, &head)?;
            write_base(&self.folder, epoch, &head)?;
            self.folder = RunFolder::open_in(Arc::clone(self.folder.store()))?;
        }
        finish_purge(&self.folder)
    }

    fn write_checkpoint(&self) -> Result<()> {
        match self.head.epoch.filter(|epoch| (epoch + 1) % CHECKPOINT_INTERVAL == 0) {
            Some(epoch) => self.write_checkpoint_of(epoch, &self.head),
            None => Ok(()),
        }
    }

    /// Writes the checkpoint of an epoch, if it does not exist; `head` is the state after its commit.
    fn write_checkpoint_of(&self, epoch: u64, head: &RunHead) -> Result<()> {
        let (store, name) = (self.folder.store(), checkpoint_name(epoch));
        if store.exists(&name)? {
            return Ok(());
        }
        let quality: Vec<_> = self.folder.quality(Some(epoch))?.into_iter().collect();
        let staged = format!("{STAGING}/checkpoint-{epoch}");
        // The checkpoint grows with the run, so it is streamed from the reader to the file.
        store.stage(&staged, &mut |out| {
            let files = StreamedList::of::<FileEntry>(|visit: ItemCallback<'_, FileEntry>| {
                self.folder.for_each_file(Some(epoch), visit)
            });
            let RunHead { epoch: _, sha256, counts } = head;
            canonical::write_pretty(
                out,
                &StreamedCheckpoint { commit: sha256, counts, epoch, files, quality: &quality },
            )
        })?;
        store.publish(&[(staged.clone(), name)])?;
        store.remove(&staged)
    }

    /// Synchronizes the folders of the tables and of the given layouts with the committed files; returns the result of each layout.
    ///
    /// # Errors
    /// If files cannot be read or linked.
    pub fn project<'a>(&self, layouts: impl IntoIterator<Item = &'a dyn Layout>) -> Result<Vec<LayoutReport>> {
        project_tables(&self.folder)?;
        let project = |layout: &'a dyn Layout| {
            let (mut files, table) = (Vec::new(), layout.index());
            self.folder.for_each_file(None, &mut |file| {
                if file.table == table {
                    files.push(file);
                }
                Ok(())
            })?;
            layout.project(&**self.folder.store(), &files)
        };
        layouts.into_iter().map(project).collect()
    }

    /// Creates the spool of this run for these layouts.
    pub fn spool<'a>(&self, layouts: impl IntoIterator<Item = &'a dyn Layout>) -> Spool {
        Spool::new(Arc::clone(self.folder.store()), layouts)
    }
}
