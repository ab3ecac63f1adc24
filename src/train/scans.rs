//! The scans of a training run, by the stages that a file names: scans to train on and scans to validate on.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::data::{CaseEntry, Cases, RunSamples};
use super::folds::Fold;
use super::leakage::LeakageGuard;
use super::used_samples::UsedSample;
use crate::error::{Error, Fault, FaultKind, Result};
use crate::graph::{Plan, SynthesisNode};
use crate::id::{PatientKey, ScanId};
use crate::ingest::{HeldOut, ScanEntry};
use crate::mask::{MaskedScan, Organ};
use crate::record::Split;
use crate::store::FileDigest;
use crate::store::canonical;
use crate::volume::Preprocess;

/// The scans of a training run, listed but not read. Each source in the file is listed once.
pub struct TrainingScans {
    guard: LeakageGuard,
    /// The contents that are not trained on.
    held_out: HeldOut,
    /// The entries of each listed source, by its index in the plan.
    sources: BTreeMap<usize, Vec<ScanEntry>>,
    labeled: Vec<CaseEntry>,
    validation: Vec<CaseEntry>,
    unlabeled: Vec<CaseEntry>,
    pools: Vec<Vec<CaseEntry>>,
    fresh: Vec<Vec<CaseEntry>>,
    /// The patients of the fold that is not trained on.
    fold: BTreeSet<PatientKey>,
    /// The file of each scan, by scan id.
    scan_files: BTreeMap<ScanId, String>,
    /// The samples of run folders.
    used_samples: Vec<UsedSample>,
}

/// The numbers of scans of a training run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScanCounts {
    /// Scans with labeled tumors to train on.
    pub labeled: usize,
    /// The number of scans for validation.
    pub validation: usize,
    /// Scans with organs only.
    pub unlabeled: usize,
    /// Accepted tumors of each run folder.
    pub runs: Vec<usize>,
    /// Scans for fresh tumors, for each quality test that feeds the training run.
    pub fresh: Vec<usize>,
}

impl ScanCounts {
    /// Returns the number of tumors in run folders plus the number of scans for fresh tumors.
    pub fn synthetic_sources(&self) -> usize {
        self.runs.iter().chain(&self.fresh).sum()
    }
}

/// The scans of a training run as cases that are read on demand.
pub struct TrainingCases {
    /// Scans with labeled tumors to train on.
    pub labeled: Arc<Cases>,
    /// Scans with labeled tumors to validate on.
    pub validation: Arc<Cases>,
    /// Scans with organs only.
    pub unlabeled: Arc<Cases>,
    /// The samples of each run folder.
    pub pools: Vec<Arc<Cases>>,
    /// The scans for fresh tumors, for each quality test that feeds the training run.
    pub fresh: Vec<Arc<Cases>>,
}

impl TrainingScans {
    /// Lists the labeled scans, and the validation scans: those of the named stages, or by default the validation share of the
    /// labeled patients. With a fold, its patients are validated on instead of that share. Reading a training scan whose content is in
    /// `held_out` is a fault; validation scans may be held out.
    ///
    /// # Errors
    /// Returns an error if a source cannot be listed, a patient is trained and validated on, or there are fewer patients than folds.
    pub fn new(
        plan: &Plan,
        labeled: &[String],
        validation: &[String],
        fold: Option<Fold>,
        held_out: &HeldOut,
    ) -> Result<Self> {
        let guard = if validation.is_empty() {
            LeakageGuard::with_split_shares(plan.split)
        } else {
            LeakageGuard::with_explicit_split()
        };
        let mut scans = Self {
            guard,
            held_out: held_out.clone(),
            sources: BTreeMap::new(),
            labeled: Vec::new(),
            validation: Vec::new(),
            unlabeled: Vec::new(),
            pools: Vec::new(),
            fresh: Vec::new(),
            fold: BTreeSet::new(),
            scan_files: BTreeMap::new(),
            used_samples: Vec::new(),
        };
        let mut trained = Vec::new();
        let listed = scans.of_masks(plan, labeled)?;
        if let Some(fold) = fold {
            let patients = listed.iter().filter(|(entry, _)| scans.guard.split_of(entry) != Split::Test);
            let patients: BTreeSet<PatientKey> = patients.map(|(entry, _)| entry.patient_key).collect();
            if patients.len() < fold.count {
                let (got, expected) = (patients.len(), fold.count);
                return Err(Error::new(format!(
                    "expected at least {expected} labeled patients for {expected} folds, got {got}"
                ))
                .with_hint("lower --folds, or add labeled scans"));
            }
            scans.fold = fold.patients(&patients);
        }
        for (entry, case) in listed {
            let split = match (scans.guard.split_of(&entry), fold) {
                (Split::Test, _) => Split::Test,
                (_, Some(_)) if scans.fold.contains(&entry.patient_key) => Split::Validation,
                (_, Some(_)) => Split::Train,
                (split, None) => split,
            };
            match split {
                Split::Validation => scans.hold_out(&entry, case),
                Split::Test => {}
                Split::Train => {
                    scans.labeled.push(case.without_held_out(held_out));
                    trained.push(entry);
                }
            }
        }
        scans.of_masks(plan, validation)?.into_iter().for_each(|(entry, case)| scans.hold_out(&entry, case));
        scans.guard.check(&trained)?;
        Ok(scans)
    }

