//! The processing of one scan, as plain functions that the dataflow calls on its pool and a loop calls in order.

use std::sync::Arc;

use crate::error::{Error, Fault, FaultKind, Result, Stage};
use crate::graph::{MaskNode, Plan, SynthesisNode};
use crate::id::{MaskDigest, ScanDigest, ScanId, ScanVersion};
use crate::ingest::{Acquisition, HeldOut, Scan, ScanEntry};
use crate::mask::{MaskedScan, OrganMask};
use crate::record::{FaultRecord, SampleKind, SampleRecord, ScanRecord, Status};
use crate::run::spool::{SampleFiles, ScanOutcome, Spool};
use crate::volume::Voxels;

use super::backoff::with_retries;
use super::deduplicate::mark_duplicate;
use super::organ::{AttemptResults, Failure, ScanContext};
use super::pool::catch_fault;
use super::series_index::SeriesIndex;
use super::telemetry::{Step, Telemetry, Timing};
use super::{Epoch, Progress};

/// A runner of the stages of a pipeline.
pub struct StageRunner {
    /// The pipeline.
    pub plan: Plan,
    /// The staged results.
    pub spool: Spool,
    /// The recorder of timings.
    pub telemetry: Telemetry,
    /// The running totals.
    pub progress: Arc<Progress>,
    /// The slices of the scans of this run, to find series that are part of another one.
    pub series: SeriesIndex,
}

/// Metadata of a scan after reading: columns of `scans`.
#[derive(Clone, Debug, PartialEq)]
pub struct ScanMetadata {
    digest: ScanDigest,
    shape: [u32; 3],
    spacing_mm: [f64; 3],
    orientation: String,
    acquisition: Acquisition,
    hu_min: f64,
    hu_max: f64,
}

/// Rows, files and fault of a scan from the stages of one branch of the graph.
#[derive(Clone, Debug, Default)]
pub struct StageReport {
    metadata: Option<ScanMetadata>,
    organs_ml: Vec<(String, f64)>,
    mask_coverage: Option<f64>,
    samples: Vec<SampleRecord>,
    files: Vec<SampleFiles>,
    fault: Option<Fault>,
    duplicate_of: Option<ScanId>,
    is_withdrawn: bool,
}

impl StageReport {
    /// Creates the report of a scan without syntheses.
    pub fn read(scan: &Scan) -> Self {
        Self { metadata: Some(metadata(scan)), ..Self::default() }
    }

    /// Creates the report of a duplicate of an earlier scan.
    pub fn duplicate(scan: &Scan, original: ScanId) -> Self {
        Self { duplicate_of: Some(original), ..Self::read(scan) }
    }

    /// Creates the report of a scan whose content is withdrawn: only a row of `scans` with this status is recorded.
    pub fn withdrawn() -> Self {
        Self { is_withdrawn: true, ..Self::default() }
    }

    /// Creates the report of a scan whose content is held out: the scan has a fault and no samples.
    pub fn held_out(scan: &Scan) -> Self {
        Self::failed(HeldOut::fault().at_node(&scan.entry.source), Some(scan))
    }

    /// Creates the report of a fault, with the metadata of the scan if it was read.
    pub fn failed(fault: Fault, scan: Option<&Scan>) -> Self {
        Self { metadata: scan.map(metadata), fault: Some(fault), ..Self::default() }
    }
}

/// A scan with its organ mask and the digest of the mask.
pub struct DigestedScan {
    /// The scan and its organ mask.
    pub masked: MaskedScan,
    /// Digest of the mask's voxels.
    pub mask_digest: MaskDigest,
}

