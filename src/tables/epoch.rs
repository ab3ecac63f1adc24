//! From the outcomes of an epoch's scans to durable files and counts, ready to be committed.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::sink::durable::Durable;
use crate::sink::parquet::{Row, SampleRow, write_part};
use crate::sink::spool::ScanOutcome;
use crate::sink::{FileEntry, Outcome, Placement, SampleRecord, Sink};
use crate::tables::run::Counts;

/// An epoch whose files are durable; [`RunWriter::commit`](crate::tables::run::RunWriter::commit) makes it exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealedEpoch {
    /// The epoch.
    pub epoch: u64,
    /// Files that it adds.
    pub add: Vec<FileEntry>,
    /// Files of earlier epochs that do not count any more.
    pub remove: Vec<FileEntry>,
    /// How its scans and attempts ended.
    pub counts: Counts,
}

/// A sink with the samples that the graph gives it.
pub struct Feed<'a> {
    /// The sink.
    pub sink: &'a dyn Sink,
    /// Whether it takes a sample.
    pub takes: &'a dyn Fn(&SampleRecord) -> bool,
}

/// Seals an epoch: all sinks, then the tables. It depends on nothing but its arguments, whatever the order of
/// `outcomes`, so epochs may be sealed side by side; repeating it changes nothing.
///
/// A table gets a part in the first epoch even without rows, so that there is always a file to ask.
///
/// # Errors
/// Where files cannot be written, a patient is in two splits, or a row belongs to another epoch.
pub fn seal(store: &dyn Durable, epoch: u64, outcomes: Vec<ScanOutcome>, sinks: &[Feed<'_>]) -> Result<SealedEpoch> {
    if let Some(other) = outcomes.iter().find(|outcome| {
        outcome.scan.epoch != epoch
            || outcome.samples.iter().any(|record| record.epoch != epoch)
            || outcome.faults.iter().any(|record| record.epoch != epoch)
    }) {
        return Err(Error::new(format!("scan {} has rows of another epoch than {epoch}", other.scan.scan_id)));
    }
    let samples_with_files = ScanOutcome::with_files(epoch, &outcomes);
    let mut placements: HashMap<String, Placement> = HashMap::new();
    let mut sealed = SealedEpoch { epoch, ..SealedEpoch::default() };
    for feed in sinks {
        let taken: Vec<_> = samples_with_files.iter().filter(|sample| (feed.takes)(&sample.record)).cloned().collect();
        let rows = outcomes.iter().flat_map(|outcome| &outcome.samples);
        let (expected, got) = (rows.filter(|row| (feed.takes)(row)).count(), taken.len());
        if expected != got {
            let name = feed.sink.name();
            let message = format!("epoch {epoch} has {expected} samples for {name}, files were spooled for {got}");
            return Err(Error::new(message));
        }
        let of_sink = feed.sink.seal(store, epoch, &taken)?;
        sealed.add.extend(of_sink.files);
        for (sample, placement) in taken.iter().zip(of_sink.placements) {
            placements.entry(sample.record.sample_id.clone()).or_default().merge(placement);
        }
    }
    let (mut scans, mut samples, mut faults) = (Vec::new(), Vec::new(), Vec::new());
    for outcome in outcomes {
        count(&mut sealed.counts, &outcome);
        scans.push(outcome.scan);
        faults.extend(outcome.faults);
        samples.extend(outcome.samples.into_iter().map(|record| {
            let placement = placements.remove(&record.sample_id).unwrap_or_default();
            SampleRow { record, placement }
        }));
    }
    publish_part(store, &mut sealed, samples)?;
    publish_part(store, &mut sealed, scans)?;
    publish_part(store, &mut sealed, faults)?;
    sealed.add.sort_unstable();
    sealed.add.dedup();
    Ok(sealed)
}

fn publish_part<R: Row>(store: &dyn Durable, sealed: &mut SealedEpoch, rows: Vec<R>) -> Result<()> {
    if !rows.is_empty() || sealed.epoch == 0 {
        sealed.add.push(write_part(sealed.epoch, rows)?.publish(store)?);
    }
    Ok(())
}

fn count(counts: &mut Counts, outcome: &ScanOutcome) {
    counts.scans += 1;
    counts.duplicates += u64::from(outcome.scan.duplicate_of.is_some());
    counts.without_organs += u64::from(outcome.scan.status == "done" && outcome.scan.organs.is_empty());
    for record in &outcome.samples {
        match &record.outcome {
            Outcome::Accepted => counts.accepted += 1,
            Outcome::Rejected { reason } => *counts.rejected.entry(reason.clone()).or_default() += 1,
        }
    }
    for record in &outcome.faults {
        let kind = format!("{}/{}", record.fault.stage.name(), record.fault.kind.name());
        *counts.faults.entry(kind).or_default() += 1;
    }
}
