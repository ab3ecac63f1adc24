//! The selections of a mask stage in label files, and whether they occur in any of the files.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The ids, structures and files that the settings of a mask stage select, and which of them occurred in the scans that the stage masked.
///
/// ```
/// use freetumor::mask::Selections;
///
/// let selections = Selections::new(["id 5 of `liver`".to_owned(), "tumor id 118 of `liver`".to_owned()]);
/// selections.record(&[true, false]);
/// selections.record(&[false, false]);
/// assert_eq!(selections.scans(), 2);
/// assert_eq!(selections.absent(), ["tumor id 118 of `liver`"]);
/// ```
#[derive(Debug, Default)]
pub struct Selections {
    names: Vec<String>,
    occurred: Vec<AtomicBool>,
    scans: AtomicUsize,
}

impl Selections {
    /// Creates the selections with these names for messages, in no scan so far.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let names: Vec<String> = names.into_iter().collect();
        let occurred = names.iter().map(|_| AtomicBool::new(false)).collect();
        Self { names, occurred, scans: AtomicUsize::new(0) }
    }

    /// Returns the names of all selections.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Adds a scan; `occurs` states for each selection whether it occurs in the label files of the scan.
    pub fn record(&self, occurs: &[bool]) {
        for (occurred, _) in self.occurred.iter().zip(occurs).filter(|(_, occurs)| **occurs) {
            occurred.store(true, Ordering::Relaxed);
        }
        self.scans.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of scans.
    pub fn scans(&self) -> usize {
        self.scans.load(Ordering::Relaxed)
    }

    /// Returns the names of the selections that occurred in no scan.
    pub fn absent(&self) -> Vec<&str> {
        let pairs = self.names.iter().zip(&self.occurred);
        pairs.filter(|(_, occurred)| !occurred.load(Ordering::Relaxed)).map(|(name, _)| name.as_str()).collect()
    }
}
