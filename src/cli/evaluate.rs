//! `freetumor evaluate`: measures predictions, and compares arms.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;

use super::network::{ModelName, NetworkArgs};
use super::print::{ignore_closed_pipe, pluralize, print_error};
use super::scan::read_scan;
use crate::error::{Error, Result};
use crate::evaluate::data_set::{CaseSelection, DataSet};
use crate::evaluate::metrics::{EvaluationPlan, Interval, MeasuredOrgan};
use crate::evaluate::turing::{Auc, Separability, read_lesions, separability};
use crate::evaluate::{
    Arm, CaseProblem, Evaluation, EvaluationReport, Predictions, SegmentFn, case_files, check_label_names,
    write_results,
};
use crate::random::Key;
use crate::store::check_writable;
use crate::volume::Labels;

/// Measure predictions against the ground truth, and arms against each other
///
/// Predictions are label maps on disk, matched with the ground truth by file name, or are computed from weights. The metrics of each case
/// are Dice and surface Dice of the tumors, detected lesions, and false positives. Means have intervals over patients and seeds. Cases that
/// cannot be measured are reported, and the others are measured.
#[derive(Args, Clone, Debug)]
pub struct EvaluateArgs {
    /// The ground truth: a folder of NIfTI label maps, a data set with a folder labelsTs or labelsTr, a run folder, or one of its layouts
    #[arg(long, value_name = "DIR", required_unless_present = "turing")]
    pub truth: Option<PathBuf>,
    /// A folder of predicted label maps: the same as --arm predictions=DIR
    #[arg(long, value_name = "DIR", conflicts_with = "arm")]
    pub predictions: Option<PathBuf>,
    /// An arm: folders of predicted label maps or files of weights, one per seed; may be repeated
    #[arg(long, value_name = "NAME=PATH[,PATH]")]
    pub arm: Vec<ArmArg>,
    /// Two arms to compare, the first minus the second [default: every other arm minus the first]
    #[arg(long, value_name = "NAME,NAME")]
    pub compare: Vec<String>,
    /// An organ by the label ids of the organ and its tumors, or of its tumors alone; may be repeated
    #[arg(long, value_name = "NAME=[ORGAN:]TUMOR", default_value = "liver=1:2", value_parser = organ)]
    pub organ: Vec<MeasuredOrgan>,
    /// A CSV file with a line `case,patient` for cases that share a patient [default: patients.csv of the data set, the patients of its run
    /// folder, else one patient per case]
    #[arg(long, value_name = "FILE")]
    pub patients: Option<PathBuf>,
    /// The kind of network, if an arm consists of weights
    #[arg(long, value_enum, requires = "images")]
    pub model: Option<ModelName>,
    /// A file of weights: the same as --arm network=FILE
    #[arg(long, value_name = "FILE", conflicts_with_all = ["arm", "predictions"], requires = "model")]
    pub weights: Option<PathBuf>,
    /// Folder of the scans that the network segments: NIfTI, NRRD or MetaImage files named like the ground-truth label maps, optionally
    /// with the suffix _0000
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    #[command(flatten)]
    network: NetworkArgs,
    /// Number of resamples
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub resamples: u32,
    /// Seed of the resamples
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Folder for tables and plots; files of an earlier evaluation are replaced
    #[arg(long, value_name = "DIR", default_value = "evaluation")]
    pub out: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Test whether a classifier can separate real from synthetic lesions, instead of measuring predictions
    #[arg(long, requires_all = ["real", "synthetic"], conflicts_with_all = ["truth", "predictions", "arm", "weights"])]
    pub turing: bool,
    /// Real tumors: a data set with folders imagesTr and labelsTr, or images and labels
    #[arg(long, value_name = "DIR", requires = "turing")]
    pub real: Option<PathBuf>,
    /// Synthetic tumors: a data set with the same folders, a run folder, or one of its layouts of whole volumes
    #[arg(long, value_name = "DIR", requires = "turing")]
    pub synthetic: Option<PathBuf>,
}

/// Parses `NAME=ORGAN:TUMOR` or `NAME=TUMOR`.
fn organ(text: &str) -> Result<MeasuredOrgan, String> {
    let parse = || {
        let (name, ids) = text.split_once('=')?;
        let (organ, tumor) = ids.split_once(':').map_or((None, ids), |(organ, tumor)| (Some(organ), tumor));
        let organ_id = organ.map(|id| id.trim().parse::<u16>()).transpose().ok()?;
        let tumor_id: u16 = tumor.trim().parse().ok()?;
        let are_ids = tumor_id > 0 && organ_id.is_none_or(|organ| organ > 0 && organ != tumor_id);
        (are_ids && !name.trim().is_empty()).then(|| MeasuredOrgan { name: name.trim().to_owned(), organ_id, tumor_id })
    };
    parse().ok_or_else(|| {
        "expected a name and two different ids above 0, such as liver=1:2, or one id, such as lesion=1".to_owned()
    })
}

