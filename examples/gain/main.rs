//! The value of the filter: a comparison of the method with controls, on a population of phantom patients. See README.md in this folder.

mod arms;
mod config;
mod data_set;
mod evaluation;
mod fresh;
mod gate;
mod measures;
mod parallel;
mod pools;
mod population;
mod report;
mod segmentors;
mod selection;
mod test_set;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use freetumor::cli::network::DeviceName;
use freetumor::error::{Error, Result};
use freetumor::nn::kernel::prepare_process;

use self::arms::{Arms, training};
use self::config::{Experiment, Training, pool_kinds};
use self::measures::FinishedNetworks;
use self::parallel::run_parallel;
use self::test_set::TestSet;
use self::workspace::{Workspace, print_status};

/// The experiment at full size.
const FULL: &str = include_str!("gain.toml");
/// The quick form: all stages in minutes, without meaningful results.
const QUICK: &str = include_str!("quick.toml");

/// Measure the value of the filter; resumes an interrupted experiment
#[derive(Debug, Parser)]
struct Args {
    /// Folder of the experiment
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Run all stages in minutes, on a smaller population, without meaningful results
    #[arg(long, conflicts_with = "config")]
    quick: bool,
    /// Custom settings instead of gain.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Run only these stages [default: all, in order]
    #[arg(long, value_enum)]
    stage: Vec<Stage>,
    /// Run the stages `pools`, `trial`, `arms` and `report` only for these arms [default: all]
    #[arg(long, value_name = "NAME", requires = "stage")]
    arm: Vec<String>,
    /// Number of parallel trainings, each on a part of the processors; does not change results
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,
    /// Device of the networks
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu)]
    device: DeviceName,
}

/// The stages, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Stage {
    /// Write the scans of the population of patients
    #[value(name = "world")]
    Population,
    /// Train oracle and real only with the tuning seeds, and check that the experiment can show a difference
    Gate,
    /// Train the quality segmentor, the held-out segmentor and the generators
    #[value(name = "judges")]
    QualitySegmentors,
    /// Make and score the candidates of every pool
    Pools,
    /// Train arms with the tuning seeds and evaluate them on validation; runs only if requested
    Trial,
    /// Train all arms, and evaluate each network once on the test set
    Arms,
    /// Write the report
    Report,
}

fn main() -> ExitCode {
    let args = Args::parse();
    prepare_process(args.jobs.into());
    match run_stages(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_status(&format!("error: {error}"));
            if let Some(hint) = error.hint() {
                print_status(&format!("hint: {hint}"));
            }
            ExitCode::from(2)
        }
    }
}

fn run_stages(args: &Args) -> Result<()> {
    let text = match &args.config {
        Some(path) => std::fs::read_to_string(path).map_err(|cause| Error::io("cannot read", path, cause))?,
        None => if args.quick { QUICK } else { FULL }.to_owned(),
    };
    let workspace = Workspace::open(&args.out, Experiment::parse(&text)?, args.device.kind(), args.jobs.into())?;
    if let Some(name) = args.arm.iter().find(|&name| workspace.experiment.arms.iter().all(|arm| arm.name != *name)) {
        let names: Vec<&str> = workspace.experiment.arms.iter().map(|arm| arm.name.as_str()).collect();
        return Err(Error::new(format!("expected the name of an arm, got {name}"))
            .with_hint(format!("use one of {}", names.join(", "))));
    }
    let mut stages = args.stage.clone();
    if stages.is_empty() {
        stages.extend(Stage::value_variants().iter().filter(|&&stage| stage != Stage::Trial));
    }
    stages.sort();
    for stage in stages {
        match stage {
            Stage::Population => data_set::write(&workspace)?,
            Stage::Gate => gate::run(&workspace).and_then(|()| gate::check(&workspace).map(drop))?,
            Stage::QualitySegmentors => train_segmentors_and_generators(&workspace)?,
            Stage::Pools => {
                gate::check(&workspace)?;
                let kinds = pool_kinds(remaining_trainings(&workspace, &args.arm)?.iter().map(|training| training.arm));
                kinds.into_iter().try_for_each(|pool_kind| pools::make(&workspace, pool_kind))?;
            }
            Stage::Trial => {
                let is_requested = |arm: &&config::Arm| args.arm.is_empty() || args.arm.contains(&arm.name);
                gate::run_trials(
                    &workspace,
                    &workspace.experiment.arms.iter().filter(is_requested).collect::<Vec<_>>(),
                )?;
            }
            Stage::Arms => train_arms(&workspace, &args.arm)?,
            Stage::Report => report::report(&workspace, gate::check(&workspace)?, &args.arm)?,
        }
    }
    Ok(())
}

