//! Reading a run folder, while it grows or after.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::{
    CHECKPOINT_EVERY, Checkpoint, Commit, Counts, FORMAT_VERSION, Intake, MANIFEST, RunManifest, checkpoint_name,
    commit_name, intake_name,
};
use crate::error::{Error, Result};
use crate::ingest::ScanEntry;
use crate::sink::durable::{Durable, FileDigest, Folder};
use crate::sink::pairs::{self, PAIRS, Pair};
use crate::sink::schema::Table;
use crate::sink::{FileEntry, canonical, epoch_name};

/// A run folder, to be read. It sees the commits that were there when it was opened; see [`RunFolder::refresh`].
#[derive(Clone)]
pub struct RunFolder {
    store: Arc<dyn Durable>,
    manifest: RunManifest,
    manifest_sha256: String,
    head: Option<u64>,
}

/// What a run folder holds after some commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The last epoch in it; `None` before the first commit.
    pub epoch: Option<u64>,
    /// SHA-256 of that epoch's commit, or of `run.json`.
    pub sha256: String,
    /// The files that count, by path.
    pub files: BTreeMap<String, FileEntry>,
    /// All epochs together.
    pub counts: Counts,
}

impl Snapshot {
    /// The files of one table or sink, sorted by path.
    pub fn of_table(&self, table: &str) -> Vec<FileEntry> {
        self.files.values().filter(|file| file.table == table).cloned().collect()
    }

    /// The lists by which sinks name their image and label files.
    pub(super) fn pairs_indexes(&self) -> Vec<FileEntry> {
        self.files.values().filter(|file| pairs::is_index(&file.table)).cloned().collect()
    }

    /// Whether a commit can follow.
    pub(super) fn check(&self, commit: &Commit) -> Result<()> {
        let Commit { epoch, parent, remove, .. } = commit;
        if *parent != self.sha256 {
            let message = format!("commit {epoch} follows {parent}, the commit before it is {}", self.sha256);
            let hint = "commits of two runs were mixed, or one was changed by hand; restore the folder from a copy";
            return Err(Error::new(message).with_hint(hint));
        }
        match remove.iter().find(|file| !self.files.contains_key(&file.path)) {
            Some(file) => Err(Error::new(format!("commit {epoch} removes {}, which is not there", file.path))),
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
        self.counts += &commit.counts;
        self.epoch = Some(commit.epoch);
        self.sha256 = sha256;
        Ok(())
    }

    pub(super) fn checkpoint(&self) -> Option<Checkpoint> {
        let files = self.files.values().cloned().collect();
        self.epoch.map(|epoch| Checkpoint { epoch, commit: self.sha256.clone(), files, counts: self.counts.clone() })
    }
}

impl RunFolder {
    /// Opens a folder of this machine.
    ///
    /// # Errors
    /// Where it is no run folder, or one of a newer format.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open_in(Arc::new(Folder::local(path)))
    }

