//! Which scans are trained on, which are validated on: from the stages that a file names.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Complaint, Error, Result};
use crate::graph::{Plan, Trial};
use crate::ingest::ScanEntry;
use crate::mask::{MaskedScan, Organ};
use crate::sink::Split;
use crate::suggest::did_you_mean;
use crate::train::data::{CaseEntry, Cases, run_entries};
use crate::volume::Preprocess;

/// What is wrong with the names of mask stages in a list.
pub fn named(field: &str, names: &[String], plan: &Plan) -> Vec<Complaint> {
    let known = || plan.masks.iter().map(|mask| mask.name.as_str());
    let mut complaints = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let place = format!("{field}.{index}");
        if names[..index].contains(name) {
            complaints.push(Complaint::new(place, format!("`{name}` is named twice")));
        } else if !known().any(|known| known == name) {
            let complaint = Complaint::new(place, format!("there is no mask stage named `{name}`"));
            let all = || format!("mask stages of the file are {}", known().collect::<Vec<_>>().join(", "));
            complaints.push(complaint.with_hint(did_you_mean(name, known()).unwrap_or_else(all)));
        }
    }
    complaints
}

/// The organs of the named mask stages, which all have to give the same.
///
/// # Errors
/// The first stage that gives others.
pub fn agreed_organs(plan: &Plan, lists: &[(&str, &[String])]) -> Result<Arc<[Organ]>, Complaint> {
    let mut first: Option<(&str, Arc<[Organ]>)> = None;
    for (field, names) in lists {
        for (index, name) in names.iter().enumerate() {
            let Some(node) = plan.masks.iter().find(|mask| mask.name == *name) else { continue };
            let organs = node.mask.organs();
            match &first {
                None => first = Some((name, organs)),
                Some((other, agreed)) if agreed[..] != organs[..] => {
                    let words = |organs: &[Organ]| {
                        let each = organs.iter().map(|it| format!("{} ({}, {})", it.name, it.label, it.tumor_label));
                        each.collect::<Vec<_>>().join(", ")
                    };
                    let message = format!("`{name}` gives {}, but `{other}` {}", words(&organs), words(agreed));
                    return Err(Complaint::new(format!("{field}.{index}"), message)
                        .with_hint("one network learns one set of organs, in one order"));
                }
                Some(_) => {}
            }
        }
    }
    Ok(first.map_or_else(|| [].into(), |(_, organs)| organs))
}

/// Part of a training's scans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// With their tumors labeled, trained on.
    Labeled,
    /// With their tumors labeled, validated on.
    Validation,
    /// With organs only.
    Unlabeled,
}

/// The scans of a training, by what they are for.
#[derive(Default)]
pub struct Scans {
    parts: [Vec<CaseEntry>; 3],
    pools: Vec<Vec<CaseEntry>>,
    trials: Vec<Vec<CaseEntry>>,
    /// Whether patients are split by the shares of the file; otherwise by the lists.
    by_shares: bool,
    validated: BTreeSet<String>,
}

/// The same, ready to be read.
pub struct ReadyCases {
    parts: [Option<Arc<Cases>>; 3],
    /// The scans of each run folder.
    pub pools: Vec<Arc<Cases>>,
    /// The scans into which each trial of the file puts tumors.
    pub trials: Vec<Arc<Cases>>,
}

impl Scans {
    /// Labeled scans, and those for validation: of the stages that are named, or else the file's share of the labeled
    /// patients.
    ///
    /// # Errors
    /// Where a source cannot be listed, or a patient is trained and validated on.
    pub fn of(plan: &Plan, labeled: &[String], validation: &[String]) -> Result<Self> {
        let mut scans = Self { by_shares: validation.is_empty(), ..Self::default() };
        for (entry, case) in of_masks(plan, labeled)? {
            match plan.split_of(&entry.patient_key) {
                Split::Validation if scans.by_shares => scans.parts[Part::Validation as usize].push(case),
                Split::Test if scans.by_shares => {}
                _ => scans.parts[Part::Labeled as usize].push(case),
            }
        }
        scans.parts[Part::Validation as usize].extend(of_masks(plan, validation)?.into_iter().map(|(_, case)| case));
        let patients = |part: Part| scans.parts[part as usize].iter().map(|case| case.patient_key.clone());
        let validated: BTreeSet<String> = patients(Part::Validation).collect();
        if let Some(both) = patients(Part::Labeled).find(|patient| validated.contains(patient)) {
            return Err(Error::new(format!(
                "patient {both} is trained and validated on: the scores would mean nothing"
            ))
            .with_hint("leave `validation` out to split by patient, or name sources of other patients"));
        }
        scans.validated = validated;
        Ok(scans)
    }

