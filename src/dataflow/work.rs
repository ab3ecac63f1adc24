//! What is done to one scan, stretch by stretch: plain functions, which the dataflow calls on its pool and a loop calls in order.

use std::sync::Arc;

use crate::error::{Fault, FaultKind, Result, Stage};
use crate::graph::{MaskNode, Plan, Trial};
use crate::ingest::{Scan, ScanEntry};
use crate::mask::{MaskedScan, OrganMask};
use crate::sink::spool::{SampleFiles, ScanOutcome, Spool};
use crate::sink::{FaultRecord, Outcome, SampleRecord, ScanRecord};
use crate::volume::Voxels;

use super::pool::guarded;
use super::settle::mark_duplicate;
use super::telemetry::{Step, Telemetry, Timing};
use super::trial::{Failure, TrialRun};
use super::{Epoch, Progress};

/// The stages of a pipeline and what they report to.
pub struct Work {
    /// The pipeline.
    pub plan: Plan,
    /// Where results wait for their commit.
    pub spool: Spool,
    /// Where timings go.
    pub telemetry: Telemetry,
    /// Where totals go.
    pub progress: Arc<Progress>,
}

/// What is known of a scan once it is read: columns of `scans`.
#[derive(Clone, Debug, PartialEq)]
pub struct ScanFacts {
    digest: String,
    shape: [u32; 3],
    spacing_mm: [f64; 3],
    orientation: String,
    hu_min: f64,
    hu_max: f64,
}

/// What one branch of the graph has to say of a scan.
#[derive(Clone, Debug, Default)]
pub struct Word {
    facts: Option<ScanFacts>,
    organs_ml: Vec<(String, f64)>,
    samples: Vec<SampleRecord>,
    files: Vec<SampleFiles>,
    fault: Option<Fault>,
    duplicate_of: Option<String>,
}

impl Word {
    /// That the scan was read, where no trial follows.
    pub fn read(scan: &Scan) -> Self {
        Self { facts: Some(facts(scan)), ..Self::default() }
    }

    /// That the scan was done before, under another id.
    pub fn duplicate(scan: &Scan, of: String) -> Self {
        Self { duplicate_of: Some(of), ..Self::read(scan) }
    }

    /// That the scan is spoiled; with what was known of it before.
    pub fn spoiled(fault: Fault, scan: Option<&Scan>) -> Self {
        Self { facts: scan.map(facts), fault: Some(fault), ..Self::default() }
    }
}

impl Work {
    /// Bytes that a scan will need at most, from its header: its voxels while they are decoded and after, a label file at two bytes a
    /// voxel, the merged mask and its alignment at one each, and the compressed slabs that its samples share.
    ///
    /// # Errors
    /// A fault where the header is none.
    pub fn peek(&self, epoch: Epoch, source: usize, entry: &ScanEntry, limit_bytes: u64) -> Result<u64, Fault> {
        let node = &self.plan.sources[source];
        let header = self.telemetry.time(timing(epoch, Step::Peek, &node.name, entry), || {
            guarded(Stage::Read, || node.source.header(entry)).map_err(|fault| fault.of(&node.name))
        })?;
        let voxels = header.grid.shape.iter().fold(1u64, |product, &n| product.saturating_mul(n as u64));
        let need =
            header.read_bytes.max(header.volume_bytes.saturating_mul(2).saturating_add(voxels.saturating_mul(6)));
        if need > limit_bytes {
            let (need, limit) = (bytesize::ByteSize(need), bytesize::ByteSize(limit_bytes));
            tracing::warn!(scan = entry.scan_id, "may need {need}, more than --memory {limit}: it is worked on alone");
        }
        // What comes out may not depend on a flag: a scan that is larger than the budget takes all of it.
        Ok(need.min(limit_bytes))
    }

    /// Reads a scan.
    ///
    /// # Errors
    /// A fault of stage `read`.
    pub fn read(&self, epoch: Epoch, source: usize, entry: &ScanEntry) -> Result<Arc<Scan>, Fault> {
        let node = &self.plan.sources[source];
        let _span = tracing::info_span!("read", node = node.name, scan = entry.scan_id, epoch).entered();
        let read = || guarded(Stage::Read, || node.source.read(entry));
        let scan = self.telemetry.time(timing(epoch, Step::Read, &node.name, entry), read);
        scan.map(Arc::new).map_err(|fault| fault.of(&node.name))
    }

