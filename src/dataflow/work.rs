//! What is done to one scan, step by step: plain functions, which the dataflow calls on its pool and a loop calls in order.

use std::sync::Arc;

use crate::error::{Error, Fault, FaultKind, Result, Stage};
use crate::graph::{MaskNode, Plan, SynthesisNode};
use crate::id::{MaskDigest, ScanDigest, ScanId};
use crate::ingest::{Scan, ScanEntry};
use crate::mask::{MaskedScan, OrganMask};
use crate::record::{FaultRecord, SampleRecord, ScanRecord, Status};
use crate::run::spool::{SampleFiles, ScanOutcome, Spool};
use crate::volume::Voxels;

use super::deduplicate::mark_duplicate;
use super::organ::{Attempted, Failure, ScanContext};
use super::pool::guarded;
use super::telemetry::{Step, Telemetry, Timing};
use super::{Epoch, Progress};

/// The stages of a pipeline and what they report to.
pub struct StageRunner {
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
pub struct ScanMetadata {
    digest: ScanDigest,
    shape: [u32; 3],
    spacing_mm: [f64; 3],
    orientation: String,
    hu_min: f64,
    hu_max: f64,
}

/// What one branch of the graph reports of a scan.
#[derive(Clone, Debug, Default)]
pub struct StageReport {
    metadata: Option<ScanMetadata>,
    organs_ml: Vec<(String, f64)>,
    samples: Vec<SampleRecord>,
    files: Vec<SampleFiles>,
    fault: Option<Fault>,
    duplicate_of: Option<ScanId>,
}

impl StageReport {
    /// The scan was read, and no synthesis follows.
    pub fn read(scan: &Scan) -> Self {
        Self { metadata: Some(metadata(scan)), ..Self::default() }
    }

    /// A scan of equal content was worked on before, under another id.
    pub fn duplicate(scan: &Scan, of: ScanId) -> Self {
        Self { duplicate_of: Some(of), ..Self::read(scan) }
    }

