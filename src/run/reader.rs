//! Reading a run folder, also while a run writes to it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::base::{self, Base};
use super::{
    CHECKPOINT_INTERVAL, Checkpoint, Commit, Counts, FORMAT_VERSION, MANIFEST, QualityCounts, RunManifest,
    checkpoint_name, commit_name, settings_name, stream,
};
use crate::error::{Error, ErrorKind, Result};
use crate::record::schema::Table;
use crate::record::{FileEntry, epoch_name};
use crate::simd::Class;
use crate::sink::pairs::{self, PAIRS, Pair};
use crate::store::canonical;
use crate::store::canonical::ItemCallback;
use crate::store::{DurableFolder, DurableStorage, FileDigest};

/// A reader of a run folder. The reader includes the commits that existed when it was opened; see [`RunFolder::refresh`].
#[derive(Clone)]
pub struct RunFolder {
    store: Arc<dyn DurableStorage>,
    manifest: RunManifest,
    manifest_sha256: String,
    head: Option<u64>,
    /// The state from which readers start, if earlier commits were removed.
    base: Option<Arc<Base>>,
}

/// The state of a run folder after a commit, without its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunHead {
    /// The last epoch; `None` before the first commit.
    pub epoch: Option<u64>,
    /// SHA-256 of that epoch's commit, or of `run.json`.
    pub sha256: String,
    /// Counts of all epochs.
    pub counts: Counts,
}

impl RunHead {
    /// Checks that a commit can follow this state.
    fn check(&self, commit: &Commit) -> Result<()> {
        let Commit { epoch, parent, .. } = commit;
        if *parent == self.sha256 {
            return Ok(());
        }
        let message = format!("commit {epoch}: expected parent {}, got {parent}", self.sha256);
        let hint = "restore the folder from a copy: commits of two runs were mixed, or a commit was edited by hand";
        Err(Error::new(message).with_hint(hint))
    }

    /// Applies the next commit with digest `sha256`.
    pub(super) fn apply(&mut self, commit: &Commit, sha256: String) -> Result<()> {
        self.check(commit)?;
        self.counts += &commit.counts;
        self.counts -= &commit.removed;
        self.epoch = Some(commit.epoch);
        self.sha256 = sha256;
        Ok(())
    }
}

/// The state of a run folder after a commit, with its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The state without files.
    pub head: RunHead,
    /// The current files, by path.
    pub files: BTreeMap<String, FileEntry>,
}

impl Snapshot {
    /// Returns the lists of image and label files of all sinks.
    pub(super) fn pairs_indexes(&self) -> Vec<FileEntry> {
        self.files.values().filter(|file| pairs::is_index(&file.table)).cloned().collect()
    }

    /// Checks that a commit can follow this state.
    pub(super) fn check(&self, commit: &Commit) -> Result<()> {
        self.head.check(commit)?;
        match commit.remove.iter().find(|file| !self.files.contains_key(&file.path)) {
            Some(file) => {
                Err(Error::new(format!("commit {} removes {}, which does not exist", commit.epoch, file.path)))
            }
            None => Ok(()),
        }
    }

    /// Applies the next commit with digest `sha256`.
    pub(super) fn apply(&mut self, commit: &Commit, sha256: String) -> Result<()> {
        self.check(commit)?;
        for file in &commit.remove {
            self.files.remove(&file.path);
        }
        self.files.extend(commit.add.iter().map(|file| (file.path.clone(), file.clone())));
        self.head.apply(commit, sha256)
    }

    /// Returns the checkpoint of the last epoch, or `None` if no epoch is committed.
    pub(super) fn checkpoint(&self, quality: &QualityCounts) -> Option<Checkpoint> {
        let files = self.files.values().cloned().collect();
        let RunHead { epoch, sha256, counts } = &self.head;
        let quality = quality.iter().map(|(group, attempts)| (group.clone(), *attempts)).collect();
        epoch.map(|epoch| Checkpoint { epoch, commit: sha256.clone(), files, counts: counts.clone(), quality })
    }
}

