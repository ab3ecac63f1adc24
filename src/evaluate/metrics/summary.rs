//! The summary of several arms, each with several seeds.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::bootstrap::{Interval, Resamples, Series, WeightedSum};
use super::case::{CaseMeasures, MeasuredOrgan};
use super::compare::{compare, holm};
use super::lesions::DiameterBin;
use super::metric::Metric;
use crate::random::Key;

/// The measures of one organ of one case with one network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseRow {
    /// The index of the arm in [`EvaluationPlan::arms`].
    pub arm: usize,
    /// The index of the network in the arm.
    pub seed: usize,
    /// The name of the case.
    pub case: String,
    /// The patient, the unit of resampling.
    pub patient: String,
    /// The index of the organ in [`EvaluationPlan::organs`].
    pub organ: usize,
    /// The measures.
    pub measures: CaseMeasures,
}

/// The arms, organs and comparisons of an evaluation.
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
    /// The key of the resamples.
    pub key: Key,
}

/// The summary of all arms.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The arms.
    pub arms: Vec<ArmSummary>,
    /// One row for each arm, organ and metric with a defined mean.
    pub metrics: Vec<MetricSummary>,
    /// One row for each comparison, organ and metric.
    pub comparisons: Vec<Difference>,
}

/// The counts of cases and lesions of an arm, summed over its seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ArmSummary {
    /// The name of the arm.
    pub arm: String,
    /// The name of the organ.
    pub organ: String,
    /// The number of networks.
    pub seeds: usize,
    /// Measured cases.
    pub cases: usize,
    /// Cases whose ground truth has no tumor.
    pub healthy: usize,
    /// Cases in which neither ground truth nor prediction has a tumor: their Dice is undefined.
    pub undefined: usize,
    /// Lesions of the ground truth.
    pub lesions: usize,
    /// Lesions that are not measurable on their grid, by bin.
    pub unmeasurable: BTreeMap<DiameterBin, usize>,
}

/// A mean and its interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricSummary {
    /// The name of the arm.
    pub arm: String,
    /// The name of the organ.
    pub organ: String,
    /// The name of the metric.
    pub metric: &'static str,
    /// The metric.
    #[serde(skip)]
    pub kind: Metric,
    /// The mean over patients and seeds.
    pub mean: f64,
    /// The interval that contains the middle 95% of the resampled means.
    #[serde(flatten)]
    pub interval: Interval,
    /// The number of cases or lesions of all seeds.
    pub count: usize,
}

/// A difference between two arms.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The name of the organ.
    pub organ: String,
    /// The name of the metric.
    pub metric: &'static str,
    /// The first arm.
    pub arm: String,
    /// The second arm, which is subtracted.
    pub minus: String,
    /// The difference of the means, over cases that all networks of both arms have.
    pub difference: f64,
    /// The interval of the difference.
    #[serde(flatten)]
    pub interval: Interval,
    /// The p value of the hypothesis of no difference.
    pub p: f64,
    /// The p value after Holm's correction for all comparisons of this organ and metric.
    pub p_holm: f64,
}

