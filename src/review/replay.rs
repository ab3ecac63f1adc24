//! A candidate made again from its identity.

use std::sync::Arc;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Fault, Result};
use crate::graph::{Plan, SynthesisNode};
use crate::id::{CandidateDigest, SampleId};
use crate::ingest::Scan;
use crate::mask::MaskedScan;
use crate::record::SampleRecord;
use crate::run::RunFolder;
use crate::synth::{Attempt, AttemptKey};

/// The result of making a candidate again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Replay {
    /// The id of the candidate.
    pub candidate_id: SampleId,
    /// The digest in the run folder.
    pub expected: CandidateDigest,
    /// The digest of the candidate that was made again; absent if the attempt found no site.
    pub got: Option<CandidateDigest>,
}

impl Replay {
    /// Returns whether the candidate is the same.
    pub fn is_equal(&self) -> bool {
        self.got == Some(self.expected)
    }
}

/// Makes the candidate of a row again: reads its scan, computes its mask, and repeats its attempt.
///
/// # Errors
/// If the sample has several tumors, the scan or mask differs from that of the run, or the graph makes other candidates.
pub fn replay(plan: &Plan, run: &RunFolder, record: &SampleRecord) -> Result<Replay> {
    let refused = |message: String, hint: &str| Error::new(message).with_kind(ErrorKind::Refused).with_hint(hint);
    let (Some(candidate_id), Some(expected)) = (record.candidate_id, record.candidate_digest) else {
        let message =
            format!("sample {} has no candidate: it is a negative, or its attempt found no site", record.sample_id);
        return Err(refused(message, "choose a row of `samples` with a candidate_digest"));
    };
    if candidate_id != record.sample_id {
        let message = format!("sample {} has several tumors, whose boxes are composed", record.sample_id);
        return Err(refused(message, "choose a rejected candidate of the same scan"));
    }
    let masked = masked_scan(plan, run, record)?;
    let synthesis = plan
        .syntheses
        .iter()
        .find(|synthesis| synthesis.attempts.name == record.stage && synthesis.digests.results == record.stage_digest);
    let synthesis: &SynthesisNode = synthesis.ok_or_else(|| {
        let message = format!(
            "expected the synthesis `{}` with digest {}, got none in the graph",
            record.stage, record.stage_digest
        );
        refused(message, "pass the graph file of the run with `--pipeline`, and the same weights")
    })?;
    let organ = masked
        .mask
        .organs
        .iter()
        .find(|organ| organ.name == record.organ)
        .ok_or_else(|| Error::new(format!("expected the organ {} in the mask, got none", record.organ)))?;
    let tumor = synthesis.tumor(plan.seed, record.scan_digest, record.mask_digest, organ, record.variant);
    if tumor.sample_id(record.attempt) != candidate_id {
        let message =
            format!("expected candidate {candidate_id}, got {} from the graph", tumor.sample_id(record.attempt));
        return Err(refused(message, "the seed or the organ's labels differ from those of the run"));
    }
    let failed = |fault: Fault| Error::new(fault.to_string());
    let attempts = synthesis.attempts.synthesize.site_plan(&masked, organ).map_err(failed)?;
    let attempt = attempts.attempt(AttemptKey::new(tumor.key(), record.attempt)).map_err(failed)?;
    let got = match attempt {
        Attempt::Candidate(candidate) => Some(candidate.digest()),
        Attempt::Rejected { .. } => None,
    };
    Ok(Replay { candidate_id, expected, got })
}

/// Reads the scan of a row and computes its mask.
fn masked_scan(plan: &Plan, run: &RunFolder, record: &SampleRecord) -> Result<MaskedScan> {
    let changed = |message: String| {
        Error::new(format!("scan {}: {message}", record.scan_id))
            .with_kind(ErrorKind::Refused)
            .with_hint("the candidate can only be made again from the scan and mask of the run")
    };
    let entries = run.scan_entries(record.epoch)?;
    let entry = entries.iter().find(|entry| entry.scan_id == record.scan_id);
    let entry = entry.ok_or_else(|| changed("expected the path of the scan in the run folder, got none".to_owned()))?;
    let source = plan.source_index(&entry.source);
    let source = source.ok_or_else(|| changed(format!("expected the source `{}`, got none", entry.source)))?;
    let scan: Scan = plan.sources[source].source.read(entry).map_err(|fault| changed(fault.to_string()))?;
    if scan.digest != record.scan_digest {
        return Err(changed(format!("expected voxels with digest {}, got {}", record.scan_digest, scan.digest)));
    }
    let scan = Arc::new(scan);
    for (_, node) in plan.masks_of(source) {
        let mask = node.mask.mask(&scan).map_err(|fault| changed(fault.to_string()))?;
        if mask.digest() == record.mask_digest {
            return Ok(MaskedScan { scan, mask });
        }
    }
    Err(changed(format!("expected a mask with digest {}, got a mask with another digest", record.mask_digest)))
}
