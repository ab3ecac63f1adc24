//! Withdrawn scans, which a run must not ingest again.
//!
//! A withdrawal removes scans from a run and leaves tombstones: keyed hashes of scan ids, patient keys and content digests. A tombstone
//! prevents that a scan is ingested again, and does not contain the id of the scan.

use std::collections::BTreeSet;

use crate::id::{FieldHasher, PatientKey, ScanDigest, ScanId, Tombstone};
use crate::ingest::{PatientSecret, ScanEntry};

/// The tombstones of the withdrawn scans, patients and contents of a run.
///
/// ```
/// use freetumor::id::ScanId;
/// use freetumor::ingest::PatientSecret;
/// use freetumor::run::Tombstones;
/// let mut withdrawn = Tombstones::new(Some(PatientSecret::new("correct horse battery staple")?));
/// let scan = ScanId::from_bytes([7; 8]);
/// let tombstone = withdrawn.of_scan(scan);
/// assert!(!withdrawn.contains(tombstone));
/// withdrawn.extend([tombstone]);
/// assert!(withdrawn.contains(withdrawn.of_scan(scan)));
/// # Ok::<(), freetumor::error::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Tombstones {
    secret: Option<PatientSecret>,
    tombstones: BTreeSet<Tombstone>,
}

impl Tombstones {
    /// Creates an empty set with the secret of the patients; phantoms have none.
    pub fn new(secret: Option<PatientSecret>) -> Self {
        Self { secret, tombstones: BTreeSet::new() }
    }

    /// Returns the tombstone of a scan.
    pub fn of_scan(&self, scan_id: ScanId) -> Tombstone {
        self.tombstone("scan", &scan_id.to_string())
    }

    /// Returns the tombstone of all scans of a patient.
    pub fn of_patient(&self, patient_key: PatientKey) -> Tombstone {
        self.tombstone("patient", &patient_key.to_string())
    }

    /// Returns the tombstone of all scans with a content.
    pub fn of_content(&self, digest: ScanDigest) -> Tombstone {
        self.tombstone("content", &digest.to_string())
    }

    fn tombstone(&self, kind: &str, id: &str) -> Tombstone {
        match &self.secret {
            Some(secret) => secret.tombstone(kind, id),
            None => Tombstone::from_hash(&FieldHasher::new("withdrawn").add_field(kind).add_field(id).finish()),
        }
    }

    /// Adds tombstones.
    pub fn extend(&mut self, tombstones: impl IntoIterator<Item = Tombstone>) {
        self.tombstones.extend(tombstones);
    }

    /// Returns whether a tombstone is in the set.
    pub fn contains(&self, tombstone: Tombstone) -> bool {
        self.tombstones.contains(&tombstone)
    }

    /// Returns whether a listed scan or its patient is withdrawn.
    pub fn contains_entry(&self, entry: &ScanEntry) -> bool {
        !self.tombstones.is_empty()
            && (self.contains(self.of_scan(entry.scan_id)) || self.contains(self.of_patient(entry.patient_key)))
    }

    /// Returns whether a content is withdrawn.
    pub fn contains_content(&self, digest: ScanDigest) -> bool {
        !self.tombstones.is_empty() && self.contains(self.of_content(digest))
    }
}
