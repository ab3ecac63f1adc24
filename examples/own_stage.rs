//! A score stage of your own, in a pipeline.
//!
//! The stage `core` measures how much darker the inner half of a tumor is than its outer half. It registers under its own kind, has
//! settings with checks and documentation, and is used in a graph file like any other kind.
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
kind = "core"                      # registered below
inputs = ["tumors"]
unit_hu = 1.0

[stages.test]
kind = "quality-test"
inputs = ["measured"]
attempts = 10
accept = ["disagreement < 5"]

[sinks.patch_set]
kind = "patches"
inputs = ["test"]
"#;

/// Settings of a stage of kind `core`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct CoreConfig {
    /// HU that count as one.
    unit_hu: f64,
}

impl Default for CoreConfig {
    fn default() -> Self {
        Self { unit_hu: 1.0 }
    }
}

/// Difference between the mean HU of the inner and of the outer half of a tumor.
struct Core {
    unit_hu: f64,
}

impl ScoreStage for Core {
    fn scores(&self) -> &'static [Score] {
        &[Score::Disagreement]
    }

    fn baseline<'s>(&'s self, _: &'s MaskedScan, _: &'s Organ) -> Result<Box<dyn Scorer + 's>, Fault> {
        Ok(Box::new(self))
    }
}

impl Scorer for &Core {
    fn score(&self, candidate: &Candidate, scores: &mut Scores) -> Result<(), Fault> {
        let shape = candidate.region.shape;
        let distance = |voxel: [usize; 3]| -> f64 {
            (0..3).map(|axis| (2.0 * voxel[axis] as f64 / shape[axis] as f64 - 1.0).powi(2)).sum()
        };
        let mut halves = [(0.0, 0.0); 2];
        for z in 0..shape[2] {
            for y in 0..shape[1] {
                for x in 0..shape[0] {
                    if candidate.tumor[[x, y, z]] == 1 {
                        let half = &mut halves[usize::from(distance([x, y, z]) > 0.25)];
                        *half = (half.0 + f64::from(candidate.after[[x, y, z]]), half.1 + 1.0);
                    }
                }
            }
        }
        let [inner, outer] = halves.map(|(sum, count)| sum / count);
        // Without a value where one half is empty: a quality test rejects an absent score.
        scores.set(Score::Disagreement, (inner - outer) / self.unit_hu);
        Ok(())
    }
}

fn registry() -> Registry {
    let mut registry = Registry::standard();
    registry.score("core", "Compares the core of a tumor with its rim.", |config: CoreConfig, _| {
        if config.unit_hu > 0.0 {
            return Ok(Core { unit_hu: config.unit_hu }.into());
        }
        Err(vec![ConfigError::new("unit_hu", format!("expected a number above 0, got {}", config.unit_hu))])
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
