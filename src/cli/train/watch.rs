//! Progress of a training on standard error: a bar on a terminal, a line now and then otherwise.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::train::run::{Progress, in_words};

/// Shows how a training goes.
pub struct Watch {
    stage: &'static str,
    bar: Option<ProgressBar>,
    next: Duration,
    pause: Duration,
}

impl Watch {
    /// Starts watching.
    pub fn new(stage: &'static str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(0));
        let template = "{elapsed_precise} {bar:24.cyan/dim} {pos}/{len} steps  {msg}";
        if let (Some(bar), Ok(style)) = (&bar, ProgressStyle::with_template(template)) {
            bar.set_style(style);
        }
        Self { stage, bar, next: Duration::from_secs(2), pause: Duration::from_secs(4) }
    }

    /// Shows a step.
    pub fn seen(&mut self, progress: &Progress<'_>) {
        let defined: Vec<_> = progress.scores.iter().filter(|(_, value)| value.is_finite()).cloned().collect();
        let scores = if defined.is_empty() { String::new() } else { format!("  [{}]", in_words(&defined)) };
        let left = time(progress.left);
        if let Some(bar) = &self.bar {
            bar.set_length(progress.steps);
            bar.set_position(progress.step);
            bar.set_message(format!("{left} left  {}{scores}", in_words(progress.numbers)));
            return;
        }
        if progress.elapsed < self.next {
            return;
        }
        // Long trainings need fewer words: the pauses grow to a minute.
        self.next = progress.elapsed + self.pause;
        self.pause = (self.pause * 3 / 2).min(Duration::from_secs(60));
        let (elapsed, numbers) = (progress.elapsed.as_secs_f64(), in_words(progress.numbers));
        let _ = writeln!(
            std::io::stderr(),
            "{elapsed:7.1} s  {} {}/{}, {left} left, {numbers}{scores}",
            self.stage,
            progress.step,
            progress.steps
        );
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `43 s`, `12 min`, `3 h 20 min`.
fn time(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..100 => format!("{seconds} s"),
        seconds @ 100..6000 => format!("{} min", seconds / 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let words = [3, 99, 100, 3601, 12_000].map(|seconds| time(Duration::from_secs(seconds)));
        assert_eq!(words, ["3 s", "99 s", "1 min", "60 min", "3 h 20 min"]);
    }
}
