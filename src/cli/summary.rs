//! The summary of a run as text.

use std::collections::BTreeMap;

use crate::dataflow::RunReport;
use crate::id::ScanId;
use crate::inference::InferencePhase;

use super::print::pluralize;

/// Maximum number of scan ids in a line.
const MAX_LISTED_SCANS: usize = 3;

/// Formats the report of a run as text.
pub(super) struct Summary<'a>(pub &'a RunReport);

impl std::fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let report = self.0;
        let folder = report.folder.display();
        if report.processed_scans == 0 && report.removed_scans.is_empty() && report.graph_change.is_empty() {
            let committed = pluralize(report.scans as usize, "scan");
            let reason = match report.left_out_scans {
                0 => format!("no new or changed scans; {committed} committed"),
                left_out => {
                    format!("{} left out by `--limit`; {committed} committed", pluralize(left_out as usize, "scan"))
                }
            };
            writeln!(f, "{}: nothing to do: {reason}", report.pipeline)?;
        } else {
            let rate = report.processed_scans as f64 / report.seconds.max(1e-3);
            let (scans, seconds) = (pluralize(report.processed_scans as usize, "scan"), report.seconds);
            writeln!(f, "{}: {scans} in {seconds:.1} s, {rate:.2} per second", report.pipeline)?;
        }
        writeln!(f)?;
        self.table(f)?;
        self.reasons(f)?;
        if report.negatives > 0 {
            writeln!(f, "{} without a synthetic tumor\n", pluralize(report.negatives as usize, "sample"))?;
        }
        self.failures(f)?;
        self.networks(f)?;
        if report.duplicates > 0 {
            writeln!(f, "skipped {} of other scans\n", pluralize(report.duplicates as usize, "duplicate"))?;
        }
        if report.scans_without_organs > 0 {
            writeln!(
                f,
                "{} without any of the requested organs (in the table `scans`: status done, organs empty)\n",
                pluralize(report.scans_without_organs as usize, "scan")
            )?;
        }
        self.changes(f)?;
        self.expectations(f)?;
        writeln!(f, "Outputs:")?;
        for (name, path) in &report.layouts {
            writeln!(f, "  {name:<16}{}", path.display())?;
        }
        writeln!(f, "  {:<16}freetumor files {folder} samples", "tables")?;
        writeln!(f, "  {:<16}{folder}", "run folder")?;
        match &report.contact_sheet {
            Some(path) => writeln!(f, "  {:<16}{} (left: accepted, right: rejected)", "contact sheet", path.display()),
            None => Ok(()),
        }
    }
}

