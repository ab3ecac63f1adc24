//! Cases that are read on demand, with a bounded cache.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Case;
use crate::error::{Error, Fault, Result};
use crate::id::{PatientKey, ScanId};
use crate::ingest::HeldOut;
use crate::mask::MaskedScan;
use crate::store::FileDigest;
use crate::volume::Preprocess;

/// Reads a scan with the labels of its organs.
type Open = dyn Fn() -> Result<MaskedScan, Fault> + Send + Sync;

/// A listed case, which is not read before it is needed.
#[derive(Clone)]
pub struct CaseEntry {
    /// The scan's id, for messages and tables.
    pub id: ScanId,
    /// The key of the patient.
    pub patient_key: PatientKey,
    /// A string that differs if the file of the case changed: length and modification time of the file, or a digest of its contents.
    /// A training run is not resumed if a marker changed.
    pub change_marker: String,
    /// The scan of which this case is a sample; the case itself if it is a scan.
    pub source_scan: ScanId,
    /// The volume of the tumors for which the case may be sampled.
    pub tumor_mm3: f64,
    open: Arc<Open>,
}

impl CaseEntry {
    /// Creates a case that `open` reads; `open` is called again if the case was evicted from the cache.
    pub fn new(
        id: ScanId,
        patient_key: PatientKey,
        open: impl Fn() -> Result<MaskedScan, Fault> + Send + Sync + 'static,
    ) -> Self {
        let change_marker = String::new();
        Self { id, patient_key, change_marker, source_scan: id, tumor_mm3: 1.0, open: Arc::new(open) }
    }

    /// Sets the scan of which this case is a sample, and the volume of its tumors.
    #[must_use]
    pub fn with_source(self, source_scan: ScanId, tumor_mm3: f64) -> Self {
        Self { source_scan, tumor_mm3, ..self }
    }

    /// Sets the change marker.
    #[must_use]
    pub fn with_change_marker(self, change_marker: String) -> Self {
        Self { change_marker, ..self }
    }

    /// Refuses the scan if its content is held out: reading the scan is then a fault.
    #[must_use]
    pub fn without_held_out(self, held_out: &HeldOut) -> Self {
        if held_out.is_empty() {
            return self;
        }
        let (open, held_out) = (Arc::clone(&self.open), held_out.clone());
        let open = move || {
            let masked = open()?;
            if held_out.contains(masked.scan.digest) { Err(HeldOut::fault()) } else { Ok(masked) }
        };
        Self { open: Arc::new(open), ..self }
    }

    /// Refuses a sample of a held-out scan: reading the sample is a fault.
    #[must_use]
    pub fn refused(self) -> Self {
        Self { open: Arc::new(|| Err(HeldOut::fault())), ..self }
    }

    /// Reads the scan without preprocessing.
    ///
    /// # Errors
    /// Returns a fault if the scan cannot be read.
    pub fn read(&self) -> Result<MaskedScan, Fault> {
        (self.open)()
    }

    /// Creates a case from a scan in memory.
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

/// Cases that are read and preprocessed on demand. The size of the cache is bounded and does not change results.
pub struct Cases {
    entries: Vec<CaseEntry>,
    preprocess: Preprocess,
    memory_bytes: u64,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    cases: HashMap<usize, (Arc<Case>, u64)>,
    bytes: u64,
    clock: u64,
    failed: BTreeMap<usize, Fault>,
}

/// The result of reading every case.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// The number of cases that can be read.
    pub readable: usize,
    /// The number of cases with each label.
    pub cases_with: BTreeMap<u8, usize>,
    /// The number of voxels of each label.
    pub voxels: BTreeMap<u8, u64>,
    /// The number of cases that are smaller than a crop and therefore padded.
    pub padded: usize,
    /// The minimum number of voxels along [x, y, z] over all cases; `None` if no case can be read.
    pub least_voxels: Option<[usize; 3]>,
    /// The cases that cannot be read, by index.
    pub failed: Vec<(usize, Fault)>,
    /// The digests of the scan and of the preprocessed labels of every case that can be read, by index.
    pub contents: BTreeMap<usize, [String; 2]>,
}

