//! Several arms, each with several seeds, in a few numbers.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::bootstrap::{Interval, Resamples, Series, Share};
use super::case::{CaseMeasures, MeasuredOrgan};
use super::compare::{compare, holm};
use super::lesions::DiameterBin;
use super::metric::Metric;
use crate::random::Key;

/// One organ of one case under one network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseRow {
    /// Place of the arm in [`EvaluationPlan::arms`].
    pub arm: usize,
    /// Place of the network among the arm's.
    pub seed: usize,
    /// The case's name.
    pub case: String,
    /// Whose it is: what is resampled.
    pub patient: String,
    /// Place of the organ in [`EvaluationPlan::organs`].
    pub organ: usize,
    /// What was measured.
    pub measures: CaseMeasures,
}

/// What is compared with what.
#[derive(Clone, Debug)]
pub struct EvaluationPlan {
    /// The arms, each with its number of seeds.
    pub arms: Vec<(String, usize)>,
    /// The organs.
    pub organs: Vec<MeasuredOrgan>,
    /// Pairs of arms: the first minus the second.
    pub comparisons: Vec<[usize; 2]>,
    /// Number of resamples.
    pub resamples: usize,
    /// What decides them.
    pub key: Key,
}

/// All arms in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The arms.
    pub arms: Vec<ArmSummary>,
    /// A row for each arm, organ and metric that anything is known of.
    pub metrics: Vec<MetricSummary>,
    /// A row for each comparison, organ and metric.
    pub comparisons: Vec<Difference>,
}

/// How much an arm's numbers rest on; summed over its seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ArmSummary {
    /// The arm's name.
    pub arm: String,
    /// The organ's name.
    pub organ: String,
    /// Networks.
    pub seeds: usize,
    /// Cases that were measured.
    pub cases: usize,
    /// Cases whose truth has no tumor.
    pub healthy: usize,
    /// Cases in which neither truth nor prediction has a tumor: their Dice is undefined.
    pub undefined: usize,
    /// Lesions of the truth.
    pub lesions: usize,
    /// Those of them that cannot be measured on their grid, by bin.
    pub unmeasurable: BTreeMap<DiameterBin, usize>,
}

/// A mean and its interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricSummary {
    /// The arm's name.
    pub arm: String,
    /// The organ's name.
    pub organ: String,
    /// The metric's name.
    pub metric: &'static str,
    /// Which it is.
    #[serde(skip)]
    pub kind: Metric,
    /// The mean over patients and seeds.
    pub mean: f64,
    /// The bounds of 95% of resamples.
    #[serde(flatten)]
    pub interval: Interval,
    /// Cases, or lesions, of all seeds.
    pub count: usize,
}

/// A difference between two arms.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The organ's name.
    pub organ: String,
    /// The metric's name.
    pub metric: &'static str,
    /// The arm.
    pub arm: String,
    /// What is taken from it.
    pub minus: String,
    /// The difference of their means, over cases that all networks of both have.
    pub difference: f64,
    /// Its interval.
    #[serde(flatten)]
    pub interval: Interval,
    /// How probable so large a difference would be without one.
    pub p: f64,
    /// The same after Holm's correction for all comparisons of this organ and metric.
    pub p_holm: f64,
}

