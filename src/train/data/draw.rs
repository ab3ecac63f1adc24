//! The sampling of tumors for crops.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::random::RandomStream;

/// The method by which synthetic tumors are sampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TumorSampling {
    /// Like real tumors: a scan, then a voxel of one of its tumors. Large tumors are in more crops than small ones of the same scan.
    #[default]
    Voxel,
    /// Each tumor with equal probability.
    Candidate,
}

/// Samples tumors, each with its scan and volume.
///
/// ```
/// use freetumor::random::Key;
/// use freetumor::train::data::{TumorSampler, TumorSampling};
///
/// // Two tumors of 1 and 3 voxels in one scan, and one in another scan.
/// let tumors = [("first", 1.0), ("first", 3.0), ("second", 7.0)];
/// let counts = |draw| {
///     let drawn = TumorSampler::new(draw, tumors);
///     let mut random = Key::root(1).stream("tumor");
///     let mut counts = [0; 3];
///     (0..8000).for_each(|_| counts[drawn.sample(&mut random).unwrap()] += 1);
///     counts.map(|count| (f64::from(count) / 1000.0).round())
/// };
/// assert_eq!(counts(TumorSampling::Voxel), [1.0, 3.0, 4.0]);
/// assert_eq!(counts(TumorSampling::Candidate), [3.0, 3.0, 3.0]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct TumorSampler {
    /// Groups of equal probability: for each tumor its index and the sum of the weights up to and including it.
    groups: Vec<Vec<(usize, f64)>>,
}

impl TumorSampler {
    /// Creates a sampler over tumors, each a scan and a volume in any unit. Tumors without a positive volume are not sampled by
    /// [`TumorSampling::Voxel`].
    pub fn new<S: Ord>(draw: TumorSampling, tumors: impl IntoIterator<Item = (S, f64)>) -> Self {
        let mut groups: BTreeMap<Option<S>, Vec<(usize, f64)>> = BTreeMap::new();
        for (index, (scan, volume)) in tumors.into_iter().enumerate() {
            let (group, weight) = match draw {
                TumorSampling::Voxel => (Some(scan), volume),
                TumorSampling::Candidate => (None, 1.0),
            };
            if weight > 0.0 {
                let group = groups.entry(group).or_default();
                let before = group.last().map_or(0.0, |(_, sum)| *sum);
                group.push((index, before + weight));
            }
        }
        Self { groups: groups.into_values().collect() }
    }

    /// Samples the index of a tumor; `None` if there is none.
    pub fn sample(&self, random: &mut RandomStream) -> Option<usize> {
        if self.groups.is_empty() {
            return None;
        }
        let group = &self.groups[random.index(self.groups.len())];
        let position = random.uniform(0.0, group.last()?.1);
        let at = group.partition_point(|(_, sum)| *sum <= position).min(group.len() - 1);
        Some(group[at].0)
    }
}
