//! The report: tables, a plot and a page.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use freetumor::error::Result;
use freetumor::evaluate::metrics::{
    CaseRow, Difference, EvaluationPlan, Interval, Metric, Resamples, Series, Summary, cases_table, lesions_table,
    plot, series, summarize,
};
use freetumor::random::Key;
use serde::Serialize;

use super::arms::ArmData;
use super::config::{FILTERED, ORACLE, PRIMARY, REAL_ONLY, Round};
use super::evaluation::organ;
use super::gate::GateResult;
use super::measures::{self, FinishedNetworks};
use super::workspace::{Workspace, print_status};

/// The content of `results.json`.
#[derive(Debug, Serialize)]
pub struct Results {
    /// A digest of the settings that all networks share.
    pub settings_sha256: String,
    pub gate: GateResult,
    /// Dice of every network, by arm and seed.
    pub dice_by_seed: BTreeMap<String, Vec<f64>>,
    /// The synthetic tumors of arms, by arm and seed.
    #[serde(rename = "made")]
    pub arm_data: BTreeMap<String, Vec<ArmData>>,
    /// Arms without predictions.
    pub missing: Vec<String>,
    /// Every arm and metric, and the two primary differences with Holm's correction.
    pub primary: Summary,
    /// The two differences of each further round, with a separate correction.
    pub rounds: Vec<RoundResults>,
    /// The other differences, with a separate correction.
    pub secondary: Summary,
    /// The differences with an arm of one network. The variance of such an arm is unknown, so that p values are not valid.
    pub single: Vec<Difference>,
    /// The share of the gap in Dice between real only and the oracle that each other arm closes; empty if the oracle is not above
    /// real only.
    pub gap_closed: BTreeMap<String, GapClosed>,
}

/// The results of a further round.
#[derive(Debug, Serialize)]
pub struct RoundResults {
    /// The filter and how it was chosen.
    pub filter: String,
    pub comparisons: Vec<Difference>,
}

/// The closed share of the gap between real only and the oracle.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GapClosed {
    pub share: f64,
    /// The interval of the share, over resamples with a gap.
    pub interval: Option<Interval>,
    /// The share of resamples without a gap.
    pub without_gap: f64,
}

/// Writes the report of all arms, or of the named arms; the page then lists the other arms as not finished.
///
/// # Errors
/// Returns an error if an arm is not finished, or a file cannot be written.
pub fn report(workspace: &Workspace, gate: GateResult, names: &[String]) -> Result<()> {
    let networks = FinishedNetworks::read(workspace)?.of_arms(workspace, names)?;
    if names.is_empty() {
        workspace.write(&measures::table_path(workspace), &measures::encode(&networks)?)?;
    }
    let (mut rows, mut arm_data) = (Vec::new(), BTreeMap::new());
    for measures in networks {
        rows.extend(measures.cases);
        arm_data.entry(measures.arm).or_insert_with(Vec::new).push(measures.arm_data);
    }
    let (plan, results) = results(workspace, &rows, gate, arm_data)?;
    // A report of some arms does not replace the report of all arms.
    let out = if names.is_empty() { workspace.out.clone() } else { workspace.out.join("partial") };
    write(workspace, &out, &plan, &rows, &results)?;
    print_status(&format!("results: {}", out.join("results.md").display()));
    Ok(())
}

