//! Reading a run folder, while it grows or after.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::{
    CHECKPOINT_EVERY, Checkpoint, Commit, Counts, FORMAT_VERSION, IngestManifest, MANIFEST, RunManifest,
    checkpoint_name, commit_name, ingest_name, stream,
};
use crate::error::{Error, Result};
use crate::ingest::ScanEntry;
use crate::record::schema::Table;
use crate::record::{FileEntry, epoch_name};
use crate::sink::pairs::{self, PAIRS, Pair};
use crate::store::canonical;
use crate::store::canonical::Visit;
use crate::store::{Durable, FileDigest, Folder};

/// A run folder, to be read. It sees the commits that were there when it was opened; see [`RunFolder::refresh`].
#[derive(Clone)]
pub struct RunFolder {
    store: Arc<dyn Durable>,
    manifest: RunManifest,
    manifest_sha256: String,
    head: Option<u64>,
}

/// Where a run folder stands after some commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunHead {
    /// The last epoch; `None` before the first commit.
    pub epoch: Option<u64>,
    /// SHA-256 of that epoch's commit, or of `run.json`.
    pub sha256: String,
    /// All epochs together.
    pub counts: Counts,
}

impl RunHead {
    /// Whether a commit can follow.
    fn check(&self, commit: &Commit) -> Result<()> {
        let Commit { epoch, parent, .. } = commit;
        if *parent == self.sha256 {
            return Ok(());
        }
        let message = format!("commit {epoch} follows {parent}, the commit before it is {}", self.sha256);
        let hint = "commits of two runs were mixed, or one was changed by hand; restore the folder from a copy";
        Err(Error::new(message).with_hint(hint))
    }

    /// Goes on to the next commit; `sha256` is its own.
    pub(super) fn apply(&mut self, commit: &Commit, sha256: String) -> Result<()> {
        self.check(commit)?;
        self.counts += &commit.counts;
        self.epoch = Some(commit.epoch);
        self.sha256 = sha256;
        Ok(())
    }
}

/// What a run folder holds after some commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Where it stands.
    pub head: RunHead,
    /// The files that count, by path.
    pub files: BTreeMap<String, FileEntry>,
}

impl Snapshot {
    /// The lists by which sinks name their image and label files.
    pub(super) fn pairs_indexes(&self) -> Vec<FileEntry> {
        self.files.values().filter(|file| pairs::is_index(&file.table)).cloned().collect()
    }

    /// Whether a commit can follow.
    pub(super) fn check(&self, commit: &Commit) -> Result<()> {
        self.head.check(commit)?;
        match commit.remove.iter().find(|file| !self.files.contains_key(&file.path)) {
            Some(file) => Err(Error::new(format!("commit {} removes {}, which is not there", commit.epoch, file.path))),
            None => Ok(()),
        }
    }

    /// Applies the next commit; `sha256` is its own.
    pub(super) fn apply(&mut self, commit: &Commit, sha256: String) -> Result<()> {
        self.check(commit)?;
        for file in &commit.remove {
            self.files.remove(&file.path);
        }
        self.files.extend(commit.add.iter().map(|file| (file.path.clone(), file.clone())));
        self.head.apply(commit, sha256)
    }

    pub(super) fn checkpoint(&self) -> Option<Checkpoint> {
        let files = self.files.values().cloned().collect();
        let RunHead { epoch, sha256, counts } = &self.head;
        epoch.map(|epoch| Checkpoint { epoch, commit: sha256.clone(), files, counts: counts.clone() })
    }
}