/// Summarises the rows of all arms.
///
/// Patients are resampled whole: a patient with two scans counts twice or not at all. Arms are compared over cases that
/// every network of both has measured, so that an unreadable prediction gives neither an advantage.
///
/// ```
/// use freetumor::random::Key;
/// use freetumor::evaluate::metrics::{CaseRow, MeasuredOrgan, EvaluationPlan, measure, summarise};
/// use freetumor::volume::{Affine, Array3, Grid, Labels};
/// let grid = Grid { shape: [16, 8, 8], affine: Affine::from_spacing([2.0; 3]) };
/// let bar = |length: usize| Array3::from_fn(grid.shape, |[x, y, z]| if x < length && y < 3 && z < 3 { 2 } else { 1 });
/// let liver = MeasuredOrgan { name: "liver".into(), organ_id: Some(1), tumor_id: 2 };
/// let rows: Vec<CaseRow> = (0..20)
///     .map(|i| (i % 2, i / 2, 8 + i / 2 % 3))
///     .map(|(arm, patient, length)| CaseRow {
///         arm, seed: 0, case: patient.to_string(), patient: patient.to_string(), organ: 0,
///         measures: measure(&Labels { grid, ids: bar(8) }, &bar(if arm == 0 { 3 } else { length }), &liver),
///     })
///     .collect();
/// let plan = EvaluationPlan {
///     arms: vec![("few".into(), 1), ("more".into(), 1)],
///     organs: vec![liver], comparisons: vec![[1, 0]], resamples: 500, key: Key::root(1),
/// };
/// let summary = summarise(&plan, &rows);
/// let dice = summary.comparisons.iter().find(|row| row.metric == "dice").unwrap();
/// assert!(dice.difference > 0.3 && dice.interval.low > 0.3 && dice.p_holm < 0.01);
/// ```
pub fn summarise(plan: &EvaluationPlan, rows: &[CaseRow]) -> Summary {
    let table = Table::new(plan, rows);
    let resamples = table.resamples();
    let mut summary = Summary { arms: Vec::new(), metrics: Vec::new(), comparisons: Vec::new() };
    for (organ, measured) in plan.organs.iter().enumerate() {
        for (arm, (name, seeds)) in plan.arms.iter().enumerate() {
            summary.arms.push(table.arm(organ, arm, name, *seeds));
            for kind in Metric::ALL {
                let series = table.series(organ, arm, kind, |_| true);
                let count = series.0.iter().flatten().map(|share| share.weight).sum::<f64>() as usize;
                if let (Some(mean), Some(interval)) = (series.mean(), resamples.interval(&series)) {
                    let (arm, organ) = (name.clone(), measured.name.clone());
                    let interval = interval.within(kind.range());
                    summary.metrics.push(MetricSummary {
                        arm,
                        organ,
                        metric: kind.name(),
                        kind,
                        mean,
                        interval,
                        count,
                    });
                }
            }
        }
        for kind in Metric::ALL {
            summary.comparisons.extend(table.differences(organ, kind, &resamples));
        }
    }
    summary
}

/// The numbers behind one mean of every arm, and the resamples that intervals are of: for what a [`Summary`] does not say, such as
/// the ratio of two differences. Arms are in the order of the plan.
///
/// ```
/// use freetumor::random::Key;
/// use freetumor::evaluate::metrics::{CaseRow, MeasuredOrgan, Metric, EvaluationPlan, measure, series, summarise};
/// use freetumor::volume::{Affine, Array3, Grid, Labels};
/// let grid = Grid { shape: [8, 8, 8], affine: Affine::from_spacing([2.0; 3]) };
/// let liver = MeasuredOrgan { name: "liver".into(), organ_id: Some(1), tumor_id: 2 };
/// let bar = |length: usize| Array3::from_fn(grid.shape, |[x, y, z]| if x < length && y < 3 && z < 3 { 2 } else { 1 });
/// let rows: Vec<CaseRow> = (0..4)
///     .map(|i| CaseRow {
///         arm: 0, seed: 0, case: i.to_string(), patient: i.to_string(), organ: 0,
///         measures: measure(&Labels { grid, ids: bar(6) }, &bar(i + 2), &liver),
///     })
///     .collect();
/// let plan =
///     EvaluationPlan { arms: vec![("one".into(), 1)], organs: vec![liver], comparisons: vec![], resamples: 100, key: Key::root(1) };
/// let (resamples, of) = series(&plan, &rows, 0, Metric::Dice);
/// assert_eq!(of.len(), 1);
/// let mean = summarise(&plan, &rows).metrics.iter().find(|row| row.metric == "dice").map(|row| row.mean);
/// assert_eq!(of[0].mean(), mean);
/// assert_eq!(resamples.means(&of[0]).len(), 100);
/// ```
pub fn series(plan: &EvaluationPlan, rows: &[CaseRow], organ: usize, metric: Metric) -> (Resamples, Vec<Series>) {
    let table = Table::new(plan, rows);
    let of = (0..plan.arms.len()).map(|arm| table.series(organ, arm, metric, |_| true)).collect();
    (table.resamples(), of)
}

