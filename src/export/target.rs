//! The folder of an export: files that are there whole or not at all, and a journal by which an interrupted export resumes.
//!
//! The journal `.freetumor-export.jsonl` has the request in its first line, and a line for each sample or shard that is done, with the
//! digests of its files. An export into the folder of an earlier one keeps files that are there with their digest, writes what is
//! missing, and removes at its end what the journal names and the selection does not. Files of other names are left alone.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::options::ExportOptions;
use crate::error::{Error, Result};
use crate::run::RunFolder;
use crate::sink::shards::Member;
use crate::store::{self, FileDigest, FileLock, Fill, HashingWriter, UNFINISHED, canonical, write_named, write_whole};

const JOURNAL: &str = ".freetumor-export.jsonl";
const LOCK: &str = ".freetumor-export.lock";

/// What is exported: exports of equal requests may share a folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportRequest {
    pipeline_digest: String,
    layout: serde_json::Value,
    conditions: Vec<String>,
    at_most: Option<usize>,
    per: String,
    at: Option<u64>,
}

impl ExportRequest {
    pub(super) fn new(run: &RunFolder, options: &ExportOptions) -> Self {
        let selection = &options.selection;
        Self {
            pipeline_digest: run.manifest().pipeline_digest.clone(),
            layout: serde_json::to_value(&options.layout).unwrap_or_default(),
            conditions: selection.conditions(),
            at_most: selection.at_most,
            per: selection.per.to_string(),
            at: selection.at,
        }
    }

    /// What is another in `other`, by name.
    fn differences(&self, other: &Self) -> Vec<String> {
        let of = |request: &Self| serde_json::to_value(request).unwrap_or_default();
        let (own, others) = (of(self), of(other));
        let fields = own.as_object().into_iter().flatten();
        let differing = fields.filter(|(name, value)| others[name.as_str()] != **value);
        differing.map(|(name, value)| format!("{name} is {value} there and {} here", others[name.as_str()])).collect()
    }
}

/// A file of the export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DoneFile {
    /// The path below the folder.
    pub(super) path: String,
    /// The length and content.
    #[serde(flatten)]
    pub(super) digest: FileDigest,
}

/// A sample or shard whose files are there: a line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JournalEntry {
    /// The sample's id, or the shard's epoch and label.
    pub(super) key: String,
    /// The files.
    pub(super) files: Vec<DoneFile>,
    /// The samples of a shard.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) members: Vec<Member>,
}

/// The folder of an export, to be written.
pub(super) struct Target {
    root: PathBuf,
    request: ExportRequest,
    /// What was done before.
    earlier: BTreeMap<String, JournalEntry>,
    journal: Mutex<File>,
    // Released with the process, however it ends.
    _lock: Option<FileLock>,
}

impl Target {
    /// Opens a folder that is new, empty, or that of an earlier export of the same request.
    ///
    /// # Errors
    /// If the folder holds anything else, another process is exporting into it, or it cannot be written.
    pub(super) fn open(root: &Path, request: &ExportRequest) -> Result<Self> {
        let journal = root.join(JOURNAL);
        check_unused(root, &journal)?;
        std::fs::create_dir_all(root).map_err(|e| Error::io("cannot make", root, e))?;
        let lock = lock(root)?;
        let earlier = if journal.exists() { read_journal(root, &journal, request)? } else { BTreeMap::new() };
        write_journal(&journal, request, earlier.values())?;
        let file = File::options().append(true).open(&journal).map_err(|e| Error::io("cannot write", &journal, e))?;
        let (root, request) = (root.to_owned(), request.clone());
        Ok(Self { root, request, earlier, journal: Mutex::new(file), _lock: lock })
    }

