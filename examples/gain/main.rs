//! What is the filter worth? The comparison of the method, in a world of phantoms, with controls. See README.md beside it.

mod arms;
mod config;
mod data_set;
mod evaluation;
mod fresh;
mod gate;
mod lab;
mod pools;
mod report;
mod segmentors;
mod selection;
mod side_by_side;
mod test_set;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use freetumor::cli::network::DeviceName;
use freetumor::error::{Error, Result};
use freetumor::nn::kernel::prepare_process;

use self::arms::{Arms, training};
use self::config::{Experiment, Training, makers};
use self::lab::{Lab, say};
use self::side_by_side::side_by_side;
use self::test_set::{TestSet, seen_at};

/// The experiment at full size.
const FULL: &str = include_str!("gain.toml");
/// The same in minutes, learning nothing.
const QUICK: &str = include_str!("quick.toml");

/// Finds out what the filter is worth; goes on where it stopped
#[derive(Debug, Parser)]
struct Args {
    /// Folder of the experiment
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Run every step in minutes, in a smaller world: its numbers mean nothing
    #[arg(long, conflicts_with = "config")]
    quick: bool,
    /// Settings of one's own, in place of gain.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Do these stages alone [default: all, in order]
    #[arg(long, value_enum)]
    stage: Vec<Stage>,
    /// Of the stages `pools`, `trial`, `arms` and `report`, do what these arms need alone [default: all]
    #[arg(long, value_name = "NAME", requires = "stage")]
    arm: Vec<String>,
    /// Trainings at a time, each on its part of the processors; changes no result
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,
    /// Where networks compute
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu)]
    device: DeviceName,
}

/// The stages, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Stage {
    /// Writes the world
    World,
    /// Trains oracle and real only by the tuning seeds, and looks whether the experiment can show anything
    Gate,
    /// Trains the judging and the held-out segmentor, and the generators
    Judges,
    /// Makes and scores the candidates of every maker
    Pools,
    /// Trains arms by the tuning seeds and says what they do on validation; done where it is asked for alone
    Trial,
    /// Trains all arms, and shows the test set to each network once
    Arms,
    /// Says what came of it
    Report,
}

fn main() -> ExitCode {
    let args = Args::parse();
    prepare_process(args.jobs.into());
    match carry_out(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error}"));
            if let Some(hint) = error.hint() {
                say(&format!("hint: {hint}"));
            }
            ExitCode::from(2)
        }
    }
}

fn carry_out(args: &Args) -> Result<()> {
    let text = match &args.config {
        Some(path) => std::fs::read_to_string(path).map_err(|cause| Error::io("cannot read", path, cause))?,
        None => if args.quick { QUICK } else { FULL }.to_owned(),
    };
    let lab = Lab::open(&args.out, Experiment::parse(&text)?, args.device.kind(), args.jobs.into())?;
    if let Some(name) = args.arm.iter().find(|&name| lab.experiment.arms.iter().all(|arm| arm.name != *name)) {
        let names: Vec<&str> = lab.experiment.arms.iter().map(|arm| arm.name.as_str()).collect();
        return Err(Error::new(format!("there is no arm {name}")).with_hint(format!("there are {}", names.join(", "))));
    }
    let mut stages = args.stage.clone();
    if stages.is_empty() {
        stages.extend(Stage::value_variants().iter().filter(|&&stage| stage != Stage::Trial));
    }
    stages.sort();
    for stage in stages {
        match stage {
            Stage::World => data_set::write(&lab)?,
            Stage::Gate => gate::look(&lab).and_then(|()| gate::check(&lab).map(drop))?,
            Stage::Judges => judges(&lab)?,
            Stage::Pools => {
                gate::check(&lab)?;
                let needed = makers(left(&lab, &args.arm).iter().map(|training| training.arm));
                needed.into_iter().try_for_each(|maker| pools::make(&lab, maker))?;
            }
            Stage::Trial => {
                let is_asked = |arm: &&config::Arm| args.arm.is_empty() || args.arm.contains(&arm.name);
                gate::try_arms(&lab, &lab.experiment.arms.iter().filter(is_asked).collect::<Vec<_>>())?;
            }
            Stage::Arms => train_arms(&lab, &args.arm)?,
            Stage::Report => report::report(&lab, gate::check(&lab)?, &args.arm)?,
        }
    }
    Ok(())
}

fn judges(lab: &Lab) -> Result<()> {
    gate::check(lab)?;
    let (labeled, unlabeled) = (data_set::scans(lab, "training")?, data_set::scans(lab, "unlabeled")?);
    segmentors::train_judges(lab, &labeled, &data_set::scans(lab, "validation")?)?;
    side_by_side(lab.jobs, &lab.experiment.makers(), |&maker| {
        segmentors::train_generator(lab, maker, &labeled, &unlabeled)
    })
}

fn train_arms(lab: &Lab, names: &[String]) -> Result<()> {
    gate::check(lab)?;
    let (arms, test_set) = (Arms::new(lab)?, TestSet::open(lab)?);
    side_by_side(lab.jobs, &left(lab, names), |one| {
        arms.train(one.arm, one.seed, training(&one.arm.name, one.seed), None)?;
        test_set.show(lab, one)
    })
}