impl RunFolder {
    /// Opens a local run folder.
    ///
    /// # Errors
    /// If the folder is not a run folder or has another format version.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open_in(Arc::new(DurableFolder::local(path)))
    }

    /// Opens a run folder in any store.
    ///
    /// # Errors
    /// The same errors as [`RunFolder::open`].
    pub fn open_in(store: Arc<dyn DurableStorage>) -> Result<Self> {
        let path = store.display_path(MANIFEST);
        let text = store.read(MANIFEST)?.ok_or_else(|| {
            Error::new(format!("expected a run folder with {path}, got none"))
                .with_hint("pass the folder that `freetumor run` wrote; the command prints the folder at its end")
        })?;
        // Check the version first: a newer format may have unknown fields.
        let version = canonical::parse::<serde_json::Value>(&text, &path)?["format"].as_u64();
        if version != Some(u64::from(FORMAT_VERSION)) {
            let got = version.map_or("none".to_owned(), |version| version.to_string());
            return Err(Error::new(format!("{path}: expected format {FORMAT_VERSION}, got {got}"))
                .with_hint("run the pipeline again into a new folder with `--out`; this folder is not changed"));
        }
        let manifest = canonical::parse(&text, &path)?;
        let manifest_sha256 = FileDigest::of(&text).sha256;
        let mut folder = Self { store, manifest, manifest_sha256, head: None, base: None };
        folder.refresh()?;
        Ok(folder)
    }

    /// Returns the kernel class of the run folder `path`; `None` if `path` is not a run folder, or the run has no networks or uses a
    /// device.
    pub fn kernel_class_of(path: &Path) -> Option<Class> {
        Self::open(path).ok()?.current_manifest().ok()?.kernel_class?.parse().ok()
    }

    /// Returns whether a folder is a run folder.
    pub fn exists(path: &Path) -> bool {
        path.join(MANIFEST).exists()
    }

    /// Checks that a run with this manifest may resume this folder, and returns how the graph differs from that of the last epoch; empty if
    /// it is the same.
    ///
    /// # Errors
    /// An error that names the differences which are not possible in a run folder.
    pub fn check_resumable(&self, manifest: &RunManifest) -> Result<Vec<String>> {
        let current = self.current_manifest()?;
        manifest.check_resumable(&current, &self.store.display_path(""))?;
        Ok(manifest.differences(&current))
    }

    /// Reads new commits; returns whether there are any.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn refresh(&mut self) -> Result<bool> {
        let before = self.head;
        if before.is_none() {
            self.base = base::read_last(&*self.store)?.map(Arc::new);
            self.head = self.base.as_ref().map(|base| base.epoch);
        }
        let mut next = self.head.map_or(0, |epoch| epoch + 1);
        // Listing all commits is slow; with a known head only the next commits are checked.
        let present = if before.is_none() { Some(self.list_epochs("epochs")?) } else { None };
        let exists = |epoch: u64| match &present {
            Some(present) => Ok(present.binary_search(&epoch).is_ok()),
            None => self.store.exists(&commit_name(epoch)),
        };
        let mut head = self.head;
        while exists(next)? {
            head = Some(next);
            next += 1;
        }
        self.head = head;
        Ok(self.head != before)
    }

    /// Returns the sorted epochs N of the files `FOLDER/N.json`.
    pub(super) fn list_epochs(&self, folder: &str) -> Result<Vec<u64>> {
        let names = self.store.list(folder)?;
        let number = |name: String| {
            let number = name.strip_suffix(".json")?.parse().ok()?;
            (name == format!("{}.json", epoch_name(number))).then_some(number)
        };
        Ok(names.into_iter().filter_map(number).collect())
    }

    /// Returns the manifest with which the run started.
    pub fn manifest(&self) -> &RunManifest {
        &self.manifest
    }

    /// Returns the manifest by which the last epoch was processed, with the last change of the graph.
    ///
    /// # Errors
    /// If the last commit or its manifest cannot be read.
    pub fn current_manifest(&self) -> Result<RunManifest> {
        self.manifest_at(None)
    }

    /// Returns the manifest by which epoch `at`, or the last epoch, was processed.
    ///
    /// # Errors
    /// If the commit of the epoch or its manifest cannot be read.
    pub fn manifest_at(&self, at: Option<u64>) -> Result<RunManifest> {
        let Some(epoch) = self.resolve_epoch(at)? else { return Ok(self.manifest.clone()) };
        let (commit, _) = self.commit(epoch)?;
        if commit.settings == self.manifest_sha256 {
            return Ok(self.manifest.clone());
        }
        self.read_document(&settings_name(&commit.settings)).map(|(manifest, _)| manifest)
    }

    /// Returns the last epoch before the first missing commit; `None` before the first commit.
    pub fn head(&self) -> Option<u64> {
        self.head
    }

    /// Returns the store of the files.
    pub fn store(&self) -> &Arc<dyn DurableStorage> {
        &self.store
    }

    /// Returns the first epoch that was processed by this version of freetumor and is followed only by such epochs; the next epoch if the
    /// last one was processed by another version.
    ///
    /// # Errors
    /// If a commit or its manifest cannot be read.
    pub fn first_epoch_of_version(&self, version: &str) -> Result<u64> {
        let Some(head) = self.head else { return Ok(0) };
        let (mut first, mut end) = (self.base().map_or(0, |base| base.epoch), head + 1);
        // A version is used for a sequence of epochs, so a few manifests show where it begins.
        while first < end {
            let middle = first + (end - first) / 2;
            if self.manifest_at(Some(middle))?.code_version == version { end = middle } else { first = middle + 1 }
        }
        Ok(end)
    }

    /// Returns the SHA-256 of `run.json`, which identifies the run folder.
    pub fn manifest_sha256(&self) -> &str {
        &self.manifest_sha256
    }

    pub(super) fn empty_snapshot(&self) -> Snapshot {
        let head = RunHead { epoch: None, sha256: self.manifest_sha256.clone(), counts: Counts::default() };
        Snapshot { head, files: BTreeMap::new() }
    }

    /// Returns the state with files after commit `at`, or after the last commit.
    ///
    /// # Errors
    /// If commit `at` does not exist or the chain of commits is broken.
    pub fn snapshot(&self, at: Option<u64>) -> Result<Snapshot> {
        let mut files = BTreeMap::new();
        let head = self.replay(at, &mut |file| {
            files.insert(file.path.clone(), file);
            Ok(())
        })?;
        Ok(Snapshot { head, files })
    }

    /// Returns the state without files after commit `at`, or after the last commit.
    ///
    /// # Errors
    /// The same errors as [`RunFolder::snapshot`].
    pub fn head_at(&self, at: Option<u64>) -> Result<RunHead> {
        self.replay(at, &mut |_| Ok(()))
    }

    /// Visits every file that is current after commit `at`, or after the last commit, sorted by path. Only the files of commits since
    /// the last checkpoint are in memory together.
    ///
    /// # Errors
    /// The same errors as [`RunFolder::snapshot`].
    pub fn for_each_file(&self, at: Option<u64>, visit: ItemCallback<'_, FileEntry>) -> Result<()> {
        self.replay(at, visit).map(drop)
    }

    fn replay(&self, at: Option<u64>, visit: ItemCallback<'_, FileEntry>) -> Result<RunHead> {
        let Some(last) = self.resolve_epoch(at)? else { return Ok(self.empty_snapshot().head) };
        let mut head = self.empty_snapshot().head;
        let checkpoint = self.checkpoint_before(last)?;
        if checkpoint.is_none() && self.base.is_some() {
            return Err(self.purged_error(last));
        }
        if let Some(name) = &checkpoint {
            head = self.checkpoint_head(name)?;
        }
        // Changes since the checkpoint: added files, and files of the checkpoint that were removed.
        let (mut added, mut removed) = (BTreeMap::new(), HashSet::new());
        for epoch in head.epoch.map_or(0, |epoch| epoch + 1)..=last {
            let (commit, sha256) = self.commit(epoch)?;
            head.apply(&commit, sha256)?;
            for file in commit.remove {
                if added.remove(&file.path).is_none() {
                    removed.insert(file.path);
                }
            }
            added.extend(commit.add.into_iter().map(|file| (file.path.clone(), file)));
        }
        if let Some(name) = &checkpoint {
            stream::visit_files(&*self.store, name, &mut |file: FileEntry| {
                while let Some(first) = added.first_entry().filter(|first| *first.key() < file.path) {
                    visit(first.remove())?;
                }
                if removed.remove(&file.path) || added.contains_key(&file.path) { Ok(()) } else { visit(file) }
            })?;
        }
        if let Some(path) = removed.into_iter().min() {
            return Err(Error::new(format!("a commit removes {path}, which does not exist")));
        }
        added.into_values().try_for_each(visit)?;
        Ok(head)
    }

    fn checkpoint_head(&self, name: &str) -> Result<RunHead> {
        let stream::CheckpointOutline { epoch, commit, counts, quality: _ } = stream::read_outline(&*self.store, name)?;
        Ok(RunHead { epoch: Some(epoch), sha256: commit, counts })
    }

    pub(super) fn resolve_epoch(&self, at: Option<u64>) -> Result<Option<u64>> {
        match (at, self.head) {
            (Some(at), head) if head.is_none_or(|head| at > head) => {
                let last =
                    head.map_or("there are no commits yet".to_owned(), |head| format!("the last commit is {head}"));
                Err(Error::new(format!("commit {at} does not exist: {last}")))
            }
            (Some(at), _) if self.base.as_ref().is_some_and(|base| at < base.epoch) => Err(self.purged_error(at)),
            (Some(at), _) => Ok(Some(at)),
            (None, head) => Ok(head),
        }
    }

    /// Returns the name of the last checkpoint up to a commit, or `None` if there is none. A missing checkpoint only costs time, except for
    /// that of the base: a writer may have stopped before writing it.
    pub(super) fn checkpoint_before(&self, last: u64) -> Result<Option<String>> {
        let first = self.base.as_ref().map(|base| base.epoch);
        let mut epochs = (last + 1) / CHECKPOINT_INTERVAL;
        while epochs > 0 && first.is_none_or(|first| epochs * CHECKPOINT_INTERVAL > first) {
            let name = checkpoint_name(epochs * CHECKPOINT_INTERVAL - 1);
            if self.store.exists(&name)? {
                return Ok(Some(name));
            }
            epochs -= 1;
        }
        match first.map(checkpoint_name) {
            Some(name) if self.store.exists(&name)? => Ok(Some(name)),
            _ => Ok(None),
        }
    }

    /// Returns the base: the earliest state that can be read; `None` if the first commit exists.
    pub fn base(&self) -> Option<&Base> {
        self.base.as_deref()
    }

    fn purged_error(&self, at: u64) -> Error {
        let first = self.base.as_ref().map_or(0, |base| base.epoch);
        Error::new(format!("commit {at} was purged: the earliest state is that of commit {first}"))
            .with_kind(ErrorKind::Purged)
            .with_hint("read the last state, or open the run folder again")
    }

    /// Reads the checkpoint of an epoch; `None` if the epoch has no checkpoint.
    pub(super) fn checkpoint(&self, epoch: u64) -> Result<Option<Checkpoint>> {
        let name = checkpoint_name(epoch);
        self.store.read(&name)?.map(|text| canonical::parse(&text, &self.store.display_path(&name))).transpose()
    }

    /// Reads the commit of an epoch and computes the SHA-256 of its file.
    ///
    /// # Errors
    /// If the commit does not exist or cannot be read.
    pub fn commit(&self, epoch: u64) -> Result<(Commit, String)> {
        let (commit, sha256): (Commit, _) = self.read_document(&commit_name(epoch))?;
        if commit.epoch != epoch {
            let path = self.store.display_path(&commit_name(epoch));
            return Err(Error::new(format!("{path}: expected commit {epoch}, got commit {}", commit.epoch)));
        }
        Ok((commit, sha256))
    }

    pub(super) fn read_document<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<(T, String)> {
        let path = self.store.display_path(name);
        let text = self.store.read(name)?.ok_or_else(|| Error::new(format!("expected {path}, got none")))?;
        Ok((canonical::parse(&text, &path)?, FileDigest::of(&text).sha256))
    }

    /// Returns the names of tables and sinks that have files after commit `at`, or after the last commit, and of the tables that always
    /// exist.
    ///
    /// # Errors
    /// The same errors as [`RunFolder::snapshot`].
    pub fn tables(&self, at: Option<u64>) -> Result<Vec<String>> {
        let mut tables: BTreeSet<String> = Table::ALL.map(|table| table.name().to_owned()).into();
        self.for_each_file(at, &mut |file| {
            if pairs::is_index(&file.table) {
                tables.insert(PAIRS.to_owned());
            }
            if !tables.contains(&file.table) {
                tables.insert(file.table);
            }
            Ok(())
        })?;
        Ok(tables.into_iter().collect())
    }

    /// Returns the image and label files of the samples of all sinks, sorted, without duplicates.
    ///
    /// # Errors
    /// If a list cannot be read or a patient is in two splits.
    pub fn pairs(&self) -> Result<Vec<Pair>> {
        let mut lists = Vec::new();
        self.for_each_file(None, &mut |file| {
            if pairs::is_index(&file.table) {
                lists.push(file);
            }
            Ok(())
        })?;
        pairs::read_pairs(&*self.store, &lists)
    }

    /// Returns the files of a table or sink after commit `at`, or after the last commit, sorted by path and therefore by epoch. The table
    /// `pairs` has the images and labels of the lists of all sinks.
    ///
    /// # Errors
    /// If the table or commit does not exist.
    pub fn files(&self, table: &str, at: Option<u64>) -> Result<Vec<FileEntry>> {
        let mut files = Vec::new();
        self.for_each_file(at, &mut |file| {
            if file.table == table || table == PAIRS && pairs::is_index(&file.table) {
                files.push(file);
            }
            Ok(())
        })?;
        if table == PAIRS {
            return Ok(pairs::read_pairs(&*self.store, &files)?.iter().flat_map(Pair::files).collect());
        }
        if files.is_empty() {
            let tables = self.tables(at)?;
            if !tables.iter().any(|known| known == table) {
                return Err(Error::new(format!("table {table:?} does not exist in {}", self.store.display_path("")))
                    .with_hint(format!("the tables are {}", tables.join(", "))));
            }
        }
        Ok(files)
    }
}
