//! How many candidates passed and how many did not, by group: kept right by differential dataflow as epochs come in.

use differential_dataflow::AsCollection;
use differential_dataflow::operators::CountTotal;
use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;

use crate::sink::{Outcome, SampleRecord};

use super::Epoch;

/// The candidates that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QualityGroup {
    /// The data set's name.
    pub dataset: String,
    /// The organ's name.
    pub organ: String,
    /// The size class; empty where no site was found.
    pub size_class: String,
    /// Why they were rejected; `None` for accepted ones.
    pub reason: Option<String>,
}

impl QualityGroup {
    /// The group of a record.
    pub fn of(record: &SampleRecord) -> Self {
        Self {
            dataset: record.dataset.clone(),
            organ: record.organ.clone(),
            size_class: record.geometry.as_ref().map(|geometry| geometry.size_class.clone()).unwrap_or_default(),
            reason: match &record.outcome {
                Outcome::Accepted => None,
                Outcome::Rejected { reason } => Some(reason.clone()),
            },
        }
    }
}

/// A change of the table of groups: a group with its count appears (+1) or disappears (−1) at an epoch.
pub type QualityChange = ((QualityGroup, isize), Epoch, isize);

/// Turns candidates that come (+1) and, one day, go (−1) into changes of the table of counts. Unchanged groups are silent.
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
    fn a_withdrawn_candidate_corrects_its_group_alone() {
        let group = |organ: &str| QualityGroup {
            dataset: "d".into(),
            organ: organ.into(),
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