    /// The scan has a fault; with what was known of it before.
    pub fn failed(fault: Fault, scan: Option<&Scan>) -> Self {
        Self { metadata: scan.map(metadata), fault: Some(fault), ..Self::default() }
    }
}

/// A scan with its organs and their digest.
pub struct DigestedScan {
    /// The scan and its organs.
    pub masked: MaskedScan,
    /// Digest of the organs' voxels.
    pub mask_digest: MaskDigest,
}

impl StageRunner {
    /// Bytes that a scan will need at most, from its header: its voxels while they are decoded and after, a label file at two bytes a
    /// voxel, the merged mask and its alignment at one each, and the compressed slabs that its samples share.
    ///
    /// # Errors
    /// A fault where the file has no valid header.
    pub fn peek(&self, epoch: Epoch, source: usize, entry: &ScanEntry, limit_bytes: u64) -> Result<u64, Fault> {
        let node = &self.plan.sources[source];
        let header = self.telemetry.time(timing(epoch, Step::Peek, &node.name, entry), || {
            guarded(Stage::Read, || node.source.header(entry)).map_err(|fault| fault.at_node(&node.name))
        })?;
        let voxels = header.grid.shape.iter().fold(1u64, |product, &n| product.saturating_mul(n as u64));
        let need =
            header.read_bytes.max(header.volume_bytes.saturating_mul(2).saturating_add(voxels.saturating_mul(6)));
        if need > limit_bytes {
            let (need, limit) = (bytesize::ByteSize(need), bytesize::ByteSize(limit_bytes));
            tracing::warn!(scan = %entry.scan_id, "may need {need}, more than --memory {limit}: it is worked on alone");
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
        let _span = tracing::info_span!("read", node = node.name, scan = %entry.scan_id, epoch).entered();
        let read = || guarded(Stage::Read, || node.source.read(entry));
        let scan = self.telemetry.time(timing(epoch, Step::Read, &node.name, entry), read);
        scan.map(Arc::new).map_err(|fault| fault.at_node(&node.name))
    }

    /// Finds the organs of a scan, or a fault of stage `mask`.
    ///
    /// # Errors
    /// What must stop the run.
    pub fn mask(&self, epoch: Epoch, node: &MaskNode, scan: &Arc<Scan>) -> Result<Result<DigestedScan, Fault>> {
        let _span = tracing::info_span!("mask", node = node.name, scan = %scan.entry.scan_id, epoch).entered();
        let mask = || guarded(Stage::Mask, || node.mask.mask(scan).map(|mask| (mask.digest(), mask)));
        match self.telemetry.time(timing(epoch, Step::Mask, &node.name, &scan.entry), mask) {
            Err(fault) if fault.kind == FaultKind::Device => Err(lost(&fault)),
            Err(fault) => Ok(Err(fault.at_node(&node.name))),
            Ok((mask_digest, mask)) => {
                Ok(Ok(DigestedScan { masked: MaskedScan { scan: Arc::clone(scan), mask }, mask_digest }))
            }
        }
    }

    /// Makes the tumors of one synthesis in a masked scan; the files of its kept candidates are staged when it returns.
    ///
    /// # Errors
    /// What must stop the run; a fault is part of the report.
    pub fn synthesize(&self, epoch: Epoch, synthesis: &SynthesisNode, scan: &DigestedScan) -> Result<StageReport> {
        let DigestedScan { masked, mask_digest } = scan;
        let (scan, name) = (&masked.scan, &synthesis.attempts.name);
        let _span = tracing::info_span!("synthesize", node = name, scan = %scan.entry.scan_id, epoch).entered();
        let mut report = StageReport {
            metadata: Some(metadata(scan)),
            organs_ml: organs_ml(&masked.mask, scan),
            ..StageReport::default()
        };
        let mut attempted = Attempted::default();
        let mut stop = None;
        let attempt = guarded(Stage::Synthesize, || {
            let spool = self.spool.open(epoch, masked)?;
            let context = ScanContext {
                plan: &self.plan,
                synthesis,
                epoch,
                masked,
                mask_digest: *mask_digest,
                spool: &spool,
                telemetry: &self.telemetry,
                progress: &self.progress,
            };
            for organ in synthesis.organs_in(&masked.mask.organs) {
                if report.organs_ml.iter().all(|(name, _)| *name != organ.name) {
                    continue;
                }
                match context.organ(organ, &mut attempted) {
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
            Err(fault) => report.fault = Some(fault.at_node(name)),
            Ok(()) => {}
        }
        report.samples = attempted.rows;
        report.files = attempted.files.into_values().collect();
        stop.map_or(Ok(report), Err)
    }

    /// Joins the reports of all branches on a scan, and saves them. A scan with a fault has no samples.
    ///
    /// # Errors
    /// Where it cannot be saved.
    pub fn finish(&self, epoch: Epoch, entry: &ScanEntry, reports: Vec<StageReport>) -> Result<ScanOutcome> {
        let attempts = counted(reports.iter().flat_map(|report| &report.samples));
        let outcome = self.outcome(epoch, entry, reports);
        let saved = match self.spool.save(epoch, outcome)? {
            Ok(outcome) => outcome,
            Err(fault) => {
                let failed = self.outcome(epoch, entry, vec![StageReport::failed(fault, None)]);
                let unsaved = |fault: Fault| Error::new(format!("cannot save a fault: {fault}"));
                self.spool.save(epoch, failed)?.map_err(unsaved)?
            }
        };
        let kept = counted(&saved.samples);
        self.progress.discard(attempts[0] - kept[0], attempts[1] - kept[1]);
        self.progress.scan_finished(!saved.faults.is_empty());
        for fault in &saved.faults {
            tracing::warn!(scan = %entry.scan_id, source = entry.source, "{}", fault.fault);
        }
        let discarded = attempts[0] + attempts[1] - kept[0] - kept[1];
        if discarded > 0 && !saved.faults.is_empty() {
            tracing::warn!(scan = %entry.scan_id, "its {discarded} attempts before the fault are discarded");
        }
        Ok(saved)
    }

    /// The outcome of a scan of an epoch that an earlier run of this folder finished but did not commit.
    ///
    /// # Errors
    /// Where the spool cannot be read.
    pub fn saved(&self, epoch: Epoch, entry: &ScanEntry) -> Result<Option<ScanOutcome>> {
        let saved = self.spool.load_verified(epoch, entry.scan_id)?;
        if let Some(outcome) = &saved {
            for row in &outcome.samples {
                self.progress.attempt(row.outcome.is_accepted());
            }
            self.progress.scan_finished(!outcome.faults.is_empty());
        }
        Ok(saved)
    }

    fn outcome(&self, epoch: Epoch, entry: &ScanEntry, reports: Vec<StageReport>) -> ScanOutcome {
        let metadata = reports.iter().find_map(|report| report.metadata.clone());
        let duplicate_of = reports.iter().find_map(|report| report.duplicate_of);
        let mut organs: Vec<(String, f64)> = Vec::new();
        let (mut samples, mut files, mut faults) = (Vec::new(), Vec::new(), Vec::new());
        for report in reports {
            samples.extend(report.samples);
            files.extend(report.files);
            faults.extend(report.fault);
            for (name, ml) in report.organs_ml {
                if organs.iter().all(|(known, _)| *known != name) {
                    organs.push((name, ml));
                }
            }
        }
        // Branches report in the order in which they are done; what is stored may not depend on it.
        samples.sort_by(|a: &SampleRecord, b| (a.sample_id, &a.branch).cmp(&(b.sample_id, &b.branch)));
        files.sort_by_key(|files: &SampleFiles| files.sample_id);
        organs.sort_by(|a, b| a.0.cmp(&b.0));
        faults.sort();
        faults.dedup();
        if !faults.is_empty() {
            samples.clear();
            files.clear();
        }
        let accepted = samples.iter().filter(|row| row.outcome.is_accepted()).count() as u32;
        let scan = ScanRecord {
            scan_id: entry.scan_id,
            scan_digest: metadata.as_ref().map(|metadata| metadata.digest),
            patient_key: entry.patient_key,
            dataset: entry.dataset.clone(),
            source: entry.source.clone(),
            epoch,
            split: self.plan.split_of(entry.patient_key),
            status: if faults.is_empty() { Status::Done } else { Status::Fault },
            duplicate_of: None,
            bytes: entry.bytes,
            shape: metadata.as_ref().map(|metadata| metadata.shape),
            spacing_mm: metadata.as_ref().map(|metadata| metadata.spacing_mm),
            orientation: metadata.as_ref().map(|metadata| metadata.orientation.clone()),
            hu_min: metadata.as_ref().map(|metadata| metadata.hu_min),
            hu_max: metadata.as_ref().map(|metadata| metadata.hu_max),
            organs,
            accepted,
            rejected: samples.len() as u32 - accepted,
        };
        let record = |fault| FaultRecord {
            scan_id: entry.scan_id,
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
    rows.into_iter().fold([0, 0], |[accepted, rejected], row| match row.outcome.is_accepted() {
        true => [accepted + 1, rejected],
        false => [accepted, rejected + 1],
    })
}

/// The error of a run whose networks have lost their device: it is no fault of a scan.
fn lost(fault: &Fault) -> Error {
    Error::new(format!("the device of the networks is lost: {}", fault.message))
        .with_hint("run it again into the same folder to resume, perhaps with --device cpu")
}

fn timing<'a>(epoch: Epoch, step: Step, node: &'a str, entry: &ScanEntry) -> Timing<'a> {
    Timing { epoch, step, node, scan_id: Some(entry.scan_id), sample_id: None }
}

fn metadata(scan: &Scan) -> ScanMetadata {
    let grid = &scan.volume.grid;
    let (hu_min, hu_max) = match &scan.volume.voxels {
        Voxels::I16(array) => extremes(array.as_slice().iter().map(|&hu| f64::from(hu))),
        Voxels::F32(array) => extremes(array.as_slice().iter().map(|&hu| f64::from(hu))),
    };
    ScanMetadata {
        digest: scan.digest,
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