    /// Finds the organs of a scan, or a fault of stage `mask`.
    ///
    /// # Errors
    /// What must stop the run.
    pub fn mask(&self, epoch: Epoch, node: &MaskNode, scan: &Arc<Scan>) -> Result<Result<MaskedScan, Fault>> {
        let _span = tracing::info_span!("mask", node = node.name, scan = scan.entry.scan_id, epoch).entered();
        let mask = || guarded(Stage::Mask, || node.mask.mask(scan));
        match self.telemetry.time(timing(epoch, Step::Mask, &node.name, &scan.entry), mask) {
            Err(fault) if fault.kind == FaultKind::Device => Err(lost(&fault)),
            Err(fault) => Ok(Err(fault.of(&node.name))),
            Ok(mask) => Ok(Ok(MaskedScan { scan: Arc::clone(scan), mask })),
        }
    }

    /// Runs one trial on a masked scan; its accepted samples are spooled when it returns.
    ///
    /// # Errors
    /// What must stop the run; a fault is part of the word.
    pub fn trial(&self, epoch: Epoch, mask: &MaskNode, trial: &Trial, masked: &MaskedScan) -> Result<Word> {
        let scan = &masked.scan;
        let _span = tracing::info_span!("trial", node = trial.name, scan = scan.entry.scan_id, epoch).entered();
        let run = TrialRun {
            plan: &self.plan,
            trial,
            epoch,
            mask: &mask.name,
            telemetry: &self.telemetry,
            progress: &self.progress,
        };
        let mut word = Word { facts: Some(facts(scan)), organs_ml: organs_ml(&masked.mask, scan), ..Word::default() };
        let mut stop = None;
        let attempt = guarded(Stage::Synthesize, || {
            let spool = self.spool.open(epoch, masked)?;
            for organ in trial.organs_in(&masked.mask.organs) {
                if word.organs_ml.iter().all(|(name, _)| *name != organ.name) {
                    continue;
                }
                let files = &mut word.files;
                let ended = run.run(masked, organ, &mut word.samples, |sample| {
                    files.extend(spool.add(&sample)??);
                    Ok(())
                });
                match ended {
                    Ok(()) => {}
                    Err(Failure::Scan(fault)) => return Err(fault),
                    Err(Failure::Run(error)) => {
                        stop = Some(error);
                        return Ok(());
                    }
                }
            }
            Ok(())
        });
        match attempt {
            Err(fault) if fault.kind == FaultKind::Device => stop = Some(lost(&fault)),
            Err(fault) => word.fault = Some(fault.of(&trial.name)),
            Ok(()) => {}
        }
        stop.map_or(Ok(word), Err)
    }

    /// Brings together what all branches said of a scan, and saves it. A spoiled scan has no samples.
    ///
    /// # Errors
    /// Where it cannot be saved.
    pub fn finish(&self, epoch: Epoch, entry: &ScanEntry, words: Vec<Word>) -> Result<ScanOutcome> {
        let attempts = counted(words.iter().flat_map(|word| &word.samples));
        let outcome = self.outcome(epoch, entry, words);
        let saved = match self.spool.save(epoch, outcome)? {
            Ok(outcome) => outcome,
            Err(fault) => {
                let spoiled = self.outcome(epoch, entry, vec![Word::spoiled(fault, None)]);
                let unsaved = |fault: Fault| crate::error::Error::new(format!("cannot save a fault: {fault}"));
                self.spool.save(epoch, spoiled)?.map_err(unsaved)?
            }
        };
        let kept = counted(&saved.samples);
        self.progress.discard(attempts[0] - kept[0], attempts[1] - kept[1]);
        self.progress.scan_finished(!saved.faults.is_empty());
        for fault in &saved.faults {
            tracing::warn!(scan = entry.scan_id, source = entry.source, "{}", fault.fault);
        }
        let lost = attempts[0] + attempts[1] - kept[0] - kept[1];
        if lost > 0 {
            tracing::warn!(
                scan = entry.scan_id,
                "its {lost} attempts before that do not count: a spoiled scan has none"
            );
        }
        Ok(saved)
    }

    /// What an earlier run of this folder already did for a scan of an epoch that was not committed.
    ///
    /// # Errors
    /// Where the spool cannot be read.
    pub fn saved(&self, epoch: Epoch, entry: &ScanEntry) -> Result<Option<ScanOutcome>> {
        let saved = self.spool.load_verified(epoch, &entry.scan_id)?;
        if let Some(outcome) = &saved {
            for row in &outcome.samples {
                self.progress.attempt(row.outcome == Outcome::Accepted);
            }
            self.progress.scan_finished(!outcome.faults.is_empty());
        }
        Ok(saved)
    }