/// Summarizes the rows of all arms.
fn results(
    workspace: &Workspace,
    rows: &[CaseRow],
    gate: GateResult,
    arm_data: BTreeMap<String, Vec<ArmData>>,
) -> Result<(EvaluationPlan, Results)> {
    let experiment = &workspace.experiment;
    let indices = |[first, second]: [&str; 2]| Some([experiment.arm_index(first)?, experiment.arm_index(second)?]);
    let plan = |comparisons| EvaluationPlan {
        arms: experiment.arms.iter().map(|arm| (arm.name.clone(), arm.seeds)).collect(),
        organs: vec![organ()],
        comparisons,
        resamples: experiment.resamples,
        key: Key::root(experiment.seeds.resamples).with("gain", "resamples"),
    };
    let primary = plan(PRIMARY.into_iter().filter_map(indices).collect());
    let round = |round: &Round| {
        let pairs = round.differences.iter().filter_map(|[first, second]| indices([first, second]));
        let comparisons = summarize(&plan(pairs.collect()), rows).comparisons;
        RoundResults { filter: round.filter.clone(), comparisons }
    };
    let others = experiment.secondary.iter().filter_map(|[first, second]| indices([first, second]));
    let (single, several): (Vec<_>, Vec<_>) =
        others.partition(|pair| pair.iter().any(|arm| experiment.arms[*arm].seeds == 1));
    let is_missing = |name: &&String| !arm_data.contains_key(*name);
    let results = Results {
        missing: experiment.arms.iter().map(|arm| &arm.name).filter(is_missing).cloned().collect(),
        settings_sha256: experiment.digest()?,
        gate,
        arm_data,
        primary: summarize(&primary, rows),
        rounds: experiment.rounds.iter().map(round).collect(),
        secondary: summarize(&plan(several), rows),
        single: summarize(&plan(single), rows).comparisons,
        gap_closed: gaps_closed(workspace, &primary, rows),
        dice_by_seed: dice_by_seed(&primary, rows),
    };
    Ok((primary, results))
}

/// Returns the mean Dice of every network.
fn dice_by_seed(plan: &EvaluationPlan, rows: &[CaseRow]) -> BTreeMap<String, Vec<f64>> {
    let (_, dice) = series(plan, rows, 0, Metric::Dice);
    let means =
        |series: &Series| series.0.iter().filter_map(|seed| Series(vec![seed.clone()]).mean()).collect::<Vec<_>>();
    plan.arms.iter().zip(&dice).map(|((name, _), series)| (name.clone(), means(series))).collect()
}

/// Returns the closed share of the gap for every arm.
fn gaps_closed(workspace: &Workspace, plan: &EvaluationPlan, rows: &[CaseRow]) -> BTreeMap<String, GapClosed> {
    let index = |name| workspace.experiment.arm_index(name);
    let (Some(real_only), Some(oracle)) = (index(REAL_ONLY), index(ORACLE)) else { return BTreeMap::new() };
    let (resamples, dice) = series(plan, rows, 0, Metric::Dice);
    let between = plan.arms.iter().zip(&dice).enumerate().filter(|(arm, _)| ![real_only, oracle].contains(arm));
    let each = between.filter_map(|(_, ((name, _), arm))| {
        Some((name.clone(), gap_closed(&resamples, [arm, &dice[real_only], &dice[oracle]])?))
    });
    each.collect()
}

/// Returns the share of the gap between `real_only` and `oracle` that `arm` closes; `None` without a gap.
pub fn gap_closed(resamples: &Resamples, [arm, real_only, oracle]: [&Series; 3]) -> Option<GapClosed> {
    let share =
        |arm: f64, real_only: f64, oracle: f64| (oracle > real_only).then(|| (arm - real_only) / (oracle - real_only));
    let mean_share = share(arm.mean()?, real_only.mean()?, oracle.mean()?)?;
    let [arm, real_only, oracle] = [arm, real_only, oracle].map(|series| resamples.means(series));
    let each = arm.iter().zip(&real_only).zip(&oracle);
    let shares: Vec<f64> = each.filter_map(|((arm, real), oracle)| share(*arm, *real, *oracle)).collect();
    let without_gap = 1.0 - shares.len() as f64 / arm.len().max(1) as f64;
    Some(GapClosed { share: mean_share, interval: Interval::of(&shares), without_gap })
}

/// Writes all files of the report.
fn write(workspace: &Workspace, out: &Path, plan: &EvaluationPlan, rows: &[CaseRow], results: &Results) -> Result<()> {
    workspace.write(&out.join("cases.parquet"), &cases_table(plan, rows)?)?;
    workspace.write(&out.join("lesions.parquet"), &lesions_table(plan, rows)?)?;
    workspace.write(&out.join("plot.png"), &plot(&results.primary, &organ().name)?.to_png()?)?;
    workspace.write(&out.join("results.md"), page(results).as_bytes())?;
    workspace.write_json(&out.join("results.json"), results)
}

