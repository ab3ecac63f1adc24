//! The gate: the conditions under which the experiment can show a difference. The oracle must learn, and exceed real tumors only.

use std::path::PathBuf;

use freetumor::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::arms::Arms;
use super::config::{Arm, ORACLE, REAL_ONLY};
use super::data_set::scans;
use super::evaluation::{mean_dsc, predict, rows};
use super::parallel::run_parallel;
use super::workspace::{Workspace, print_status};

/// The result of the gate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GateResult {
    /// Percent of Dice on validation, by seed.
    pub oracle_dsc: Vec<f64>,
    pub real_only_dsc: Vec<f64>,
    pub is_open: bool,
}

fn path(workspace: &Workspace) -> PathBuf {
    workspace.out.join("gate.json")
}

/// Trains the oracle and real only with the tuning seeds, and evaluates them on validation.
///
/// # Errors
/// Returns an error if a training fails.
pub fn run(workspace: &Workspace) -> Result<()> {
    if path(workspace).exists() {
        return Ok(());
    }
    let arms = [ORACLE, REAL_ONLY].into_iter().filter_map(|name| workspace.experiment.arm_index(name));
    let results =
        train_and_validate(workspace, &arms.map(|index| &workspace.experiment.arms[index]).collect::<Vec<_>>())?;
    let of = |name| -> Vec<f64> { results.iter().filter(|arm| arm.0 == name).flat_map(|arm| arm.1.clone()).collect() };
    let (oracle_dsc, real_only_dsc) = (of(ORACLE), of(REAL_ONLY));
    let gate = &workspace.experiment.gate;
    let is_open = passes_gate(&oracle_dsc, &real_only_dsc, gate.least_oracle_dsc, gate.least_gap_dsc);
    workspace.write_json(&path(workspace), &GateResult { oracle_dsc, real_only_dsc, is_open })
}

/// Trains arms with the tuning seeds; returns their names and percent of Dice on validation, by seed.
///
/// # Errors
/// Returns an error if a training fails.
fn train_and_validate(workspace: &Workspace, arms: &[&Arm]) -> Result<Vec<(String, Vec<f64>)>> {
    let validation = scans(workspace, "validation")?;
    let data = Arms::new(workspace)?;
    let seeds = &workspace.experiment.seeds.tuning;
    let trainings: Vec<(&Arm, u64)> = arms.iter().flat_map(|arm| seeds.iter().map(move |seed| (*arm, *seed))).collect();
    let train =
        |(arm, seed): &(&Arm, u64)| data.train(arm, *seed, format!("tuning/{}-{seed}", arm.name), Some(&validation));
    run_parallel(workspace.jobs, &trainings, |training| train(training).map(drop))?;
    let dsc = |arm: &Arm, seed: u64| -> Result<f64> {
        let weights = train(&(arm, seed))?;
        let folder = predict(workspace, "validation", &format!("{}-{seed}", arm.name), &weights, &validation)?;
        let dsc = mean_dsc(&rows(&folder, &validation, 0, 0)?);
        print_status(&format!("{}, seed {seed}: {dsc:.1} DSC on validation", arm.name));
        Ok(dsc)
    };
    let all = |arm: &&Arm| Ok((arm.name.clone(), seeds.iter().map(|seed| dsc(arm, *seed)).collect::<Result<_>>()?));
    arms.iter().map(all).collect()
}

/// Trains arms with the tuning seeds, to choose settings on validation, and writes the results to a file.
///
/// # Errors
/// Returns an error if the gate is closed, or a training fails.
pub fn run_trials(workspace: &Workspace, arms: &[&Arm]) -> Result<()> {
    check(workspace)?;
    for (name, dsc) in train_and_validate(workspace, arms)? {
        workspace.write_json(
            &workspace.out.join("trials").join(format!("{name}.json")),
            &json!({ "arm": name, "dsc": dsc }),
        )?;
    }
    Ok(())
}

/// Reads the result of the gate.
///
/// # Errors
/// Returns an error if the gate was not run, or is closed.
pub fn check(workspace: &Workspace) -> Result<GateResult> {
    let path = path(workspace);
    let bytes = std::fs::read(&path).map_err(|cause| {
        Error::io("cannot read", &path, cause)
            .with_hint("run the stage `gate` before `judges`, `pools`, `arms` and `report`")
    })?;
    let result: GateResult = freetumor::store::canonical::parse(&bytes, &path.display().to_string())?;
    let gate = &workspace.experiment.gate;
    if result.is_open || !gate.stops {
        return Ok(result);
    }
    let (oracle, real_only) = (mean(&result.oracle_dsc), mean(&result.real_only_dsc));
    let message = format!(
        "the gate is closed: expected the oracle to have at least {} DSC on validation and to exceed real only by at least {}, \
         got {oracle:.1} and {:.1}",
        gate.least_oracle_dsc,
        gate.least_gap_dsc,
        oracle - real_only
    );
    Err(Error::new(message).with_hint(
        "change steps, rate, crops or the population with the tuning seeds, document the trials in examples/gain/README.md, and start \
         in another folder",
    ))
}

fn passes_gate(oracle_dsc: &[f64], real_only_dsc: &[f64], min_oracle: f64, min_gap: f64) -> bool {
    let (oracle, real_only) = (mean(oracle_dsc), mean(real_only_dsc));
    oracle >= min_oracle && oracle - real_only >= min_gap
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gate_requires_oracle_dice_and_gap() {
        assert!(passes_gate(&[64.0, 62.0], &[40.0, 44.0], 60.0, 15.0));
        assert!(!passes_gate(&[58.0, 61.0], &[20.0, 22.0], 60.0, 15.0), "the oracle has not learned");
        assert!(!passes_gate(&[64.0, 62.0], &[50.0, 52.0], 60.0, 15.0), "the gap is too small");
        assert!(!passes_gate(&[f64::NAN], &[0.0], 60.0, 15.0), "an undefined Dice does not pass");
    }
}
