//! Which scans are trained on, which are validated on: from the stages that a file names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::cli::print::counted;
use crate::error::{ConfigError, Error, FaultKind, Result};
use crate::graph::{Plan, SynthesisNode};
use crate::id::{PatientKey, ScanId};
use crate::ingest::ScanEntry;
use crate::mask::{MaskedScan, Organ};
use crate::record::Split;
use crate::run::RunFolder;
use crate::store::FileDigest;
use crate::store::canonical;
use crate::suggest::did_you_mean;
use crate::train::data::{CaseEntry, Cases, run_entries};
use crate::volume::Preprocess;

/// What is wrong with the names of mask stages in a list.
pub fn named(field: &str, names: &[String], plan: &Plan) -> Vec<ConfigError> {
    let known = || plan.masks.iter().map(|mask| mask.name.as_str());
    let mut complaints = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let place = format!("{field}.{index}");
        if names[..index].contains(name) {
            complaints.push(ConfigError::new(place, format!("`{name}` is named twice")));
        } else if !known().any(|known| known == name) {
            let complaint = ConfigError::new(place, format!("there is no mask stage named `{name}`"));
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
pub fn agreed_organs(plan: &Plan, lists: &[(&str, &[String])]) -> Result<Arc<[Organ]>, ConfigError> {
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
                    return Err(ConfigError::new(format!("{field}.{index}"), message)
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
    fresh: Vec<Vec<CaseEntry>>,
    /// Whether patients are split by the shares of the file; otherwise by the lists.
    by_shares: bool,
    validated: BTreeSet<PatientKey>,
    /// Their files, by which a scan is known again that another source lists under another patient.
    validated_files: BTreeSet<FileMark>,
    /// Where each scan lies, by its id.
    places: BTreeMap<ScanId, String>,
}

/// Name, bytes and time of change of a scan's file.
type FileMark = (String, u64, i64);

/// What a scan is known by; `None` where it is no file that could be told from others.
fn file_mark(entry: &ScanEntry) -> Option<FileMark> {
    let name = entry.key.rsplit('/').next().unwrap_or(&entry.key);
    (entry.bytes > 0 && entry.modified_s != 0).then(|| (name.to_owned(), entry.bytes, entry.modified_s))
}

/// How many scans a training takes, by what they are for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Scans with labeled tumors to train on.
    pub labeled: usize,
    /// Scans to validate on.
    pub validation: usize,
    /// Scans with organs only.
    pub unlabeled: usize,
    /// Accepted tumors of each run folder.
    pub runs: Vec<usize>,
    /// Scans into which each quality test that feeds the training puts fresh tumors.
    pub fresh: Vec<usize>,
}

impl std::fmt::Display for Listed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { labeled, validation, unlabeled, runs, fresh } = self;
        write!(f, "{}, {validation} for validation", counted(*labeled, "labeled scan"))?;
        if *unlabeled > 0 {
            write!(f, ", {unlabeled} with organs only")?;
        }
        for tumors in runs {
            write!(f, ", {} of a run", counted(*tumors, "accepted tumor"))?;
        }
        for scans in fresh {
            write!(f, ", fresh tumors in {}", counted(*scans, "scan"))?;
        }
        Ok(())
    }
}

impl Listed {
    /// Tumors of runs and scans for fresh ones.
    pub fn synthetic_sources(&self) -> usize {
        self.runs.iter().chain(&self.fresh).sum()
    }
}

/// The same, ready to be read.
pub struct ReadyCases {
    parts: [Option<Arc<Cases>>; 3],
    /// The scans of each run folder.
    pub pools: Vec<Arc<Cases>>,
    /// The scans into which each quality test that feeds the training puts tumors.
    pub fresh: Vec<Arc<Cases>>,
}

impl Scans {
    /// Labeled scans, and those for validation: of the stages that are named, or else the file's share of the labeled
    /// patients.
    ///
    /// # Errors
    /// Where a source cannot be listed, or a patient is trained and validated on.
    pub fn of(plan: &Plan, labeled: &[String], validation: &[String]) -> Result<Self> {
        let mut scans = Self { by_shares: validation.is_empty(), ..Self::default() };
        let mut trained = Vec::new();
        for (entry, case) in scans.of_masks(plan, labeled)? {
            match plan.split_of(entry.patient_key) {
                Split::Validation if scans.by_shares => scans.validate(&entry, case),
                Split::Test if scans.by_shares => {}
                _ => {
                    scans.parts[Part::Labeled as usize].push(case);
                    trained.push(entry);
                }
            }
        }
        scans.of_masks(plan, validation)?.into_iter().for_each(|(entry, case)| scans.validate(&entry, case));
        if let Some(both) = trained.iter().find(|entry| scans.validated.contains(&entry.patient_key)) {
            let patient = &both.patient_key;
            return Err(Error::new(format!(
                "patient {patient} is trained and validated on: the scores would mean nothing"
            ))
            .with_hint("leave `validation` out to split by patient, or name sources of other patients"));
        }
        if let Some(both) = trained.iter().find(|entry| scans.has_validated_file(entry)) {
            return Err(Error::new(format!(
                "{} of `{}` is trained on and seems to be validated on under another patient: name, size and time of a file \
                 for validation are the same",
                both.key, both.source
            ))
            .with_hint("sources of one data set share its name: set `dataset` in both"));
        }
        Ok(scans)
    }