impl StageRunner {
    /// Returns the maximum memory of a scan in bytes, from its header: the voxels during and after decoding, a label file with two bytes
    /// per voxel, the merged mask and its alignment with one byte each, and the compressed slabs that its samples share.
    ///
    /// # Errors
    /// A fault if the file has no valid header.
    pub fn peek(&self, epoch: Epoch, source: usize, entry: &ScanEntry, limit_bytes: u64) -> Result<u64, Fault> {
        let node = &self.plan.sources[source];
        if entry.version == ScanVersion::OUTDATED {
            let message = "the graph changed after the scan was ingested";
            return Err(Fault::read(FaultKind::Changed, message).at_node(&node.name));
        }
        let header = self.telemetry.time(timing(epoch, Step::Peek, &node.name, entry), || {
            let header = || catch_fault(Stage::Read, || node.source.header(entry));
            with_retries(header).map_err(|fault| fault.at_node(&node.name))
        })?;
        let voxels = header.grid.shape.iter().fold(1u64, |product, &n| product.saturating_mul(n as u64));
        let need =
            header.read_bytes.max(header.volume_bytes.saturating_mul(2).saturating_add(voxels.saturating_mul(6)));
        if need > limit_bytes {
            let (need, limit) = (bytesize::ByteSize(need), bytesize::ByteSize(limit_bytes));
            tracing::warn!(scan = %entry.scan_id, "a scan may need {need} of memory, more than `--memory` {limit}: it is processed alone");
        }
        // Results must not depend on an option: a scan that is larger than the budget leases the whole budget.
        Ok(need.min(limit_bytes))
    }

    /// Reads a scan.
    ///
    /// # Errors
    /// A fault of stage `read`.
    pub fn read(&self, epoch: Epoch, source: usize, entry: &ScanEntry) -> Result<Arc<Scan>, Fault> {
        let node = &self.plan.sources[source];
        let _span = tracing::info_span!("read", node = node.name, scan = %entry.scan_id, epoch).entered();
        let read = || with_retries(|| catch_fault(Stage::Read, || node.source.read(entry)));
        let scan = self.telemetry.time(timing(epoch, Step::Read, &node.name, entry), read);
        scan.map(Arc::new).map_err(|fault| fault.at_node(&node.name))
    }

    /// Computes the organ mask of a scan; the inner error is a fault of stage `mask`.
    ///
    /// # Errors
    /// An error that stops the run.
    pub fn mask(&self, epoch: Epoch, node: &MaskNode, scan: &Arc<Scan>) -> Result<Result<DigestedScan, Fault>> {
        let _span = tracing::info_span!("mask", node = node.name, scan = %scan.entry.scan_id, epoch).entered();
        let mask =
            || with_retries(|| catch_fault(Stage::Mask, || node.mask.mask(scan).map(|mask| (mask.digest(), mask))));
        match self.telemetry.time(timing(epoch, Step::Mask, &node.name, &scan.entry), mask) {
            Err(fault) if fault.kind == FaultKind::Device => Err(device_lost_error(&fault)),
            Err(fault) => Ok(Err(fault.at_node(&node.name))),
            Ok((mask_digest, mask)) => {
                Ok(Ok(DigestedScan { masked: MaskedScan { scan: Arc::clone(scan), mask }, mask_digest }))
            }
        }
    }

    /// Makes the tumors of one synthesis in a masked scan, and stages the files of kept candidates.
    ///
    /// # Errors
    /// An error that stops the run; a fault is part of the report.
    pub fn synthesize(&self, epoch: Epoch, synthesis: &SynthesisNode, scan: &DigestedScan) -> Result<StageReport> {
        let DigestedScan { masked, mask_digest } = scan;
        let (scan, name) = (&masked.scan, &synthesis.attempts.name);
        let _span = tracing::info_span!("synthesize", node = name, scan = %scan.entry.scan_id, epoch).entered();
        let mut report = StageReport {
            metadata: Some(metadata(scan)),
            organs_ml: organs_ml(&masked.mask, scan),
            mask_coverage: Some(masked.mask.coverage),
            ..StageReport::default()
        };
        let mut results = AttemptResults::default();
        let mut stop = None;
        let attempt = catch_fault(Stage::Synthesize, || {
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
            match context.samples(&report.organs_ml, &mut results) {
                Ok(()) => {}
                Err(Failure::Scan(fault)) => return Err(fault),
                Err(Failure::Run(error)) => stop = Some(error),
            }
            Ok(())
        });
        match attempt {
            Err(fault) if fault.kind == FaultKind::Device => stop = Some(device_lost_error(&fault)),
            Err(fault) => report.fault = Some(fault.at_node(name)),
            Ok(()) => {}
        }
        report.samples = results.rows;
        report.files = results.files.into_values().collect();
        stop.map_or(Ok(report), Err)
    }