fn train_segmentors_and_generators(workspace: &Workspace) -> Result<()> {
    gate::check(workspace)?;
    let (labeled, unlabeled) = (data_set::scans(workspace, "training")?, data_set::scans(workspace, "unlabeled")?);
    segmentors::train_quality_segmentors(workspace, &labeled, &data_set::scans(workspace, "validation")?)?;
    run_parallel(workspace.jobs, &workspace.experiment.pool_kinds(), |&pool_kind| {
        segmentors::train_generator(workspace, pool_kind, &labeled, &unlabeled)
    })
}

fn train_arms(workspace: &Workspace, names: &[String]) -> Result<()> {
    gate::check(workspace)?;
    let (arms, test_set) = (Arms::new(workspace)?, TestSet::open(workspace)?);
    run_parallel(workspace.jobs, &remaining_trainings(workspace, names)?, |next| {
        arms.train(next.arm, next.seed, training(&next.arm.name, next.seed), None)?;
        test_set.predict(workspace, next)
    })
}

/// Returns the trainings of all arms, or of the named arms, whose networks are not measured yet.
fn remaining_trainings<'a>(workspace: &'a Workspace, names: &[String]) -> Result<Vec<Training<'a>>> {
    let finished = FinishedNetworks::read(workspace)?;
    let mut trainings = workspace.experiment.trainings(names);
    trainings.retain(|training| !finished.contains(training));
    Ok(trainings)
}

#[cfg(test)]
mod tests {
    use super::measures::NetworkMeasures;
    use super::*;

    fn args(out: &std::path::Path, more: &[&str]) -> Args {
        let all = ["gain", "--quick", "--out"].into_iter().map(Into::into).chain([out.as_os_str().to_owned()]);
        Args::parse_from(all.chain(more.iter().map(Into::into)))
    }

    #[test]
    fn included_results_equal_report_of_included_measures() {
        let included = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gain");
        let folder = tempfile::tempdir().unwrap();
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
        for name in ["experiment.json", "gate.json", "measures.parquet"] {
            std::fs::copy(included.join("results-scans").join(name), folder.path().join(name)).unwrap();
        }
        let mut args = args(folder.path(), &["--stage", "report"]);
        (args.quick, args.config) = (false, Some(included.join("scans.toml")));
        run_stages(&args).unwrap();
        for name in ["results.md", "results.json"] {
            assert_eq!(read(folder.path().join(name)), read(included.join("results-scans").join(name)), "{name}");
        }
    }

    /// All stages, the report, and the errors of invalid calls.
    #[test]
    fn quick_form_runs_all_stages_once() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("gain");
        let early = run_stages(&args(&out, &["--stage", "arms"])).unwrap_err();
        assert!(early.hint().unwrap().contains("run the stage `gate` before"), "{early}");
        let unknown = run_stages(&args(&out, &["--stage", "arms", "--arm", "rules", "--arm", "ruler"])).unwrap_err();
        assert!(unknown.to_string().contains("got ruler") && unknown.hint().unwrap().contains("real_only, rules"));
        // First some arms: arms without a pool do not make one.
        let first =
            ["--arm", "real_only", "--stage", "world", "--stage", "gate", "--stage", "pools", "--stage", "arms"];
        run_stages(&args(&out, &first)).unwrap();
        assert!(out.join("measures").read_dir().unwrap().count() > 0 && !out.join("pools").exists());
        run_stages(&args(&out, &[])).unwrap();
        // A trial evaluates on validation only.
        assert!(!out.join("trials").exists());
        run_stages(&args(&out, &["--stage", "trial", "--arm", "filtered"])).unwrap();
        let trial: serde_json::Value =
            serde_json::from_slice(&std::fs::read(out.join("trials/filtered.json")).unwrap()).unwrap();
        assert!(trial["arm"] == "filtered" && trial["dsc"].as_array().unwrap().len() == 1, "{trial}");
        assert!(out.join("validation").exists() && !out.join("trials/rules.json").exists());
        let results: serde_json::Value =
            serde_json::from_slice(&std::fs::read(out.join("results.json")).unwrap()).unwrap();
        assert_eq!(results["primary"]["arms"].as_array().unwrap().len(), 11);
        let count = |arm: &str, field: &str| results["made"][arm][0][field].as_u64();
        let tumors = |arm: &str| count(arm, "tumors");
        assert_eq!(
            (tumors("filtered"), tumors("thinned_to_sizes"), tumors("unfiltered")),
            (Some(12), Some(12), Some(24))
        );
        assert_eq!((count("filtered", "of"), tumors("real_only")), (Some(24), None));
        assert_eq!((count("filtered", "passing"), count("unfiltered", "passing")), (Some(12), None));
        assert!(count("thinned_to_sizes", "passing").is_some());
        let page = std::fs::read_to_string(out.join("results.md")).unwrap();
        assert!(page.contains("## Answers") && page.contains("| zero_contrast | 1 |"), "{page}");
        let second = results["rounds"][0]["comparisons"].as_array().unwrap();
        assert!(!second.is_empty() && second.iter().all(|row| row["arm"] == "unfiltered"), "{second:?}");
        assert!(
            page.contains("`unfiltered` - `thinned_to_count`: **") && page.contains("## Differences of round 2"),
            "{page}"
        );
        assert!(
            page.contains("## Differences with one network") && page.contains("| oracle - real_only | dice |"),
            "{page}"
        );