impl RunFolder {
    /// Opens a folder of this machine.
    ///
    /// # Errors
    /// If it is no run folder, or one of a newer format.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open_in(Arc::new(Folder::local(path)))
    }

    /// Opens a folder anywhere.
    ///
    /// # Errors
    /// The same errors as [`RunFolder::open`].
    pub fn open_in(store: Arc<dyn Durable>) -> Result<Self> {
        let place = store.display_path(MANIFEST);
        let text = store.read(MANIFEST)?.ok_or_else(|| {
            Error::new(format!("expected a run folder with {place}, there is none"))
                .with_hint("give the folder that `freetumor run` wrote; it prints its name at the end")
        })?;
        // The version first: a newer format may have fields that this program does not know.
        let version = canonical::parse::<serde_json::Value>(&text, &place)?["format"].as_u64();
        if version != Some(u64::from(FORMAT_VERSION)) {
            let got = version.map_or("none".to_owned(), |v| v.to_string());
            return Err(Error::new(format!("{place} has format {got}, this program reads format {FORMAT_VERSION}"))
                .with_hint("use the version of freetumor that wrote it; `code_version` in the file names it"));
        }
        let manifest = canonical::parse(&text, &place)?;
        let manifest_sha256 = FileDigest::of(&text).sha256;
        let mut folder = Self { store, manifest, manifest_sha256, head: None };
        folder.refresh()?;
        Ok(folder)
    }

    /// Looks for commits that came since; tells whether there are any.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn refresh(&mut self) -> Result<bool> {
        let before = self.head;
        let mut next = before.map_or(0, |epoch| epoch + 1);
        // The whole list is long; those who have one head look for the next.
        let present = if before.is_none() { Some(self.numbered("epochs")?) } else { None };
        let exists = |epoch: u64| match &present {
            Some(present) => Ok(present.binary_search(&epoch).is_ok()),
            None => self.store.exists(&commit_name(epoch)),
        };
        let mut head = before;
        while exists(next)? {
            head = Some(next);
            next += 1;
        }
        self.head = head;
        Ok(self.head != before)
    }

    /// The numbers of the files `FOLDER/N.json`, sorted.
    pub(super) fn numbered(&self, folder: &str) -> Result<Vec<u64>> {
        let names = self.store.list(folder)?;
        let number = |name: String| {
            let number = name.strip_suffix(".json")?.parse().ok()?;
            (name == format!("{}.json", epoch_name(number))).then_some(number)
        };
        Ok(names.into_iter().filter_map(number).collect())
    }

    /// What is run.
    pub fn manifest(&self) -> &RunManifest {
        &self.manifest
    }

    /// The last commit without a gap before it; `None` before the first.
    pub fn head(&self) -> Option<u64> {
        self.head
    }

    /// Where files lie.
    pub fn store(&self) -> &Arc<dyn Durable> {
        &self.store
    }

    pub(super) fn start(&self) -> Snapshot {
        let head = RunHead { epoch: None, sha256: self.manifest_sha256.clone(), counts: Counts::default() };
        Snapshot { head, files: BTreeMap::new() }
    }

    /// What the folder holds after commit `at`, or after the last.
    ///
    /// # Errors
    /// If there is no such commit, or commits do not follow one another.
    pub fn snapshot(&self, at: Option<u64>) -> Result<Snapshot> {
        let mut files = BTreeMap::new();
        let head = self.replay(at, &mut |file| {
            files.insert(file.path.clone(), file);
            Ok(())
        })?;
        Ok(Snapshot { head, files })
    }

    /// Where the folder stands after commit `at`, or after the last.
    ///
    /// # Errors
    /// The same errors as [`RunFolder::snapshot`].
    pub fn standing(&self, at: Option<u64>) -> Result<RunHead> {
        self.replay(at, &mut |_| Ok(()))
    }

    /// Hands on every file that counts after commit `at`, or after the last, sorted by path. Only those of the commits since
    /// the last checkpoint are in memory together.
    ///
    /// # Errors
    /// The same errors as [`RunFolder::snapshot`].
    pub(super) fn each_file(&self, at: Option<u64>, take: Visit<'_, FileEntry>) -> Result<()> {
        self.replay(at, take).map(drop)
    }

    fn replay(&self, at: Option<u64>, take: Visit<'_, FileEntry>) -> Result<RunHead> {
        let Some(last) = self.at(at)? else { return Ok(self.start().head) };
        let mut head = self.start().head;
        let checkpoint = self.checkpoint_before(last)?;
        if let Some(name) = &checkpoint {
            head = self.checkpoint_head(name)?;
        }
        // What comes after the checkpoint: files that it has to be told of, and of its own those that are gone.
        let (mut added, mut gone) = (BTreeMap::new(), HashSet::new());
        for epoch in head.epoch.map_or(0, |epoch| epoch + 1)..=last {
            let (commit, sha256) = self.commit(epoch)?;
            head.apply(&commit, sha256)?;
            for file in commit.remove {
                if added.remove(&file.path).is_none() {
                    gone.insert(file.path);
                }
            }
            added.extend(commit.add.into_iter().map(|file| (file.path.clone(), file)));
        }
        if let Some(name) = &checkpoint {
            stream::files_of(&*self.store, name, &mut |file: FileEntry| {
                while let Some(first) = added.first_entry().filter(|first| *first.key() < file.path) {
                    take(first.remove())?;
                }
                if gone.remove(&file.path) || added.contains_key(&file.path) { Ok(()) } else { take(file) }
            })?;
        }
        if let Some(path) = gone.into_iter().min() {
            return Err(Error::new(format!("a commit removes {path}, which is not there")));
        }
        added.into_values().try_for_each(take)?;
        Ok(head)
    }

    fn checkpoint_head(&self, name: &str) -> Result<RunHead> {
        let stream::CheckpointOutline { epoch, commit, counts } = stream::outline_of(&*self.store, name)?;
        Ok(RunHead { epoch: Some(epoch), sha256: commit, counts })
    }

    fn at(&self, at: Option<u64>) -> Result<Option<u64>> {
        match (at, self.head) {
            (Some(at), head) if head.is_none_or(|head| at > head) => {
                let last = head.map_or("there is none yet".to_owned(), |head| format!("the last is {head}"));
                Err(Error::new(format!("there is no commit {at}: {last}")))
            }
            (Some(at), _) => Ok(Some(at)),
            (None, head) => Ok(head),
        }
    }

    /// The name of the last checkpoint up to a commit. One that is not there costs time only: a writer may have stopped before
    /// it.
    fn checkpoint_before(&self, last: u64) -> Result<Option<String>> {
        let mut epochs = (last + 1) / CHECKPOINT_EVERY;
        while epochs > 0 {
            let name = checkpoint_name(epochs * CHECKPOINT_EVERY - 1);
            if self.store.exists(&name)? {
                return Ok(Some(name));
            }
            epochs -= 1;
        }
        Ok(None)
    }

    pub(super) fn checkpoint(&self, epoch: u64) -> Result<Option<Checkpoint>> {
        let name = checkpoint_name(epoch);
        self.store.read(&name)?.map(|text| canonical::parse(&text, &self.store.display_path(&name))).transpose()
    }

    /// A commit and its SHA-256.
    ///
    /// # Errors
    /// If it is not there or not readable.
    pub fn commit(&self, epoch: u64) -> Result<(Commit, String)> {
        let (commit, sha256): (Commit, _) = self.document(&commit_name(epoch))?;
        if commit.epoch != epoch {
            let place = self.store.display_path(&commit_name(epoch));
            return Err(Error::new(format!("{place} should hold commit {epoch}, it holds {}", commit.epoch)));
        }
        Ok((commit, sha256))
    }

    /// An ingest manifest and its SHA-256.
    ///
    /// # Errors
    /// If it is not there or not readable.
    pub fn ingest_manifest(&self, epoch: u64) -> Result<(IngestManifest, String)> {
        self.document(&ingest_name(epoch))
    }

    /// The scans of an ingest manifest with their keys, from `RUN/private`.
    ///
    /// # Errors
    /// If the private file is not there or belongs to another manifest.
    pub fn scan_entries(&self, epoch: u64) -> Result<Vec<ScanEntry>> {
        let (manifest, digest) = self.ingest_manifest(epoch)?;
        let name = manifest.private_name(&digest);
        let place = self.store.display_path(&name);
        let text = self.store.read(&name)?.ok_or_else(|| {
            Error::new(format!("expected {place}, which maps the scans of epoch {epoch} to their paths; there is none"))
                .with_hint("restore the folder `private` from where the run was made, or start again with `--out`")
        })?;
        manifest.with_private(&text, &place)
    }

    fn document<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<(T, String)> {
        let place = self.store.display_path(name);
        let text = self.store.read(name)?.ok_or_else(|| Error::new(format!("expected {place}, there is none")))?;
        Ok((canonical::parse(&text, &place)?, FileDigest::of(&text).sha256))
    }

    /// The names of tables and sinks that have files, and of the tables that always exist.
    ///
    /// # Errors
    /// The same errors as [`RunFolder::snapshot`].
    pub fn tables(&self, at: Option<u64>) -> Result<Vec<String>> {
        let mut tables: BTreeSet<String> = Table::ALL.map(|table| table.name().to_owned()).into();
        self.each_file(at, &mut |file| {
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

    /// The files of a table or sink after commit `at`, or after the last; sorted by path, so by epoch. `pairs` are the
    /// images and labels that the lists of all sinks name.
    ///
    /// # Errors
    /// If there is no such table or commit.
    pub fn files(&self, table: &str, at: Option<u64>) -> Result<Vec<FileEntry>> {
        let mut files = Vec::new();
        self.each_file(at, &mut |file| {
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
                return Err(Error::new(format!("there is no table {table:?} in {}", self.store.display_path("")))
                    .with_hint(format!("it has {}", tables.join(", "))));
            }
        }
        Ok(files)
    }
}