    /// Merges the reports of all branches on a scan and saves the outcome. A scan with a fault has no samples.
    ///
    /// # Errors
    /// If the outcome cannot be saved, or the scan failed because its source is no longer available: all later scans of the source would
    /// fail, too.
    pub fn finish(&self, epoch: Epoch, entry: &ScanEntry, reports: Vec<StageReport>) -> Result<ScanOutcome> {
        let attempts = count_outcomes(reports.iter().flat_map(|report| &report.samples));
        let reports = match self.change_of(entry) {
            Some(fault) => vec![StageReport::failed(fault, None)],
            None => reports,
        };
        if reports.iter().any(|report| report.fault.is_some())
            && let Some(source) = self.plan.source_index(&entry.source)
        {
            self.plan.sources[source].source.check_available()?;
        }
        let outcome = self.outcome(epoch, entry, reports);
        let saved = match self.spool.save(epoch, outcome)? {
            Ok(outcome) => outcome,
            Err(fault) => {
                let failed = self.outcome(epoch, entry, vec![StageReport::failed(fault, None)]);
                let unsaved = |fault: Fault| Error::new(format!("cannot save a fault: {fault}"));
                self.spool.save(epoch, failed)?.map_err(unsaved)?
            }
        };
        let kept = count_outcomes(&saved.samples);
        self.progress.discard(attempts[0] - kept[0], attempts[1] - kept[1]);
        self.progress.scan_finished(!saved.faults.is_empty());
        for fault in &saved.faults {
            tracing::warn!(scan = %entry.scan_id, source = entry.source, "{}", fault.fault);
        }
        let discarded = attempts[0] + attempts[1] - kept[0] - kept[1];
        if discarded > 0 && !saved.faults.is_empty() {
            tracing::warn!(scan = %entry.scan_id, "discarded {discarded} attempts on this scan because of its fault");
        }
        Ok(saved)
    }

    /// Returns a fault if the files of a scan are no longer those that were listed: the results depend on files that no longer exist, or
    /// on a mixture of old and new files. The next listing has the new version.
    fn change_of(&self, entry: &ScanEntry) -> Option<Fault> {
        let source = self.plan.source_index(&entry.source)?;
        let changed = |message: &str| Some(Fault::read(FaultKind::Changed, message).at_node(&entry.source));
        match catch_fault(Stage::Read, || self.plan.current_version(source, entry)) {
            Ok(version) if version == entry.version => None,
            Ok(_) => changed("the files of the scan changed after they were listed"),
            Err(_) => changed("the files of the scan disappeared after they were listed"),
        }
    }

    /// Loads the outcome of a scan that an earlier process finished but did not commit; `None` if there is no such outcome.
    ///
    /// # Errors
    /// If the spool cannot be read.
    pub fn load_saved(&self, epoch: Epoch, entry: &ScanEntry) -> Result<Option<ScanOutcome>> {
        let saved = self.spool.load_verified(epoch, entry.scan_id)?;
        if let Some(outcome) = &saved {
            let attempts = outcome.samples.iter().filter(|row| row.kind == SampleKind::Synthetic);
            attempts.for_each(|row| self.progress.attempt(row.outcome.is_accepted()));
            self.progress.scan_finished(!outcome.faults.is_empty());
        }
        Ok(saved)
    }

