//! The test set: every network is evaluated on it once, after its training.
//!
//! The predictions of each network are one file, so that an unfinished experiment can be moved to another machine.

use std::path::{Path, PathBuf};

use freetumor::error::{Error, Result};
use freetumor::evaluate::metrics::CaseRow;
use freetumor::store::canonical;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::arms::{ArmData, arm_data_path, training};
use super::config::{Training, TumorSelection};
use super::data_set::{Scans, scans};
use super::evaluation::{predict, rows};
use super::segmentors::{digest, weights};
use super::workspace::{Workspace, print_status};

/// The measures of one network on the test set.
#[derive(Debug, Serialize, Deserialize)]
pub struct NetworkMeasures {
    pub arm: String,
    pub seed: u64,
    /// A digest of the settings that all networks of the experiment share.
    pub settings_sha256: String,
    /// The settings of the arm.
    pub tumors: TumorSelection,
    pub weights_sha256: String,
    /// The synthetic tumors of the training.
    #[serde(rename = "made")]
    pub arm_data: ArmData,
    pub cases: Vec<CaseRow>,
}

/// The scans of patients with tumors and of healthy patients.
pub struct TestSet([Scans; 2]);

impl TestSet {
    /// Opens the test set.
    ///
    /// # Errors
    /// Returns an error if the world cannot be read.
    pub fn open(workspace: &Workspace) -> Result<Self> {
        Ok(Self([scans(workspace, "test")?, scans(workspace, "healthy")?]))
    }

    /// Predicts and measures the test set with the network of an arm and seed.
    ///
    /// # Errors
    /// Returns an error if a scan cannot be read, or the network fails.
    pub fn predict(
        &self,
        workspace: &Workspace,
        &Training { arm_index, arm, seed_index, seed }: &Training,
    ) -> Result<()> {
        let name = format!("{}-{seed}", arm.name);
        print_status(&format!("test: {name}"));
        let weights = weights(workspace, &training(&arm.name, seed));
        let mut cases: Vec<CaseRow> = Vec::new();
        for part in &self.0 {
            cases.extend(rows(&predict(workspace, "test", &name, &weights, part)?, part, arm_index, seed_index)?);
        }
        let measures = NetworkMeasures {
            arm: arm.name.clone(),
            seed,
            settings_sha256: workspace.experiment.digest()?,
            tumors: arm.tumors.clone(),
            weights_sha256: digest(&weights)?,
            arm_data: read(&arm_data_path(workspace, &arm.name, seed))?,
            cases,
        };
        workspace.write(&measures_path(workspace, &arm.name, seed), &canonical::line(&measures)?)
    }
}

/// Returns the path of the measures of a network.
pub fn measures_path(workspace: &Workspace, arm: &str, seed: u64) -> PathBuf {
    workspace.out.join("seen").join(format!("{arm}-{seed}.json"))
}

/// Reads the measures of all networks, or of those of the named arms.
///
/// # Errors
/// Returns an error if a network was not evaluated on the test set, or in another experiment.
pub fn read_measures(workspace: &Workspace, names: &[String]) -> Result<Vec<NetworkMeasures>> {
    let read_one = |training: Training| {
        let path = measures_path(workspace, &training.arm.name, training.seed);
        if !path.exists() {
            return Err(Error::new(format!("arm {}, seed {}, is not finished", training.arm.name, training.seed))
                .with_hint("resume with `--stage arms`, or select finished arms with `--arm`"));
        }
        let mut measures: NetworkMeasures = read(&path)?;
        if measures.settings_sha256 != workspace.experiment.digest()? || measures.tumors != training.arm.tumors {
            return Err(Error::new(format!("{} belongs to an experiment with other settings", path.display())));
        }
        // The index of the arm changes if arms were added.
        for row in &mut measures.cases {
            (row.arm, row.seed) = (training.arm_index, training.seed_index);
        }
        Ok(measures)
    };
    workspace.experiment.trainings(names).into_iter().map(read_one).collect()
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).map_err(|cause| Error::io("cannot read", path, cause))?;
    canonical::parse(&bytes, &path.display().to_string())
}
