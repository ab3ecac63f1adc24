//! What is the filter worth? The comparison of the method, in a world of phantoms, with controls. See README.md beside it.

mod arms;
mod config;
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
use self::config::Experiment;
use self::lab::{Lab, say};
use self::side_by_side::side_by_side;

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
    /// Trainings at a time, each on its part of the processors; changes no result
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,
    /// Where networks compute
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu)]
    device: DeviceName,
    /// Look at the test set again: what comes of it is said to be no first round
    #[arg(long)]
    force: bool,
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
    /// Trains all arms
    Arms,
    /// Looks at the test set, once, and reports
    Test,
}

fn main() -> ExitCode {
    let args = Args::parse();
    prepare_process();
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
    let lab = Lab::open(&args.out, Experiment::parse(&text)?, args.device.place(), args.jobs.into())?;
    let mut stages = args.stage.clone();
    if stages.is_empty() {
        stages.extend(Stage::value_variants());
    }
    stages.sort();
    for stage in stages {
        match stage {
            Stage::World => world::write(&lab)?,
            Stage::Gate => gate::look(&lab).and_then(|()| gate::check(&lab).map(drop))?,
            Stage::Judges => judges(&lab)?,
            Stage::Pools => {
                gate::check(&lab)?;
                lab.experiment.makers().into_iter().try_for_each(|maker| pools::make(&lab, maker))?;
            }
            Stage::Arms => all_arms(&lab)?,
            Stage::Test => test_set::look(&lab, args.force)?,
        }
    }
    Ok(())
}

fn judges(lab: &Lab) -> Result<()> {
    gate::check(lab)?;
    let (labeled, unlabeled) = (world::scans(lab, "training")?, world::scans(lab, "unlabeled")?);
    segmentors::train_judges(lab, &labeled, &world::scans(lab, "validation")?)?;
    side_by_side(lab.jobs, &lab.experiment.makers(), |&maker| {
        segmentors::train_generator(lab, maker, &labeled, &unlabeled)
    })
}

fn all_arms(lab: &Lab) -> Result<()> {
    gate::check(lab)?;
    let arms = Arms::new(lab)?;
    side_by_side(lab.jobs, &lab.experiment.trainings(), |(_, arm, _, seed)| {
        arms.train(arm, *seed, training(&arm.name, *seed), None).map(drop)
    })
}

#[cfg(test)]
mod tests {
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
        carry_out(&args(&out, &[])).unwrap();
        let results: serde_json::Value =
            serde_json::from_slice(&std::fs::read(out.join("results.json")).unwrap()).unwrap();
        assert_eq!(results["primary"]["arms"].as_array().unwrap().len(), 11);
        assert_eq!(results["times_opened"], 1);
        let made = |arm: &str| results["made"][arm][0]["tumors"].as_u64();
        assert_eq!((made("filtered"), made("thinned_to_sizes"), made("unfiltered")), (Some(12), Some(12), Some(24)));
        assert_eq!(made("real_only"), None);
        let page = std::fs::read_to_string(out.join("results.md")).unwrap();
        assert!(page.contains("## Answers") && page.contains("| zero_contrast | 1 |"), "{page}");
        let again = carry_out(&args(&out, &[])).unwrap_err().to_string();
        assert!(again.contains("was looked at already"), "{again}");
        carry_out(&args(&out, &["--stage", "test", "--force"])).unwrap();
        let page = std::fs::read_to_string(out.join("results.md")).unwrap();
        assert!(page.contains("looked at 2 times"), "{page}");
    }
}
