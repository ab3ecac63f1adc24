//! The samples of one scan that consist of several tumors, and its negative.

use std::collections::BTreeMap;
use std::ops::Range;

use super::organ::{AttemptResults, Failure, ScanContext};
use crate::attempt::Outcome;
use crate::compose::{ChangedBox, Composition, composition_id, digest, overlays};
use crate::id::SampleId;
use crate::record::SampleRecord;

/// The rejection reason of a tumor that passes the quality test but overlaps an earlier tumor of its sample.
pub const REASON_OVERLAP: &str = "overlaps";

impl ScanContext<'_> {
    /// Composes the accepted tumors of each sample of the scan, in the order of their keys, and stages the files. A tumor that overlaps an
    /// earlier one is rejected. The tumors of one sample are in memory at a time; as their supports are disjoint, they need at most a few
    /// times the memory of their organs, for any number of samples.
    ///
    /// # Errors
    /// A fault if files cannot be encoded, or an error that stops the run.
    pub(super) fn compose(&self, results: &mut AttemptResults) -> Result<(), Failure> {
        let mut by_sample: BTreeMap<u32, Vec<Range<usize>>> = BTreeMap::new();
        for (variant, rows) in std::mem::take(&mut results.stored) {
            by_sample.entry(variant).or_default().push(rows);
        }
        by_sample.into_values().try_for_each(|tumors| self.compose_sample(tumors, results))
    }

    /// Composes a sample for every branch; `tumors` are the rows of each candidate that a branch accepted.
    fn compose_sample(&self, mut tumors: Vec<Range<usize>>, results: &mut AttemptResults) -> Result<(), Failure> {
        let scan_id = self.masked.scan.entry.scan_id;
        let key = |row: &SampleRecord| (row.tumor_id, row.attempt);
        tumors.sort_by_key(|rows| key(&results.rows[rows.start]));
        let indices: Vec<usize> = tumors.into_iter().flatten().collect();
        let candidates: BTreeMap<usize, SampleId> =
            indices.iter().filter_map(|&index| Some((index, results.rows[index].candidate_id?))).collect();
        let mut samples: BTreeMap<SampleId, Vec<ChangedBox>> = BTreeMap::new();
        for branch in &self.synthesis.attempts.branches {
            let mut composition = Composition::new(&self.masked.mask.labels);
            let mut placed = Vec::new();
            for &index in &indices {
                let row = &mut results.rows[index];
                if row.branch != branch.name || !row.outcome.is_accepted() {
                    continue;
                }
                if composition.add(self.spool.load_tumor(scan_id, candidates[&index])?) {
                    placed.push(index);
                } else {
                    row.outcome = Outcome::Rejected { reason: REASON_OVERLAP.to_owned() };
                    self.progress.discard(1, 0);
                    self.progress.attempt(false);
                }
            }
            if placed.is_empty() {
                continue;
            }
            let ids: Vec<SampleId> = placed.iter().map(|index| candidates[index]).collect();
            let (sample_id, boxes) = (composition_id(&ids), composition.into_boxes());
            let digest = digest(&overlays(&boxes));
            for index in placed {
                let row = &mut results.rows[index];
                (row.sample_id, row.candidate_digest) = (sample_id, Some(digest));
            }
            // Two branches that accept the same tumors share the sample.
            samples.insert(sample_id, boxes);
        }
        let mut by_id: BTreeMap<SampleId, Vec<SampleRecord>> = BTreeMap::new();
        for &index in &indices {
            let row = &results.rows[index];
            by_id.entry(row.sample_id).or_default().push(row.clone());
        }
        for (sample_id, mut rows) in by_id {
            rows.sort_by(|a, b| (&a.branch, a.tumor_id).cmp(&(&b.branch, b.tumor_id)));
            let boxes = match samples.remove(&sample_id) {
                Some(boxes) => boxes,
                // A candidate that no sample contains: rejected by other branches, or left out.
                None => vec![self.spool.load_tumor(scan_id, sample_id)?],
            };
            self.keep(&overlays(&boxes), &rows, results)?;
        }
        for candidate_id in candidates.into_values() {
            self.spool.drop_tumor(scan_id, candidate_id)?;
        }
        Ok(())
    }

    /// Adds the unchanged scan as a sample of every branch, if the scan is a negative.
    ///
    /// # Errors
    /// A fault if files cannot be encoded, or an error that stops the run.
    pub(super) fn negative(&self, results: &mut AttemptResults) -> Result<(), Failure> {
        let scan_digest = self.masked.scan.digest;
        if !self.synthesis.is_negative(self.plan.seed, scan_digest) {
            return Ok(());
        }
        let sample_id = self.synthesis.negative_id(scan_digest, self.mask_digest);
        let row = |branch| SampleRecord { candidate_digest: Some(digest(&[])), ..self.row(sample_id, branch) };
        let rows: Vec<SampleRecord> = (0..self.synthesis.branches.len()).map(row).collect();
        self.keep(&[], &rows, results)?;
        results.rows.extend(rows);
        Ok(())
    }
}
