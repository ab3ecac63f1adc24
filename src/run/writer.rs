//! Writing a run folder: ingest manifests first, commits last, each once and in order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::projection::{project_commit, project_tables};
use super::seal::SealedEpoch;
use super::spool::Spool;
use super::{
    CHECKPOINT_EVERY, Commit, Counts, IngestEntry, IngestManifest, MANIFEST, RunFolder, RunHead, RunManifest,
    checkpoint_name, commit_name, ingest_name,
};
use crate::error::{Error, ErrorKind, Result};
use crate::id::ScanId;
use crate::ingest::ScanEntry;
use crate::record::FileEntry;
use crate::sink::Layout;
use crate::store::canonical::{self, StreamedList, Visit};
use crate::store::{self, Disk, Durable, FileDigest, FileLock, Folder, LocalDisk, STAGING};

/// A run folder, to be written. One process has it; others read.
///
/// It holds the state of the last commit, not the list of files: runs are long.
pub struct RunWriter {
    folder: RunFolder,
    head: RunHead,
    ingested: u64,
    // Released with the process, however it ends.
    _lock: Option<FileLock>,
}

impl RunFolder {
    /// Makes a run folder, or goes on with the one that is there.
    ///
    /// # Errors
    /// If the folder belongs to another run, another process is writing it, or it cannot be written.
    pub fn create_or_resume(path: impl Into<PathBuf>, manifest: &RunManifest) -> Result<RunWriter> {
        let path = path.into();
        // Before anything is written into the folder of another run, or among files of somebody else.
        if path.join(MANIFEST).exists() {
            let own = Self::open(&path)?;
            manifest.check_same(own.manifest(), &path.display().to_string())?;
        } else {
            check_unused(&path)?;
        }
        let lock = lock(&path)?;
        let mut writer = Self::create_or_resume_in(Arc::new(Folder::local(path)), manifest)?;
        writer._lock = lock;
        Ok(writer)
    }

    /// The same anywhere, without the courtesy of a lock: two writers are still safe, the slower one is fenced.
    ///
    /// # Errors
    /// The same errors as [`RunFolder::create_or_resume`].
    pub fn create_or_resume_in(store: Arc<dyn Durable>, manifest: &RunManifest) -> Result<RunWriter> {
        if store.exists(MANIFEST)? {
            let own = Self::open_in(Arc::clone(&store))?;
            manifest.check_same(own.manifest(), &store.display_path(""))?;
        }
        store.create(MANIFEST, &canonical::pretty(manifest)?)?;
        store.make_private()?;
        let folder = Self::open_in(Arc::clone(&store))?;
        // What an earlier process made may be seen and yet not survive a loss of power.
        for (name, found) in [("epochs", folder.numbered("epochs")?), ("ingest", folder.numbered("ingest")?)] {
            if !found.is_empty() {
                store.sync_folder(name)?;
            }
        }
        let head = folder.standing(None)?;
        let ingested = {
            let present = folder.numbered("ingest")?;
            (0..).take_while(|epoch| present.binary_search(epoch).is_ok()).count() as u64
        };
        let writer = RunWriter { folder, head, ingested, _lock: None };
        if ingested < writer.next_epoch() {
            let (next, place) = (writer.next_epoch(), writer.folder.store().display_path("ingest"));
            return Err(Error::new(format!("{place} has {ingested} manifests, there are {next} commits"))
                .with_kind(ErrorKind::Damaged)
                .with_hint("the folder was damaged; restore it from a copy, or start again with another `--out`"));
        }
        writer.write_checkpoint()?;
        // A process that died at a commit may have left the folders of the tables behind it.
        project_tables(&writer.folder)?;
        Ok(writer)
    }
}

/// Whether a folder may become a run folder: one that does not exist, that is empty, or in which a run had no more than begun.
fn check_unused(path: &Path) -> Result<()> {
    let Some(name) = store::first_foreign(path, &[STAGING])? else { return Ok(()) };
    Err(Error::new(format!("{} is no run folder and not empty: it holds {name}", path.display()))
        .with_hint("give an empty folder, or one that does not exist yet, with `--out`"))
}

/// Keeps other processes out of a folder as long as the lock is held; `None` if its file system does not support locks:
/// create-if-absent keeps two writers apart anyway.
fn lock(path: &Path) -> Result<Option<FileLock>> {
    let (disk, staging) = (LocalDisk::new(path), path.join(STAGING));
    disk.make_folder("", false).and_then(|()| disk.make_folder(STAGING, true)).map_err(|e| {
        Error::io("cannot make", &staging, e).with_hint("choose a folder that you may write to with `--out`")
    })?;
    store::lock_if_supported(&staging.join("lock"), || {
        Error::new(format!("{} is being written by another process", path.display()))
            .with_hint("wait until it ends, or write elsewhere with `--out`")
    })
}

/// A [`Checkpoint`](super::Checkpoint) as it is written, with its fields in the order of their names.
#[derive(Serialize)]
struct StreamedCheckpoint<'a, F> {
    commit: &'a str,
    counts: &'a Counts,
    epoch: u64,
    files: F,
}