    /// Opens a folder anywhere.
    ///
    /// # Errors
    /// As for [`RunFolder::open`].
    pub fn open_in(store: Arc<dyn Durable>) -> Result<Self> {
        let place = store.place(MANIFEST);
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
    /// Where the folder cannot be read.
    pub fn refresh(&mut self) -> Result<bool> {
        let before = self.head;
        let mut next = before.map_or(0, |epoch| epoch + 1);
        let present: Vec<u64> = self.numbered("epochs")?;
        while present.binary_search(&next).is_ok() {
            self.head = Some(next);
            next += 1;
        }
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
        let (files, counts) = Default::default();
        Snapshot { epoch: None, sha256: self.manifest_sha256.clone(), files, counts }
    }

    /// What the folder holds after commit `at`, or after the last.
    ///
    /// # Errors
    /// Where there is no such commit, or commits do not follow one another.
    pub fn snapshot(&self, at: Option<u64>) -> Result<Snapshot> {
        let Some(last) = self.at(at)? else { return Ok(self.start()) };
        let mut snapshot = match self.checkpoint_before(last)? {
            Some(Checkpoint { epoch, commit, files, counts }) => Snapshot {
                epoch: Some(epoch),
                sha256: commit,
                files: files.into_iter().map(|file| (file.path.clone(), file)).collect(),
                counts,
            },
            None => self.start(),
        };
        for epoch in snapshot.epoch.map_or(0, |epoch| epoch + 1)..=last {
            let (commit, sha256) = self.commit(epoch)?;
            snapshot.apply(&commit, sha256)?;
        }
        Ok(snapshot)
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

    /// The last checkpoint up to a commit. One that is not there costs time only: a writer may have stopped before it.
    fn checkpoint_before(&self, last: u64) -> Result<Option<Checkpoint>> {
        let mut epochs = (last + 1) / CHECKPOINT_EVERY;
        while epochs > 0 {
            let epoch = epochs * CHECKPOINT_EVERY - 1;
            if let Some(checkpoint) = self.checkpoint(epoch)? {
                return Ok(Some(checkpoint));
            }
            epochs -= 1;
        }
        Ok(None)
    }

    pub(super) fn checkpoint(&self, epoch: u64) -> Result<Option<Checkpoint>> {
        let name = checkpoint_name(epoch);
        self.store.read(&name)?.map(|text| canonical::parse(&text, &self.store.place(&name))).transpose()
    }

    /// A commit and its SHA-256.
    ///
    /// # Errors
    /// Where it is not there or not readable.
    pub fn commit(&self, epoch: u64) -> Result<(Commit, String)> {
        let (commit, sha256): (Commit, _) = self.document(&commit_name(epoch))?;
        if commit.epoch != epoch {
            let place = self.store.place(&commit_name(epoch));
            return Err(Error::new(format!("{place} should hold commit {epoch}, it holds {}", commit.epoch)));
        }
        Ok((commit, sha256))
    }

    /// An intake and its SHA-256.
    ///
    /// # Errors
    /// Where it is not there or not readable.
    pub fn intake(&self, epoch: u64) -> Result<(Intake, String)> {
        self.document(&intake_name(epoch))
    }

    /// The scans of an intake with the places where they lie, from `RUN/private`.
    ///
    /// # Errors
    /// Where the private file is not there or belongs to another intake.
    pub fn scan_entries(&self, epoch: u64) -> Result<Vec<ScanEntry>> {
        let (intake, digest) = self.intake(epoch)?;
        let name = intake.private_name(&digest);
        let place = self.store.place(&name);
        let text = self.store.read(&name)?.ok_or_else(|| {
            Error::new(format!("expected {place}, which says where the scans of epoch {epoch} lie; there is none"))
                .with_hint("restore the folder `private` from where the run was made, or start anew with `--out`")
        })?;
        intake.with_private(&text, &place)
    }

    fn document<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<(T, String)> {
        let place = self.store.place(name);
        let text = self.store.read(name)?.ok_or_else(|| Error::new(format!("expected {place}, there is none")))?;
        Ok((canonical::parse(&text, &place)?, FileDigest::of(&text).sha256))
    }

    /// The names of tables and sinks that have files, and of the tables that always exist.
    ///
    /// # Errors
    /// As for [`RunFolder::snapshot`].
    pub fn tables(&self, at: Option<u64>) -> Result<Vec<String>> {
        let mut tables: Vec<String> = self.snapshot(at)?.files.into_values().map(|file| file.table).collect();
        tables.extend(Table::ALL.map(|table| table.name().to_owned()));
        if tables.iter().any(|table| pairs::is_index(table)) {
            tables.push(PAIRS.to_owned());
        }
        tables.sort_unstable();
        tables.dedup();
        Ok(tables)
    }

    /// The files of a table or sink after commit `at`, or after the last; sorted by path, so by epoch. `pairs` are the
    /// images and labels that the lists of all sinks name.
    ///
    /// # Errors
    /// Where there is no such table or commit.
    pub fn files(&self, table: &str, at: Option<u64>) -> Result<Vec<FileEntry>> {
        let snapshot = self.snapshot(at)?;
        if table == PAIRS {
            let pairs = pairs::listed(&*self.store, &snapshot.pairs_indexes())?;
            return Ok(pairs.iter().flat_map(Pair::files).collect());
        }
        let files = snapshot.of_table(table);
        if files.is_empty() {
            let tables = self.tables(at)?;
            if !tables.iter().any(|known| known == table) {
                return Err(Error::new(format!("there is no table {table:?} in {}", self.store.place("")))
                    .with_hint(format!("it has {}", tables.join(", "))));
            }
        }
        Ok(files)
    }
}
