//! What came of it: tables, a plot, and a page to read, whichever way it falls.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use freetumor::error::Result;
use freetumor::evaluate::metrics::{
    CaseRow, Difference, EvaluationPlan, Interval, Metric, Resamples, Series, Summary, cases_table, lesions_table,
    plot, series, summarise,
};
use freetumor::random::Key;
use serde::Serialize;

use super::arms::Made;
use super::config::{FILTERED, ORACLE, PRIMARY, REAL_ONLY, Round};
use super::evaluation::organ;
use super::gate::Passage;
use super::lab::{Lab, say};
use super::test_set::all_seen;

/// The results.
#[derive(Debug, Serialize)]
pub struct Results {
    /// The settings that all networks share, as a digest.
    pub settings_sha256: String,
    pub gate: Passage,
    /// Dice of every network, by arm and seed.
    pub dice_by_seed: BTreeMap<String, Vec<f64>>,
    /// What arms were trained on, by arm and seed.
    pub made: BTreeMap<String, Vec<Made>>,
    /// Arms of which nothing is known yet.
    pub missing: Vec<String>,
    /// Every arm and metric, and the two primary differences with Holm's correction between them.
    pub primary: Summary,
    /// The two differences of each further round, with a correction of their own.
    pub rounds: Vec<RoundResults>,
    /// The other differences, with a correction of their own.
    pub secondary: Summary,
    /// Those with an arm of one network. Nothing is known of how such an arm varies, so their p is not to be looked at.
    pub single: Vec<Difference>,
    /// The part of the way from real only to the oracle that each other arm goes, in Dice; of none where the oracle is not above
    /// real only.
    pub gap_closed: BTreeMap<String, GapClosed>,
}

/// What came of a further round.
#[derive(Debug, Serialize)]
pub struct RoundResults {
    /// Which filter, and what was known when it was chosen.
    pub filter: String,
    pub comparisons: Vec<Difference>,
}

/// A share of the oracle's gap.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GapClosed {
    pub share: f64,
    /// Its bounds, over resamples in which there is a gap.
    pub interval: Option<Interval>,
    /// The share of resamples in which there is none.
    pub without_gap: f64,
}

/// Reports what all networks did, or those of some arms; the others are then said to be missing.
///
/// # Errors
/// Returns an error if one of them is not finished, or nothing can be written.
pub fn report(lab: &Lab, gate: Passage, names: &[String]) -> Result<()> {
    let (mut rows, mut made) = (Vec::new(), BTreeMap::new());
    for seen in all_seen(lab, names)? {
        rows.extend(seen.cases);
        made.entry(seen.arm).or_insert_with(Vec::new).push(seen.made);
    }
    let (plan, results) = results(lab, &rows, gate, made)?;
    // What is told of some arms does not take the place of what is told of all.
    let out = if names.is_empty() { lab.out.clone() } else { lab.out.join("partial") };
    write(lab, &out, &plan, &rows, &results)?;
    say(&format!("results: {}", out.join("results.md").display()));
    Ok(())
}

/// What the rows of all arms say.
fn results(
    lab: &Lab,
    rows: &[CaseRow],
    gate: Passage,
    made: BTreeMap<String, Vec<Made>>,
) -> Result<(EvaluationPlan, Results)> {
    let experiment = &lab.experiment;
    let places = |[one, other]: [&str; 2]| Some([experiment.place(one)?, experiment.place(other)?]);
    let plan = |comparisons| EvaluationPlan {
        arms: experiment.arms.iter().map(|arm| (arm.name.clone(), arm.seeds)).collect(),
        organs: vec![organ()],
        comparisons,
        resamples: experiment.resamples,
        key: Key::root(experiment.seeds.resamples).with("gain", "resamples"),
    };
    let primary = plan(PRIMARY.into_iter().filter_map(places).collect());
    let round = |round: &Round| {
        let pairs = round.differences.iter().filter_map(|[one, other]| places([one, other]));
        let comparisons = summarise(&plan(pairs.collect()), rows).comparisons;
        RoundResults { filter: round.filter.clone(), comparisons }
    };
    let others = experiment.secondary.iter().filter_map(|[one, other]| places([one, other]));
    let (single, several): (Vec<_>, Vec<_>) =
        others.partition(|pair| pair.iter().any(|arm| experiment.arms[*arm].seeds == 1));
    let is_missing = |name: &&String| !made.contains_key(*name);
    let results = Results {
        missing: experiment.arms.iter().map(|arm| &arm.name).filter(is_missing).cloned().collect(),
        settings_sha256: experiment.digest()?,
        gate,
        made,
        primary: summarise(&primary, rows),
        rounds: experiment.rounds.iter().map(round).collect(),
        secondary: summarise(&plan(several), rows),
        single: summarise(&plan(single), rows).comparisons,
        gap_closed: gaps_closed(lab, &primary, rows),
        dice_by_seed: dice_by_seed(&primary, rows),
    };
    Ok((primary, results))
}

