//! Many cases, of which as many stay in memory as may.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Case;
use crate::error::{Error, Fault, Result};
use crate::id::{PatientKey, ScanId};
use crate::mask::MaskedScan;
use crate::store::FileDigest;
use crate::volume::Preprocess;

/// Reads a scan with its organs.
type Open = dyn Fn() -> Result<MaskedScan, Fault> + Send + Sync;

/// A case that is known but not read.
#[derive(Clone)]
pub struct CaseEntry {
    /// The scan's id, for messages and tables.
    pub id: ScanId,
    /// The patient's key.
    pub patient_key: PatientKey,
    /// What tells, without reading it, that it is not what it was: length and time of its file, or a digest.
    pub mark: String,
    open: Arc<Open>,
}

impl CaseEntry {
    /// A case that `open` reads; it is read again whenever memory had no room for it.
    pub fn new(
        id: ScanId,
        patient_key: PatientKey,
        open: impl Fn() -> Result<MaskedScan, Fault> + Send + Sync + 'static,
    ) -> Self {
        Self { id, patient_key, mark: String::new(), open: Arc::new(open) }
    }

    /// The case, with what tells that it is not what it was.
    #[must_use]
    pub fn with_mark(self, mark: String) -> Self {
        Self { mark, ..self }
    }

    /// The scan as it lies in its file, read now.
    ///
    /// # Errors
    /// A fault where it cannot be read.
    pub fn read(&self) -> Result<MaskedScan, Fault> {
        (self.open)()
    }

    /// A scan that is in memory already.
    pub fn of(masked: MaskedScan) -> Self {
        let (id, patient_key) = (masked.scan.entry.scan_id, masked.scan.entry.patient_key);
        Self::new(id, patient_key, move || Ok(masked.clone()))
    }
}

impl std::fmt::Debug for CaseEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaseEntry").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Cases that are made ready when they are needed. What stays in memory is bounded and changes no result.
pub struct Cases {
    entries: Vec<CaseEntry>,
    preprocess: Preprocess,
    memory_bytes: u64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    cases: HashMap<usize, (Arc<Case>, u64)>,
    bytes: u64,
    clock: u64,
    failed: BTreeMap<usize, Fault>,
}

/// What a look at every case found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// Cases that can be read.
    pub good: usize,
    /// Of how many cases each label is part.
    pub cases_with: BTreeMap<u8, usize>,
    /// Voxels of each label.
    pub voxels: BTreeMap<u8, u64>,
    /// How many are smaller than a patch, and padded.
    pub padded: usize,
    /// The fewest voxels along [x, y, z] that any of them has.
    pub least_voxels: Option<[usize; 3]>,
    /// Those that cannot be read, by their place.
    pub failed: Vec<(usize, Fault)>,
    /// Digests of the scan and of the labels that are seen of it, of every case that can be read.
    pub contents: BTreeMap<usize, [String; 2]>,
}

impl Cases {
    /// Cases made ready by `preprocess`, at most `memory_bytes` of them kept (one stays in any case).
    pub fn new(entries: Vec<CaseEntry>, preprocess: Preprocess, memory_bytes: u64) -> Self {
        Self { entries, preprocess, memory_bytes, kept: Mutex::default() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is known of them without reading.
    pub fn entries(&self) -> &[CaseEntry] {
        &self.entries
    }

    /// How many could not be read so far.
    pub fn failed(&self) -> usize {
        self.locked().failed.len()
    }

    /// How they are made ready.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// A case, from memory or read and made ready.
    ///
    /// # Errors
    /// Its fault, where it cannot be read; it is not read again.
    ///
    /// # Panics
    /// Where there are not so many.
    pub fn get(&self, index: usize) -> Result<Arc<Case>, Fault> {
        {
            let mut kept = self.locked();
            kept.clock += 1;
            let now = kept.clock;
            if let Some((case, used)) = kept.cases.get_mut(&index) {
                *used = now;
                return Ok(Arc::clone(case));
            }
            if let Some(fault) = kept.failed.get(&index) {
                return Err(fault.clone());
            }
        }
        let entry = &self.entries[index];
        match (entry.open)().and_then(|masked| Case::prepare(&masked, &self.preprocess)) {
            Ok(case) => Ok(self.keep(index, Arc::new(case))),
            Err(fault) => {
                tracing::warn!(scan = %entry.id, %fault, "a scan is left out of training");
                self.locked().failed.insert(index, fault.clone());
                Err(fault)
            }
        }
    }

    fn keep(&self, index: usize, case: Arc<Case>) -> Arc<Case> {
        let mut kept = self.locked();
        kept.clock += 1;
        let now = kept.clock;
        if let Some((other, used)) = kept.cases.get_mut(&index) {
            // Another thread was faster; both made the same.
            *used = now;
            return Arc::clone(other);
        }
        let bytes = case.bytes();
        while kept.bytes + bytes > self.memory_bytes && !kept.cases.is_empty() {
            let oldest = kept.cases.iter().min_by_key(|(_, (_, used))| *used).map(|(index, _)| *index);
            if let Some((gone, _)) = oldest.and_then(|oldest| kept.cases.remove(&oldest)) {
                kept.bytes -= gone.bytes();
            }
        }
        kept.bytes += bytes;
        kept.cases.insert(index, (Arc::clone(&case), now));
        case
    }

    fn locked(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads every case once, on as many threads as `threads`; `seen` is told of each.
    pub fn survey(&self, threads: usize, seen: &(dyn Fn() + Sync)) -> Survey {
        let next = AtomicUsize::new(0);
        let found = Mutex::new(Survey::default());
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= self.len() {
                    return;
                }
                let case = self.get(index);
                let labels = case.as_ref().ok().map(|case| FileDigest::of(case.masked.mask.labels.as_slice()).sha256);
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                match case {
                    Ok(case) => {
                        found.good += 1;
                        let (voxels, patch) = (case.scanned.shape, case.patch);
                        found.padded += usize::from((0..3).any(|axis| voxels[axis] < patch[axis]));
                        let least = found.least_voxels.unwrap_or(voxels);
                        found.least_voxels = Some([0, 1, 2].map(|axis| least[axis].min(voxels[axis])));
                        let labels = labels.unwrap_or_default();
                        found.contents.insert(index, [case.masked.scan.digest.to_string(), labels]);
                        for label in case.index.labels() {
                            *found.cases_with.entry(label).or_default() += 1;
                            *found.voxels.entry(label).or_default() += case.index.count(label) as u64;
                        }
                    }
                    Err(fault) => found.failed.push((index, fault)),
                }
                drop(found);
                seen();
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.max(1) {
                scope.spawn(work);
            }
            work();
        });
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.failed.sort_by_key(|(index, _)| *index);
        found
    }
}

impl std::fmt::Debug for Cases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cases").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Survey {
    /// One digest of all that can be read: scans and labels that changed have another.
    pub fn contents_digest(&self) -> String {
        let lines: Vec<String> =
            self.contents.iter().map(|(index, [scan, labels])| format!("{index} {scan} {labels}\n")).collect();
        FileDigest::of(lines.concat().as_bytes()).sha256
    }

