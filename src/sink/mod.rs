//! Where samples go: tables of records, files for trainers.

mod record;

pub use record::{FaultRecord, Outcome, SampleRecord, ScanRecord, Split};

use crate::mask::MaskedScan;
use crate::synth::Candidate;

/// One accepted tumor with everything that a file of it needs.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// The untouched scan and its organs.
    pub masked: &'a MaskedScan,
    /// The tumor in its box.
    pub candidate: &'a Candidate,
    /// Its row.
    pub record: &'a SampleRecord,
}
