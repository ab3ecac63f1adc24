//! The test set: every network sees it once, when it has learned.
//!
//! What was seen is one file for each network, so that an experiment can be taken to another machine half done.

use std::path::{Path, PathBuf};

use freetumor::error::{Error, Result};
use freetumor::evaluate::metrics::CaseRow;
use freetumor::store::canonical;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::arms::{Made, made_at, training};
use super::config::{Training, Tumors};
use super::data_set::{Scans, scans};
use super::evaluation::{predict, rows};
use super::lab::{Lab, say};
use super::segmentors::{digest, weights};

/// What a network did on the test set.
#[derive(Debug, Serialize, Deserialize)]
pub struct ScanPrediction {
    pub arm: String,
    pub seed: u64,
    /// The settings that all networks of the experiment share, as a digest.
    pub settings_sha256: String,
    /// The arm as it was.
    pub tumors: Tumors,
    pub weights_sha256: String,
    /// What it was trained on.
    pub made: Made,
    pub cases: Vec<CaseRow>,
}

/// The patients with tumors and the healthy ones.
pub struct TestSet([Scans; 2]);

impl TestSet {
    /// # Errors
    /// Returns an error if the world cannot be read.
    pub fn open(lab: &Lab) -> Result<Self> {
        Ok(Self([scans(lab, "test")?, scans(lab, "healthy")?]))
    }

    /// Shows it to the network of an arm and seed.
    ///
    /// # Errors
    /// Returns an error if a scan cannot be read, or the network fails.
    pub fn show(&self, lab: &Lab, &Training { place, arm, index, seed }: &Training) -> Result<()> {
        let name = format!("{}-{seed}", arm.name);
        say(&format!("test: {name}"));
        let weights = weights(lab, &training(&arm.name, seed));
        let mut cases: Vec<CaseRow> = Vec::new();
        for part in &self.0 {
            cases.extend(rows(&predict(lab, "test", &name, &weights, part)?, part, place, index)?);
        }
        let seen = ScanPrediction {
            arm: arm.name.clone(),
            seed,
            settings_sha256: lab.experiment.digest()?,
            tumors: arm.tumors.clone(),
            weights_sha256: digest(&weights)?,
            made: read(&made_at(lab, &arm.name, seed))?,
            cases,
        };
        lab.write(&seen_at(lab, &arm.name, seed), &canonical::line(&seen)?)
    }
}

/// Where it lies what a network did.
pub fn seen_at(lab: &Lab, arm: &str, seed: u64) -> PathBuf {
    lab.out.join("seen").join(format!("{arm}-{seed}.json"))
}

/// What all networks did, or those of the named arms.
///
/// # Errors
/// Returns an error if one of them has not seen the test set, or in another experiment.
pub fn all_seen(lab: &Lab, names: &[String]) -> Result<Vec<ScanPrediction>> {
    let one = |training: Training| {
        let path = seen_at(lab, &training.arm.name, training.seed);
        if !path.exists() {
            return Err(Error::new(format!("arm {}, seed {}, is not finished", training.arm.name, training.seed))
                .with_hint("the stage `arms` goes on with it; the report waits for all, or for those of --arm"));
        }
        let mut seen: ScanPrediction = read(&path)?;
        if seen.settings_sha256 != lab.experiment.digest()? || seen.tumors != training.arm.tumors {
            return Err(Error::new(format!("{} is of an experiment with other settings", path.display())));
        }
        // Arms that came since may have moved its place.
        for row in &mut seen.cases {
            (row.arm, row.seed) = (training.place, training.index);
        }
        Ok(seen)
    };
    lab.experiment.trainings(names).into_iter().map(one).collect()
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).map_err(|cause| Error::io("cannot read", path, cause))?;
    canonical::parse(&bytes, &path.display().to_string())
}
