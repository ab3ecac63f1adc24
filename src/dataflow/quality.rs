//! The number of attempts by group, maintained incrementally by differential dataflow.

use differential_dataflow::AsCollection;
use differential_dataflow::operators::CountTotal;
use timely::dataflow::StreamVec;

use crate::record::QualityGroup;

use super::Epoch;

/// An update of differential dataflow: a group with its number of attempts, the epoch, and +1 (row added) or −1 (row removed).
pub type QualityChange = ((QualityGroup, isize), Epoch, isize);

/// Counts the attempts of each group from added (+1) and removed (−1) attempts. Unchanged groups emit nothing.
pub fn count_groups<'scope>(
    candidates: StreamVec<'scope, Epoch, (QualityGroup, Epoch, isize)>,
) -> StreamVec<'scope, Epoch, QualityChange> {
    candidates.as_collection().count_total().inner
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use timely::dataflow::operators::capture::Extract;
    use timely::dataflow::operators::{Capture, ToStream};

    #[test]
    fn removed_candidate_changes_only_its_group() {
        let group = |organ: &str| QualityGroup {
            dataset: "d".into(),
            organ: organ.into(),
            branch: "test".into(),
            size_class: "small".into(),
            reason: None,
        };
        let updates = vec![
            (group("liver"), 0, 1),
            (group("liver"), 0, 1),
            (group("kidney"), 0, 1),
            (group("liver"), 1, -1),
            (group("liver"), 2, 3),
        ];
        let captured =
            timely::example(move |scope| count_groups(updates.to_stream(scope).container::<Vec<_>>()).capture());
        let mut tables = BTreeMap::<Epoch, Vec<_>>::new();
        for (_, changes) in captured.extract() {
            for (row, epoch, change) in changes {
                tables.entry(epoch).or_default().push((row, change));
            }
        }
        tables.values_mut().for_each(|changes| changes.sort());
        let liver = |count| (group("liver"), count);
        assert_eq!(tables[&0], [((group("kidney"), 1), 1), (liver(2), 1)]);
        assert_eq!(tables[&1], [(liver(1), 1), (liver(2), -1)]);
        assert_eq!(tables[&2], [(liver(1), -1), (liver(4), 1)]);
    }
}