    /// What was done before under this key, where all its files are still there.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(super) fn kept(&self, key: &str) -> Result<Option<&JournalEntry>> {
        let Some(done) = self.earlier.get(key) else { return Ok(None) };
        for file in &done.files {
            if digest_of(&self.root.join(&file.path))?.as_ref() != Some(&file.digest) {
                return Ok(None);
            }
        }
        Ok(Some(done))
    }

    /// Writes a file; it is there whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn write(&self, path: &str, fill: Fill<'_>) -> Result<DoneFile> {
        let place = self.place(path)?;
        let mut digest = None;
        let written = write_whole(&place, |out| {
            let mut hashing = HashingWriter::new(out);
            fill(&mut hashing)?;
            digest = Some(hashing.finish().1);
            Ok(())
        });
        written.map_err(|e| unwritable(&place, e))?;
        let digest = digest.ok_or_else(|| Error::new(format!("nothing was written to {}", place.display())))?;
        Ok(DoneFile { path: path.to_owned(), digest })
    }

    /// Writes a file of a folder whose name follows from its content; `fill` returns what else is known of it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn write_named<T>(
        &self,
        folder: &str,
        fill: impl FnOnce(&mut dyn Write) -> std::io::Result<T>,
        name: impl Fn(&FileDigest) -> String,
    ) -> Result<(DoneFile, T)> {
        let path = |digest: &FileDigest| format!("{folder}/{}", name(digest));
        let place = self.place(&path(&FileDigest::of(b"")))?;
        let parent = place.parent().unwrap_or(&self.root);
        let fill = |out: &mut dyn Write| {
            let mut hashing = HashingWriter::new(out);
            let known = fill(&mut hashing)?;
            Ok((hashing.finish().1, known))
        };
        let written = write_named(parent, fill, |(digest, _)| self.root.join(path(digest)));
        let (digest, known) = written.map_err(|e| unwritable(parent, e))?;
        Ok((DoneFile { path: path(&digest), digest }, known))
    }

    /// Records what is done: an export that resumes will keep it.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub(super) fn record(&self, done: &JournalEntry) -> Result<()> {
        let line = canonical::line(done)?;
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.write_all(&line).map_err(|e| unwritable(&self.root.join(JOURNAL), e))
    }

    /// An empty folder for files that are needed for a while, on the same file system; it is removed when dropped.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn scratch(&self) -> Result<tempfile::TempDir> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(UNFINISHED);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
        let made = builder.tempdir_in(&self.root);
        made.map_err(|e| unwritable(&self.root, e))
    }

    /// Removes files of earlier exports that are not among `done`, and what killed processes left. Call it at the end, when the
    /// descriptions are there.
    ///
    /// # Errors
    /// If files cannot be removed or the journal cannot be written.
    pub(super) fn finish(&self, done: &[JournalEntry]) -> Result<()> {
        let wanted: HashSet<&str> = done.iter().flat_map(|done| &done.files).map(|file| file.path.as_str()).collect();
        for file in self.earlier.values().flat_map(|done| &done.files) {
            let place = self.root.join(&file.path);
            if !wanted.contains(file.path.as_str()) && place.exists() {
                std::fs::remove_file(&place).map_err(|e| Error::io("cannot remove", &place, e))?;
            }
        }
        let written = self.earlier.values().chain(done).flat_map(|done| &done.files);
        let folders: HashSet<&Path> = written.filter_map(|file| Path::new(&file.path).parent()).collect();
        for folder in folders.into_iter().chain([Path::new("")]) {
            remove_unfinished(&self.root.join(folder))?;
        }
        write_journal(&self.root.join(JOURNAL), &self.request, done)
    }

    /// Where a file is, once the folders above it are there.
    fn place(&self, path: &str) -> Result<PathBuf> {
        let place = self.root.join(path);
        let parent = place.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(parent).map_err(|e| unwritable(parent, e))?;
        Ok(place)
    }
}

fn unwritable(place: &Path, error: std::io::Error) -> Error {
    // An error of the run folder that was met while writing says itself where and why.
    let error = match error.downcast::<Error>() {
        Ok(error) => return error,
        Err(error) => error,
    };
    let full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
    let error = Error::io("cannot write", place, error);
    if full {
        error.with_hint("free some space and run the same command again: it resumes where it stopped")
    } else {
        error
    }
}

/// Whether a folder may be exported to: one that does not exist, that is empty, or that has a journal.
fn check_unused(root: &Path, journal: &Path) -> Result<()> {
    if journal.exists() {
        return Ok(());
    }
    let Some(name) = store::first_foreign(root, &[LOCK])? else { return Ok(()) };
    Err(Error::new(format!("{} is no export and not empty: it holds {name}", root.display()))
        .with_hint("give an empty folder, or one that does not exist yet, with `--to`"))
}

/// Keeps other exports out of a folder; `None` if its file system does not support locks: each file is whole in any case.
fn lock(root: &Path) -> Result<Option<FileLock>> {
    store::lock_if_supported(&root.join(LOCK), || {
        Error::new(format!("another process is exporting to {}", root.display()))
            .with_hint("wait until it ends, or export elsewhere with `--to`")
    })
}

fn read_journal(root: &Path, journal: &Path, request: &ExportRequest) -> Result<BTreeMap<String, JournalEntry>> {
    let text = std::fs::read(journal).map_err(|e| Error::io("cannot read", journal, e))?;
    let mut lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let own: ExportRequest = canonical::parse(lines.next().unwrap_or_default(), &journal.display().to_string())?;
    let differences = own.differences(request);
    if !differences.is_empty() {
        let message = format!("{} holds another export: {}", root.display(), differences.join("; "));
        return Err(
            Error::new(message).with_hint("export to another folder with `--to`, or repeat the command of then")
        );
    }
    // The last line may have been cut off with the process that wrote it; a file that no line names is written again.
    let done = lines.filter_map(|line| serde_json::from_slice::<JournalEntry>(line).ok());
    let is_below = |done: &JournalEntry| done.files.iter().all(|file| is_plain(&file.path));
    Ok(done.filter(is_below).map(|done| (done.key.clone(), done)).collect())
}

/// Whether a path leads below the folder that it is relative to.
fn is_plain(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)))
}

fn write_journal<'a>(
    place: &Path,
    request: &ExportRequest,
    done: impl IntoIterator<Item = &'a JournalEntry>,
) -> Result<()> {
    let mut text = canonical::line(request)?;
    for done in done {
        text.extend(canonical::line(done)?);
    }
    write_whole(place, |out| out.write_all(&text)).map_err(|e| unwritable(place, e))
}

fn digest_of(path: &Path) -> Result<Option<FileDigest>> {
    let read = || -> std::io::Result<Option<FileDigest>> {
        let mut hashing = HashingWriter::new(std::io::sink());
        std::io::copy(&mut File::open(path)?, &mut hashing)?;
        Ok(Some(hashing.finish().1))
    };
    match read() {
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound) => Ok(None),
        digest => digest.map_err(|e| Error::io("cannot read", path, e)),
    }
}

fn remove_unfinished(folder: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.filter_map(|entry| entry.ok()) {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            let place = entry.path();
            let removed = if place.is_dir() { std::fs::remove_dir_all(&place) } else { std::fs::remove_file(&place) };
            removed.map_err(|e| Error::io("cannot remove", &place, e))?;
        }
    }
    Ok(())
}