/// Returns the page in Markdown.
pub fn page(results: &Results) -> String {
    let mut text = String::from("# The value of the filter\n\n");
    text += "Written by `cargo run --release --example gain`; intervals contain 95% of resamples of patients and seeds.\n\n";
    let Results { settings_sha256, gate, .. } = results;
    // Writing to a string cannot fail.
    let _ = writeln!(text, "Settings `{settings_sha256}`; every network was evaluated once on the test set.\n");
    if !results.missing.is_empty() {
        let _ = writeln!(text, "Not finished yet: {}.\n", results.missing.join(", "));
    }
    let numbers = |values: &[f64]| values.iter().map(|value| format!("{value:.1}")).collect::<Vec<_>>().join(", ");
    let (oracle, real_only) = (numbers(&gate.oracle_dsc), numbers(&gate.real_only_dsc));
    let state = if gate.is_open { "open" } else { "closed" };
    let _ =
        writeln!(text, "Gate, DSC on validation by tuning seed: oracle {oracle}; real only {real_only}: {state}.\n");
    write_answers(&mut text, results);
    write_arms(&mut text, results);
    write_differences(&mut text, "Primary differences", &results.primary.comparisons, true);
    for (number, round) in (2..).zip(&results.rounds) {
        write_differences(&mut text, &format!("Differences of round {number}"), &round.comparisons, true);
    }
    write_differences(&mut text, "Secondary differences", &results.secondary.comparisons, true);
    write_differences(&mut text, "Differences with one network", &results.single, false);
    write_arm_data(&mut text, results);
    text
}

/// Writes the answers to the two questions for every round.
fn write_answers(text: &mut String, results: &Results) {
    text.push_str("## Answers\n\nThe answers are by Dice; the other metrics are in the tables.\n\n");
    let questions = [
        "Do filtered tumors help, compared with real tumors only?",
        "Does the filter help, beyond the number and the sizes of the tumors that pass?",
    ];
    for (question, [first, second]) in questions.into_iter().zip(PRIMARY) {
        let mut rows = results.primary.comparisons.iter();
        let difference = rows.find(|row| row.metric == Metric::Dice.name() && row.arm == first && row.minus == second);
        let _ = writeln!(text, "- {question} **{}**", difference.map_or("Not measured.".to_owned(), answer));
    }
    write_gap(text, results, FILTERED);
    for (number, round) in (2..).zip(&results.rounds) {
        let _ = writeln!(text, "Round {number}, with another filter: {}.\n", round.filter);
        let rows = round.comparisons.iter().filter(|row| row.metric == Metric::Dice.name());
        for (question, row) in questions.into_iter().zip(rows) {
            let _ = writeln!(text, "- {question} `{}` - `{}`: **{}**", row.arm, row.minus, answer(row));
        }
        if let Some(difference) = round.comparisons.first() {
            write_gap(text, results, &difference.arm);
        }
    }
}

/// Writes the share of the gap that an arm closes.
fn write_gap(text: &mut String, results: &Results, arm: &str) {
    let answer = match results.gap_closed.get(arm) {
        None if [arm, REAL_ONLY, ORACLE].iter().any(|arm| !results.arm_data.contains_key(*arm)) => {
            "Not measured.".to_owned()
        }
        None => "There is no gap: the oracle is not above real only.".to_owned(),
        Some(gap) => gap.format(),
    };
    let _ = writeln!(text, "- Which share of the gap to the oracle do they close? **{answer}**\n");
}

impl GapClosed {
    fn format(&self) -> String {
        let bounds = self.interval.map_or("unknown".to_owned(), percent);
        let without = 100.0 * self.without_gap;
        format!("{:.0}%, {bounds}; no gap in {without:.1}% of resamples.", 100.0 * self.share)
    }
}

/// Returns the answer from a difference in Dice.
fn answer(row: &Difference) -> String {
    let conclusion = match (row.interval.low > 0.0, row.interval.high < 0.0, row.p_holm < 0.05) {
        (true, _, true) => "Yes",
        (_, true, true) => "No, it harms",
        _ => "Not shown",
    };
    let (difference, interval, p) = (100.0 * row.difference, percent(row.interval), row.p_holm);
    format!("{conclusion}: {difference:+.1} DSC, {interval}, p {p:.4} (Holm).")
}

/// Formats an interval in percent.
fn percent(interval: Interval) -> String {
    format!("[{:.1}, {:.1}]", 100.0 * interval.low, 100.0 * interval.high)
}

