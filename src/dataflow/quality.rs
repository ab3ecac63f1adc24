//! The number of attempts by group, maintained incrementally by differential dataflow.

use std::collections::BTreeMap;

use differential_dataflow::AsCollection;
use differential_dataflow::operators::CountTotal;
use timely::dataflow::StreamVec;

use crate::record::{QualityGroup, QualityRecord};

use super::Epoch;

/// An update of differential dataflow: a group with its number of attempts, the epoch, and +1 (row added) or −1 (row removed).
pub type QualityChange = ((QualityGroup, isize), Epoch, isize);

/// Counts the attempts of each group from added (+1) and removed (−1) attempts. Unchanged groups emit nothing.
pub fn count_groups<'scope>(
    candidates: StreamVec<'scope, Epoch, (QualityGroup, Epoch, isize)>,
) -> StreamVec<'scope, Epoch, QualityChange> {
    candidates.as_collection().count_total().inner
}

/// Applies changes to the counts and returns the change of each group. After a restart, unchanged counts are fed again and ignored.
pub fn apply_changes(
    quality: &mut BTreeMap<QualityGroup, i64>,
    epoch: Epoch,
    changes: &[QualityChange],
) -> Vec<QualityRecord> {
    let mut counts: BTreeMap<&QualityGroup, i64> = BTreeMap::new();
    let mut ordered: Vec<_> = changes.iter().collect();
    // Within an epoch, removals are applied before additions.
    ordered.sort_by_key(|(_, epoch, change)| (*epoch, *change));
    for ((group, count), _, change) in ordered {
        counts.insert(group, if *change < 0 { 0 } else { i64::try_from(*count).unwrap_or(i64::MAX) });
    }
    let mut rows = Vec::new();
    for (group, count) in counts {
        let before = if count == 0 { quality.remove(group) } else { quality.insert(group.clone(), count) };
        let attempts = count - before.unwrap_or_default();
        if attempts != 0 {
            rows.push(QualityRecord { group: group.clone(), epoch, attempts });
        }
    }
    rows
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