/// An arm, as a value of the option `--arm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArmArg {
    name: String,
    paths: Vec<PathBuf>,
}

impl FromStr for ArmArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected a name and at least one path, such as rules=runs/a,runs/b".to_owned();
        let (name, paths) = text.split_once('=').ok_or_else(expected)?;
        let paths: Vec<PathBuf> = paths.split(',').map(|path| PathBuf::from(path.trim())).collect();
        let is_valid = !name.trim().is_empty() && paths.iter().all(|path| !path.as_os_str().is_empty());
        if is_valid { Ok(Self { name: name.trim().to_owned(), paths }) } else { Err(expected()) }
    }
}

/// Measures, writes tables and plots, prints the summary, and returns the exit code: 1 if a case could not be measured.
///
/// # Errors
/// If a folder or file of weights cannot be read, no case can be measured, or the result cannot be written.
pub fn evaluate(args: &EvaluateArgs, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<u8> {
    // Measuring may take long: an output that cannot be written is known before.
    check_writable(&args.out)?;
    if let (true, Some(real), Some(synthetic)) = (args.turing, &args.real, &args.synthetic) {
        return turing(args, real, synthetic, stdout, stderr);
    }
    let Some(truth) = &args.truth else {
        return Err(Error::new("expected --truth DIR, got none")
            .with_hint("pass --truth DIR, or --turing with --real and --synthetic"));
    };
    let named = |name: &str| args.organ.iter().filter(|organ| organ.name == name).count();
    if let Some(organ) = args.organ.iter().find(|organ| named(&organ.name) > 1) {
        return Err(Error::new(format!("expected every --organ once, got --organ {} twice", organ.name))
            .with_hint("use another name for the second organ"));
    }
    let arms = arms(args)?;
    let comparisons = comparisons(args, &arms)?;
    let data = DataSet::open(truth, CaseSelection::Evaluation)?;
    let patients = args.patients.as_deref().map(case_files::patients).transpose()?;
    let patients = patients.as_ref().unwrap_or(&data.patients);
    let images = args.images.as_deref().map(images).transpose()?.unwrap_or_default();
    let truths = &data.labels;
    check_label_names(&args.organ, truths)?;
    let evaluation = Evaluation { arms: &arms, organs: &args.organ, truths, patients, images: &images };
    let measurements = evaluation.measure()?;
    print_case_problems(&measurements.problems, stderr)?;
    if measurements.rows.is_empty() {
        return Err(Error::new(format!("none of {} could be measured", pluralize(truths.len(), "case")))
            .with_hint("use the file names and the affines of the ground-truth label maps for predictions"));
    }
    for warning in measurements.id_warnings(&args.organ) {
        writeln!(stderr, "warning: {warning}; select the ids with --organ NAME=ORGAN:TUMOR").map_err(print_error)?;
    }
    let plan = EvaluationPlan {
        arms: arms.iter().map(|arm| (arm.name.clone(), arm.networks.len())).collect(),
        organs: args.organ.clone(),
        comparisons,
        resamples: args.resamples as usize,
        key: Key::root(args.seed).with("evaluate", "resamples"),
    };
    let report = EvaluationReport::new(&plan, &measurements);
    write_results(&args.out, &plan, &measurements, &report)?;
    let text = if args.json { report.to_json()? } else { ReportText(&report).to_string() };
    ignore_closed_pipe(stdout.write_all(text.as_bytes()))?;
    Ok(u8::from(!report.problems.is_empty()))
}

/// Lists the scans of a data set.
fn images(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    // The error names the folders that were expected.
    case_files::image_folder(folder)?;
    case_files::list_all_images(folder)
}

/// Separates real from synthetic lesions, writes `turing.json`, prints the result, and returns the exit code: 1 if a pair of image and
/// labels could not be read.
fn turing(
    args: &EvaluateArgs,
    real: &Path,
    synthetic: &Path,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<u8> {
    let [organ] = &args.organ[..] else {
        return Err(
            Error::new(format!("--turing measures one organ, got {}", args.organ.len())).with_hint("pass --organ once")
        );
    };
    let patients = args.patients.as_deref().map(case_files::patients).transpose()?.unwrap_or_default();
    let mut all = read_lesions(real, true, organ, &patients)?;
    let others = read_lesions(synthetic, false, organ, &patients)?;
    all.lesions.extend(others.lesions);
    all.problems.extend(others.problems);
    print_case_problems(&all.problems, stderr)?;
    let key = Key::root(args.seed).with("evaluate", "turing");
    let result = separability(&all.lesions, args.resamples as usize, key)?;
    result.write(&args.out)?;
    let text = if args.json { result.to_json()? } else { separability_text(&result) };
    ignore_closed_pipe(stdout.write_all(text.as_bytes()))?;
    Ok(u8::from(!all.problems.is_empty()))
}

fn print_case_problems(problems: &[CaseProblem], stderr: &mut dyn Write) -> Result<()> {
    problems.iter().try_for_each(|problem| writeln!(stderr, "problem: {problem}")).map_err(print_error)
}

/// Opens all arms.
///
/// # Errors
/// If there is no arm, two arms have the same name, a folder is empty, or weights cannot be opened.
fn arms(args: &EvaluateArgs) -> Result<Vec<Arm>> {
    let short = |name: &str, path: &PathBuf| ArmArg { name: name.to_owned(), paths: vec![path.clone()] };
    let mut given = args.arm.clone();
    given.extend(args.predictions.as_ref().map(|path| short("predictions", path)));
    given.extend(args.weights.as_ref().map(|path| short("network", path)));
    if given.is_empty() {
        return Err(Error::new("expected at least one arm, got none")
            .with_hint("pass --predictions DIR, --arm NAME=DIR, or --weights FILE with --model and --images"));
    }
    let mut arms: Vec<Arm> = Vec::new();
    for ArmArg { name, paths } in given {
        if arms.iter().any(|arm| arm.name == name) {
            return Err(Error::new(format!("two arms are named {name:?}"))
                .with_hint(format!("pass the seeds of an arm together: --arm {name}=DIR1,DIR2")));
        }
        if let Some(duplicate) = paths.iter().enumerate().find(|(at, path)| paths[..*at].contains(path)) {
            let path = duplicate.1.display();
            return Err(Error::new(format!(
                "arm {name:?} contains {path} twice: expected a different network for each seed of an arm"
            )));
        }
        let networks = paths.iter().map(|path| predictions(args, path)).collect::<Result<_>>()?;
        arms.push(Arm { name, networks });
    }
    Ok(arms)
}

fn predictions(args: &EvaluateArgs, path: &Path) -> Result<Predictions> {
    if path.is_dir() {
        return Predictions::in_folder(path);
    }
    if !path.exists() {
        return Err(Error::new(format!(
            "{} does not exist: expected a folder of label maps, or weights",
            path.display()
        )));
    }
    let (Some(model), Some(_)) = (args.model, &args.images) else {
        return Err(Error::new(format!("{} is a file, expected weights with --model and --images", path.display()))
            .with_hint("pass the kind of network and the scans: --model unet3d --images DIR"));
    };
    args.network.check_windows(model, path)?;
    let loaded = args.network.open(model, path)?;
    let classes = loaded.predictor.config().classes;
    let ids = args.organ.iter().flat_map(|organ| organ.organ_id.into_iter().chain([organ.tumor_id]));
    if let Some(id) = ids.max().filter(|id| usize::from(*id) >= classes) {
        let max_label = classes - 1;
        return Err(Error::new(format!(
            "{} predicts labels 0 to {max_label}, but --organ requires label {id}",
            path.display()
        ))
        .with_hint("use the weights of a segmentor of these organs"));
    }
    let network = args.network.clone();
    let segment: SegmentFn = Box::new(move |path| {
        let scan = read_scan(path)?;
        let ids = network.infer(&loaded, &scan, path)?.labels();
        Ok(Labels { grid: scan.grid, ids })
    });
    Ok(Predictions::Network(segment))
}

/// Returns the pairs of arms to compare, as indices.
///
/// # Errors
/// If a pair names an unknown arm.
fn comparisons(args: &EvaluateArgs, arms: &[Arm]) -> Result<Vec<[usize; 2]>> {
    if args.compare.is_empty() {
        return Ok((1..arms.len()).map(|arm| [arm, 0]).collect());
    }
    let index = |name: &str| arms.iter().position(|arm| arm.name == name.trim());
    let pair = |text: &String| {
        let pair = text.split_once(',').and_then(|(first, second)| Some([index(first)?, index(second)?]));
        pair.filter(|[first, second]| first != second).ok_or_else(|| {
            let names: Vec<&str> = arms.iter().map(|arm| arm.name.as_str()).collect();
            Error::new(format!("--compare {text}: expected two different arms with a comma between them"))
                .with_hint(format!("the arms are {}", names.join(", ")))
        })
    };
    args.compare.iter().map(pair).collect()
}

/// Formats the report of an evaluation as text.
struct ReportText<'a>(&'a EvaluationReport);

impl fmt::Display for ReportText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(report) = self;
        let names = report.summary.arms.iter().map(|arm| arm.arm.len());
        let wide = names.max().unwrap_or(0).max(3);
        let organs = report.summary.arms.iter().map(|arm| arm.organ.len()).max().unwrap_or(0).max(5);
        writeln!(f, "{:<wide$}  {:<organs$}  seeds  cases  healthy  undefined  lesions  unmeasurable", "arm", "organ")?;
        for arm in &report.summary.arms {
            let unmeasurable: Vec<String> =
                arm.unmeasurable.iter().map(|(bin, count)| format!("{} mm: {count}", bin.name())).collect();
            let unmeasurable = if unmeasurable.is_empty() { "0".to_owned() } else { unmeasurable.join(", ") };
            writeln!(
                f,
                "{:<wide$}  {:<organs$}  {:>5}  {:>5}  {:>7}  {:>9}  {:>7}  {unmeasurable}",
                arm.arm, arm.organ, arm.seeds, arm.cases, arm.healthy, arm.undefined, arm.lesions
            )?;
        }
        if report.summary.arms.iter().any(|arm| arm.seeds > 1) {
            writeln!(f, "cases and lesions are counted once for every seed")?;
        }
        writeln!(f, "\n{:<32}  {:<organs$}  {:<wide$}     mean  95% interval        of", "metric", "organ", "arm")?;
        let mut metrics: Vec<_> = report.summary.metrics.iter().collect();
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
        if !report.summary.comparisons.is_empty() {
            let wide = 2 * wide + 3;
            writeln!(
                f,
                "\n{:<32}  {:<organs$}  {:<wide$}  difference  95% interval             p   Holm",
                "metric", "organ", "arms"
            )?;
        }
        for row in &report.summary.comparisons {
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
        if !report.summary.comparisons.is_empty() {
            writeln!(
                f,
                "Holm: p corrected for all comparisons of one metric and organ; {} resamples",
                report.resamples
            )?;
        }
        if !report.problems.is_empty() {
            writeln!(f, "\n{}, listed on standard error", pluralize(report.problems.len(), "problem"))?;
        }
        Ok(())
    }
}