impl RunWriter {
    /// The folder with what is committed by now.
    pub fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// How everything that is committed ended.
    pub fn counts(&self) -> &Counts {
        &self.head.counts
    }

    /// The first epoch that is not committed.
    pub fn next_epoch(&self) -> u64 {
        self.head.epoch.map_or(0, |epoch| epoch + 1)
    }

    /// The first epoch without an ingest manifest; epochs from [`RunWriter::next_epoch`] up to here are to be done again
    /// after a restart, with [`RunFolder::scan_entries`] telling their scans.
    pub fn next_ingest(&self) -> u64 {
        self.ingested
    }

    /// Every scan that was ever ingested, by id: what a new listing of the sources is compared with.
    ///
    /// # Errors
    /// If a manifest cannot be read.
    pub fn ingested(&self) -> Result<BTreeMap<ScanId, IngestEntry>> {
        let mut all = BTreeMap::new();
        for epoch in 0..self.ingested {
            let (manifest, _) = self.folder.ingest_manifest(epoch)?;
            all.extend(manifest.entries.into_iter().map(|entry| (entry.scan_id, entry)));
        }
        Ok(all)
    }

    /// Ingests scans as the epoch [`RunWriter::next_ingest`], and returns its number. Durable when it returns; work on
    /// the epoch may start.
    ///
    /// # Errors
    /// If it cannot be written, or another writer was faster.
    pub fn ingest(&mut self, entries: &[ScanEntry]) -> Result<u64> {
        let epoch = self.ingested;
        let manifest = IngestManifest::new(epoch, entries)?;
        let (text, digest) = manifest.text()?;
        let store = self.folder.store();
        store.create(&manifest.private_name(&digest), &manifest.private_text(entries)?)?;
        store.create(&ingest_name(epoch), &text)?;
        self.ingested += 1;
        Ok(epoch)
    }

    /// Commits the next epoch: from here on its files exist for readers. Every file that it names is durable already.
    ///
    /// # Errors
    /// If it is not the next epoch, cannot be written, or another writer was faster (fenced).
    pub fn commit(&mut self, sealed: SealedEpoch) -> Result<Commit> {
        let SealedEpoch { epoch, mut add, mut remove, counts } = sealed;
        let next = self.next_epoch();
        if epoch != next || epoch >= self.ingested {
            let ingested = self.ingested;
            return Err(Error::new(format!(
                "expected epoch {next} of {ingested} ingested ones to be committed, got {epoch}"
            )));
        }
        let (_, ingest) = self.folder.ingest_manifest(epoch)?;
        add.sort_unstable();
        add.dedup();
        remove.sort_unstable();
        remove.dedup();
        let commit = Commit { epoch, parent: self.head.sha256.clone(), ingest, add, remove, counts };
        if !commit.remove.is_empty() {
            self.folder.snapshot(None)?.check(&commit)?;
        }
        let text = canonical::pretty(&commit)?;
        self.folder.store().create(&commit_name(epoch), &text)?;
        self.head.apply(&commit, FileDigest::of(&text).sha256)?;
        self.folder.refresh()?;
        self.write_checkpoint()?;
        project_commit(&**self.folder.store(), &commit)?;
        Ok(commit)
    }

    fn write_checkpoint(&self) -> Result<()> {
        let Some(epoch) = self.head.epoch.filter(|epoch| (epoch + 1) % CHECKPOINT_EVERY == 0) else {
            return Ok(());
        };
        let (store, name) = (self.folder.store(), checkpoint_name(epoch));
        if store.exists(&name)? {
            return Ok(());
        }
        let staged = format!("{STAGING}/checkpoint-{epoch}");
        // It is as long as the run: it is written while it is read.
        store.stage(&staged, &mut |out| {
            let files =
                StreamedList::of::<FileEntry>(|take: Visit<'_, FileEntry>| self.folder.each_file(Some(epoch), take));
            let RunHead { epoch: _, sha256, counts } = &self.head;
            canonical::write_pretty(out, &StreamedCheckpoint { commit: sha256, counts, epoch, files })
        })?;
        store.publish(&[(staged.clone(), name)])?;
        store.remove(&staged)
    }

    /// Brings the folders of the tables and of the given layouts in line with what is committed.
    ///
    /// # Errors
    /// If files cannot be read or linked.
    pub fn project<'a>(&self, layouts: impl IntoIterator<Item = &'a dyn Layout>) -> Result<()> {
        project_tables(&self.folder)?;
        layouts.into_iter().try_for_each(|layout| {
            let (mut files, table) = (Vec::new(), layout.index());
            self.folder.each_file(None, &mut |file| {
                if file.table == table {
                    files.push(file);
                }
                Ok(())
            })?;
            layout.project(&**self.folder.store(), &files)
        })
    }

    /// The spool of this run for these layouts.
    pub fn spool<'a>(&self, layouts: impl IntoIterator<Item = &'a dyn Layout>) -> Spool {
        Spool::new(Arc::clone(self.folder.store()), layouts)
    }
}