    fn hold_out(&mut self, entry: &ScanEntry, case: CaseEntry) {
        self.guard.hold_out(entry);
        self.validation.push(case);
    }

    /// Adds scans with organs only, without the patients of validation and test.
    ///
    /// # Errors
    /// Returns an error if a source cannot be listed.
    pub fn add_unlabeled(&mut self, plan: &Plan, names: &[String]) -> Result<()> {
        let cases = self.trainable(plan, names)?;
        self.unlabeled.extend(cases);
        Ok(())
    }

    /// Adds the scans into which a synthesis of the file puts tumors, without the patients of validation and test.
    ///
    /// # Errors
    /// Returns an error if a source cannot be listed.
    pub fn add_synthesis(&mut self, plan: &Plan, synthesis: &SynthesisNode) -> Result<()> {
        let names: Vec<String> = synthesis.masks.iter().map(|&mask| plan.masks[mask].name.clone()).collect();
        let cases = self.trainable(plan, &names)?;
        self.fresh.push(cases);
        Ok(())
    }

    /// Adds the accepted tumors of the training patients in a run folder after commit `at`, or after the last commit.
    ///
    /// # Errors
    /// Returns an error if the run folder or the commit cannot be read, has no tumors of these patients, or has other organs.
    pub fn add_run(&mut self, folder: &Path, at: Option<u64>, organs: &Arc<[Organ]>) -> Result<()> {
        let run = RunSamples::open(folder, at)?;
        let mut entries = run.entries(Split::Train, organs, &self.held_out)?;
        let renamed = self.guard.held_out_in(&run);
        entries.retain(|entry| !self.guard.holds_out(&entry.patient_key) && !renamed.contains(&entry.patient_key));
        if entries.is_empty() {
            return Err(Error::new(format!(
                "expected at least one accepted tumor of a training patient in {}, got none",
                folder.display()
            )));
        }
        // All samples of a run folder have the label ids of its graph: only the first sample is checked.
        let first = entries.iter().map(CaseEntry::read).find(|read| !is_held_out(read));
        let Some(first) = first else {
            return Err(Error::new(format!(
                "all samples of {} are of scans that `never_train` holds out",
                folder.display()
            ))
            .with_hint("run its pipeline again with the same `never_train`, which removes these samples"));
        };
        if let Err(fault) = first
            && fault.kind == FaultKind::Mismatch
        {
            let trained: Vec<String> = organs.iter().map(|organ| organ.name.clone()).collect();
            let hint = format!("use a run folder with the organs {}, in this order", trained.join(", "));
            return Err(Error::new(format!("{}: {}", folder.display(), fault.message)).with_hint(hint));
        }
        for entry in &entries {
            self.scan_files.insert(entry.id, format!("{}: {}", folder.display(), entry.id));
        }
        self.used_samples.extend(run.used(&entries));
        self.pools.push(entries);
        Ok(())
    }

    /// Lists the scans of mask stages that may be trained on.
    fn trainable(&mut self, plan: &Plan, names: &[String]) -> Result<Vec<CaseEntry>> {
        let found = self.of_masks(plan, names)?;
        let trainable = found.into_iter().filter(|(entry, _)| self.guard.may_train(entry));
        Ok(trainable.map(|(_, case)| case.without_held_out(&self.held_out)).collect())
    }