struct Table<'a> {
    plan: &'a EvaluationPlan,
    rows: &'a [CaseRow],
    patients: BTreeMap<&'a str, usize>,
}

impl<'a> Table<'a> {
    fn new(plan: &'a EvaluationPlan, rows: &'a [CaseRow]) -> Self {
        let names: BTreeSet<&str> = rows.iter().map(|row| row.patient.as_str()).collect();
        Self { plan, rows, patients: names.into_iter().enumerate().map(|(at, name)| (name, at)).collect() }
    }

    fn resamples(&self) -> Resamples {
        Resamples::new(self.plan.key, self.plan.resamples, self.patients.len())
    }

    fn of(&self, organ: usize, arm: usize) -> impl Iterator<Item = &CaseRow> {
        self.rows.iter().filter(move |row| row.organ == organ && row.arm == arm)
    }

    fn series(&self, organ: usize, arm: usize, metric: Metric, counts: impl Fn(&str) -> bool) -> Series {
        let mut cells = vec![vec![Share::NONE; self.patients.len()]; self.plan.arms[arm].1];
        for row in self.of(organ, arm).filter(|row| counts(&row.case)) {
            let cell = &mut cells[row.seed][self.patients[row.patient.as_str()]];
            *cell = cell.and(metric.share(&row.measures));
        }
        Series(cells)
    }

    /// The cases that every network of an arm has.
    fn complete(&self, organ: usize, arm: usize) -> BTreeSet<&str> {
        let mut seeds: BTreeMap<&str, usize> = BTreeMap::new();
        for row in self.of(organ, arm) {
            *seeds.entry(&row.case).or_default() += 1;
        }
        seeds.into_iter().filter(|(_, seeds)| *seeds == self.plan.arms[arm].1).map(|(case, _)| case).collect()
    }

    fn differences(&self, organ: usize, metric: Metric, resamples: &Resamples) -> Vec<Difference> {
        let compared = self.plan.comparisons.iter().filter_map(|[one, other]| {
            let both = [*one, *other].map(|arm| self.complete(organ, arm));
            let series = |arm| self.series(organ, arm, metric, |case| both.iter().all(|cases| cases.contains(case)));
            compare(resamples, &series(*one), &series(*other)).map(|found| ([*one, *other], found))
        });
        let compared: Vec<_> = compared.collect();
        let corrected = holm(&compared.iter().map(|(_, found)| found.p).collect::<Vec<_>>());
        let rows = compared.into_iter().zip(corrected).map(|(([one, other], found), p_holm)| Difference {
            organ: self.plan.organs[organ].name.clone(),
            metric: metric.name(),
            arm: self.plan.arms[one].0.clone(),
            minus: self.plan.arms[other].0.clone(),
            difference: found.difference,
            interval: found.interval,
            p: found.p,
            p_holm,
        });
        rows.collect()
    }

