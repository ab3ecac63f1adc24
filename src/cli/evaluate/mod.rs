//! `freetumor evaluate`: how good predictions are, and whether one arm is better than another.

mod arms;
mod files;
mod measure;
mod report;
mod turing;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::network::{ModelName, NetworkArgs};
use crate::error::{Error, Result};
use crate::random::Key;
use crate::store::write_whole;
use crate::train::metrics::{MeasuredOrgan, Plan, cases_table, lesions_table, plot, summarise};
use arms::ArmArg;
use report::{Report, print};

/// Measure predictions against the truth, and arms against each other
///
/// Predictions are label maps on disk, matched with the truth's by name, or are made from weights on the way. Of each
/// case are measured: Dice and surface Dice of the tumors, which lesions were found, and what was found where nothing is.
/// Means have intervals over patients and seeds. A case that cannot be measured is named, and the others go on.
#[derive(Args, Clone, Debug)]
pub struct EvaluateArgs {
    /// The truth: a folder of NIfTI label maps, or a data set with labelsTs or labelsTr in it
    #[arg(long, value_name = "DIR", required_unless_present = "turing")]
    pub truth: Option<PathBuf>,
    /// A folder of predicted label maps: short for --arm predictions=DIR
    #[arg(long, value_name = "DIR", conflicts_with = "arm")]
    pub predictions: Option<PathBuf>,
    /// An arm: folders of predicted label maps or files of weights, one a seed; may be given several times
    #[arg(long, value_name = "NAME=PATH[,PATH]")]
    pub arm: Vec<ArmArg>,
    /// Two arms to compare, the first minus the second [default: every other arm minus the first]
    #[arg(long, value_name = "NAME,NAME")]
    pub compare: Vec<String>,
    /// An organ by the label ids of it and of its tumors, or of its tumors alone; may be given several times
    #[arg(long, value_name = "NAME=[ORGAN:]TUMOR", default_value = "liver=1:2", value_parser = organ)]
    pub organ: Vec<MeasuredOrgan>,
    /// A CSV file with a line `case,patient` for cases that share a patient [default: a patient a case]
    #[arg(long, value_name = "FILE")]
    pub patients: Option<PathBuf>,
    /// The kind of network, where an arm is weights
    #[arg(long, value_enum, requires = "images")]
    pub model: Option<ModelName>,
    /// A file of weights: short for --arm network=FILE
    #[arg(long, value_name = "FILE", conflicts_with_all = ["arm", "predictions"], requires = "model")]
    pub weights: Option<PathBuf>,
    /// The scans for a network: NIfTI files named as the truth, or with _0000 behind the name
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    #[command(flatten)]
    network: NetworkArgs,
    /// Number of resamples
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub resamples: u32,
    /// What decides them
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Where tables and plots are written; what is there from another time is replaced
    #[arg(long, value_name = "DIR", default_value = "evaluation")]
    pub out: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Judge instead whether real and synthetic lesions can be told apart
    #[arg(long, requires_all = ["real", "synthetic"], conflicts_with_all = ["truth", "predictions", "arm", "weights"])]
    pub turing: bool,
    /// Real tumors: a data set with imagesTr and labelsTr, or images and labels, in it
    #[arg(long, value_name = "DIR", requires = "turing")]
    pub real: Option<PathBuf>,
    /// Synthetic tumors, likewise
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
    parse()
        .ok_or_else(|| "expected a name and two different ids above 0, such as liver=1:2, or one, lesion=1".to_owned())
}

/// Measures, writes tables and plots, prints the summary, and gives the exit code: 1 where a case could not be measured.
///
/// # Errors
/// Where a folder or file of weights cannot be read, nothing at all can be measured, or the result cannot be written.
pub fn evaluate(args: &EvaluateArgs, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<u8> {
    if let (true, Some(real), Some(synthetic)) = (args.turing, &args.real, &args.synthetic) {
        return turing::turing(args, real, synthetic, stdout, stderr);
    }
    let Some(truth) = &args.truth else {
        return Err(Error::new("expected --truth DIR, got none").with_hint("or --turing with --real and --synthetic"));
    };
    let named = |name: &str| args.organ.iter().filter(|organ| organ.name == name).count();
    if let Some(organ) = args.organ.iter().find(|organ| named(&organ.name) > 1) {
        return Err(
            Error::new(format!("--organ {} is given twice", organ.name)).with_hint("name the second one otherwise")
        );
    }
    let arms = arms::arms(args)?;
    let comparisons = arms::comparisons(args, &arms)?;
    let truths = files::list(&files::label_folder(truth)?)?;
    let patients = args.patients.as_deref().map(files::patients).transpose()?.unwrap_or_default();
    let measured = measure::measure_all(args, &arms, &truths, &patients)?;
    for problem in &measured.problems {
        writeln!(stderr, "problem: {problem}").map_err(unprintable)?;
    }
    if measured.rows.is_empty() {
        return Err(Error::new(format!("none of {} cases could be measured", truths.len()))
            .with_hint("predictions are matched with the truth by file name, and have to lie where it lies"));
    }
    for doubt in measured.doubts(&args.organ) {
        writeln!(stderr, "warning: {doubt}; --organ NAME=ORGAN:TUMOR says which ids are which").map_err(unprintable)?;
    }
    let plan = Plan {
        arms: arms.iter().map(|arm| (arm.name.clone(), arm.networks.len())).collect(),
        organs: args.organ.clone(),
        comparisons,
        resamples: args.resamples as usize,
        key: Key::root(args.seed).with("evaluate", "resamples"),
    };
    let summary = summarise(&plan, &measured.rows);
    make_folder(&args.out)?;
    let cases = cases_table(&plan, &measured.rows)?;
    write_file(&args.out.join("cases.parquet"), &cases)?;
    write_file(&args.out.join("lesions.parquet"), &lesions_table(&plan, &measured.rows)?)?;
    for organ in &args.organ {
        let name = if args.organ.len() == 1 { "plot.png".to_owned() } else { format!("plot-{}.png", organ.name) };
        write_file(&args.out.join(name), &plot(&summary, &organ.name)?.to_png()?)?;
    }
    let report = Report { summary, problems: measured.problems, resamples: args.resamples };
    let json = serde_json::to_string_pretty(&report)
        .map_err(|error| Error::new(format!("cannot write the summary: {error}")).with_source(error))?;
    write_file(&args.out.join("summary.json"), format!("{json}\n").as_bytes())?;
    let text = if args.json { format!("{json}\n") } else { report.to_string() };
    print(stdout, &text)?;
    Ok(u8::from(!report.problems.is_empty()))
}

fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|error| Error::io("cannot make the folder", path, error))
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole(path, |out| out.write_all(bytes)).map_err(|error| Error::io("cannot write", path, error))
}

fn unprintable(error: std::io::Error) -> Error {
    Error::new(format!("cannot print: {error}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn organs_are_a_name_and_ids() {
        let parsed = organ("kidney=5:6").unwrap();
        assert_eq!((&*parsed.name, parsed.organ_id, parsed.tumor_id), ("kidney", Some(5), 6));
        assert_eq!(organ("lesion=1").unwrap().organ_id, None);
        for text in ["", "liver", "=1:2", "liver=1:1", "liver=0:2", "liver=1:0", "liver=a:2", "liver=1:70000"] {
            assert!(organ(text).unwrap_err().contains("liver=1:2"), "{text}");
        }
    }
}
