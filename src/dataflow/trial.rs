//! One organ of one scan, from synthesis to verdict: the stretch inside which attempts are retried.

use sha2::{Digest, Sha256};

use crate::error::{Error, Fault};
use crate::filter::Verdict;
use crate::graph::{Plan, Port, Trial};
use crate::mask::{MaskedScan, Organ};
use crate::score::Scores;
use crate::sink::{Outcome, Sample, SampleRecord};
use crate::synth::Attempt;

use super::telemetry::{Step, Telemetry, Timing};
use super::{Epoch, Progress};

/// Why a stretch of work ended early.
#[derive(Debug)]
pub enum Failure {
    /// The scan is spoiled, the run goes on.
    Scan(Fault),
    /// The run cannot go on.
    Run(Error),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Scan(fault)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Run(error)
    }
}

/// What a trial is run with.
pub struct TrialRun<'a> {
    /// The whole pipeline.
    pub plan: &'a Plan,
    /// The stretch of it.
    pub trial: &'a Trial,
    /// The epoch to whose commit the rows belong.
    pub epoch: Epoch,
    /// Name of the mask stage that found the organ.
    pub mask: &'a str,
    /// Where timings go.
    pub telemetry: &'a Telemetry,
    /// Where totals go.
    pub progress: &'a Progress,
}

impl TrialRun<'_> {
    /// Makes all tumors asked for in one organ; every attempt is a row of `rows`; those that a sink takes are given to `keep`.
    ///
    /// Each tumor gets as many attempts as the quality test allows and ends with the first accepted one. What the attempts share
    /// (distances inside the organ, scores of the untouched scan) is computed once.
    ///
    /// # Errors
    /// A fault of a stage, or what `keep` says; `rows` holds the attempts before it.
    pub fn run(
        &self,
        masked: &MaskedScan,
        organ: &Organ,
        rows: &mut Vec<SampleRecord>,
        mut keep: impl FnMut(Sample<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let scan_id = masked.scan.entry.scan_id.as_str();
        let trial = self.trial;
        let (attempts, judges) =
            self.telemetry.time(self.timing(Step::Prepare, &trial.synthesis, scan_id, None), || {
                let at = |fault: Fault| fault.during(&organ.name);
                let attempts =
                    trial.synthesize.site_plan(masked, organ).map_err(|fault| at(fault).of(&trial.synthesis))?;
                let judges = trial.scores.iter().map(|node| {
                    Ok((node, node.stage.baseline(masked, organ).map_err(|fault| at(fault).of(&node.name))?))
                });
                Ok::<_, Fault>((attempts, judges.collect::<Result<Vec<_>, Fault>>()?))
            })?;
        for variant in 0..trial.variants {
            for attempt in 0..trial.test.attempts() {
                let key = trial.key(self.plan, &masked.scan.digest, &organ.name, variant, attempt);
                let mut record = self.record(masked, organ, variant, attempt);
                let id = record.sample_id.clone();
                let at = |fault: Fault| fault.during(&format!("{}, variant {variant}, attempt {attempt}", organ.name));
                let made = self
                    .telemetry
                    .time(self.timing(Step::Synthesize, &trial.synthesis, scan_id, Some(&id)), || attempts.attempt(key))
                    .map_err(|fault| at(fault).of(&trial.synthesis))?;
                let candidate = match made {
                    Attempt::Candidate(candidate) => candidate,
                    Attempt::Rejected { reason } => {
                        record.outcome = Outcome::Rejected { reason };
                        self.progress.attempt(false);
                        rows.push(record);
                        continue;
                    }
                };
                for (node, judge) in &judges {
                    self.telemetry
                        .time(self.timing(Step::Score, &node.name, scan_id, Some(&id)), || {
                            judge.score(&candidate, &mut record.scores)
                        })
                        .map_err(|fault| at(fault).of(&node.name))?;
                }
                record.geometry = Some(candidate.geometry.clone());
                let accepted = match trial.test.verdict(&record.scores) {
                    Verdict::Accepted => true,
                    Verdict::Rejected { condition } => {
                        record.outcome = Outcome::Rejected { reason: condition.to_string() };
                        false
                    }
                };
                let port = if accepted { Port::Main } else { Port::Rejected };
                if trial.feeds.iter().any(|feed| feed.port == port) {
                    let sample = Sample { masked, candidate: &candidate, record: &record };
                    self.telemetry.time(self.timing(Step::Encode, &trial.name, scan_id, Some(&id)), || keep(sample))?;
                }
                self.progress.attempt(accepted);
                rows.push(record);
                if accepted {
                    break;
                }
            }
        }
        Ok(())
    }

    fn timing<'a>(&self, step: Step, node: &'a str, scan_id: &'a str, sample_id: Option<&'a str>) -> Timing<'a> {
        Timing { epoch: self.epoch, step, node, scan_id: Some(scan_id), sample_id }
    }

    /// The row of an attempt before anything is known of it.
    fn record(&self, masked: &MaskedScan, organ: &Organ, variant: u32, attempt: u32) -> SampleRecord {
        let entry = &masked.scan.entry;
        SampleRecord {
            sample_id: self.sample_id(&masked.scan.digest, &organ.name, variant, attempt),
            scan_id: entry.scan_id.clone(),
            scan_digest: masked.scan.digest.clone(),
            patient_key: entry.patient_key.clone(),
            dataset: entry.dataset.clone(),
            epoch: self.epoch,
            seed: self.plan.seed,
            stage: self.trial.name.clone(),
            variant,
            attempt,
            organ: organ.name.clone(),
            split: self.plan.split_of(&entry.patient_key),
            geometry: None,
            scores: Scores::default(),
            outcome: Outcome::Accepted,
            pipeline_digest: self.plan.digest.clone(),
            model: self.trial.model.clone(),
        }
    }

    /// 16 hexadecimal digits over everything that defines an attempt.
    fn sample_id(&self, scan_digest: &str, organ: &str, variant: u32, attempt: u32) -> String {
        let mut hash = Sha256::new();
        let (variant, attempt) = (variant.to_string(), attempt.to_string());
        for word in
            [&self.plan.digest, scan_digest, self.mask, &self.trial.name, organ, variant.as_str(), attempt.as_str()]
        {
            hash.update((word.len() as u64).to_le_bytes());
            hash.update(word);
        }
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}