    fn validate(&mut self, entry: &ScanEntry, case: CaseEntry) {
        self.validated.insert(entry.patient_key);
        self.validated_files.extend(file_mark(entry));
        self.parts[Part::Validation as usize].push(case);
    }

    fn has_validated_file(&self, entry: &ScanEntry) -> bool {
        file_mark(entry).is_some_and(|mark| self.validated_files.contains(&mark))
    }

    /// Whether a scan may be trained on.
    fn may_train(&self, plan: &Plan, entry: &ScanEntry) -> bool {
        let is_validated = self.validated.contains(&entry.patient_key) || self.has_validated_file(entry);
        !is_validated && (!self.by_shares || plan.split_of(entry.patient_key) == Split::Train)
    }

    /// Adds scans with organs only; patients of validation and test are left out.
    ///
    /// # Errors
    /// Where a source cannot be listed.
    pub fn add_unlabeled(&mut self, plan: &Plan, names: &[String]) -> Result<()> {
        let found = self.of_masks(plan, names)?;
        let wanted = found.into_iter().filter(|(entry, _)| self.may_train(plan, entry));
        let wanted: Vec<_> = wanted.map(|(_, case)| case).collect();
        self.parts[Part::Unlabeled as usize].extend(wanted);
        Ok(())
    }

    /// Adds the accepted tumors of a run, its training patients only.
    ///
    /// # Errors
    /// Where the run cannot be read, has no tumors of these patients, or has other organs.
    pub fn add_run(&mut self, folder: &Path, at: Option<u64>, organs: &Arc<[Organ]>) -> Result<()> {
        let mut entries = run_entries(folder, at, Split::Train, organs)?;
        let renamed = self.validated_in(folder, at)?;
        entries.retain(|entry| ![&self.validated, &renamed].iter().any(|keys| keys.contains(&entry.patient_key)));
        if entries.is_empty() {
            return Err(Error::new(format!("{} has no accepted tumor of a training patient", folder.display())));
        }
        // All samples of a run have the label ids of its graph: the first shows whether they are those that are trained.
        if let Err(fault) = entries[0].read()
            && fault.kind == FaultKind::Mismatch
        {
            let trained: Vec<String> = organs.iter().map(|organ| organ.name.clone()).collect();
            let hint = format!("trained are {}: a run of the same organs, in the same order, fits", trained.join(", "));
            return Err(Error::new(format!("{}: {}", folder.display(), fault.message)).with_hint(hint));
        }
        for entry in &entries {
            self.places.insert(entry.id, format!("{}: {}", folder.display(), entry.id));
        }
        self.pools.push(entries);
        Ok(())
    }

    /// The patients of a run one of whose scans is validated on, perhaps under the name of another source or data set.
    fn validated_in(&self, folder: &Path, at: Option<u64>) -> Result<BTreeSet<PatientKey>> {
        let run = RunFolder::open(folder)?;
        let mut patients = BTreeSet::new();
        if self.validated_files.is_empty() {
            return Ok(patients);
        }
        for epoch in run.standing(at)?.epoch.iter().flat_map(|last| 0..=*last) {
            match run.scan_entries(epoch) {
                Ok(entries) => {
                    let validated = entries.into_iter().filter(|entry| self.has_validated_file(entry));
                    patients.extend(validated.map(|entry| entry.patient_key));
                }
                Err(error) => {
                    let folder = folder.display();
                    tracing::warn!(
                        "{error}: whether {folder} has scans for validation under another name cannot be told"
                    );
                    break;
                }
            }
        }
        Ok(patients)
    }