/// The mean of every network.
fn dice_by_seed(plan: &EvaluationPlan, rows: &[CaseRow]) -> BTreeMap<String, Vec<f64>> {
    let (_, dice) = series(plan, rows, 0, Metric::Dice);
    let each = |of: &Series| of.0.iter().filter_map(|seed| Series(vec![seed.clone()]).mean()).collect::<Vec<_>>();
    plan.arms.iter().zip(&dice).map(|((name, _), of)| (name.clone(), each(of))).collect()
}

/// How far every arm goes from real only to the oracle.
fn gaps_closed(lab: &Lab, plan: &EvaluationPlan, rows: &[CaseRow]) -> BTreeMap<String, GapClosed> {
    let place = |name| lab.experiment.place(name);
    let (Some(real_only), Some(oracle)) = (place(REAL_ONLY), place(ORACLE)) else { return BTreeMap::new() };
    let (resamples, dice) = series(plan, rows, 0, Metric::Dice);
    let between = plan.arms.iter().zip(&dice).enumerate().filter(|(arm, _)| ![real_only, oracle].contains(arm));
    let each = between.filter_map(|(_, ((name, _), arm))| {
        Some((name.clone(), gap_closed(&resamples, [arm, &dice[real_only], &dice[oracle]])?))
    });
    each.collect()
}

/// The share of the gap between the second and the third series that the first closes.
pub fn gap_closed(resamples: &Resamples, [arm, real_only, oracle]: [&Series; 3]) -> Option<GapClosed> {
    let share =
        |arm: f64, real_only: f64, oracle: f64| (oracle > real_only).then(|| (arm - real_only) / (oracle - real_only));
    let all = share(arm.mean()?, real_only.mean()?, oracle.mean()?)?;
    let [arm, real_only, oracle] = [arm, real_only, oracle].map(|series| resamples.means(series));
    let each = arm.iter().zip(&real_only).zip(&oracle);
    let shares: Vec<f64> = each.filter_map(|((arm, real), oracle)| share(*arm, *real, *oracle)).collect();
    let without_gap = 1.0 - shares.len() as f64 / arm.len().max(1) as f64;
    Some(GapClosed { share: all, interval: Interval::of(&shares), without_gap })
}

/// Writes everything.
fn write(lab: &Lab, out: &Path, plan: &EvaluationPlan, rows: &[CaseRow], results: &Results) -> Result<()> {
    lab.write(&out.join("cases.parquet"), &cases_table(plan, rows)?)?;
    lab.write(&out.join("lesions.parquet"), &lesions_table(plan, rows)?)?;
    lab.write(&out.join("plot.png"), &plot(&results.primary, &organ().name)?.to_png()?)?;
    lab.write(&out.join("results.md"), page(results).as_bytes())?;
    lab.write_json(&out.join("results.json"), results)
}

/// The page.
pub fn page(results: &Results) -> String {
    let mut text = String::from("# What the filter is worth\n\n");
    text +=
        "Written by `cargo run --release --example gain`; intervals hold 95% of resamples of patients and seeds.\n\n";
    let Results { settings_sha256, gate, .. } = results;
    // Writing to a string cannot fail.
    let _ = writeln!(text, "Settings `{settings_sha256}`; every network saw the test set once.\n");
    if !results.missing.is_empty() {
        let _ = writeln!(text, "Not finished yet: {}.\n", results.missing.join(", "));
    }
    let numbers = |values: &[f64]| values.iter().map(|value| format!("{value:.1}")).collect::<Vec<_>>().join(", ");
    let (oracle, real_only) = (numbers(&gate.oracle_dsc), numbers(&gate.real_only_dsc));
    let state = if gate.is_open { "open" } else { "shut" };
    let _ =
        writeln!(text, "Gate, DSC on validation by tuning seed: oracle {oracle}; real only {real_only}: {state}.\n");
    verdicts(&mut text, results);
    arms(&mut text, results);
    differences(&mut text, "Primary differences", &results.primary.comparisons, true);
    for (number, round) in (2..).zip(&results.rounds) {
        differences(&mut text, &format!("Differences of round {number}"), &round.comparisons, true);
    }
    differences(&mut text, "Secondary differences", &results.secondary.comparisons, true);
    differences(&mut text, "Differences with one network", &results.single, false);
    made(&mut text, results);
    text
}

