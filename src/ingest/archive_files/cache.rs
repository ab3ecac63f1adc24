//! The archives that were listed: each is read once for each version of its file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::archive::Archive;
use super::contents::{Contents, ListingLimits};
use super::listing::{ArchiveName, ArchiveScans, ListingRules};
use crate::ingest::folder::MatchedPath;
use crate::ingest::patient::PatientSecret;
use crate::ingest::version::FileState;

/// An archive with its members and scans.
pub(super) struct ListedArchive {
    pub archive: Archive,
    pub contents: Contents,
    pub scans: ArchiveScans,
    state: FileState,
    secret: PatientSecret,
}

/// The archives that were listed, by key.
#[derive(Default)]
pub(super) struct ListingCache {
    archives: Mutex<BTreeMap<String, Slot>>,
}

type Slot = Arc<Mutex<Option<Arc<ListedArchive>>>>;

impl ListingCache {
    /// Returns an archive as it is now; lists the archive if its file has another length or modification time than before. Several threads
    /// that need one archive wait until the first has listed it.
    pub fn get(
        &self,
        found: &MatchedPath,
        path: &Path,
        rules: &ListingRules,
        limits: ListingLimits,
        secret: &PatientSecret,
    ) -> Arc<ListedArchive> {
        let slot = Arc::clone(lock(&self.archives).entry(found.key.clone()).or_default());
        let mut slot = lock(&slot);
        if let Some(listed) = slot.as_ref().filter(|listed| listed.state == found.state && listed.secret == *secret) {
            return Arc::clone(listed);
        }
        let (archive, contents) = Archive::open(path, limits);
        let name =
            ArchiveName { key: &found.key, modified_s: found.modified_s, bytes: found.bytes, state: found.state };
        let listed = rules.list(secret, name, &archive, &contents);
        let is_final = listed.is_ok() && !contents.damage.as_ref().is_some_and(|fault| fault.kind.is_transient());
        let scans = listed.unwrap_or_else(|fault| rules.unlisted(secret, name, fault));
        let listed = Arc::new(ListedArchive { archive, contents, scans, state: found.state, secret: secret.clone() });
        *slot = is_final.then(|| Arc::clone(&listed));
        listed
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
