//! `freetumor calibrate`: the reference of a quality test with `calibrate`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::print::{ignore_closed_pipe, pluralize, print_error, print_json, print_problems};
use crate::calibrate::{
    CalibrationOptions, CalibrationOutcome, OrganComparison, ScoredTumor, calibrate as calibrate_plan,
};
use crate::error::{Error, Result};
use crate::graph::{GraphFile, LabeledScans, Plan, Registry, ScanStages, Severity, check_for_calibration};
use crate::run::{Revision, RunFolder};
use crate::score::Score;
use crate::store::write_atomic;
use crate::train::{check, stage_of};

/// The time of the first line of progress.
const FIRST_PROGRESS: Duration = Duration::from_secs(2);
/// The time between lines of progress.
const PROGRESS_PAUSE: Duration = Duration::from_secs(5);

/// Calibrate a quality test on real tumors
///
/// Scores the real tumors of labeled scans and candidates of the pipeline by the same stages, estimates how much more frequent real tumors
/// are than candidates at every score, and writes that as the reference of a quality test with `calibrate`. The test then accepts
/// candidates so that accepted ones are distributed as the real tumors. Patients of the validation and test splits are not used.
#[derive(Args, Clone, Debug)]
pub struct CalibrateArgs {
    /// The graph file
    pub pipeline: PathBuf,
    /// Scans with labeled tumors: a training file, a graph file of sources and masks, or a mask stage of the pipeline
    #[arg(long, value_name = "FILE|MASK")]
    pub labeled: String,
    /// The quality test [default: the only one with `calibrate`]
    #[arg(long, value_name = "NAME")]
    pub test: Option<String>,
    /// Use the candidates in this run folder instead of new ones
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// The state of the run folder after this commit, or that a tag names [default: the last one]
    #[arg(long, value_name = "COMMIT|TAG", requires = "run")]
    pub at: Option<Revision>,
    /// New candidates in each organ
    #[arg(long, value_name = "N", default_value_t = 600, conflicts_with = "run",
          value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub candidates: u32,
    /// Also estimate factors for the setting `steering` of the synthesis, up to this one
    #[arg(long, value_name = "FACTOR")]
    pub steer: Option<f64>,
    /// Output file [default: the setting `reference` of the quality test]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Also write the scores of all real tumors and candidates, as CSV
    #[arg(long, value_name = "FILE")]
    pub tumors: Option<PathBuf>,
    /// Override a setting of the graph file, such as pipeline.seed=7
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the comparison as JSON
    #[arg(long)]
    pub json: bool,
}

impl CalibrateArgs {
    /// Returns a run folder with the commit of `--at`.
    fn state_of(&self, folder: PathBuf) -> Result<(PathBuf, Option<u64>)> {
        let at = self.at.as_ref().map(|at| RunFolder::open(&folder)?.epoch_at(at)).transpose()?;
        Ok((folder, at))
    }
}

