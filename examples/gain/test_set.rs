//! The test set: looked at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use freetumor::error::{Error, Result};
use freetumor::sink::canonical;
use freetumor::train::metrics::CaseRow;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::arms::{Made, made_at, training};
use super::evaluation::{predict, rows};
use super::gate;
use super::lab::{Lab, say};
use super::report::{self, Results};
use super::segmentors::{digest, weights};
use super::side_by_side::side_by_side;
use super::world::{Scans, scans};

/// What is written down before the first test scan is shown to a network.
#[derive(Debug, Serialize, Deserialize)]
struct Opened {
    /// The networks, by arm and seed.
    weights_sha256: BTreeMap<String, String>,
    times: u32,
}

/// Looks at the test set with all arms, and reports.
///
/// # Errors
/// Where an arm is not finished, or the test set was looked at already and that is not `forced`.
pub fn look(lab: &Lab, forced: bool) -> Result<()> {
    let gate = gate::check(lab)?;
    let experiment = &lab.experiment;
    let (mut networks, trainings) = (BTreeMap::new(), experiment.trainings());
    for (_, arm, _, seed) in &trainings {
        let path = weights(lab, &training(&arm.name, *seed));
        if !path.exists() {
            return Err(Error::new(format!("arm {}, seed {seed}, is not trained to its end", arm.name))
                .with_hint("the stage `arms` goes on with it; the test set waits for all"));
        }
        networks.insert(format!("{}-{seed}", arm.name), digest(&path)?);
    }
    let times_opened = open(lab, networks, forced)?;
    let (mut all, mut made) = (Vec::new(), BTreeMap::new());
    let parts = [scans(lab, "test")?, scans(lab, "healthy")?];
    let looked_at = |arm: &str, seed: u64, part: &Scans| {
        predict(lab, "test", &format!("{arm}-{seed}"), &weights(lab, &training(arm, seed)), part)
    };
    side_by_side(lab.jobs, &trainings, |(_, arm, _, seed)| {
        say(&format!("test: {}-{seed}", arm.name));
        parts.iter().try_for_each(|part| looked_at(&arm.name, *seed, part).map(drop))
    })?;
    for (place, arm, index, seed) in trainings {
        for part in &parts {
            let measured: Vec<CaseRow> = rows(&looked_at(&arm.name, seed, part)?, part, place, index)?;
            all.extend(measured);
        }
        let given: Made = read(&made_at(lab, &arm.name, seed))?;
        made.entry(arm.name.clone()).or_insert_with(Vec::new).push(given);
    }
    let (plan, primary, secondary, gap_closed) = report::summaries(lab, &all);
    let experiment_sha256 = experiment.digest()?;
    let results = Results { experiment_sha256, times_opened, gate, made, primary, secondary, gap_closed };
    report::write(lab, &plan, &all, &results)?;
    say(&format!("results: {}", lab.out.join("results.md").display()));
    Ok(())
}

/// Opens the test set; gives how often that was done, this time included. One that was interrupted goes on.
fn open(lab: &Lab, weights_sha256: BTreeMap<String, String>, forced: bool) -> Result<u32> {
    let path: PathBuf = lab.out.join("test").join("opened.json");
    let before: Option<Opened> = if path.exists() { Some(read(&path)?) } else { None };
    let is_reported = lab.out.join("results.json").exists();
    let times = match before {
        None => 1,
        Some(before) if before.weights_sha256 == weights_sha256 && !is_reported => before.times,
        Some(before) if forced => before.times + 1,
        Some(_) => {
            return Err(Error::new(format!("the test set of {} was looked at already", lab.out.display()))
                .with_hint("results.md has what was seen; --force looks again, and the report says so"));
        }
    };
    lab.write_json(&path, &Opened { weights_sha256, times })?;
    Ok(times)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).map_err(|cause| Error::io("cannot read", path, cause))?;
    canonical::parse(&bytes, &path.display().to_string())
}