    /// Whether scans of a patient may be trained on.
    fn may_train(&self, plan: &Plan, patient_key: &str) -> bool {
        !self.validated.contains(patient_key) && (!self.by_shares || plan.split_of(patient_key) == Split::Train)
    }

    /// Adds scans with organs only; patients of validation and test are left out.
    ///
    /// # Errors
    /// Where a source cannot be listed.
    pub fn add_unlabeled(&mut self, plan: &Plan, names: &[String]) -> Result<()> {
        let found = of_masks(plan, names)?;
        let wanted = found.into_iter().filter(|(entry, _)| self.may_train(plan, &entry.patient_key));
        let wanted: Vec<_> = wanted.map(|(_, case)| case).collect();
        self.parts[Part::Unlabeled as usize].extend(wanted);
        Ok(())
    }

    /// Adds the accepted tumors of a run, its training patients only.
    ///
    /// # Errors
    /// Where the run cannot be read, or has no tumors of these patients.
    pub fn add_run(&mut self, folder: &Path, at: Option<u64>, organs: &Arc<[Organ]>) -> Result<()> {
        let mut entries = run_entries(folder, at, Split::Train, organs)?;
        entries.retain(|entry| !self.validated.contains(&entry.patient_key));
        if entries.is_empty() {
            return Err(Error::new(format!("{} has no accepted tumor of a training patient", folder.display())));
        }
        self.pools.push(entries);
        Ok(())
    }

    /// Adds the scans into which a trial of the file puts tumors; patients of validation and test are left out.
    ///
    /// # Errors
    /// Where a source cannot be listed.
    pub fn add_trial(&mut self, plan: &Plan, trial: &Trial) -> Result<()> {
        let names: Vec<String> = trial.masks.iter().map(|&mask| plan.masks[mask].name.clone()).collect();
        let found = of_masks(plan, &names)?;
        let wanted = found.into_iter().filter(|(entry, _)| self.may_train(plan, &entry.patient_key));
        let wanted: Vec<_> = wanted.map(|(_, case)| case).collect();
        self.trials.push(wanted);
        Ok(())
    }

    /// Makes them ready to be read; memory is shared by their number.
    pub fn cases(self, preprocess: Preprocess, memory_bytes: u64) -> ReadyCases {
        let all = self.parts.iter().chain(&self.pools).chain(&self.trials).map(Vec::len).sum::<usize>().max(1) as u64;
        let ready = |entries: Vec<CaseEntry>| {
            let share = memory_bytes / all * entries.len() as u64;
            Arc::new(Cases::new(entries, preprocess, share))
        };
        ReadyCases {
            parts: self.parts.map(|entries| Some(ready(entries))),
            pools: self.pools.into_iter().map(ready).collect(),
            trials: self.trials.into_iter().map(ready).collect(),
        }
    }
}

impl ReadyCases {
    /// The scans of a part.
    ///
    /// # Panics
    /// Where they were taken before.
    pub fn take(&mut self, part: Part) -> Arc<Cases> {
        self.parts[part as usize].take().expect("a part is taken once")
    }
}

/// The scans of mask stages, with what reads and masks them.
fn of_masks(plan: &Plan, names: &[String]) -> Result<Vec<(ScanEntry, CaseEntry)>> {
    let mut found = Vec::new();
    for node in plan.masks.iter().filter(|mask| names.contains(&mask.name)) {
        for &source in &node.sources {
            let source = Arc::clone(&plan.sources[source].source);
            for entry in source.list()? {
                let (source, mask, key) = (Arc::clone(&source), Arc::clone(&node.mask), entry.clone());
                let case = CaseEntry::new(entry.scan_id.clone(), entry.patient_key.clone(), move || {
                    let scan = Arc::new(source.read(&key)?);
                    let mask = mask.mask(&scan)?;
                    Ok(MaskedScan { scan, mask })
                });
                found.push((entry, case));
            }
        }
    }
    Ok(found)
}
