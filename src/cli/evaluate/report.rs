//! The summary as people read it.

use std::fmt;
use std::io::Write;

use serde::Serialize;

use super::measure::Problem;
use super::unprintable;
use crate::error::Result;
use crate::train::metrics::{Interval, Summary};

/// What the command says; the JSON that it prints.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Arms, metrics, comparisons.
    #[serde(flatten)]
    pub summary: Summary,
    /// Cases that could not be measured.
    pub problems: Vec<Problem>,
    /// Number of resamples behind every interval.
    pub resamples: u32,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.summary.arms.iter().map(|arm| arm.arm.len());
        let wide = names.max().unwrap_or(0).max(3);
        let organs = self.summary.arms.iter().map(|arm| arm.organ.len()).max().unwrap_or(0).max(5);
        writeln!(f, "{:<wide$}  {:<organs$}  seeds  cases  healthy  undefined  lesions  unmeasurable", "arm", "organ")?;
        for arm in &self.summary.arms {
            let unmeasurable: Vec<String> =
                arm.unmeasurable.iter().map(|(bin, count)| format!("{} mm: {count}", bin.name())).collect();
            let unmeasurable = if unmeasurable.is_empty() { "0".to_owned() } else { unmeasurable.join(", ") };
            writeln!(
                f,
                "{:<wide$}  {:<organs$}  {:>5}  {:>5}  {:>7}  {:>9}  {:>7}  {unmeasurable}",
                arm.arm, arm.organ, arm.seeds, arm.cases, arm.healthy, arm.undefined, arm.lesions
            )?;
        }
        if self.summary.arms.iter().any(|arm| arm.seeds > 1) {
            writeln!(f, "cases and lesions are counted once for every seed")?;
        }
        writeln!(f, "\n{:<32}  {:<organs$}  {:<wide$}     mean  95% interval        of", "metric", "organ", "arm")?;
        let mut metrics: Vec<_> = self.summary.metrics.iter().collect();
        metrics.sort_by_key(|row| (row.organ.clone(), row.kind));
        for row in metrics {
            let interval = bounds(row.interval);
            let (metric, organ, arm) = (row.metric, &row.organ, &row.arm);
            writeln!(
                f,
                "{metric:<32}  {organ:<organs$}  {arm:<wide$}  {:>7.4}  {interval:<18}  {:>4}",
                row.mean, row.count
            )?;
        }
        if !self.summary.comparisons.is_empty() {
            let wide = 2 * wide + 3;
            writeln!(
                f,
                "\n{:<32}  {:<organs$}  {:<wide$}  difference  95% interval             p   Holm",
                "metric", "organ", "arms"
            )?;
        }
        for row in &self.summary.comparisons {
            let wide = 2 * wide + 3;
            let arms = format!("{} - {}", row.arm, row.minus);
            let interval = bounds(row.interval);
            let (metric, organ) = (row.metric, &row.organ);
            writeln!(
                f,
                "{metric:<32}  {organ:<organs$}  {arms:<wide$}  {:>+10.4}  {interval:<18}  {:.4}  {:.4}",
                row.difference, row.p, row.p_holm
            )?;
        }
        if !self.summary.comparisons.is_empty() {
            writeln!(f, "Holm: p corrected for all comparisons of one metric and organ; {} resamples", self.resamples)?;
        }
        if !self.problems.is_empty() {
            writeln!(f, "\n{} could not be measured, see standard error", self.problems.len())?;
        }
        Ok(())
    }
}

/// An interval in brackets.
pub fn bounds(interval: Interval) -> String {
    format!("[{:.4}, {:.4}]", interval.low, interval.high)
}

/// Prints, unless whoever reads the pipe has seen enough.
///
/// # Errors
/// Where standard output fails otherwise.
pub fn print(stdout: &mut dyn Write, text: &str) -> Result<()> {
    match stdout.write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(unprintable(error)),
        _ => Ok(()),
    }
}