/// Formats an interval in brackets.
fn bounds(interval: Interval) -> String {
    format!("[{:.4}, {:.4}]", interval.low, interval.high)
}

/// Formats the result of `--turing` as text.
fn separability_text(result: &Separability) -> String {
    let Separability { real, synthetic, patients, .. } = result;
    let mut text = format!("{real} real and {synthetic} synthetic lesions of {patients} patients\n\n");
    text += "separated by     AUC     95% interval (0.5: not separable)\n";
    let features = [("everything", result.all), ("appearance", result.appearance), ("size and shape", result.shape)];
    for (name, Auc { auc, interval }) in features {
        text += &format!("{name:<15}  {auc:.4}  {}\n", bounds(interval));
    }
    if features.iter().any(|(_, of_features)| of_features.auc < 0.5) {
        text += "an AUC below 0.5 also means chance: a classifier trained on few patients can be wrong about more than half of the other patients\n";
    }
    text += "\nlargest differences        real   synthetic   deviations\n";
    for difference in &result.differences {
        let (name, real, synthetic) = (difference.feature, difference.real, difference.synthetic);
        text += &format!("{name:<22}  {real:>8.3}  {synthetic:>10.3}  {:>+11.2}\n", difference.effect);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn organ_parses_name_and_ids() {
        let parsed = organ("kidney=5:6").unwrap();
        assert_eq!((&*parsed.name, parsed.organ_id, parsed.tumor_id), ("kidney", Some(5), 6));
        assert_eq!(organ("lesion=1").unwrap().organ_id, None);
        for text in ["", "liver", "=1:2", "liver=1:1", "liver=0:2", "liver=1:0", "liver=a:2", "liver=1:70000"] {
            assert!(organ(text).unwrap_err().contains("liver=1:2"), "{text}");
        }
    }
}