/// The two questions, answered by every round.
fn verdicts(text: &mut String, results: &Results) {
    text.push_str("## Answers\n\nDice decides; the other metrics stand beside it.\n\n");
    let questions = [
        "Do the filter's tumors help, beside real ones alone?",
        "Does the filter help, beyond the number and the sizes of what it lets pass?",
    ];
    for (question, [one, other]) in questions.into_iter().zip(PRIMARY) {
        let mut rows = results.primary.comparisons.iter();
        let found = rows.find(|it| it.metric == Metric::Dice.name() && it.arm == one && it.minus == other);
        let _ = writeln!(text, "- {question} **{}**", found.map_or("Not measured.".to_owned(), verdict));
    }
    gap(text, results, FILTERED);
    for (number, round) in (2..).zip(&results.rounds) {
        let _ = writeln!(text, "Round {number}, of another filter: {}.\n", round.filter);
        let rows = round.comparisons.iter().filter(|row| row.metric == Metric::Dice.name());
        for (question, found) in questions.into_iter().zip(rows) {
            let _ = writeln!(text, "- {question} `{}` - `{}`: **{}**", found.arm, found.minus, verdict(found));
        }
        if let Some(found) = round.comparisons.first() {
            gap(text, results, &found.arm);
        }
    }
}

/// How far the tumors of a filter go.
fn gap(text: &mut String, results: &Results, arm: &str) {
    let answer = match results.gap_closed.get(arm) {
        None if [arm, REAL_ONLY, ORACLE].iter().any(|arm| !results.made.contains_key(*arm)) => {
            "Not measured.".to_owned()
        }
        None => "There is no gap: the oracle is not above real only.".to_owned(),
        Some(gap) => gap.told(),
    };
    let _ = writeln!(text, "- How much of the way to the oracle do they go? **{answer}**\n");
}

impl GapClosed {
    fn told(&self) -> String {
        let bounds = self.interval.map_or("unknown".to_owned(), percent);
        let without = 100.0 * self.without_gap;
        format!("{:.0}%, {bounds}; no gap in {without:.1}% of resamples.", 100.0 * self.share)
    }
}

/// What a difference in Dice says.
fn verdict(found: &Difference) -> String {
    let word = match (found.interval.low > 0.0, found.interval.high < 0.0, found.p_holm < 0.05) {
        (true, _, true) => "Yes",
        (_, true, true) => "No, it harms",
        _ => "Not shown",
    };
    format!("{word}: {:+.1} DSC, {}, p {:.4} (Holm).", 100.0 * found.difference, percent(found.interval), found.p_holm)
}

/// Bounds in percent.
fn percent(interval: Interval) -> String {
    format!("[{:.1}, {:.1}]", 100.0 * interval.low, 100.0 * interval.high)
}

fn arms(text: &mut String, results: &Results) {
    let summary = &results.primary;
    text.push_str("## Arms\n\nShares in percent; false positives are counted a healthy scan.\n\n| arm | seeds |");
    let told = |metric: &Metric| summary.metrics.iter().any(|row| row.kind == *metric);
    let metrics: Vec<Metric> = Metric::ALL.into_iter().filter(told).collect();
    for metric in &metrics {
        let _ = write!(text, " {} |", metric.name().replace('_', " "));
    }
    let _ =
        writeln!(text, " of the way to the oracle | dice by seed |\n|---|---|{}---|---|", "---|".repeat(metrics.len()));
    for arm in summary.arms.iter().filter(|arm| arm.cases > 0) {
        let _ = write!(text, "| {} | {} |", arm.arm, arm.seeds);
        for metric in &metrics {
            let found = summary.metrics.iter().find(|row| row.arm == arm.arm && row.kind == *metric);
            let cell = found.map_or(String::new(), |row| match metric {
                Metric::FalsePositives => {
                    format!("{:.2} [{:.2}, {:.2}]", row.mean, row.interval.low, row.interval.high)
                }
                _ => format!("{:.1} {}", 100.0 * row.mean, percent(row.interval)),
            });
            let _ = write!(text, " {cell} |");
        }
        let gap = results.gap_closed.get(&arm.arm).and_then(|gap| Some((gap.share, gap.interval?)));
        let way = gap.map_or("-".to_owned(), |(share, bounds)| format!("{:.1} {}", 100.0 * share, percent(bounds)));
        let seeds = results.dice_by_seed.get(&arm.arm).into_iter().flatten();
        let seeds: Vec<String> = seeds.map(|dice| format!("{:.1}", 100.0 * dice)).collect();
        let _ = writeln!(text, " {way} | {} |", seeds.join(", "));
    }
    text.push('\n');
}

