//! Verification of a run folder against its digests.

use super::{CHECKPOINT_INTERVAL, QualityCounts, RunFolder, base};
use crate::error::{Error, ErrorKind, Result};
use crate::record::FileEntry;
use crate::record::parquet;
use crate::record::schema::Table;
use crate::sink::pairs::{self, Pair};
use crate::store::FileDigest;
use crate::store::canonical;

/// The result of the verification of a run folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Number of replayed commits.
    pub commits: u64,
    /// Number of files that were compared with their digests.
    pub files: u64,
    /// Total size of these files.
    pub bytes: u64,
    /// One sentence per problem.
    pub problems: Vec<String>,
}

impl RunFolder {
    /// Replays every commit from the first, and compares every file with its digest.
    ///
    /// # Errors
    /// If the folder cannot be read; errors in its content are reported in [`Verification::problems`].
    pub fn verify(&self) -> Result<Verification> {
        let mut report = Verification::default();
        let mut snapshot = self.empty_snapshot();
        let (mut first, mut quality) = (0, QualityCounts::new());
        if let Some(base) = self.base() {
            snapshot = self.snapshot(Some(base.epoch))?;
            quality = self.quality(Some(base.epoch))?;
            first = base.epoch + 1;
            if snapshot.head.sha256 != base.commit {
                report.problems.push(format!("base {}: the checkpoint belongs to another commit", base.epoch));
            }
        }
        for epoch in self.head().map_or(0..0, |head| first..head + 1) {
            let replayed = self.commit(epoch).and_then(|(commit, sha256)| {
                snapshot.apply(&commit, sha256)?;
                // A damaged part is a problem of its own below.
                let _ = self.add_quality(&commit, &mut quality);
                Ok(commit)
            });
            match replayed {
                Ok(commit) => match self.ingest_manifest(epoch) {
                    Ok((_, digest)) if digest == commit.ingest => {}
                    Ok((_, digest)) => {
                        let expected = commit.ingest;
                        report
                            .problems
                            .push(format!("ingest manifest {epoch}: expected digest {expected}, got {digest}"));
                    }
                    Err(error) => report.problems.push(error.to_string()),
                },
                Err(error) => {
                    report.problems.push(error.to_string());
                    return Ok(report);
                }
            }
            if (epoch + 1) % CHECKPOINT_INTERVAL == 0 {
                match self.checkpoint(epoch) {
                    Ok(Some(checkpoint)) if snapshot.checkpoint(&quality).as_ref() != Some(&checkpoint) => {
                        report.problems.push(format!("checkpoint {epoch} does not equal the replay of its commits"));
                    }
                    Ok(_) => {}
                    Err(error) => report.problems.push(error.to_string()),
                }
            }
            report.commits += 1;
        }
        let pairs = match pairs::read_pairs(&**self.store(), &snapshot.pairs_indexes()) {
            Ok(pairs) => pairs,
            Err(error) => {
                report.problems.push(error.to_string());
                Vec::new()
            }
        };
        let pairs = pairs.iter().flat_map(Pair::files);
        for file in snapshot.files.values().cloned().chain(pairs) {
            if let Some(problem) = self.find_problem(&file)? {
                report.problems.push(problem);
            }
            report.files += 1;
            report.bytes += file.bytes;
        }
        Ok(report)
    }

    /// Reads a committed file and verifies its digest.
    ///
    /// # Errors
    /// If the file does not exist or has another digest.
    pub fn read_verified(&self, file: &FileEntry) -> Result<Vec<u8>> {
        let bytes = self.store().read(&file.path)?.ok_or_else(|| self.damaged(file, "got none"))?;
        let got = FileDigest::of(&bytes);
        if got.sha256 != file.sha256 {
            let got = format!("got {} bytes with SHA-256 {} instead of {}", got.bytes, got.sha256, file.sha256);
            return Err(self.damaged(file, &got));
        }
        Ok(bytes)
    }

    /// Checks that a committed file exists with its length.
    ///
    /// # Errors
    /// If the file does not exist or has another length.
    pub fn check_length(&self, file: &FileEntry) -> Result<()> {
        match self.store().length(&file.path)? {
            None => Err(self.damaged(file, "got none")),
            Some(bytes) if bytes != file.bytes => Err(self.damaged(file, &format!("got {bytes} bytes"))),
            Some(_) => Ok(()),
        }
    }

    /// Checks the files that a resumed run depends on: tables and lists are compared with their digests; images, labels and shards with
    /// their lengths.
    ///
    /// # Errors
    /// At the first file that differs from the committed file.
    pub fn check_files(&self) -> Result<()> {
        self.for_each_file(None, &mut |file| {
            let is_pairs = pairs::is_index(&file.table);
            if Table::from_name(&file.table).is_err() && !is_pairs && !file.path.ends_with(".json") {
                return self.check_length(&file);
            }
            let bytes = self.read_verified(&file)?;
            if is_pairs {
                for pair in canonical::parse::<Vec<Pair>>(&bytes, &self.store().display_path(&file.path))? {
                    pair.files().iter().try_for_each(|file| self.check_length(file))?;
                }
            }
            Ok(())
        })
    }

    fn damaged(&self, file: &FileEntry, got: &str) -> Error {
        let path = self.store().display_path(&file.path);
        let base = base::read_last(&**self.store()).ok().flatten().map(|base| base.epoch);
        if base != self.base().map(|base| base.epoch) {
            return Error::new(format!("{path} was purged while the run folder was read"))
                .with_kind(ErrorKind::Purged)
                .with_hint("open the run folder again to read its current state");
        }
        Error::new(format!("{path}: expected the committed file of {} bytes, {got}", file.bytes))
            .with_kind(ErrorKind::Damaged)
            .with_hint("the run folder is damaged: restore it from a copy, or start a new run with another `--out`")
    }

    fn find_problem(&self, file: &FileEntry) -> Result<Option<String>> {
        let path = self.store().display_path(&file.path);
        let expected = FileDigest { bytes: file.bytes, sha256: file.sha256.clone() };
        let got = match self.store().digest(&file.path)? {
            None => return Ok(Some(format!("{path}: expected the committed file, got none"))),
            Some(got) if got != expected => {
                return Ok(Some(format!(
                    "{path}: expected {} bytes with digest {}, got {} with {}",
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
                Some(format!("{path}: expected the row count {}, got {rows}", file.rows))
            }
            Err(error) => Some(format!("{path} ({} bytes): {error}", got.bytes)),
            Ok(_) => None,
        })
    }

    /// Computes the SHA-256 of the list of all files, with their digests, after commit `at`, or after the last commit. The result is equal
    /// for equal runs, independent of the machine and of restarts.
    ///
    /// # Errors
    /// The same errors as [`RunFolder::snapshot`].
    pub fn content_digest(&self, at: Option<u64>) -> Result<String> {
        let files: Vec<FileEntry> = self.snapshot(at)?.files.into_values().collect();
        Ok(FileDigest::of(&canonical::line(&files)?).sha256)
    }
}
