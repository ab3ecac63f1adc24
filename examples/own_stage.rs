//! A score stage of your own, in a pipeline.
//!
//! The stage `robust-contrast` computes the score `cnr` from medians: outliers such as vessels change it less than the mean and
//! standard deviation of the kind `intensity`. The stage registers under its own kind, has settings with checks and documentation, and is
//! used in a graph file like any other kind.
//!
//! ```console
//! $ cargo run --release --example own_stage -- runs/own
//! ```

use std::path::Path;
use std::sync::Arc;

use freetumor::dataflow::{Progress, RunOptions, RunReport, run};
use freetumor::error::{ConfigError, Error, Fault};
use freetumor::graph::{GraphFile, Registry, check};
use freetumor::mask::{MaskedScan, Organ};
use freetumor::score::{Score, ScoreStage, Scorer, Scores};
use freetumor::synth::Candidate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const GRAPH: &str = r#"
[pipeline]
name = "own-stage"
seed = 7

[sources.phantoms]
kind = "phantom"
count = 4
shape = [96, 96, 64]
spacing_mm = [3.6, 3.6, 4.5]

[stages.organs]
kind = "labels"
inputs = ["phantoms"]
organs = ["liver"]

[stages.tumors]
kind = "rules"
inputs = ["organs"]
diameter_mm = [20, 50]

[stages.measured]
kind = "robust-contrast"           # registered below
inputs = ["tumors"]
min_noise_hu = 2.0

[stages.test]
kind = "quality-test"
inputs = ["measured"]
attempts = 10
accept = ["cnr < -0.5"]

[sinks.patch_set]
kind = "patches"
inputs = ["test"]
"#;

/// Settings of a stage of kind `robust-contrast`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RobustContrastConfig {
    /// Minimum noise in HU, which replaces a lower estimate.
    min_noise_hu: f64,
}

impl Default for RobustContrastConfig {
    fn default() -> Self {
        Self { min_noise_hu: 1.0 }
    }
}

/// Difference of median HU between the tumor and its organ, in units of the organ's noise.
struct RobustContrast {
    min_noise_hu: f64,
}

/// The stage, prepared for one organ.
struct OrganContrast {
    min_noise_hu: f64,
    label: u8,
}

impl ScoreStage for RobustContrast {
    fn scores(&self) -> &'static [Score] {
        &[Score::Cnr]
    }

    fn baseline<'s>(&'s self, _: &'s MaskedScan, organ: &'s Organ) -> Result<Box<dyn Scorer + 's>, Fault> {
        Ok(Box::new(OrganContrast { min_noise_hu: self.min_noise_hu, label: organ.label }))
    }
}

impl Scorer for OrganContrast {
    fn score(&self, candidate: &Candidate, scores: &mut Scores) -> Result<(), Fault> {
        let hu_where = |is_in: &dyn Fn(usize) -> bool| -> Vec<f64> {
            let voxels = (0..candidate.region.voxels()).filter(|&voxel| is_in(voxel));
            voxels.map(|voxel| f64::from(candidate.after.as_slice()[voxel])).collect()
        };
        let tumor = median(hu_where(&|voxel| candidate.tumor.as_slice()[voxel] == 1));
        let healthy = hu_where(&|voxel| candidate.labels.as_slice()[voxel] == self.label);
        let organ = median(healthy.clone());
        // 1.4826 medians of the absolute deviation are the standard deviation of a normal distribution.
        let noise_hu = 1.4826 * median(healthy.iter().map(|hu| (hu - organ).abs()).collect());
        // Not finite if the box has no healthy voxel: a quality test rejects such a score.
        scores.set(Score::Cnr, (tumor - organ) / noise_hu.max(self.min_noise_hu));
        Ok(())
    }
}

/// Returns the median; not a number if there are no values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn registry() -> Registry {
    let mut registry = Registry::standard();
    let about = "Computes the contrast to noise from medians.";
    registry.add_score("robust-contrast", about, |config: RobustContrastConfig, _| {
        if config.min_noise_hu > 0.0 {
            return Ok(RobustContrast { min_noise_hu: config.min_noise_hu }.into());
        }
        let message = format!("expected a number above 0, got {}", config.min_noise_hu);
        Err(vec![ConfigError::new("min_noise_hu", message)])
    });
    registry
}

fn run_into(folder: &Path) -> Result<RunReport, Error> {
    let checked = check(&GraphFile::new("own_stage.toml", ".", GRAPH), &registry());
    for problem in &checked.problems {
        eprintln!("{problem}");
    }
    let plan = checked.plan.ok_or_else(|| Error::new("the graph has errors"))?;
    run(plan, folder, &RunOptions::default(), &Arc::new(Progress::default()))
}

fn main() -> Result<(), Error> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "runs/own".to_owned());
    let report = run_into(Path::new(&folder))?;
    println!("{folder}: {} accepted, {} rejected", report.accepted, report.rejected);
    Ok(())
}

#[test]
fn own_stage_scores_every_candidate() {
    let folder = tempfile::tempdir().unwrap();
    let report = run_into(folder.path()).unwrap();
    assert!(report.accepted > 0 && report.faults == 0);
    let again = run_into(folder.path()).unwrap();
    assert_eq!(again.accepted, report.accepted, "a second run finds nothing to do");
}