impl Summary<'_> {
    /// Prints accepted and rejected attempts by organ and size class.
    fn table(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut rows: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
        for group in &self.0.quality {
            let (accepted, rejected) = rows.entry((&group.group.organ, class(&group.group.size_class))).or_default();
            *(if group.group.reason.is_none() { accepted } else { rejected }) += group.count;
        }
        if rows.is_empty() {
            return Ok(());
        }
        writeln!(f, "  {:<12}{:<10}{:>10}{:>10}{:>8}", "organ", "size", "accepted", "rejected", "share")?;
        let (mut all_accepted, mut all_rejected) = (0, 0);
        for ((organ, size), (accepted, rejected)) in &rows {
            let share = percent(*accepted, accepted + rejected);
            writeln!(f, "  {organ:<12}{size:<10}{accepted:>10}{rejected:>10}{share:>8}")?;
            all_accepted += accepted;
            all_rejected += rejected;
        }
        let share = percent(all_accepted, all_accepted + all_rejected);
        writeln!(f, "  {:<12}{:<10}{all_accepted:>10}{all_rejected:>10}{share:>8}\n", "all", "")
    }

    /// Prints the scans that changed, were removed or were processed again in this run.
    fn changes(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let report = self.0;
        let lines = [
            (&report.changed_scans, "changed since the last run, processed again"),
            (&report.affected_scans, "affected by the change of the graph or of the held-out scans, processed again"),
            (&report.retested_scans, "tested again with stored scores"),
            (
                &report.retried_scans,
                "pending, failed in an earlier version, or duplicates of changed scans, processed again",
            ),
            (&report.removed_scans, "no longer in their source, removed with their samples"),
        ];
        let lines: Vec<_> = lines.into_iter().filter(|(scans, _)| !scans.is_empty()).collect();
        if let [first, rest @ ..] = &report.graph_change[..] {
            let more = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
            writeln!(f, "the graph changed: {first}{more}")?;
        }
        for (scans, change) in &lines {
            writeln!(f, "{}: {change} ({})", pluralize(scans.len(), "scan"), listed(scans))?;
        }
        if lines.is_empty() && report.graph_change.is_empty() { Ok(()) } else { writeln!(f) }
    }

    /// Prints the results of the expectations, the failed ones first.
    fn expectations(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let results = &self.0.expectations;
        if results.is_empty() {
            return Ok(());
        }
        let failed = results.iter().filter(|result| !result.is_met).count();
        writeln!(f, "Expectations: {failed} of {} failed", results.len())?;
        for (is_met, word) in [(false, "failed"), (true, "met")] {
            results
                .iter()
                .filter(|result| result.is_met == is_met)
                .try_for_each(|result| writeln!(f, "  {word:<8}{result}"))?;
        }
        writeln!(f)
    }

    /// Prints the failed and pending scans, of this run and in all.
    fn failures(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let report = self.0;
        if report.failed_scans > 0 {
            let (scans, faults) = (report.failed_scans as usize, report.faults as usize);
            let (scans, faults) = (pluralize(scans, "scan"), pluralize(faults, "fault"));
            let now = report.newly_failed_scans.len();
            let of_run =
                if now == report.failed_scans as usize { String::new() } else { format!(", {now} in this run") };
            writeln!(f, "{scans} failed with {faults}{of_run} (see the table `faults`):")?;
            for (kind, count) in &report.fault_kinds {
                writeln!(f, "  {count:>6}  {kind}")?;
            }
            writeln!(f, "  freetumor scans {} --failed --paths lists their paths", report.folder.display())?;
            writeln!(f)?;
        }
        if report.pending_scans > 0 {
            let scans = pluralize(report.pending_scans as usize, "scan");
            writeln!(f, "{scans} pending: run the same command again to process them\n")?;
        }
        Ok(())
    }

    /// Prints the device time of the networks per attempt.
    fn networks(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let report = self.0;
        if report.networks.is_empty() {
            return Ok(());
        }
        writeln!(f, "  {:<16}{:<10}{:>9}{:>13}{:>15}", "network", "phase", "windows", "seconds", "per attempt")?;
        let attempts = report.new_attempts.max(1) as f64;
        for cost in &report.networks {
            let phase = match cost.phase {
                InferencePhase::Mask => "scans",
                InferencePhase::Generate => "sites",
                InferencePhase::Before => "before",
                InferencePhase::After => "after",
            };
            let seconds = cost.cost.device_seconds;
            let (node, windows, each) = (&cost.node, cost.cost.windows, seconds / attempts);
            writeln!(f, "  {node:<16}{phase:<10}{windows:>9}{seconds:>13.2}{each:>15.3}")?;
        }
        let other = report.other_seconds;
        writeln!(f, "  {:<16}{:<10}{:>9}{other:>13.2}{:>15.3}", "other", "", "", other / attempts)?;
        let [device, processors] = [report.device_busy_share, report.processors_busy_share].map(|share| 100.0 * share);
        writeln!(f, "  the device was busy {device:.0}% of the time, the processors {processors:.0}%\n")
    }

    /// Prints the number of rejections by reason.
    fn reasons(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
        for group in &self.0.quality {
            if let Some(reason) = &group.group.reason {
                *reasons.entry(reason).or_default() += group.count;
            }
        }
        if reasons.is_empty() {
            return Ok(());
        }
        let mut reasons: Vec<_> = reasons.into_iter().collect();
        reasons.sort_by_key(|&(reason, count)| (std::cmp::Reverse(count), reason));
        writeln!(f, "Rejected attempts by reason (the condition that failed):")?;
        for (reason, count) in reasons {
            writeln!(f, "  {count:>6}  {reason}")?;
        }
        writeln!(f)
    }
}

/// Returns the first ids of a list, with the number of the others.
fn listed(scans: &[ScanId]) -> String {
    let mut text: Vec<String> = scans.iter().take(MAX_LISTED_SCANS).map(ScanId::to_string).collect();
    if scans.len() > MAX_LISTED_SCANS {
        text.push(format!("and {} more", scans.len() - MAX_LISTED_SCANS));
    }
    text.join(", ")
}

fn class(name: &str) -> &str {
    if name.is_empty() { "no site" } else { name }
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".into() } else { format!("{:.0}%", 100.0 * part as f64 / whole as f64) }
}