impl Cases {
    /// Creates cases that are preprocessed by `preprocess`, with a cache of at most `memory_bytes` bytes, but at least one case.
    pub fn new(entries: Vec<CaseEntry>, preprocess: Preprocess, memory_bytes: u64) -> Self {
        Self { entries, preprocess, memory_bytes, cache: Mutex::default() }
    }

    /// Returns the number of cases.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there are no cases.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the listed cases.
    pub fn entries(&self) -> &[CaseEntry] {
        &self.entries
    }

    /// Returns the number of cases that could not be read so far.
    pub fn failed(&self) -> usize {
        self.locked().failed.len()
    }

    /// Returns the preprocessing.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Returns a case from the cache, or reads and preprocesses it.
    ///
    /// # Errors
    /// Returns a fault if the case cannot be read; a failed case is not read again.
    ///
    /// # Panics
    /// Panics if `index` is out of bounds.
    pub fn get(&self, index: usize) -> Result<Arc<Case>, Fault> {
        {
            let mut cache = self.locked();
            cache.clock += 1;
            let now = cache.clock;
            if let Some((case, used)) = cache.cases.get_mut(&index) {
                *used = now;
                return Ok(Arc::clone(case));
            }
            if let Some(fault) = cache.failed.get(&index) {
                return Err(fault.clone());
            }
        }
        let entry = &self.entries[index];
        match (entry.open)().and_then(|masked| Case::prepare(&masked, &self.preprocess)) {
            Ok(case) => Ok(self.insert(index, Arc::new(case))),
            Err(fault) => {
                tracing::warn!(scan = %entry.id, %fault, "cannot read a scan: the scan is excluded from training");
                self.locked().failed.insert(index, fault.clone());
                Err(fault)
            }
        }
    }

    fn insert(&self, index: usize, case: Arc<Case>) -> Arc<Case> {
        let mut cache = self.locked();
        cache.clock += 1;
        let now = cache.clock;
        if let Some((other, used)) = cache.cases.get_mut(&index) {
            // Another thread read the same case first; both results are equal.
            *used = now;
            return Arc::clone(other);
        }
        let bytes = case.bytes();
        while cache.bytes + bytes > self.memory_bytes && !cache.cases.is_empty() {
            let oldest = cache.cases.iter().min_by_key(|(_, (_, used))| *used).map(|(index, _)| *index);
            if let Some((evicted, _)) = oldest.and_then(|oldest| cache.cases.remove(&oldest)) {
                cache.bytes -= evicted.bytes();
            }
        }
        cache.bytes += bytes;
        cache.cases.insert(index, (Arc::clone(&case), now));
        case
    }

    fn locked(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads every case once, on `threads` threads, and calls `on_case` after each case.
    pub fn survey(&self, threads: usize, on_case: &(dyn Fn() + Sync)) -> Survey {
        let next = AtomicUsize::new(0);
        let survey = Mutex::new(Survey::default());
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= self.len() {
                    return;
                }
                let case = self.get(index);
                let labels = case.as_ref().ok().map(|case| FileDigest::of(case.masked.mask.labels.as_slice()).sha256);
                let mut survey = survey.lock().unwrap_or_else(PoisonError::into_inner);
                match case {
                    Ok(case) => {
                        survey.readable += 1;
                        let (voxels, patch) = (case.scanned.shape, case.patch);
                        survey.padded += usize::from((0..3).any(|axis| voxels[axis] < patch[axis]));
                        let least = survey.least_voxels.unwrap_or(voxels);
                        survey.least_voxels = Some([0, 1, 2].map(|axis| least[axis].min(voxels[axis])));
                        let labels = labels.unwrap_or_default();
                        survey.contents.insert(index, [case.masked.scan.digest.to_string(), labels]);
                        for label in case.index.labels() {
                            *survey.cases_with.entry(label).or_default() += 1;
                            *survey.voxels.entry(label).or_default() += case.index.count(label) as u64;
                        }
                    }
                    Err(fault) => survey.failed.push((index, fault)),
                }
                drop(survey);
                on_case();
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.max(1) {
                scope.spawn(work);
            }
            work();
        });
        let mut survey = survey.into_inner().unwrap_or_else(PoisonError::into_inner);
        survey.failed.sort_by_key(|(index, _)| *index);
        survey
    }
}