/// Writes the reference and prints how far candidates and accepted candidates are from real tumors. Returns the exit code: 1 if scans were
/// skipped, 2 if the graph file has errors.
///
/// # Errors
/// If the tumors cannot be scored, are too few, or the reference cannot be written.
pub fn calibrate(
    args: &CalibrateArgs,
    registry: &Registry,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<u8> {
    if let Some(max_factor) = args.steer.filter(|max_factor| !(*max_factor > 1.0 && *max_factor <= 100.0)) {
        return Err(Error::new(format!("--steer: expected a factor above 1 and up to 100, got {max_factor}")));
    }
    let file = GraphFile::open(&args.pipeline)?.with_sets(&args.set);
    let checked = check_for_calibration(&file, registry);
    let errors: Vec<_> = checked.problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
    print_problems(&file, &errors, stderr)?;
    let Some(plan) = checked.plan.filter(|_| errors.is_empty()) else { return Ok(2) };
    let out = match &args.out {
        Some(out) => out.clone(),
        None => configured(&plan, args)?,
    };
    for (flag, path) in [("--out", Some(&out)), ("--tumors", args.tumors.as_ref())] {
        if let Some(path) = path {
            check_output(flag, path)?;
        }
    }
    let Some(labeled) = labeled_scans(&args.labeled, &plan, registry, stderr)? else { return Ok(2) };
    let options = CalibrationOptions {
        labeled,
        branch: args.test.clone(),
        run: args.run.clone().map(|folder| args.state_of(folder)).transpose()?,
        candidates: args.candidates as usize,
        max_factor: args.steer,
    };
    let (start, mut next) = (Instant::now(), FIRST_PROGRESS);
    let outcome = calibrate_plan(&plan, &options, &mut |message| {
        let elapsed = start.elapsed();
        if elapsed >= next {
            next = elapsed + PROGRESS_PAUSE;
            // Without standard error the calibration continues.
            let _ = writeln!(stderr, "{:7.1} s  {message}", elapsed.as_secs_f64());
        }
    })?;
    let text = outcome.reference.to_json()?;
    write_atomic(&out, |file| file.write_all(text.as_bytes()))
        .map_err(|cause| Error::io("--out: cannot write", &out, cause))?;
    if let Some(path) = &args.tumors {
        let text = tumors_csv(&outcome);
        write_atomic(path, |file| file.write_all(text.as_bytes()))
            .map_err(|cause| Error::io("--tumors: cannot write", path, cause))?;
    }
    if args.json {
        print_json(&json!({ "reference": out.display().to_string(), "organs": outcome.organs }), stdout)?;
    } else {
        ignore_closed_pipe(write!(stdout, "{}", Summary(&outcome)))?;
        ignore_closed_pipe(writeln!(stdout, "\nThe reference is in {}", out.display()))?;
    }
    for (stage, count) in &outcome.possibly_trained_on {
        let tumors = pluralize(*count, "real tumor");
        writeln!(
            stderr,
            "warning: `{stage}` may have been trained on the patients of {tumors}, which it then finds too well; if so, train it with --folds \
             and name the weights in `folds`"
        )
        .map_err(print_error)?;
    }
    if outcome.failed_scans > 0 {
        let scans = pluralize(outcome.failed_scans, "scan");
        writeln!(stderr, "warning: skipped {scans} that cannot be read or scored").map_err(print_error)?;
    }
    Ok(u8::from(outcome.failed_scans > 0))
}

/// Checks that a file can be written before the tumors are scored.
fn check_output(flag: &str, path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        return Err(Error::new(format!("{flag}: expected a file, got the folder {}", path.display())));
    }
    if !folder.is_dir() {
        return Err(
            Error::new(format!("{flag}: the folder {} does not exist", folder.display())).with_hint("create it")
        );
    }
    Ok(())
}

/// Returns the scans with labeled tumors that `--labeled` names; `None` if its file has errors, which are printed on `stderr`.
fn labeled_scans(name: &str, plan: &Plan, registry: &Registry, stderr: &mut dyn Write) -> Result<Option<LabeledScans>> {
    if plan.masks.iter().any(|mask| mask.name == name) {
        let stages = ScanStages { sources: plan.sources.clone(), masks: plan.masks.clone() };
        return Ok(Some(LabeledScans::of(stages, plan.split, |mask| mask == name)));
    }
    let path = Path::new(name);
    if !path.is_file() {
        let masks: Vec<&str> = plan.masks.iter().map(|mask| mask.name.as_str()).collect();
        return Err(Error::new(format!("--labeled: expected a file or a mask stage of the pipeline, got {name}"))
            .with_hint(format!("the mask stages are {}", masks.join(", "))));
    }
    let file = GraphFile::open(path)?;
    if let Some(stage) = stage_of(&file) {
        let checked = check(stage, &file, registry);
        let errors: Vec<_> = checked.problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
        print_problems(&file, &errors, stderr)?;
        return Ok(checked.task.map(|task| task.labeled()));
    }
    match ScanStages::build_with_split(&file, registry) {
        Ok((stages, split)) => Ok(Some(LabeledScans::of(stages, split, |_| true))),
        Err(problems) => {
            print_problems(&file, &problems.iter().collect::<Vec<_>>(), stderr)?;
            Ok(None)
        }
    }
}

