//! Brings together what the branches of the graph report of one scan.

use std::collections::HashMap;
use std::sync::Arc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use crate::ingest::ScanEntry;

use super::Epoch;

/// One branch's word about a scan.
pub struct Report<R> {
    /// The scan.
    pub entry: Arc<ScanEntry>,
    /// How many of the scan's trials it speaks for: a mask that failed speaks for all trials behind it.
    pub trials: usize,
    /// What it has to say.
    pub word: Box<R>,
}

/// Emits a scan with all its reports as soon as every one of its trials is accounted for.
///
/// `trials_of` says how many trials the graph holds for a scan.
pub fn gather<'scope, R: 'static>(
    reports: StreamVec<'scope, Epoch, Report<R>>,
    trials_of: impl Fn(&ScanEntry) -> usize + 'static,
) -> StreamVec<'scope, Epoch, (Arc<ScanEntry>, Vec<R>)> {
    reports.unary_frontier::<CapacityContainerBuilder<Vec<_>>, _, _, _>(Pipeline, "gather", move |capability, _info| {
        drop(capability);
        let mut open: HashMap<String, (usize, Vec<R>)> = HashMap::new();
        move |(input, _frontier), output| {
            input.for_each_stamp(|stamp, batches| {
                let mut session = output.session(&stamp);
                for report in batches.flat_map(|batch| batch.drain(..)) {
                    let (heard, words) = open.entry(report.entry.scan_id.clone()).or_default();
                    *heard += report.trials;
                    words.push(*report.word);
                    if *heard >= trials_of(&report.entry) {
                        let words = open.remove(&report.entry.scan_id).map(|(_, words)| words).unwrap_or_default();
                        session.give((report.entry, words));
                    }
                }
            });
        }
    })
}