        // With the measures, another folder resumes without training networks, making pools or predicting scans.
        let copy = folder.path().join("copy");
        std::fs::create_dir_all(copy.join("measures")).unwrap();
        let measures: Vec<_> =
            std::fs::read_dir(out.join("measures")).unwrap().map(|entry| entry.unwrap().path()).collect();
        let copy_file = |path: &PathBuf| std::fs::copy(path, copy.join(path.strip_prefix(&out).unwrap())).unwrap();
        for path in measures.iter().chain(&[out.join("gate.json"), out.join("experiment.json")]) {
            copy_file(path);
        }
        run_stages(&args(&copy, &["--stage", "pools", "--stage", "report"])).unwrap();
        assert_eq!(std::fs::read_to_string(copy.join("results.md")).unwrap(), page);
        // The table of the report replaces the files of single networks.
        std::fs::remove_dir_all(copy.join("measures")).unwrap();
        let table = std::fs::read(copy.join("measures.parquet")).unwrap();
        run_stages(&args(&copy, &["--stage", "pools", "--stage", "report"])).unwrap();
        assert_eq!(std::fs::read_to_string(copy.join("results.md")).unwrap(), page);
        assert!(std::fs::read(copy.join("measures.parquet")).unwrap() == table);
        // A network without measures is not finished.
        std::fs::remove_file(copy.join("measures.parquet")).unwrap();
        std::fs::create_dir(copy.join("measures")).unwrap();
        for path in &measures[1..] {
            copy_file(path);
        }
        let early = run_stages(&args(&copy, &["--stage", "report"])).unwrap_err().to_string();
        assert!(early.contains("is not finished"), "{early}");
        // The order of arms does not matter.
        let mut reversed = Experiment::parse(QUICK).unwrap();
        reversed.arms.reverse();
        let reversed = Workspace::open(&out, reversed, DeviceName::Cpu.kind(), 1).unwrap();
        let finished = FinishedNetworks::read(&reversed).unwrap();
        for network in finished.of_arms(&reversed, &[]).unwrap() {
            let index = reversed.experiment.arm_index(&network.arm);
            assert!(network.cases.iter().all(|row| Some(row.arm) == index && row.seed == 0), "{}", network.arm);
        }
        // A partial report of finished arms names the arms that are missing.
        let missing: NetworkMeasures = serde_json::from_slice(&std::fs::read(&measures[0]).unwrap()).unwrap();
        let others = results["primary"]["arms"].as_array().unwrap().iter().map(|arm| arm["arm"].as_str().unwrap());
        let requested = others.filter(|arm| *arm != missing.arm).flat_map(|arm| ["--arm", arm]);
        run_stages(&args(&copy, &["--stage", "report"].into_iter().chain(requested).collect::<Vec<_>>())).unwrap();
        let page = std::fs::read_to_string(copy.join("partial/results.md")).unwrap();
        assert!(page.contains(&format!("Not finished yet: {}.", missing.arm)), "{page}");
        assert!(!page.contains(&format!("| {} |", missing.arm)), "{page}");
    }
}
