//! The export folder: atomic files, and a journal from which an interrupted export resumes.
//!
//! The journal `.freetumor-export.jsonl` has the request in its first line and one line per exported sample or shard, with the digests
//! of its files. An export into the folder of an earlier export keeps files whose digest matches, writes missing files, and finally
//! removes files of the journal that are not selected. Files of other names are kept.

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
use crate::store::{
    self, ContentWriter, FileDigest, FileLock, HashingWriter, UNFINISHED, canonical, write_atomic, write_named,
};

const JOURNAL: &str = ".freetumor-export.jsonl";
const LOCK: &str = ".freetumor-export.lock";

/// The request of an export: exports with equal requests may share a folder.
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
    pub(super) fn new(run: &RunFolder, options: &ExportOptions) -> Result<Self> {
        let selection = &options.selection;
        Ok(Self {
            pipeline_digest: run.manifest_at(selection.at)?.pipeline_digest,
            layout: serde_json::to_value(&options.layout).unwrap_or_default(),
            conditions: selection.conditions(),
            at_most: selection.at_most,
            per: selection.per.to_string(),
            at: selection.at,
        })
    }

    /// Returns the fields that differ from `other`.
    fn differences(&self, other: &Self) -> Vec<String> {
        let of = |request: &Self| serde_json::to_value(request).unwrap_or_default();
        let (own, others) = (of(self), of(other));
        let fields = own.as_object().into_iter().flatten();
        let differing = fields.filter(|(name, value)| others[name.as_str()] != **value);
        differing
            .map(|(name, value)| {
                format!("{name} is {value} in the folder and {} in this export", others[name.as_str()])
            })
            .collect()
    }
}

/// A file of the export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ExportedFile {
    /// The path relative to the export folder.
    pub(super) path: String,
    /// The length and digest.
    #[serde(flatten)]
    pub(super) digest: FileDigest,
}

/// An exported sample or shard: a line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JournalEntry {
    /// The sample's id, or the shard's epoch and label.
    pub(super) key: String,
    /// The files.
    pub(super) files: Vec<ExportedFile>,
    /// The samples of a shard.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) members: Vec<Member>,
}

/// The writer of an export folder.
pub(super) struct Target {
    root: PathBuf,
    request: ExportRequest,
    /// The entries of earlier exports.
    earlier: BTreeMap<String, JournalEntry>,
    journal: Mutex<File>,
    // Released when the process ends.
    _lock: Option<FileLock>,
}

impl Target {
    /// Opens a folder that is new, empty, or that of an earlier export of the same request.
    ///
    /// # Errors
    /// If the folder has other content, is locked by another export, or cannot be written.
    pub(super) fn open(root: &Path, request: &ExportRequest) -> Result<Self> {
        let journal = root.join(JOURNAL);
        check_unused(root, &journal)?;
        std::fs::create_dir_all(root).map_err(|e| Error::io("cannot create", root, e))?;
        let lock = lock(root)?;
        let earlier = if journal.exists() { read_journal(root, &journal, request)? } else { BTreeMap::new() };
        write_journal(&journal, request, earlier.values())?;
        let file = File::options().append(true).open(&journal).map_err(|e| Error::io("cannot write", &journal, e))?;
        let (root, request) = (root.to_owned(), request.clone());
        Ok(Self { root, request, earlier, journal: Mutex::new(file), _lock: lock })
    }

    /// Returns the entry of an earlier export with this key, or `None` if there is none or one of its files changed.
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

