//! Writing a run folder: intakes first, commits last, each once and in order.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use super::{
    CHECKPOINT_EVERY, Commit, Intake, IntakeEntry, MANIFEST, RunFolder, RunManifest, Snapshot, checkpoint_name,
    commit_name, intake_name,
};
use crate::error::{Error, Result};
use crate::ingest::ScanEntry;
use crate::sink::Sink;
use crate::sink::canonical;
use crate::sink::durable::{Durable, FileDigest, Folder, STAGING};
use crate::sink::spool::Spool;
use crate::tables::epoch::SealedEpoch;

/// A run folder, to be written. One process has it; others read and spool.
pub struct RunWriter {
    folder: RunFolder,
    snapshot: Snapshot,
    taken_in: u64,
    // Released with the process, however it ends.
    _lock: Option<File>,
}

impl RunFolder {
    /// Makes a run folder, or goes on with the one that is there.
    ///
    /// # Errors
    /// Where the folder belongs to another run, another process is writing it, or it cannot be written.
    pub fn create_or_resume(path: impl Into<PathBuf>, manifest: &RunManifest) -> Result<RunWriter> {
        let path = path.into();
        // Before anything is written into the folder of another run.
        if path.join(MANIFEST).exists() {
            let own = Self::open(&path)?;
            manifest.check_same(own.manifest(), &path.display().to_string())?;
        }
        let lock = lock(&path)?;
        let mut writer = Self::create_or_resume_in(Arc::new(Folder::local(path)), manifest)?;
        writer._lock = Some(lock);
        Ok(writer)
    }

    /// The same anywhere, without the courtesy of a lock: two writers are still safe, the slower one is fenced.
    ///
    /// # Errors
    /// As for [`RunFolder::create_or_resume`].
    pub fn create_or_resume_in(store: Arc<dyn Durable>, manifest: &RunManifest) -> Result<RunWriter> {
        if store.exists(MANIFEST)? {
            let own = Self::open_in(Arc::clone(&store))?;
            manifest.check_same(own.manifest(), &store.place(""))?;
        }
        store.create(MANIFEST, &canonical::pretty(manifest)?)?;
        let folder = Self::open_in(Arc::clone(&store))?;
        // What an earlier process made may be seen and yet not survive a loss of power.
        for (name, found) in [("epochs", folder.numbered("epochs")?), ("intake", folder.numbered("intake")?)] {
            if !found.is_empty() {
                store.settle(name)?;
            }
        }
        let snapshot = folder.snapshot(None)?;
        let taken_in = {
            let present = folder.numbered("intake")?;
            (0..).take_while(|epoch| present.binary_search(epoch).is_ok()).count() as u64
        };
        let mut writer = RunWriter { folder, snapshot, taken_in, _lock: None };
        if taken_in < writer.next_epoch() {
            let (next, place) = (writer.next_epoch(), writer.folder.store().place("intake"));
            return Err(Error::new(format!("{place} has {taken_in} intakes, there are {next} commits"))
                .with_hint("the folder was damaged; restore it from a copy, or start anew with another `--out`"));
        }
        writer.write_checkpoint()?;
        Ok(writer)
    }
}

fn lock(path: &std::path::Path) -> Result<File> {
    let staging = path.join(STAGING);
    std::fs::create_dir_all(&staging).map_err(|e| {
        Error::io("cannot make", &staging, e).with_hint("choose a folder that you may write to with `--out`")
    })?;
    let place = staging.join("lock");
    let file = File::create(&place).map_err(|e| Error::io("cannot create", &place, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(Error::new(format!("{} is being written by another process", path.display()))
                .with_hint("wait until it ends, or write elsewhere with `--out`"))
        }
        // Not every network share knows locks; create-if-absent keeps two writers apart anyway.
        Err(std::fs::TryLockError::Error(_)) => Ok(file),
    }
}

