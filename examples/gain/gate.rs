//! Whether the experiment can show anything: the oracle learns, and stands above real tumors alone.

use std::path::PathBuf;

use freetumor::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::arms::Arms;
use super::config::{Arm, ORACLE, REAL_ONLY};
use super::data_set::scans;
use super::evaluation::{mean_dsc, predict, rows};
use super::lab::{Lab, say};
use super::side_by_side::side_by_side;

/// What the gate saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Passage {
    /// Percent of Dice on validation, seed by seed.
    pub oracle_dsc: Vec<f64>,
    pub real_only_dsc: Vec<f64>,
    pub is_open: bool,
}

fn path(lab: &Lab) -> PathBuf {
    lab.out.join("gate.json")
}

/// Trains both by the tuning seeds and looks at validation.
///
/// # Errors
/// Returns an error if something cannot be trained.
pub fn look(lab: &Lab) -> Result<()> {
    if path(lab).exists() {
        return Ok(());
    }
    let tried = [ORACLE, REAL_ONLY].into_iter().filter_map(|name| lab.experiment.place(name));
    let found = tuned(lab, &tried.map(|place| &lab.experiment.arms[place]).collect::<Vec<_>>())?;
    let of = |name| -> Vec<f64> { found.iter().filter(|it| it.0 == name).flat_map(|it| it.1.clone()).collect() };
    let (oracle_dsc, real_only_dsc) = (of(ORACLE), of(REAL_ONLY));
    let gate = &lab.experiment.gate;
    let is_open = opens(&oracle_dsc, &real_only_dsc, gate.least_oracle_dsc, gate.least_gap_dsc);
    lab.write_json(&path(lab), &Passage { oracle_dsc, real_only_dsc, is_open })
}

/// Trains arms by the tuning seeds; gives their names and percent of Dice on validation, seed by seed.
///
/// # Errors
/// Returns an error if something cannot be trained.
fn tuned(lab: &Lab, arms: &[&Arm]) -> Result<Vec<(String, Vec<f64>)>> {
    let validation = scans(lab, "validation")?;
    let data = Arms::new(lab)?;
    let seeds = &lab.experiment.seeds.tuning;
    let tried: Vec<(&Arm, u64)> = arms.iter().flat_map(|arm| seeds.iter().map(move |seed| (*arm, *seed))).collect();
    let train =
        |(arm, seed): &(&Arm, u64)| data.train(arm, *seed, format!("tuning/{}-{seed}", arm.name), Some(&validation));
    side_by_side(lab.jobs, &tried, |one| train(one).map(drop))?;
    let dsc = |arm: &Arm, seed: u64| -> Result<f64> {
        let weights = train(&(arm, seed))?;
        let folder = predict(lab, "validation", &format!("{}-{seed}", arm.name), &weights, &validation)?;
        let dsc = mean_dsc(&rows(&folder, &validation, 0, 0)?);
        say(&format!("{}, seed {seed}: {dsc:.1} DSC on validation", arm.name));
        Ok(dsc)
    };
    let all = |arm: &&Arm| Ok((arm.name.clone(), seeds.iter().map(|seed| dsc(arm, *seed)).collect::<Result<_>>()?));
    arms.iter().map(all).collect()
}

/// Tries arms by the tuning seeds, so that settings can be chosen on validation; leaves what came of it as a file.
///
/// # Errors
/// Returns an error if the gate is shut, or something cannot be trained.
pub fn try_arms(lab: &Lab, arms: &[&Arm]) -> Result<()> {
    check(lab)?;
    for (name, dsc) in tuned(lab, arms)? {
        lab.write_json(&lab.out.join("trials").join(format!("{name}.json")), &json!({ "arm": name, "dsc": dsc }))?;
    }
    Ok(())
}

/// Returns whether arms may be run.
///
/// # Errors
/// Returns an error if the gate was not looked at, or is shut.
pub fn check(lab: &Lab) -> Result<Passage> {
    let path = path(lab);
    let bytes = std::fs::read(&path).map_err(|cause| {
        Error::io("cannot read", &path, cause).with_hint("the stage `gate` comes before judges, pools, arms and test")
    })?;
    let passage: Passage = freetumor::store::canonical::parse(&bytes, &path.display().to_string())?;
    let gate = &lab.experiment.gate;
    if passage.is_open || !gate.stops {
        return Ok(passage);
    }
    let (oracle, real_only) = (mean(&passage.oracle_dsc), mean(&passage.real_only_dsc));
    let message = format!(
        "the experiment could not show anything: on validation the oracle has {oracle:.1} DSC (expected {}) and stands \
         {:.1} above real only (expected {})",
        gate.least_oracle_dsc,
        oracle - real_only,
        gate.least_gap_dsc
    );
    Err(Error::new(message).with_hint(
        "choose steps, rate, crops or the world anew, by the tuning seeds, write down what was tried in \
         examples/gain/README.md, and start in another folder",
    ))
}

fn opens(oracle_dsc: &[f64], real_only_dsc: &[f64], least: f64, gap: f64) -> bool {
    let (oracle, real_only) = (mean(oracle_dsc), mean(real_only_dsc));
    oracle >= least && oracle - real_only >= gap
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_asks_for_both() {
        assert!(opens(&[64.0, 62.0], &[40.0, 44.0], 60.0, 15.0));
        assert!(!opens(&[58.0, 61.0], &[20.0, 22.0], 60.0, 15.0), "the oracle has not learned");
        assert!(!opens(&[64.0, 62.0], &[50.0, 52.0], 60.0, 15.0), "there is no room above real only");
        assert!(!opens(&[f64::NAN], &[0.0], 60.0, 15.0), "what is not known is not enough");
    }
}