    /// Writes a file atomically.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn write(&self, path: &str, fill: ContentWriter<'_>) -> Result<ExportedFile> {
        let full_path = self.prepare_path(path)?;
        let mut digest = None;
        let written = write_atomic(&full_path, |out| {
            let mut hashing = HashingWriter::new(out);
            fill(&mut hashing)?;
            digest = Some(hashing.finish().1);
            Ok(())
        });
        written.map_err(|e| unwritable(&full_path, e))?;
        let digest =
            digest.ok_or_else(|| Error::new(format!("expected content for {}, got none", full_path.display())))?;
        Ok(ExportedFile { path: path.to_owned(), digest })
    }

    /// Writes a file with a name that is derived from its content; the result of `fill` is returned.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn write_named<T>(
        &self,
        folder: &str,
        fill: impl FnOnce(&mut dyn Write) -> std::io::Result<T>,
        name: impl Fn(&FileDigest) -> String,
    ) -> Result<(ExportedFile, T)> {
        let path = |digest: &FileDigest| format!("{folder}/{}", name(digest));
        let any_path = self.prepare_path(&path(&FileDigest::of(b"")))?;
        let parent = any_path.parent().unwrap_or(&self.root);
        let fill = |out: &mut dyn Write| {
            let mut hashing = HashingWriter::new(out);
            let filled = fill(&mut hashing)?;
            Ok((hashing.finish().1, filled))
        };
        let written = write_named(parent, fill, |(digest, _)| self.root.join(path(digest)));
        let (digest, filled) = written.map_err(|e| unwritable(parent, e))?;
        Ok((ExportedFile { path: path(&digest), digest }, filled))
    }

    /// Records an entry in the journal; a resumed export keeps its files.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub(super) fn record(&self, done: &JournalEntry) -> Result<()> {
        let line = canonical::line(done)?;
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.write_all(&line).map_err(|e| unwritable(&self.root.join(JOURNAL), e))
    }

    /// Creates a temporary folder on the same file system; the folder is removed on drop.
    ///
    /// # Errors
    /// If the folder cannot be created.
    pub(super) fn scratch(&self) -> Result<tempfile::TempDir> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(UNFINISHED);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
        let folder = builder.tempdir_in(&self.root);
        folder.map_err(|e| unwritable(&self.root, e))
    }

    /// Removes files of earlier exports that are not in `done`, and temporary files of killed processes. Call this method at the end,
    /// after writing the descriptions.
    ///
    /// # Errors
    /// If files cannot be removed or the journal cannot be written.
    pub(super) fn finish(&self, done: &[JournalEntry]) -> Result<()> {
        let current: HashSet<&str> = done.iter().flat_map(|done| &done.files).map(|file| file.path.as_str()).collect();
        for file in self.earlier.values().flat_map(|done| &done.files) {
            let path = self.root.join(&file.path);
            if !current.contains(file.path.as_str()) && path.exists() {
                std::fs::remove_file(&path).map_err(|e| Error::io("cannot remove", &path, e))?;
            }
        }
        let written = self.earlier.values().chain(done).flat_map(|done| &done.files);
        let folders: HashSet<&Path> = written.filter_map(|file| Path::new(&file.path).parent()).collect();
        for folder in folders.into_iter().chain([Path::new("")]) {
            remove_unfinished(&self.root.join(folder))?;
        }
        write_journal(&self.root.join(JOURNAL), &self.request, done)
    }

    /// Returns the full path of a file and creates its parent folders.
    fn prepare_path(&self, path: &str) -> Result<PathBuf> {
        let path = self.root.join(path);
        let parent = path.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(parent).map_err(|e| unwritable(parent, e))?;
        Ok(path)
    }
}

fn unwritable(path: &Path, error: std::io::Error) -> Error {
    // An error of the run folder during writing already names its path and cause.
    let error = match error.downcast::<Error>() {
        Ok(error) => return error,
        Err(error) => error,
    };
    let full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
    let error = Error::io("cannot write", path, error);
    if full { error.with_hint("free some space and run the same command again to resume") } else { error }
}

/// Checks that a folder may be the target of an export: it does not exist, is empty, or has a journal.
fn check_unused(root: &Path, journal: &Path) -> Result<()> {
    if journal.exists() {
        return Ok(());
    }
    let Some(name) = store::first_foreign(root, &[LOCK])? else { return Ok(()) };
    Err(Error::new(format!("expected an export or an empty folder, got {} with the entry {name}", root.display()))
        .with_hint("choose an empty or new folder with `--to`"))
}

/// Locks an export folder; `None` if its file system does not support locks: each file is atomic in any case.
fn lock(root: &Path) -> Result<Option<FileLock>> {
    store::lock_if_supported(&root.join(LOCK), || {
        Error::new(format!("another process is exporting to {}", root.display()))
            .with_hint("wait until the other process ends, or choose another folder with `--to`")
    })
}

fn read_journal(root: &Path, journal: &Path, request: &ExportRequest) -> Result<BTreeMap<String, JournalEntry>> {
    let text = std::fs::read(journal).map_err(|e| Error::io("cannot read", journal, e))?;
    let mut lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let own: ExportRequest = canonical::parse(lines.next().unwrap_or_default(), &journal.display().to_string())?;
    let differences = own.differences(request);
    if !differences.is_empty() {
        let message = format!("{} contains another export: {}", root.display(), differences.join("; "));
        return Err(Error::new(message).with_hint("choose another folder with `--to`, or repeat the earlier command"));
    }
    // The last line may be truncated if the process was killed; a file without a line is written again.
    let done = lines.filter_map(|line| serde_json::from_slice::<JournalEntry>(line).ok());
    let is_below = |done: &JournalEntry| done.files.iter().all(|file| is_plain(&file.path));
    Ok(done.filter(is_below).map(|done| (done.key.clone(), done)).collect())
}

/// Returns whether a relative path has only normal components.
fn is_plain(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)))
}

fn write_journal<'a>(
    path: &Path,
    request: &ExportRequest,
    done: impl IntoIterator<Item = &'a JournalEntry>,
) -> Result<()> {
    let mut text = canonical::line(request)?;
    for done in done {
        text.extend(canonical::line(done)?);
    }
    write_atomic(path, |out| out.write_all(&text)).map_err(|e| unwritable(path, e))
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
            let path = entry.path();
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.map_err(|e| Error::io("cannot remove", &path, e))?;
        }
    }
    Ok(())
}
