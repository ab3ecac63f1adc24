//! Collects the reports of all branches of the graph on a scan.

use std::collections::HashMap;
use std::sync::Arc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use crate::id::ScanId;
use crate::ingest::ScanEntry;

use super::Epoch;

/// The report of one branch of the graph on a scan, with the number of syntheses that the report covers.
pub struct BranchReport<R> {
    /// The scan.
    pub entry: Arc<ScanEntry>,
    /// The number of syntheses: a failed mask has one report for all its syntheses.
    pub syntheses: usize,
    /// The report.
    pub report: Box<R>,
}

/// Emits a scan with all its reports as soon as every one of its syntheses is covered.
///
/// `syntheses_of` returns the number of syntheses of the graph for a scan.
pub fn gather<'scope, R: 'static>(
    reports: StreamVec<'scope, Epoch, BranchReport<R>>,
    syntheses_of: impl Fn(&ScanEntry) -> usize + 'static,
) -> StreamVec<'scope, Epoch, (Arc<ScanEntry>, Vec<R>)> {
    reports.unary_frontier::<CapacityContainerBuilder<Vec<_>>, _, _, _>(Pipeline, "gather", move |capability, _info| {
        drop(capability);
        let mut open: HashMap<ScanId, (usize, Vec<R>)> = HashMap::new();
        move |(input, _frontier), output| {
            input.for_each_stamp(|stamp, batches| {
                let mut session = output.session(&stamp);
                for report in batches.flat_map(|batch| batch.drain(..)) {
                    let scan_id = report.entry.scan_id;
                    let (covered, reports) = open.entry(scan_id).or_default();
                    *covered += report.syntheses;
                    reports.push(*report.report);
                    if *covered >= syntheses_of(&report.entry) {
                        let reports = open.remove(&scan_id).map(|(_, reports)| reports).unwrap_or_default();
                        session.give((report.entry, reports));
                    }
                }
            });
        }
    })
}
