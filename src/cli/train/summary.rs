//! How a training ended, as a person reads it.

use std::collections::BTreeMap;

use crate::train::run::Report;

/// The report as a person reads it.
pub struct Summary<'a>(pub &'a Report);

impl std::fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Report { stage, step, steps, new_steps, seconds, waiting_share, scores, best, folder } = self.0;
        if *new_steps == 0 && step < steps {
            writeln!(f, "{stage}: step {step} of {steps}, none taken now")?;
        } else if *new_steps == 0 {
            writeln!(f, "{stage}: nothing to do, all {steps} steps are taken")?;
        } else {
            let each = seconds / *new_steps as f64;
            let waiting = 100.0 * waiting_share;
            writeln!(
                f,
                "{stage}: step {step} of {steps}; {new_steps} steps in {seconds:.1} s, {each:.3} s each, {waiting:.0}% of it waiting for batches"
            )?;
        }
        let scores: BTreeMap<_, _> = scores.iter().filter(|(_, value)| value.is_finite()).collect();
        for (name, value) in scores {
            writeln!(f, "  {name:<28}{value:.4}")?;
        }
        if let Some((score, step)) = best {
            writeln!(f, "  best at step {step}: {score:.4}")?;
        }
        let folder = folder.display();
        writeln!(f, "\nWhere everything lies:\n  {:<16}{folder}/weights", "weights")?;
        writeln!(f, "  {:<16}{folder}/history.parquet", "every step")?;
        writeln!(f, "  {:<16}{folder}/curves.png, {folder}/pictures", "to look at")?;
        if step < steps {
            writeln!(f, "  to go on        the same command with --resume")?;
        }
        Ok(())
    }
}