    /// Lists the scans of mask stages, with cases that read and mask them.
    fn of_masks(&mut self, plan: &Plan, names: &[String]) -> Result<Vec<(ScanEntry, CaseEntry)>> {
        let mut found = Vec::new();
        for node in plan.masks.iter().filter(|mask| names.contains(&mask.name)) {
            for &index in &node.sources {
                let source = &plan.sources[index].source;
                let entries = match self.sources.entry(index) {
                    Entry::Occupied(listed) => listed.into_mut(),
                    Entry::Vacant(vacant) => vacant.insert(source.list()?),
                };
                for entry in entries.iter() {
                    let (source, mask, key) = (Arc::clone(source), Arc::clone(&node.mask), entry.clone());
                    let case = CaseEntry::new(entry.scan_id, entry.patient_key, move || {
                        let scan = Arc::new(source.read(&key)?);
                        let mask = mask.mask(&scan)?;
                        Ok(MaskedScan { scan, mask })
                    });
                    self.scan_files.insert(entry.scan_id, format!("{}: {}", entry.source, entry.key));
                    let change_marker = format!("{} {}", entry.bytes, entry.modified_s);
                    found.push((entry.clone(), case.with_change_marker(change_marker)));
                }
            }
        }
        Ok(found)
    }

    /// Returns the patients of the fold that is not trained on.
    pub fn fold(&self) -> &BTreeSet<PatientKey> {
        &self.fold
    }

    /// Counts the scans.
    pub fn counts(&self) -> ScanCounts {
        let each = |lists: &[Vec<CaseEntry>]| lists.iter().map(Vec::len).collect();
        ScanCounts {
            labeled: self.labeled.len(),
            validation: self.validation.len(),
            unlabeled: self.unlabeled.len(),
            runs: each(&self.pools),
            fresh: each(&self.fresh),
        }
    }

    /// Returns a line of JSON for every scan, with the path of its file: messages and tables name a scan only by its id.
    ///
    /// # Errors
    /// Returns an error if a line cannot be serialized, which does not occur for strings.
    pub fn scan_files(&self) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        for (scan_id, key) in &self.scan_files {
            text.extend(canonical::line(&json!({ "key": key, "scan_id": scan_id }))?);
        }
        Ok(text)
    }

    /// Returns the samples of run folders that may be trained on.
    pub fn used_samples(&self) -> &[UsedSample] {
        &self.used_samples
    }

    /// Returns digests of the lists, so that a training run is not resumed with other scans.
    pub fn digests(&self) -> Json {
        let digest_of = |entries: &Vec<CaseEntry>, with_markers: bool| {
            let line = |entry: &CaseEntry| {
                if with_markers { format!("{} {}", entry.id, entry.change_marker) } else { entry.id.to_string() }
            };
            let lines: Vec<String> = entries.iter().map(line).collect();
            let digest = FileDigest::of(lines.join("\n").as_bytes()).sha256;
            format!("{} listed, {}", lines.len(), &digest[..16])
        };
        let each = |lists: &[Vec<CaseEntry>]| lists.iter().map(|list| digest_of(list, true)).collect::<Vec<_>>();
        json!({
            // The contents of these two are in the digest of the survey.
            "labeled": digest_of(&self.labeled, false),
            "validation": digest_of(&self.validation, false),
            "unlabeled": digest_of(&self.unlabeled, true),
            "runs": each(&self.pools),
            "fresh": each(&self.fresh),
        })
    }

    fn lists(&self) -> impl Iterator<Item = &Vec<CaseEntry>> {
        [&self.labeled, &self.validation, &self.unlabeled].into_iter().chain(&self.pools).chain(&self.fresh)
    }

    /// Converts the scans to cases that are read on demand. Each list of scans has its own cache: `memory_bytes` is divided among the lists
    /// in proportion to their lengths.
    pub fn cases(self, preprocess: Preprocess, memory_bytes: u64) -> TrainingCases {
        let count = self.lists().map(Vec::len).sum::<usize>().max(1) as u64;
        let cases = |entries: Vec<CaseEntry>| {
            let share = memory_bytes / count * entries.len() as u64;
            Arc::new(Cases::new(entries, preprocess, share))
        };
        TrainingCases {
            labeled: cases(self.labeled),
            validation: cases(self.validation),
            unlabeled: cases(self.unlabeled),
            pools: self.pools.into_iter().map(cases).collect(),
            fresh: self.fresh.into_iter().map(cases).collect(),
        }
    }
}

fn is_held_out(read: &Result<MaskedScan, Fault>) -> bool {
    read.as_ref().is_err_and(|fault| fault.kind == FaultKind::HeldOut)
}

impl TrainingCases {
    /// Returns the number of scans that could not be read so far.
    pub fn failed(&self) -> usize {
        let parts = [&self.labeled, &self.validation, &self.unlabeled];
        parts.into_iter().chain(&self.pools).chain(&self.fresh).map(|cases| cases.failed()).sum()
    }
}