    /// Whether these cases can be trained on: there is one that can be read, and every label of `needed` (with its name)
    /// is somewhere.
    ///
    /// # Errors
    /// What is missing, and why where faults say it.
    pub fn check(&self, what: &str, entries: &[CaseEntry], needed: &[(u8, String)]) -> Result<()> {
        if entries.is_empty() {
            return Err(Error::new(format!("expected at least one {what} scan, the lists have none"))
                .with_hint("does the source find them? `freetumor inspect` looks at one, `validate` counts them"));
        }
        if self.good == 0 {
            let (index, fault) = &self.failed[0];
            return Err(Error::new(format!(
                "none of the {} {what} scans can be read; the first, {}: {fault}",
                entries.len(),
                entries[*index].id
            )));
        }
        let missing: Vec<&str> = needed
            .iter()
            .filter(|(label, _)| !self.cases_with.contains_key(label))
            .map(|(_, name)| name.as_str())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let message = format!("none of the {} {what} scans shows {}", self.good, missing.join(" or "));
        Err(Error::new(message).with_hint(
            "a network cannot learn a class that is nowhere: are the ids of the mask stage right (`ids`, `tumor_ids`)?",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FaultKind;
    use crate::train::testing::{phantom, small};
    use crate::volume::HuWindow;

    #[test]
    fn memory_is_bounded_and_changes_nothing() {
        let entries: Vec<_> = (0..4).map(|seed| CaseEntry::of(phantom(seed))).collect();
        let one = Cases::new(entries.clone(), small(), 1);
        let all = Cases::new(entries, small(), u64::MAX);
        for index in [0, 3, 1, 0, 2, 3] {
            let (a, b) = (one.get(index).unwrap(), all.get(index).unwrap());
            assert_eq!(a.masked.scan.volume, b.masked.scan.volume);
        }
        assert_eq!((one.locked().cases.len(), all.locked().cases.len()), (1, 4));
    }

    #[test]
    fn scans_smaller_than_a_patch_are_counted() {
        let padded = |patch| {
            let preprocess = Preprocess::new([8.0; 3], HuWindow::ABDOMEN, patch).unwrap();
            let survey = Cases::new(vec![CaseEntry::of(phantom(1))], preprocess, u64::MAX).survey(1, &|| {});
            assert!(survey.least_voxels.is_some_and(|least| least.iter().all(|voxels| (4..200).contains(voxels))));
            survey.padded
        };
        assert_eq!([padded([4; 3]), padded([4, 200, 4])], [0, 1]);
    }

    #[test]
    fn what_is_missing_is_said() {
        let failed = CaseEntry::new(ScanId::from_bytes([1; 8]), PatientKey::from_bytes([2; 8]), || {
            Err(Fault::read(FaultKind::Truncated, "expected 8 bytes, got 3"))
        });
        let cases = Cases::new(vec![CaseEntry::of(phantom(1)), failed.clone()], small(), u64::MAX);
        let survey = cases.survey(2, &|| {});
        assert_eq!((survey.good, survey.failed.len()), (1, 1));
        survey.check("labeled", cases.entries(), &[(1, "liver".into())]).unwrap();
        let error = survey.check("labeled", cases.entries(), &[(1, "liver".into()), (2, "liver tumor".into())]);
        assert_eq!(error.unwrap_err().to_string(), "none of the 1 labeled scans shows liver tumor");
        let error = Survey::default().check("labeled", &[], &[]).unwrap_err();
        assert_eq!(error.to_string(), "expected at least one labeled scan, the lists have none");
        let cases = Cases::new(vec![failed], small(), 1);
        let error = cases.survey(1, &|| {}).check("labeled", cases.entries(), &[]).unwrap_err();
        assert!(error.to_string().ends_with("read (truncated): expected 8 bytes, got 3"), "{error}");
    }
}