/// A table of differences; with how probable they were, where several networks tell that.
fn differences(text: &mut String, title: &str, rows: &[Difference], with_p: bool) {
    let more = if with_p { [" p | Holm |", "---|---|"] } else { [""; 2] };
    let _ = writeln!(
        text,
        "## {title}\n\n| arms | metric | difference | interval |{}\n|---|---|---|---|{}",
        more[0], more[1]
    );
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by_key(|row| (row.arm.clone(), row.minus.clone()));
    for row in rows {
        let (arm, minus, metric) = (&row.arm, &row.minus, row.metric.replace('_', " "));
        let p = if with_p { format!(" {:.4} | {:.4} |", row.p, row.p_holm) } else { String::new() };
        let numbers = if row.metric == Metric::FalsePositives.name() {
            format!("{:+.2} | [{:.2}, {:.2}]", row.difference, row.interval.low, row.interval.high)
        } else {
            format!("{:+.1} | {}", 100.0 * row.difference, percent(row.interval))
        };
        let _ = writeln!(text, "| {arm} - {minus} | {metric} | {numbers} |{p}");
    }
    text.push('\n');
}

/// What each arm was trained on: where the filter does not help, this is where to look first.
fn made(text: &mut String, results: &Results) {
    text.push_str(
        "## What arms were trained on\n\nThe first seed's; thinned arms draw anew for each. Passing are those that the arm's filter lets pass: of \
         a thinned arm, those that it shares with the filtered one.\n\n",
    );
    text.push_str(
        "| arm | tumors | of the pool | passing | diameter (mm) | change (HU) | found | found, held out |\n|---|---|---|---|---|---|---|---|\n",
    );
    for arm in &results.primary.arms {
        let Some(made) = results.made.get(&arm.arm).and_then(|made| made.first()) else { continue };
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        let tumors = made.tumors.map_or("-".to_owned(), |tumors| tumors.to_string());
        let share_of = |part: Option<usize>, of: Option<usize>| {
            let share = part.zip(of).map(|(part, of)| 100.0 * part as f64 / of as f64);
            share.map_or("-".to_owned(), |share| format!("{share:.0}%"))
        };
        let (share, passing) = (share_of(made.tumors, made.of), share_of(made.passing, made.tumors));
        let (diameter, delta) = (number(made.mean_diameter_mm), number(made.mean_delta_hu));
        let (found, held_out) = (number(made.mean_found_fraction), number(made.mean_held_out_found_fraction));
        let _ = writeln!(
            text,
            "| {} | {tumors} | {share} | {passing} | {diameter} | {delta} | {found} | {held_out} |",
            arm.arm
        );
    }
}

#[cfg(test)]
mod tests {
    use freetumor::evaluate::metrics::WeightedSum;

    use super::*;

    fn series(value: f64) -> Series {
        Series(vec![(0..20).map(|patient| WeightedSum::of(Some(value + f64::from(patient) / 100.0))).collect(); 3])
    }

    #[test]
    fn the_gap_is_closed_as_far_as_the_filter_goes() {
        let resamples = Resamples::new(Key::root(1), 100, 20);
        let of = |filtered, oracle| gap_closed(&resamples, [&series(filtered), &series(0.3), &series(oracle)]);
        let half = of(0.45, 0.6).unwrap();
        assert!((half.share - 0.5).abs() < 1e-9 && half.without_gap == 0.0);
        let Interval { low, high } = half.interval.unwrap();
        assert!((low - 0.5).abs() < 1e-9 && (high - 0.5).abs() < 1e-9, "patients shift all arms alike");
        assert!(of(0.2, 0.6).unwrap().share < 0.0, "worse than nothing is said, too");
        assert_eq!(of(0.45, 0.3), None);
    }
}