/// Returns the path of the setting `reference` of the quality test.
fn configured(plan: &Plan, args: &CalibrateArgs) -> Result<PathBuf> {
    let stages = plan.resolved.get("stages").and_then(|stages| stages.as_object());
    let tests = stages.into_iter().flatten().filter(|(name, _)| args.test.as_ref().is_none_or(|test| test == *name));
    let mut references = tests.filter_map(|(_, settings)| settings.pointer("/calibrate/reference")?.as_str());
    let reference = references
        .next()
        .ok_or_else(|| Error::new("expected a setting `reference`, got none").with_hint("use --out FILE"))?;
    Ok(plan.folder.join(reference))
}

/// Returns the table of tumors: organ, kind, patient, diameter, whether the conditions are met, sampled values, scores, density ratio and
/// probability of acceptance. Missing values are empty.
fn tumors_csv(outcome: &CalibrationOutcome) -> String {
    let scores: Vec<&str> = Score::ALL.iter().map(|score| score.name()).collect();
    let mut text = format!(
        "organ,kind,patient_key,diameter_mm,meets_conditions,sampled_diameter_mm,drawn_contrast_hu,{},likeness,acceptance\n",
        scores.join(",")
    );
    for ScoredTumor { organ, is_real, tumor, likeness, acceptance } in &outcome.tumors {
        let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
        let kind = if *is_real { "real" } else { "candidate" };
        let sampled = (!is_real).then_some(tumor.sampled_mm);
        let mut fields = vec![organ.clone(), kind.to_owned(), tumor.patient.clone(), tumor.diameter_mm.to_string()];
        fields.push(tumor.meets_conditions.to_string());
        fields.extend([number(sampled), number(tumor.sampled_hu)]);
        fields.extend(Score::ALL.iter().map(|score| number(tumor.scores.get(*score))));
        fields.extend([number(*likeness), number(*acceptance)]);
        text.push_str(&fields.join(","));
        text.push('\n');
    }
    text
}

/// Formats the comparison as text.
struct Summary<'a>(&'a CalibrationOutcome);

impl std::fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (name, organ)) in self.0.organs.iter().enumerate() {
            let OrganComparison { real_tumors, all_real_tumors, patients, candidates, .. } = organ;
            let blank = if index > 0 { "\n" } else { "" };
            let (tumors, patients) = (pluralize(*all_real_tumors, "real tumor"), pluralize(*patients, "patient"));
            writeln!(
                f,
                "{blank}{name}: {tumors} of {patients}; {real_tumors} of them and {candidates} candidates meet the conditions"
            )?;
            writeln!(f, "  {:<36}{:>12}{:>12}", "distance from real tumors", "candidates", "accepted")?;
            let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
            for score in &organ.comparison.scores {
                let [candidates, accepted] = [score.candidates, score.accepted].map(number);
                writeln!(f, "  {:<36}{candidates:>12}{accepted:>12}", score.score)?;
            }
            let [candidates, accepted] = [organ.comparison.auc_candidates, organ.comparison.auc_accepted].map(number);
            writeln!(f, "  {:<36}{candidates:>12}{accepted:>12}", "AUC of a classifier (0.5: equal)")?;
            write!(f, "  {:.0}% of candidates are accepted", 100.0 * organ.accepted_share)?;
            if let Some(share) = organ.accepted_share_steered {
                write!(f, ", {:.0}% with steering", 100.0 * share)?;
            }
            writeln!(f, "; effective number of accepted candidates {:.0}", organ.effective_sample)?;
        }
        Ok(())
    }
}