impl std::fmt::Debug for Cases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cases").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Survey {
    /// Returns one digest over the scans and labels of all cases that can be read.
    pub fn contents_digest(&self) -> String {
        let lines: Vec<String> =
            self.contents.iter().map(|(index, [scan, labels])| format!("{index} {scan} {labels}\n")).collect();
        FileDigest::of(lines.concat().as_bytes()).sha256
    }

    /// Checks that the cases can be trained on: at least one case can be read, and every label of `required` (with its name)
    /// is in at least one case.
    ///
    /// # Errors
    /// Returns an error that names the missing labels, or the first fault if no case can be read.
    pub fn check(&self, list: &str, entries: &[CaseEntry], required: &[(u8, String)]) -> Result<()> {
        if entries.is_empty() {
            return Err(Error::new(format!("expected at least one {list} scan, got none")).with_hint(
                "check that the source finds scans: `freetumor validate` counts them, `freetumor inspect` reads one",
            ));
        }
        if self.readable == 0 {
            let (index, fault) = &self.failed[0];
            let (count, id) = (entries.len(), entries[*index].id);
            return Err(Error::new(format!("no {list} scan can be read, of {count} listed; the first, {id}: {fault}")));
        }
        let missing: Vec<&str> = required
            .iter()
            .filter(|(label, _)| !self.cases_with.contains_key(label))
            .map(|(_, name)| name.as_str())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let message = format!("no {list} scan has {}, of {} that can be read", missing.join(" or "), self.readable);
        Err(Error::new(message).with_hint("check the label ids of the mask stage (`ids`, `tumor_ids`)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FaultKind;
    use crate::train::testing::{phantom, small};
    use crate::volume::HuWindow;

    #[test]
    fn cache_size_does_not_change_cases() {
        let entries: Vec<_> = (0..4).map(|seed| CaseEntry::of(phantom(seed))).collect();
        let small_cache = Cases::new(entries.clone(), small(), 1);
        let large_cache = Cases::new(entries, small(), u64::MAX);
        for index in [0, 3, 1, 0, 2, 3] {
            let (a, b) = (small_cache.get(index).unwrap(), large_cache.get(index).unwrap());
            assert_eq!(a.masked.scan.volume, b.masked.scan.volume);
        }
        assert_eq!((small_cache.locked().cases.len(), large_cache.locked().cases.len()), (1, 4));
    }

    #[test]
    fn survey_counts_scans_smaller_than_patch() {
        let padded = |patch| {
            let preprocess = Preprocess::new([8.0; 3], HuWindow::ABDOMEN, patch).unwrap();
            let survey = Cases::new(vec![CaseEntry::of(phantom(1))], preprocess, u64::MAX).survey(1, &|| {});
            assert!(survey.least_voxels.is_some_and(|least| least.iter().all(|voxels| (4..200).contains(voxels))));
            survey.padded
        };
        assert_eq!([padded([4; 3]), padded([4, 200, 4])], [0, 1]);
    }

    #[test]
    fn survey_check_names_missing_labels_and_faults() {
        let failed = CaseEntry::new(ScanId::from_bytes([1; 8]), PatientKey::from_bytes([2; 8]), || {
            Err(Fault::read(FaultKind::Truncated, "expected 8 bytes, got 3"))
        });
        let cases = Cases::new(vec![CaseEntry::of(phantom(1)), failed.clone()], small(), u64::MAX);
        let survey = cases.survey(2, &|| {});
        assert_eq!((survey.readable, survey.failed.len()), (1, 1));
        survey.check("labeled", cases.entries(), &[(1, "liver".into())]).unwrap();
        let error = survey.check("labeled", cases.entries(), &[(1, "liver".into()), (2, "liver tumor".into())]);
        assert_eq!(error.unwrap_err().to_string(), "no labeled scan has liver tumor, of 1 that can be read");
        let error = Survey::default().check("labeled", &[], &[]).unwrap_err();
        assert_eq!(error.to_string(), "expected at least one labeled scan, got none");
        let cases = Cases::new(vec![failed], small(), 1);
        let error = cases.survey(1, &|| {}).check("labeled", cases.entries(), &[]).unwrap_err();
        assert!(error.to_string().ends_with("read (truncated): expected 8 bytes, got 3"), "{error}");
    }
}
