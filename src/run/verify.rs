//! Checking a run folder against its own digests.

use super::{CHECKPOINT_EVERY, RunFolder};
use crate::error::{Error, ErrorKind, Result};
use crate::record::FileEntry;
use crate::record::parquet;
use crate::record::schema::Table;
use crate::sink::pairs::{self, Pair};
use crate::store::FileDigest;
use crate::store::canonical;

/// What a check of a whole run folder found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Commits that were replayed.
    pub commits: u64,
    /// Files that were compared with their digests.
    pub files: u64,
    /// Bytes of those files.
    pub bytes: u64,
    /// One sentence for everything that is wrong.
    pub problems: Vec<String>,
}

impl RunFolder {
    /// Replays every commit from the first, and compares every file with its digest.
    ///
    /// # Errors
    /// If the folder cannot be read at all; what is wrong with its content is in [`Verification::problems`].
    pub fn verify(&self) -> Result<Verification> {
        let mut found = Verification::default();
        let mut snapshot = self.start();
        for epoch in self.head().map_or(0..0, |head| 0..head + 1) {
            let replayed = self.commit(epoch).and_then(|(commit, sha256)| {
                snapshot.apply(&commit, sha256)?;
                Ok(commit)
            });
            match replayed {
                Ok(commit) => match self.ingest_manifest(epoch) {
                    Ok((_, digest)) if digest == commit.ingest => {}
                    Ok((_, digest)) => {
                        let expected = commit.ingest;
                        found
                            .problems
                            .push(format!("ingest manifest {epoch} has digest {digest}, its commit says {expected}"));
                    }
                    Err(error) => found.problems.push(error.to_string()),
                },
                Err(error) => {
                    found.problems.push(error.to_string());
                    return Ok(found);
                }
            }
            if (epoch + 1) % CHECKPOINT_EVERY == 0 {
                match self.checkpoint(epoch) {
                    Ok(Some(checkpoint)) if snapshot.checkpoint().as_ref() != Some(&checkpoint) => {
                        found.problems.push(format!("checkpoint {epoch} is not what its commits give"));
                    }
                    Ok(_) => {}
                    Err(error) => found.problems.push(error.to_string()),
                }
            }
            found.commits += 1;
        }
        let pairs = match pairs::read_pairs(&**self.store(), &snapshot.pairs_indexes()) {
            Ok(pairs) => pairs,
            Err(error) => {
                found.problems.push(error.to_string());
                Vec::new()
            }
        };
        let pairs = pairs.iter().flat_map(Pair::files);
        for file in snapshot.files.values().cloned().chain(pairs) {
            if let Some(problem) = self.problem_of(&file)? {
                found.problems.push(problem);
            }
            found.files += 1;
            found.bytes += file.bytes;
        }
        Ok(found)
    }

    /// The bytes of a committed file, once they are found to be those that were committed.
    ///
    /// # Errors
    /// If the file is not there, or another one.
    pub fn verified(&self, file: &FileEntry) -> Result<Vec<u8>> {
        let bytes = self.store().read(&file.path)?.ok_or_else(|| self.damaged(file, "is not there"))?;
        if FileDigest::of(&bytes).sha256 != file.sha256 {
            return Err(self.damaged(file, "has other content"));
        }
        Ok(bytes)
    }

    /// Whether a committed file is there with its length.
    ///
    /// # Errors
    /// If it is not.
    pub fn check_length(&self, file: &FileEntry) -> Result<()> {
        match self.store().length(&file.path)? {
            None => Err(self.damaged(file, "is not there")),
            Some(bytes) if bytes != file.bytes => Err(self.damaged(file, &format!("has {bytes}"))),
            Some(_) => Ok(()),
        }
    }

    /// What a run relies on that goes on in this folder: tables and lists are compared with their digests, images, labels
    /// and shards with their lengths.
    ///
    /// # Errors
    /// At the first file that is not what was committed.
    pub fn check_files(&self) -> Result<()> {
        self.each_file(None, &mut |file| {
            let is_pairs = pairs::is_index(&file.table);
            if Table::from_name(&file.table).is_err() && !is_pairs && !file.path.ends_with(".json") {
                return self.check_length(&file);
            }
            let bytes = self.verified(&file)?;
            if is_pairs {
                for pair in canonical::parse::<Vec<Pair>>(&bytes, &self.store().display_path(&file.path))? {
                    pair.files().iter().try_for_each(|file| self.check_length(file))?;
                }
            }
            Ok(())
        })
    }

    fn damaged(&self, file: &FileEntry, got: &str) -> Error {
        let place = self.store().display_path(&file.path);
        Error::new(format!("{place} was committed with {} bytes and {got}", file.bytes))
            .with_kind(ErrorKind::Damaged)
            .with_hint("the run folder was damaged: restore it from a copy, or start again with another `--out`")
    }

    fn problem_of(&self, file: &FileEntry) -> Result<Option<String>> {
        let place = self.store().display_path(&file.path);
        let expected = FileDigest { bytes: file.bytes, sha256: file.sha256.clone() };
        let got = match self.store().digest(&file.path)? {
            None => return Ok(Some(format!("{place} is committed and not there"))),
            Some(got) if got != expected => {
                return Ok(Some(format!(
                    "{place} should have {} bytes with digest {}, it has {} with {}",
                    expected.bytes, expected.sha256, got.bytes, got.sha256
                )));
            }
            Some(got) => got,
        };
        if Table::from_name(&file.table).is_err() {
            return Ok(None);
        }
        let rows = self.store().read(&file.path)?.map(parquet::row_count).transpose();
        Ok(match rows {
            Ok(Some(rows)) if rows != file.rows => {
                Some(format!("{place} should have {} rows, it has {rows}", file.rows))
            }
            Err(error) => Some(format!("{place} ({} bytes): {error}", got.bytes)),
            Ok(_) => None,
        })
    }

    /// SHA-256 over what is committed: equal for equal runs, whoever made them and however often they stopped.
    ///
    /// # Errors
    /// The same errors as [`RunFolder::snapshot`].
    pub fn content_digest(&self, at: Option<u64>) -> Result<String> {
        let files: Vec<FileEntry> = self.snapshot(at)?.files.into_values().collect();
        Ok(FileDigest::of(&canonical::line(&files)?).sha256)
    }
}
