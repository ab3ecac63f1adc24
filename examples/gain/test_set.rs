//! The test set: every network is evaluated on it once, after its training.
//!
//! The measures of each network are one file, so that an unfinished experiment can be moved to another machine.

use std::path::Path;

use freetumor::error::{Error, Result};
use freetumor::evaluate::metrics::CaseRow;
use freetumor::store::canonical;
use serde::de::DeserializeOwned;

use super::arms::{arm_data_path, training as training_name};
use super::config::Training;
use super::data_set::{Scans, scans};
use super::evaluation::{predict, rows};
use super::measures::{self, NetworkMeasures};
use super::segmentors::{digest, weights};
use super::workspace::{Workspace, print_status};

/// The scans of patients with tumors and of healthy patients.
pub struct TestSet([Scans; 2]);

impl TestSet {
    /// Opens the test set.
    ///
    /// # Errors
    /// Returns an error if the population cannot be read.
    pub fn open(workspace: &Workspace) -> Result<Self> {
        Ok(Self([scans(workspace, "test")?, scans(workspace, "healthy")?]))
    }

    /// Predicts and measures the test set with the network of an arm and seed.
    ///
    /// # Errors
    /// Returns an error if a scan cannot be read, or the network fails.
    pub fn predict(&self, workspace: &Workspace, training: &Training) -> Result<()> {
        let &Training { arm_index, arm, seed_index, seed } = training;
        let name = format!("{}-{seed}", arm.name);
        print_status(&format!("test: {name}"));
        let weights = weights(workspace, &training_name(&arm.name, seed));
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
        workspace.write(&measures::path(workspace, training), &canonical::line(&measures)?)
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).map_err(|cause| Error::io("cannot read", path, cause))?;
    canonical::parse(&bytes, &path.display().to_string())
}