    /// Adds the scans into which a synthesis of the file puts tumors; patients of validation and test are left out.
    ///
    /// # Errors
    /// Where a source cannot be listed.
    pub fn add_synthesis(&mut self, plan: &Plan, synthesis: &SynthesisNode) -> Result<()> {
        let names: Vec<String> = synthesis.masks.iter().map(|&mask| plan.masks[mask].name.clone()).collect();
        let found = self.of_masks(plan, &names)?;
        let wanted = found.into_iter().filter(|(entry, _)| self.may_train(plan, entry));
        let wanted: Vec<_> = wanted.map(|(_, case)| case).collect();
        self.fresh.push(wanted);
        Ok(())
    }

    /// The scans of mask stages, with what reads and masks them.
    fn of_masks(&mut self, plan: &Plan, names: &[String]) -> Result<Vec<(ScanEntry, CaseEntry)>> {
        let mut found = Vec::new();
        for node in plan.masks.iter().filter(|mask| names.contains(&mask.name)) {
            for &source in &node.sources {
                let source = Arc::clone(&plan.sources[source].source);
                for entry in source.list()? {
                    let (source, mask, key) = (Arc::clone(&source), Arc::clone(&node.mask), entry.clone());
                    let case = CaseEntry::new(entry.scan_id, entry.patient_key, move || {
                        let scan = Arc::new(source.read(&key)?);
                        let mask = mask.mask(&scan)?;
                        Ok(MaskedScan { scan, mask })
                    });
                    self.places.insert(entry.scan_id, format!("{}: {}", entry.source, entry.key));
                    let mark = format!("{} {}", entry.bytes, entry.modified_s);
                    found.push((entry, case.with_mark(mark)));
                }
            }
        }
        Ok(found)
    }

    /// How many there are.
    pub fn listed(&self) -> Listed {
        let [labeled, validation, unlabeled] = [0, 1, 2].map(|part| self.parts[part].len());
        let each = |lists: &[Vec<CaseEntry>]| lists.iter().map(Vec::len).collect();
        Listed { labeled, validation, unlabeled, runs: each(&self.pools), fresh: each(&self.fresh) }
    }

    /// A line of JSON for every scan, which says where it lies: messages and tables name it by its id alone.
    ///
    /// # Errors
    /// None in practice: names are always JSON.
    pub fn places(&self) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        for (scan_id, key) in &self.places {
            text.extend(canonical::line(&json!({ "key": key, "scan_id": scan_id }))?);
        }
        Ok(text)
    }

    /// What the lists hold, so that a run that goes on can be told from one with other scans.
    pub fn digests(&self) -> Json {
        let said = |entries: &Vec<CaseEntry>, with_marks: bool| {
            let mark = |entry: &CaseEntry| if with_marks { format!(" {}", entry.mark) } else { String::new() };
            let lines: Vec<String> = entries.iter().map(|entry| format!("{}{}", entry.id, mark(entry))).collect();
            let digest = FileDigest::of(lines.join("\n").as_bytes()).sha256;
            format!("{} listed, {}", lines.len(), &digest[..16])
        };
        // Of the first two the survey looks at what they hold.
        let [labeled, validation, unlabeled] =
            [(0, false), (1, false), (2, true)].map(|(part, with_marks)| said(&self.parts[part], with_marks));
        let each = |lists: &[Vec<CaseEntry>]| lists.iter().map(|list| said(list, true)).collect::<Vec<_>>();
        json!({
            "labeled": labeled, "validation": validation, "unlabeled": unlabeled, "runs": each(&self.pools),
            "fresh": each(&self.fresh),
        })
    }

    /// Makes them ready to be read; memory is shared by their number.
    pub fn cases(self, preprocess: Preprocess, memory_bytes: u64) -> ReadyCases {
        let all = self.parts.iter().chain(&self.pools).chain(&self.fresh).map(Vec::len).sum::<usize>().max(1) as u64;
        let ready = |entries: Vec<CaseEntry>| {
            let share = memory_bytes / all * entries.len() as u64;
            Arc::new(Cases::new(entries, preprocess, share))
        };
        ReadyCases {
            parts: self.parts.map(|entries| Some(ready(entries))),
            pools: self.pools.into_iter().map(ready).collect(),
            fresh: self.fresh.into_iter().map(ready).collect(),
        }
    }
}

impl ReadyCases {
    /// All of them, before any was taken.
    pub fn all(&self) -> Vec<Arc<Cases>> {
        self.parts.iter().flatten().chain(&self.pools).chain(&self.fresh).map(Arc::clone).collect()
    }

    /// The scans of a part.
    ///
    /// # Panics
    /// Where they were taken before.
    pub fn take(&mut self, part: Part) -> Arc<Cases> {
        self.parts[part as usize].take().expect("a part is taken once")
    }
}