/// Summarizes the rows of all arms.
///
/// Patients are resampled, not scans: all scans of a patient are in a resample, or none. Arms are compared over cases that were
/// measured for every network of both arms, so that an arm gains nothing from a prediction that cannot be read.
///
/// ```
/// use freetumor::random::Key;
/// use freetumor::evaluate::metrics::{CaseRow, MeasuredOrgan, EvaluationPlan, measure, summarize};
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
/// let summary = summarize(&plan, &rows);
/// let dice = summary.comparisons.iter().find(|row| row.metric == "dice").unwrap();
/// assert!(dice.difference > 0.3 && dice.interval.low > 0.3 && dice.p_holm < 0.01);
/// ```
pub fn summarize(plan: &EvaluationPlan, rows: &[CaseRow]) -> Summary {
    let table = Table::new(plan, rows);
    let resamples = table.resamples();
    let mut summary = Summary { arms: Vec::new(), metrics: Vec::new(), comparisons: Vec::new() };
    for (organ, measured) in plan.organs.iter().enumerate() {
        for (arm, (name, seeds)) in plan.arms.iter().enumerate() {
            summary.arms.push(table.arm(organ, arm, name, *seeds));
            for kind in Metric::ALL {
                let series = table.series(organ, arm, kind, |_| true);
                let count = series.0.iter().flatten().map(|cell| cell.weight).sum::<f64>() as usize;
                if let (Some(mean), Some(interval)) = (series.mean(), resamples.interval(&series)) {
                    let (arm, organ) = (name.clone(), measured.name.clone());
                    let interval = interval.clamp(kind.range());
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

/// Returns the resamples, and the series of one metric for every arm in the order of the plan, for statistics that a [`Summary`] does not
/// contain, such as the ratio of two differences.
///
/// ```
/// use freetumor::random::Key;
/// use freetumor::evaluate::metrics::{CaseRow, MeasuredOrgan, Metric, EvaluationPlan, measure, series, summarize};
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
/// let (resamples, arms) = series(&plan, &rows, 0, Metric::Dice);
/// assert_eq!(arms.len(), 1);
/// let mean = summarize(&plan, &rows).metrics.iter().find(|row| row.metric == "dice").map(|row| row.mean);
/// assert_eq!(arms[0].mean(), mean);
/// assert_eq!(resamples.means(&arms[0]).len(), 100);
/// ```
pub fn series(plan: &EvaluationPlan, rows: &[CaseRow], organ: usize, metric: Metric) -> (Resamples, Vec<Series>) {
    let table = Table::new(plan, rows);
    let arms = (0..plan.arms.len()).map(|arm| table.series(organ, arm, metric, |_| true)).collect();
    (table.resamples(), arms)
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

    fn rows(&self, organ: usize, arm: usize) -> impl Iterator<Item = &CaseRow> {
        self.rows.iter().filter(move |row| row.organ == organ && row.arm == arm)
    }

    fn series(&self, organ: usize, arm: usize, metric: Metric, includes: impl Fn(&str) -> bool) -> Series {
        let mut cells = vec![vec![WeightedSum::ZERO; self.patients.len()]; self.plan.arms[arm].1];
        for row in self.rows(organ, arm).filter(|row| includes(&row.case)) {
            let cell = &mut cells[row.seed][self.patients[row.patient.as_str()]];
            *cell = cell.plus(metric.contribution(&row.measures));
        }
        Series(cells)
    }

    /// Returns the cases that were measured for every network of an arm.
    fn complete_cases(&self, organ: usize, arm: usize) -> BTreeSet<&str> {
        let mut seeds: BTreeMap<&str, usize> = BTreeMap::new();
        for row in self.rows(organ, arm) {
            *seeds.entry(&row.case).or_default() += 1;
        }
        seeds.into_iter().filter(|(_, seeds)| *seeds == self.plan.arms[arm].1).map(|(case, _)| case).collect()
    }

    fn differences(&self, organ: usize, metric: Metric, resamples: &Resamples) -> Vec<Difference> {
        let comparisons = self.plan.comparisons.iter().filter_map(|[first, second]| {
            let both = [*first, *second].map(|arm| self.complete_cases(organ, arm));
            let series = |arm| self.series(organ, arm, metric, |case| both.iter().all(|cases| cases.contains(case)));
            compare(resamples, &series(*first), &series(*second)).map(|comparison| ([*first, *second], comparison))
        });
        let comparisons: Vec<_> = comparisons.collect();
        let corrected = holm(&comparisons.iter().map(|(_, comparison)| comparison.p).collect::<Vec<_>>());
        let rows = comparisons.into_iter().zip(corrected).map(|(([first, second], comparison), p_holm)| Difference {
            organ: self.plan.organs[organ].name.clone(),
            metric: metric.name(),
            arm: self.plan.arms[first].0.clone(),
            minus: self.plan.arms[second].0.clone(),
            difference: comparison.difference,
            interval: comparison.interval,
            p: comparison.p,
            p_holm,
        });
        rows.collect()
    }

    fn arm(&self, organ: usize, arm: usize, name: &str, seeds: usize) -> ArmSummary {
        let rows: Vec<&CaseMeasures> = self.rows(organ, arm).map(|row| &row.measures).collect();
        let mut unmeasurable = BTreeMap::new();
        for lesion in rows.iter().flat_map(|case| &case.found.lesions).filter(|lesion| !lesion.is_measurable) {
            *unmeasurable.entry(lesion.bin).or_default() += 1;
        }
        let count = |predicate: fn(&CaseMeasures) -> bool| rows.iter().filter(|case| predicate(case)).count();
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

    /// Returns a case with a truth of `truth` voxels and a prediction of `prediction` voxels along x.
    fn row(arm: usize, seed: usize, patient: usize, [truth, prediction]: [usize; 2]) -> CaseRow {
        let grid = Grid { shape: [16, 8, 8], affine: Affine::from_spacing([2.0; 3]) };
        let bar = |length| Array3::from_fn(grid.shape, |[x, y, z]| if x < length && y < 4 && z < 4 { 2 } else { 1u16 });
        let measures = measure(&Labels { grid, ids: bar(truth) }, &bar(prediction), &liver());
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
    fn comparison_excludes_cases_that_one_network_lacks() {
        let mut rows: Vec<CaseRow> = (0..6).flat_map(|p| [row(0, 0, p, [8, 8]), row(0, 1, p, [8, 8])]).collect();
        // The other arm has equal predictions, but none for the case in which the first arm is bad.
        rows.extend((0..6).flat_map(|p| [row(1, 0, p, [8, 8]), row(1, 1, p, [8, 8])]).filter(|r| r.patient != "3"));
        rows.iter_mut().filter(|r| r.patient == "3").for_each(|r| *r = row(0, r.seed, 3, [8, 0]));
        let summary = summarize(&plan(&[("a", 2), ("b", 2)], &[[1, 0]]), &rows);
        let dice = |arm: &str| summary.metrics.iter().find(|m| m.arm == arm && m.metric == "dice").unwrap();
        assert!((dice("a").mean - 5.0 / 6.0).abs() < 1e-12 && dice("b").mean == 1.0);
        assert_eq!((dice("a").count, dice("b").count), (12, 10));
        let comparison = summary.comparisons.iter().find(|c| c.metric == "dice").unwrap();
        assert_eq!((comparison.difference, comparison.p), (0.0, 1.0));
    }

    #[test]
    fn arm_summary_counts_cases_and_lesions() {
        let rows = [row(0, 0, 0, [8, 4]), row(0, 0, 1, [0, 0]), row(0, 0, 2, [0, 5]), row(0, 0, 3, [1, 0])];
        let summary = summarize(&plan(&[("a", 1)], &[]), &rows);
        let arm = &summary.arms[0];
        assert_eq!((arm.cases, arm.healthy, arm.undefined, arm.lesions), (4, 2, 1, 2));
        assert!(arm.unmeasurable.is_empty(), "a diameter of 6.25 mm is measurable");
        let mean = |metric: &str| summary.metrics.iter().find(|m| m.metric == metric).map(|m| m.mean);
        assert_eq!(mean("sensitivity"), Some(0.5));
        assert_eq!(mean("false_positives_per_healthy_scan"), Some(0.5));
        assert_eq!(mean("sensitivity_below_5_mm"), None);
        assert!((mean("dice").unwrap() - 1.0 / 3.0).abs() < 1e-12);
    }
}
