//! `freetumor explain`: why a sample is in a run folder.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::print::{ignore_closed_pipe, print_json};
use crate::error::Result;
use crate::id::SampleId;
use crate::record::{Outcome, SampleKind};
use crate::review::{AttemptHistory, SampleHistory};
use crate::run::{Revision, RunFolder};

/// Print why a sample is in a run folder
///
/// Prints the scan, the synthesis and the files of a sample, and for each quality test all attempts at its tumors with the scores, the
/// conditions and the reason of the decision. `freetumor inspect RUN SAMPLE --png OUT` draws the sample, and `freetumor replay RUN SAMPLE`
/// makes it again.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// The run folder
    pub run: PathBuf,
    /// The id of a sample or candidate
    pub sample: SampleId,
    /// Commit or tag of the state [default: the last commit]
    #[arg(long, value_name = "COMMIT|TAG")]
    pub at: Option<Revision>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Prints the history of a sample and returns the exit code.
///
/// # Errors
/// If the folder is not a run folder, or has no such sample.
pub fn explain(args: &ExplainArgs, stdout: &mut dyn Write) -> Result<u8> {
    let folder = RunFolder::open(&args.run)?;
    let at = args.at.as_ref().map(|at| folder.epoch_at(at)).transpose()?;
    let history = SampleHistory::read(&folder, args.sample, at)?;
    if args.json {
        print_json(&history, stdout)?
    } else {
        ignore_closed_pipe(print(&history, stdout))?
    }
    Ok(0)
}

fn print(history: &SampleHistory, out: &mut dyn Write) -> std::io::Result<()> {
    let record = &history.record;
    writeln!(out, "sample      {}, epoch {}", record.sample_id, record.epoch)?;
    writeln!(out, "scan        {}, data set {}, digest {}", record.scan_id, record.dataset, record.scan_digest)?;
    writeln!(out, "patient     {}, split {}", record.patient_key, record.split)?;
    writeln!(out, "synthesis   {}, model {}, digest {}", record.stage, record.model, record.stage_digest)?;
    writeln!(out, "mask        digest {}", record.mask_digest)?;
    writeln!(out, "seed        {}, variant {}", record.seed, record.variant)?;
    if record.kind == SampleKind::Negative {
        writeln!(out, "tumor       none: the scan is a negative")?;
    } else {
        writeln!(out, "organ       {}, tumor label {}", record.organ, record.tumor_label)?;
    }
    if let Some(geometry) = &record.geometry {
        let [x, y, z] = geometry.site_voxel;
        let (diameter, class) = (geometry.diameter_mm, &geometry.size_class);
        writeln!(out, "tumor       {diameter:.1} mm ({class}) at voxel {x}, {y}, {z}")?;
    }
    match &history.files.patch {
        Some((shard, offset, length)) => {
            writeln!(out, "patch       {shard}, {length} bytes from byte {offset}")?;
        }
        None => writeln!(out, "patch       not kept")?,
    }
    if let Some((image, label)) = &history.files.pair {
        writeln!(out, "image       {image}\nlabel       {label}")?;
    }
    for test in &history.tests {
        writeln!(out, "\nquality test `{}`:", test.test)?;
        test.attempts.iter().try_for_each(|attempt| print_attempt(attempt, out))?;
    }
    Ok(())
}

fn print_attempt(attempt: &AttemptHistory, out: &mut dyn Write) -> std::io::Result<()> {
    let AttemptHistory { tumor_id, attempt: number, candidate_id, .. } = attempt;
    let Some(candidate_id) = candidate_id else {
        return writeln!(out, "  accepted without conditions: a negative");
    };
    let mark = if attempt.is_in_sample { "*" } else { " " };
    let outcome = match &attempt.outcome {
        Outcome::Accepted => "accepted".to_owned(),
        Outcome::Rejected { reason } => format!("rejected: {reason}"),
    };
    let diameter = attempt.diameter_mm.map(|mm| format!(", {mm:.1} mm")).unwrap_or_default();
    writeln!(out, "{mark} tumor {tumor_id}, attempt {number}: {candidate_id}{diameter}, {outcome}")?;
    for condition in &attempt.conditions {
        let score = condition.score.map_or("not computed".to_owned(), |score| format!("{score:.3}"));
        let holds = if condition.holds { "holds" } else { "does not hold" };
        writeln!(out, "      {:<40} {score:>12}  {holds}", condition.condition)?;
    }
    if let Some(acceptance) = attempt.acceptance {
        let likeness = attempt.likeness.map_or("unknown".to_owned(), |likeness| format!("{likeness:.3}"));
        writeln!(out, "      likeness {likeness}, probability of acceptance {acceptance:.3}")?;
    }
    Ok(())
}