    fn outcome(&self, epoch: Epoch, entry: &ScanEntry, reports: Vec<StageReport>) -> ScanOutcome {
        let metadata = reports.iter().find_map(|report| report.metadata.clone());
        let duplicate_of = reports.iter().find_map(|report| report.duplicate_of);
        let is_withdrawn = reports.iter().any(|report| report.is_withdrawn);
        let mut organs: Vec<(String, f64)> = Vec::new();
        let mut mask_coverage = None;
        let (mut samples, mut files, mut faults) = (Vec::new(), Vec::new(), Vec::new());
        for report in reports {
            samples.extend(report.samples);
            files.extend(report.files);
            faults.extend(report.fault);
            mask_coverage = [mask_coverage, report.mask_coverage].into_iter().flatten().reduce(f64::min);
            for (name, ml) in report.organs_ml {
                if organs.iter().all(|(known, _)| *known != name) {
                    organs.push((name, ml));
                }
            }
        }
        // Branches report in order of completion; stored rows must not depend on this order.
        samples.sort_by(|a: &SampleRecord, b| {
            (a.sample_id, &a.branch, a.tumor_id).cmp(&(b.sample_id, &b.branch, b.tumor_id))
        });
        files.sort_by_key(|files: &SampleFiles| files.sample_id);
        organs.sort_by(|a, b| a.0.cmp(&b.0));
        faults.sort();
        faults.dedup();
        if !faults.is_empty() {
            samples.clear();
            files.clear();
        }
        let [accepted, rejected] = count_outcomes(&samples).map(|count| count as u32);
        let scan = ScanRecord {
            scan_id: entry.scan_id,
            scan_digest: metadata.as_ref().map(|metadata| metadata.digest),
            patient_key: entry.patient_key,
            dataset: entry.dataset.clone(),
            source: entry.source.clone(),
            epoch,
            split: self.plan.split_of(entry.patient_key),
            status: if is_withdrawn { Status::Withdrawn } else { status_of(&faults) },
            duplicate_of: None,
            bytes: entry.bytes,
            shape: metadata.as_ref().map(|metadata| metadata.shape),
            spacing_mm: metadata.as_ref().map(|metadata| metadata.spacing_mm),
            orientation: metadata.as_ref().map(|metadata| metadata.orientation.clone()),
            hu_min: metadata.as_ref().map(|metadata| metadata.hu_min),
            hu_max: metadata.as_ref().map(|metadata| metadata.hu_max),
            organs,
            mask_coverage,
            acquisition: metadata.as_ref().map(|metadata| metadata.acquisition.clone()).unwrap_or_default(),
            accepted,
            rejected,
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

/// Returns the status of a scan with these faults. A fault of the scan itself remains when the scan is processed again.
fn status_of(faults: &[Fault]) -> Status {
    match faults {
        [] => Status::Done,
        faults if faults.iter().all(|fault| fault.kind.is_transient()) => Status::Pending,
        _ => Status::Fault,
    }
}

/// Counts accepted and rejected attempts.
fn count_outcomes<'a>(rows: impl IntoIterator<Item = &'a SampleRecord>) -> [u64; 2] {
    let attempts = rows.into_iter().filter(|row| row.kind == SampleKind::Synthetic);
    attempts.fold([0, 0], |[accepted, rejected], row| match row.outcome.is_accepted() {
        true => [accepted + 1, rejected],
        false => [accepted, rejected + 1],
    })
}

/// Creates the error for a lost device, which is not a fault of a scan.
fn device_lost_error(fault: &Fault) -> Error {
    Error::new(format!("the device of the networks is lost: {}", fault.message))
        .with_hint("run the same command again to resume, possibly with `--device cpu`")
}

fn timing<'a>(epoch: Epoch, step: Step, node: &'a str, entry: &ScanEntry) -> Timing<'a> {
    Timing { epoch, step, node, scan_id: Some(entry.scan_id), sample_id: None }
}

fn metadata(scan: &Scan) -> ScanMetadata {
    let grid = &scan.volume.grid;
    let (hu_min, hu_max) = match &scan.volume.voxels {
        Voxels::I16(array) => min_max(array.as_slice().iter().map(|&hu| f64::from(hu))),
        Voxels::F32(array) => min_max(array.as_slice().iter().map(|&hu| f64::from(hu))),
    };
    ScanMetadata {
        digest: scan.digest,
        shape: grid.shape.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
        spacing_mm: grid.spacing_mm(),
        orientation: grid.orientation().code(),
        acquisition: scan.acquisition.clone(),
        hu_min,
        hu_max,
    }
}

fn min_max(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

/// Returns the volume in millilitres of every organ in the mask, tumors included.
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