    fn outcome(&self, epoch: Epoch, entry: &ScanEntry, words: Vec<Word>) -> ScanOutcome {
        let facts = words.iter().find_map(|word| word.facts.clone());
        let duplicate_of = words.iter().find_map(|word| word.duplicate_of.clone());
        let mut organs: Vec<(String, f64)> = Vec::new();
        let (mut samples, mut files, mut faults) = (Vec::new(), Vec::new(), Vec::new());
        for word in words {
            samples.extend(word.samples);
            files.extend(word.files);
            faults.extend(word.fault);
            for (name, ml) in word.organs_ml {
                if organs.iter().all(|(known, _)| *known != name) {
                    organs.push((name, ml));
                }
            }
        }
        // Branches report in the order in which they are done; what is stored may not depend on it.
        samples.sort_by(|a: &SampleRecord, b| a.sample_id.cmp(&b.sample_id));
        files.sort_by(|a: &SampleFiles, b| a.sample_id.cmp(&b.sample_id));
        organs.sort_by(|a, b| a.0.cmp(&b.0));
        faults.sort();
        faults.dedup();
        if !faults.is_empty() {
            samples.clear();
            files.clear();
        }
        let accepted = samples.iter().filter(|row| row.outcome == Outcome::Accepted).count() as u32;
        let scan = ScanRecord {
            scan_id: entry.scan_id.clone(),
            scan_digest: facts.as_ref().map(|facts| facts.digest.clone()),
            patient_key: entry.patient_key.clone(),
            dataset: entry.dataset.clone(),
            source: entry.source.clone(),
            epoch,
            split: self.plan.split_of(&entry.patient_key),
            status: if faults.is_empty() { "done" } else { "fault" }.into(),
            duplicate_of: None,
            bytes: entry.bytes,
            shape: facts.as_ref().map(|facts| facts.shape),
            spacing_mm: facts.as_ref().map(|facts| facts.spacing_mm),
            orientation: facts.as_ref().map(|facts| facts.orientation.clone()),
            hu_min: facts.as_ref().map(|facts| facts.hu_min),
            hu_max: facts.as_ref().map(|facts| facts.hu_max),
            organs,
            accepted,
            rejected: samples.len() as u32 - accepted,
        };
        let record = |fault| FaultRecord {
            scan_id: entry.scan_id.clone(),
            dataset: entry.dataset.clone(),
            source: entry.source.clone(),
            epoch,
            fault,
        };
        let mut outcome = ScanOutcome { scan, samples, faults: faults.into_iter().map(record).collect(), files };
        if let Some(first) = duplicate_of {
            mark_duplicate(&mut outcome, first);
        }
        outcome
    }
}

/// Accepted and rejected attempts.
fn counted<'a>(rows: impl IntoIterator<Item = &'a SampleRecord>) -> [u64; 2] {
    rows.into_iter().fold([0, 0], |[accepted, rejected], row| match row.outcome {
        Outcome::Accepted => [accepted + 1, rejected],
        Outcome::Rejected { .. } => [accepted, rejected + 1],
    })
}

/// What stops a run whose networks have no device any more: no scan is to blame.
fn lost(fault: &Fault) -> crate::error::Error {
    crate::error::Error::new(format!("the device of the networks is gone: {}", fault.message))
        .with_hint("run it again into the same folder to go on, perhaps with --device cpu")
}

fn timing<'a>(epoch: Epoch, step: Step, node: &'a str, entry: &'a ScanEntry) -> Timing<'a> {
    Timing { epoch, step, node, scan_id: Some(&entry.scan_id), sample_id: None }
}

fn facts(scan: &Scan) -> ScanFacts {
    let grid = &scan.volume.grid;
    let (hu_min, hu_max) = match &scan.volume.voxels {
        Voxels::I16(array) => extremes(array.as_slice().iter().map(|&hu| f64::from(hu))),
        Voxels::F32(array) => extremes(array.as_slice().iter().map(|&hu| f64::from(hu))),
    };
    ScanFacts {
        digest: scan.digest.clone(),
        shape: grid.shape.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
        spacing_mm: grid.spacing_mm(),
        orientation: grid.orientation().code(),
        hu_min,
        hu_max,
    }
}

fn extremes(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

/// Millilitres of every organ that occurs, its tumors included.
fn organs_ml(mask: &OrganMask, scan: &Scan) -> Vec<(String, f64)> {
    let mut counts = [0u64; 256];
    for &label in mask.labels.as_slice() {
        counts[usize::from(label)] += 1;
    }
    let voxel_ml = scan.volume.grid.voxel_volume_mm3() / 1000.0;
    let volume = |organ: &crate::mask::Organ| {
        (counts[usize::from(organ.label)] + counts[usize::from(organ.tumor_label)]) as f64 * voxel_ml
    };
    mask.organs.iter().map(|organ| (organ.name.clone(), volume(organ))).filter(|(_, ml)| *ml > 0.0).collect()
}