/// Writes the table of arms.
fn write_arms(text: &mut String, results: &Results) {
    let summary = &results.primary;
    text.push_str("## Arms\n\nShares in percent; false positives per healthy scan.\n\n| arm | seeds |");
    let is_measured = |metric: &Metric| summary.metrics.iter().any(|row| row.kind == *metric);
    let metrics: Vec<Metric> = Metric::ALL.into_iter().filter(is_measured).collect();
    for metric in &metrics {
        let _ = write!(text, " {} |", metric.name().replace('_', " "));
    }
    let _ = writeln!(
        text,
        " share of the gap to the oracle | dice by seed |\n|---|---|{}---|---|",
        "---|".repeat(metrics.len())
    );
    for arm in summary.arms.iter().filter(|arm| arm.cases > 0) {
        let _ = write!(text, "| {} | {} |", arm.arm, arm.seeds);
        for metric in &metrics {
            let row = summary.metrics.iter().find(|row| row.arm == arm.arm && row.kind == *metric);
            let cell = row.map_or(String::new(), |row| match metric {
                Metric::FalsePositives => {
                    format!("{:.2} [{:.2}, {:.2}]", row.mean, row.interval.low, row.interval.high)
                }
                _ => format!("{:.1} {}", 100.0 * row.mean, percent(row.interval)),
            });
            let _ = write!(text, " {cell} |");
        }
        let gap = results.gap_closed.get(&arm.arm).and_then(|gap| Some((gap.share, gap.interval?)));
        let share = gap.map_or("-".to_owned(), |(share, bounds)| format!("{:.1} {}", 100.0 * share, percent(bounds)));
        let seeds = results.dice_by_seed.get(&arm.arm).into_iter().flatten();
        let seeds: Vec<String> = seeds.map(|dice| format!("{:.1}", 100.0 * dice)).collect();
        let _ = writeln!(text, " {share} | {} |", seeds.join(", "));
    }
    text.push('\n');
}

/// Writes a table of differences, with p values if all arms have several networks.
fn write_differences(text: &mut String, title: &str, rows: &[Difference], with_p: bool) {
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

/// Writes the table of the synthetic tumors of each arm.
fn write_arm_data(text: &mut String, results: &Results) {
    text.push_str(
        "## Synthetic tumors of the arms\n\nOf the first seed; thinned arms have other tumors for each seed. Passing: tumors that pass the filter of \
         the arm; for a thinned arm, tumors that are also in the filtered arm.\n\n",
    );
    text.push_str(
        "| arm | tumors | of the pool | passing | diameter (mm) | change (HU) | found | found, held out |\n|---|---|---|---|---|---|---|---|\n",
    );
    for arm in &results.primary.arms {
        let Some(data) = results.arm_data.get(&arm.arm).and_then(|seeds| seeds.first()) else { continue };
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        let tumors = data.tumors.map_or("-".to_owned(), |tumors| tumors.to_string());
        let share_of = |part: Option<usize>, of: Option<usize>| {
            let share = part.zip(of).map(|(part, of)| 100.0 * part as f64 / of as f64);
            share.map_or("-".to_owned(), |share| format!("{share:.0}%"))
        };
        let (share, passing) = (share_of(data.tumors, data.of), share_of(data.passing, data.tumors));
        let (diameter, delta) = (number(data.mean_diameter_mm), number(data.mean_delta_hu));
        let (found, held_out) = (number(data.mean_found_fraction), number(data.mean_held_out_found_fraction));
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
    fn gap_closed_returns_share_between_real_only_and_oracle() {
        let resamples = Resamples::new(Key::root(1), 100, 20);
        let closed = |filtered, oracle| gap_closed(&resamples, [&series(filtered), &series(0.3), &series(oracle)]);
        let half = closed(0.45, 0.6).unwrap();
        assert!((half.share - 0.5).abs() < 1e-9 && half.without_gap == 0.0);
        let Interval { low, high } = half.interval.unwrap();
        assert!((low - 0.5).abs() < 1e-9 && (high - 0.5).abs() < 1e-9, "patients shift all arms equally");
        assert!(closed(0.2, 0.6).unwrap().share < 0.0, "a harmful arm has a negative share");
        assert_eq!(closed(0.45, 0.3), None);
    }
}