/// The trainings of arms, or of those named, whose networks have not seen the test set.
fn left<'a>(lab: &'a Lab, names: &[String]) -> Vec<Training<'a>> {
    lab.experiment.trainings(names).into_iter().filter(|one| !seen_at(lab, &one.arm.name, one.seed).exists()).collect()
}

#[cfg(test)]
mod tests {
    use super::test_set::{ScanPrediction, all_seen};
    use super::*;

    fn args(out: &std::path::Path, more: &[&str]) -> Args {
        let all = ["gain", "--quick", "--out"].into_iter().map(Into::into).chain([out.as_os_str().to_owned()]);
        Args::parse_from(all.chain(more.iter().map(Into::into)))
    }

    /// Every stage, the report, and what is refused afterwards.
    #[test]
    fn the_quick_form_goes_all_the_way_once() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("gain");
        let early = carry_out(&args(&out, &["--stage", "arms"])).unwrap_err();
        assert!(early.hint().unwrap().contains("the stage `gate` comes before"), "{early}");
        let unknown = carry_out(&args(&out, &["--stage", "arms", "--arm", "rules", "--arm", "ruler"])).unwrap_err();
        assert!(unknown.to_string().contains("no arm ruler") && unknown.hint().unwrap().contains("real_only, rules"));
        // Some arms first: those that need no pool make none.
        let first =
            ["--arm", "real_only", "--stage", "world", "--stage", "gate", "--stage", "pools", "--stage", "arms"];
        carry_out(&args(&out, &first)).unwrap();
        assert!(out.join("seen").read_dir().unwrap().count() > 0 && !out.join("pools").exists());
        carry_out(&args(&out, &[])).unwrap();
        // A trial looks at validation alone.
        assert!(!out.join("trials").exists());
        carry_out(&args(&out, &["--stage", "trial", "--arm", "filtered"])).unwrap();
        let tried: serde_json::Value =
            serde_json::from_slice(&std::fs::read(out.join("trials/filtered.json")).unwrap()).unwrap();
        assert!(tried["arm"] == "filtered" && tried["dsc"].as_array().unwrap().len() == 1, "{tried}");
        assert!(out.join("validation").exists() && !out.join("trials/rules.json").exists());
        let results: serde_json::Value =
            serde_json::from_slice(&std::fs::read(out.join("results.json")).unwrap()).unwrap();
        assert_eq!(results["primary"]["arms"].as_array().unwrap().len(), 11);
        let made = |arm: &str, what: &str| results["made"][arm][0][what].as_u64();
        let tumors = |arm: &str| made(arm, "tumors");
        assert_eq!(
            (tumors("filtered"), tumors("thinned_to_sizes"), tumors("unfiltered")),
            (Some(12), Some(12), Some(24))
        );
        assert_eq!((made("filtered", "of"), tumors("real_only")), (Some(24), None));
        assert_eq!((made("filtered", "passing"), made("unfiltered", "passing")), (Some(12), None));
        assert!(made("thinned_to_sizes", "passing").is_some());
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

        // What was seen goes on elsewhere: no network is trained, no pool made, no scan looked at once more.
        let elsewhere = folder.path().join("elsewhere");
        std::fs::create_dir_all(elsewhere.join("seen")).unwrap();
        let seen: Vec<_> = std::fs::read_dir(out.join("seen")).unwrap().map(|entry| entry.unwrap().path()).collect();
        for path in seen.iter().chain(&[out.join("gate.json"), out.join("experiment.json")]) {
            std::fs::copy(path, elsewhere.join(path.strip_prefix(&out).unwrap())).unwrap();
        }
        carry_out(&args(&elsewhere, &["--stage", "pools", "--stage", "report"])).unwrap();
        assert_eq!(std::fs::read_to_string(elsewhere.join("results.md")).unwrap(), page);
        std::fs::remove_file(seen[0].strip_prefix(&out).map(|name| elsewhere.join(name)).unwrap()).unwrap();
        let early = carry_out(&args(&elsewhere, &["--stage", "report"])).unwrap_err().to_string();
        assert!(early.contains("is not finished"), "{early}");
        // Where arms stand does not matter.
        let mut turned = Experiment::parse(QUICK).unwrap();
        turned.arms.reverse();
        let turned = Lab::open(&out, turned, DeviceName::Cpu.kind(), 1).unwrap();
        for seen in all_seen(&turned, &[]).unwrap() {
            let place = turned.experiment.place(&seen.arm);
            assert!(seen.cases.iter().all(|row| Some(row.arm) == place && row.seed == 0), "{}", seen.arm);
        }
        // What is there of it can be told already, and what is not is said.
        let late: ScanPrediction = serde_json::from_slice(&std::fs::read(&seen[0]).unwrap()).unwrap();
        let others = results["primary"]["arms"].as_array().unwrap().iter().map(|arm| arm["arm"].as_str().unwrap());
        let asked = others.filter(|arm| *arm != late.arm).flat_map(|arm| ["--arm", arm]);
        carry_out(&args(&elsewhere, &["--stage", "report"].into_iter().chain(asked).collect::<Vec<_>>())).unwrap();
        let page = std::fs::read_to_string(elsewhere.join("partial/results.md")).unwrap();
        assert!(page.contains(&format!("Not finished yet: {}.", late.arm)), "{page}");
        assert!(!page.contains(&format!("| {} |", late.arm)), "{page}");
    }
}