impl RunWriter {
    /// The folder with what is committed by now.
    pub fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// What is committed by now.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The first epoch that is not committed.
    pub fn next_epoch(&self) -> u64 {
        self.snapshot.epoch.map_or(0, |epoch| epoch + 1)
    }

    /// The first epoch that is not taken in; epochs from [`RunWriter::next_epoch`] up to here are to be done again
    /// after a restart, with [`RunFolder::scan_entries`] telling their scans.
    pub fn next_intake(&self) -> u64 {
        self.taken_in
    }

    /// Every scan that was ever taken in, by id: what a new listing of the sources is compared with.
    ///
    /// # Errors
    /// Where an intake cannot be read.
    pub fn taken_in(&self) -> Result<BTreeMap<String, IntakeEntry>> {
        let mut all = BTreeMap::new();
        for epoch in 0..self.taken_in {
            let (intake, _) = self.folder.intake(epoch)?;
            all.extend(intake.entries.into_iter().map(|entry| (entry.scan_id.clone(), entry)));
        }
        Ok(all)
    }

    /// Takes scans in as the epoch [`RunWriter::next_intake`], and gives its number. Durable when it returns; work on
    /// the epoch may start.
    ///
    /// # Errors
    /// Where it cannot be written, or another writer was faster.
    pub fn take_in(&mut self, entries: &[ScanEntry]) -> Result<u64> {
        let epoch = self.taken_in;
        let intake = Intake::new(epoch, entries)?;
        let (text, digest) = intake.text()?;
        let store = self.folder.store();
        store.create(&intake.private_name(&digest), &intake.private_text(entries)?)?;
        store.create(&intake_name(epoch), &text)?;
        self.taken_in += 1;
        Ok(epoch)
    }

    /// Commits the next epoch: from here on its files exist for readers. Every file that it names is durable already.
    ///
    /// # Errors
    /// Where it is not the next epoch, cannot be written, or another writer was faster (fenced).
    pub fn commit(&mut self, sealed: SealedEpoch) -> Result<Commit> {
        let SealedEpoch { epoch, mut add, mut remove, counts } = sealed;
        let next = self.next_epoch();
        if epoch != next || epoch >= self.taken_in {
            let taken_in = self.taken_in;
            return Err(Error::new(format!(
                "expected epoch {next} of {taken_in} taken in to be committed, got {epoch}"
            )));
        }
        let (_, intake) = self.folder.intake(epoch)?;
        add.sort_unstable();
        add.dedup();
        remove.sort_unstable();
        remove.dedup();
        let commit = Commit { epoch, parent: self.snapshot.sha256.clone(), intake, add, remove, counts };
        let text = canonical::pretty(&commit)?;
        self.snapshot.check(&commit)?;
        self.folder.store().create(&commit_name(epoch), &text)?;
        self.snapshot.apply(&commit, FileDigest::of(&text).sha256)?;
        self.folder.refresh()?;
        self.write_checkpoint()?;
        Ok(commit)
    }

    fn write_checkpoint(&mut self) -> Result<()> {
        let Some(epoch) = self.snapshot.epoch.filter(|epoch| (epoch + 1) % CHECKPOINT_EVERY == 0) else {
            return Ok(());
        };
        let Some(checkpoint) = self.snapshot.checkpoint() else { return Ok(()) };
        self.folder.store().create(&checkpoint_name(epoch), &canonical::pretty(&checkpoint)?)
    }

    /// Brings the layouts of all sinks in line with what is committed.
    ///
    /// # Errors
    /// Where files cannot be read or linked.
    pub fn project(&self, sinks: &[Arc<dyn Sink>]) -> Result<()> {
        let store = &**self.folder.store();
        sinks.iter().try_for_each(|sink| sink.project(store, &self.snapshot.of_table(&sink.index())))
    }

    /// The spool of this run for these sinks.
    pub fn spool(&self, sinks: &[Arc<dyn Sink>]) -> Spool {
        Spool::new(Arc::clone(self.folder.store()), sinks)
    }
}