    fn arm(&self, organ: usize, arm: usize, name: &str, seeds: usize) -> ArmSummary {
        let rows: Vec<&CaseMeasures> = self.of(organ, arm).map(|row| &row.measures).collect();
        let mut unmeasurable = BTreeMap::new();
        for lesion in rows.iter().flat_map(|case| &case.found.lesions).filter(|lesion| !lesion.is_measurable) {
            *unmeasurable.entry(lesion.bin).or_default() += 1;
        }
        let count = |holds: fn(&CaseMeasures) -> bool| rows.iter().filter(|case| holds(case)).count();
        ArmSummary {
            arm: name.to_owned(),
            organ: self.plan.organs[organ].name.clone(),
            seeds,
            cases: rows.len(),
            healthy: count(CaseMeasures::is_healthy),
            undefined: count(|case| case.tumor_dice.is_none()),
            lesions: rows.iter().map(|case| case.found.lesions.len()).sum(),
            unmeasurable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::measure;
    use super::*;
    use crate::volume::{Affine, Array3, Grid, Labels};

    fn liver() -> MeasuredOrgan {
        MeasuredOrgan { name: "liver".into(), organ_id: Some(1), tumor_id: 2 }
    }

    /// A case in which the truth is `truth` voxels long and the prediction `found`.
    fn row(arm: usize, seed: usize, patient: usize, [truth, found]: [usize; 2]) -> CaseRow {
        let grid = Grid { shape: [16, 8, 8], affine: Affine::from_spacing([2.0; 3]) };
        let bar = |length| Array3::from_fn(grid.shape, |[x, y, z]| if x < length && y < 4 && z < 4 { 2 } else { 1u16 });
        let measures = measure(&Labels { grid, ids: bar(truth) }, &bar(found), &liver());
        CaseRow { arm, seed, case: format!("case {patient}"), patient: patient.to_string(), organ: 0, measures }
    }

    fn plan(arms: &[(&str, usize)], comparisons: &[[usize; 2]]) -> EvaluationPlan {
        let arms = arms.iter().map(|(name, seeds)| ((*name).to_owned(), *seeds)).collect();
        EvaluationPlan {
            arms,
            organs: vec![liver()],
            comparisons: comparisons.to_vec(),
            resamples: 200,
            key: Key::root(9),
        }
    }

    #[test]
    fn a_case_that_one_network_lacks_is_compared_in_none() {
        let mut rows: Vec<CaseRow> = (0..6).flat_map(|p| [row(0, 0, p, [8, 8]), row(0, 1, p, [8, 8])]).collect();
        // The other arm is as good, but failed where it would have been bad.
        rows.extend((0..6).flat_map(|p| [row(1, 0, p, [8, 8]), row(1, 1, p, [8, 8])]).filter(|r| r.patient != "3"));
        rows.iter_mut().filter(|r| r.patient == "3").for_each(|r| *r = row(0, r.seed, 3, [8, 0]));
        let summary = summarise(&plan(&[("a", 2), ("b", 2)], &[[1, 0]]), &rows);
        let dice = |arm: &str| summary.metrics.iter().find(|m| m.arm == arm && m.metric == "dice").unwrap();
        assert!((dice("a").mean - 5.0 / 6.0).abs() < 1e-12 && dice("b").mean == 1.0);
        assert_eq!((dice("a").count, dice("b").count), (12, 10));
        let compared = summary.comparisons.iter().find(|c| c.metric == "dice").unwrap();
        assert_eq!((compared.difference, compared.p), (0.0, 1.0));
    }

    #[test]
    fn counts_say_what_the_numbers_rest_on() {
        let rows = [row(0, 0, 0, [8, 4]), row(0, 0, 1, [0, 0]), row(0, 0, 2, [0, 5]), row(0, 0, 3, [1, 0])];
        let summary = summarise(&plan(&[("a", 1)], &[]), &rows);
        let arm = &summary.arms[0];
        assert_eq!((arm.cases, arm.healthy, arm.undefined, arm.lesions), (4, 2, 1, 2));
        assert!(arm.unmeasurable.is_empty(), "6.25 mm across");
        let mean = |metric: &str| summary.metrics.iter().find(|m| m.metric == metric).map(|m| m.mean);
        assert_eq!(mean("sensitivity"), Some(0.5));
        assert_eq!(mean("false_positives_per_healthy_scan"), Some(0.5));
        assert_eq!(mean("sensitivity_below_5_mm"), None);
        assert!((mean("dice").unwrap() - 1.0 / 3.0).abs() < 1e-12);
    }
}
