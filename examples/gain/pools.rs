//! Scored pools: every candidate of one maker with its scores, through the ordinary pipeline.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use freetumor::dataflow::{Progress, RunOptions, run};
use freetumor::error::{Error, Result};
use freetumor::graph::{GraphFile, Plan, Registry, check};
use freetumor::id::ScanId;
use freetumor::random::Key;
use freetumor::record::SampleRow;
use freetumor::record::Split;
use freetumor::record::parquet::read_part;
use freetumor::run::RunFolder;
use freetumor::synth::{Candidate, Geometry};
use freetumor::train::data::{Case, Cases, RunSamples};
use freetumor::volume::Array3;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::config::Maker;
use super::data_set::{LABELS, Scans, list};
use super::lab::{Lab, say};
use super::segmentors::{HELD_OUT, JUDGE, generator_weights, weights};
use super::selection::{Scored, cut_to};

/// The run folder of a pool.
fn folder(lab: &Lab, maker: Maker) -> PathBuf {
    lab.out.join("pools").join(maker.name())
}

/// The graph of a maker's pool. Its quality test accepts everything; a tumor is tried again only where it found no place.
pub fn graph(lab: &Lab, maker: Maker) -> Result<String> {
    let experiment = &lab.experiment;
    let frame = &experiment.segmentation.preprocess;
    let network = |weights: PathBuf| {
        json!({
            "weights": weights, "model": "unet3d", "window_hu": frame.window_hu, "spacing_mm": frame.spacing_mm,
            "roi_voxels": frame.patch_voxels,
        })
    };
    let mut shapes = without_nulls(json!(experiment.shapes));
    shapes["variants"] = json!(experiment.pool.variants);
    let tumors = if maker == Maker::Rules {
        shapes["kind"] = json!("rules");
        shapes["inputs"] = json!(["organs"]);
        shapes
    } else {
        let activation = json!(experiment.synthesis.activation);
        let network = network(absolute(generator_weights(lab, maker))?);
        let strength = experiment.pool.strength;
        json!({
            "kind": "generator", "inputs": ["organs"], "network": network, "activation": activation, "strength": strength,
            "structure": experiment.pool.structure,
            "rules": shapes,
        })
    };
    let mut organs: Value = toml::from_str(LABELS).map_err(|cause| Error::new(format!("labels: {cause}")))?;
    organs["kind"] = json!("labels");
    organs["inputs"] = json!(["unlabeled"]);
    let judge = |name: &str, from: &str, held_out: bool| -> Result<Value> {
        let network = network(absolute(weights(lab, name))?);
        Ok(json!({ "kind": "segmentor", "inputs": [from], "network": network, "held_out": held_out }))
    };
    let graph = json!({
        "pipeline": {
            "name": format!("pool-{}", maker.name()), "seed": experiment.seeds.pool, "epoch_scans": 8,
            "split": { "train": 1.0 },
        },
        "sources": {
            // The list's scans have the same ids here and in training.
            "unlabeled": { "kind": "decathlon", "list": absolute(list(lab))?, "section": "unlabeled" },
        },
        "stages": {
            "organs": organs,
            "tumors": tumors,
            "contrast": { "kind": "intensity", "inputs": ["tumors"] },
            "judge": judge(JUDGE, "contrast", false)?,
            "held_out": judge(HELD_OUT, "judge", true)?,
            "everything": { "kind": "quality-test", "inputs": ["held_out"], "attempts": 5 },
        },
        "sinks": { "pool": { "kind": "decathlon", "inputs": ["everything"], "gzip_level": 1 } },
    });
    toml::to_string(&graph).map_err(|cause| Error::new(format!("cannot write the graph of a pool: {cause}")))
}

/// Settings as TOML takes them, which knows no null.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(table) => {
            let kept = table.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        value => value,
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path).map_err(|cause| Error::io("cannot tell the place of", &path, cause))
}

/// The checked graph of a maker's pool.
///
/// # Errors
/// Returns an error if it is not sound.
pub fn planned(lab: &Lab, maker: Maker, registry: &Registry) -> Result<Plan> {
    let file = GraphFile::new(format!("pool-{}.toml", maker.name()), &lab.out, graph(lab, maker)?);
    let checked = check(&file, registry);
    checked.plan.ok_or_else(|| {
        let said: Vec<String> = checked.problems.iter().map(|problem| problem.message.clone()).collect();
        Error::new(format!("the graph of pool {} is not sound: {}", maker.name(), said.join("; ")))
    })
}

/// Makes and scores a maker's candidates, as far as they are not there.
///
/// # Errors
/// Returns an error if the pipeline cannot be run, or a scan is spoiled.
pub fn make(lab: &Lab, maker: Maker) -> Result<()> {
    let (out, registry) = (folder(lab, maker), lab.registry());
    let done = out.join("done.json");
    if done.exists() {
        return Ok(());
    }
    say(&format!("pool {}: making and scoring candidates", maker.name()));
    lab.write(&lab.out.join("pools").join(format!("{}.toml", maker.name())), graph(lab, maker)?.as_bytes())?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let options = RunOptions { threads, ..RunOptions::default() };
    let report = run(planned(lab, maker, &registry)?, &out, &options, &Arc::new(Progress::default()))?;
    if report.faults > 0 {
        return Err(Error::new(format!("{} scans of {} were spoiled by faults", report.faults, out.display())));
    }
    let (accepted, seconds) = (report.accepted, report.seconds);
    say(&format!("pool {}: {accepted} candidates in {seconds:.0} s", maker.name()));
    lab.write_json(&done, &json!({ "candidates": accepted, "without_a_place": report.rejected }))
}

/// A pool's rows, cut to the size that all pools have.
pub struct Pool {
    pub scored: Vec<Scored>,
    rows: BTreeMap<String, SampleRow>,
}

/// Reads the tables of a pool.
///
/// # Errors
/// Returns an error if they cannot be read.
pub fn read(lab: &Lab, maker: Maker) -> Result<Pool> {
    let place = folder(lab, maker);
    let run = RunFolder::open(&place)?;
    let mut rows = BTreeMap::new();
    for file in run.files("samples", None)? {
        let path = place.join(&file.path);
        let bytes = std::fs::read(&path).map_err(|cause| Error::io("cannot read", &path, cause))?;
        let accepted = read_part::<SampleRow>(bytes)?.into_iter().filter(|row| row.record.outcome.is_accepted());
        rows.extend(accepted.map(|row| (row.record.sample_id.to_string(), row)));
    }
    let scored = rows.iter().map(|(id, row)| Scored {
        id: id.clone(),
        diameter_mm: row.record.geometry.as_ref().map_or(f64::NAN, |geometry| geometry.diameter_mm),
        scores: row.record.scores.clone(),
    });
    let key = Key::root(lab.experiment.seeds.pool).with("pool", maker.name());
    let wanted = lab.experiment.pool.candidates;
    let scored = cut_to(scored.collect(), wanted, key);
    if scored.len() < wanted {
        let there = scored.len();
        return Err(Error::new(format!("pool {} has {there} candidates, expected {wanted}", maker.name()))
            .with_hint("raise pool.variants"));
    }
    Ok(Pool { scored, rows })
}

/// The tumors of some samples, each on the grid of its case among `unlabeled`.
///
/// # Errors
/// Returns an error if a sample or its scan cannot be read, or they do not fit.
pub fn tumors(
    lab: &Lab,
    maker: Maker,
    pool: &Pool,
    ids: &[String],
    unlabeled: &Scans,
) -> Result<Vec<(usize, Candidate)>> {
    let mut entries = RunSamples::open(&folder(lab, maker), None)?.entries(Split::Train, &lab.organs)?;
    entries.retain(|entry| ids.binary_search(&entry.id.to_string()).is_ok());
    if entries.len() != ids.len() {
        return Err(Error::new(format!("{} of {} samples have files", entries.len(), ids.len())));
    }
    let places: BTreeMap<ScanId, usize> =
        unlabeled.cases.entries().iter().enumerate().map(|(index, entry)| (entry.id, index)).collect();
    // Each is read once, and only what differs is kept.
    let samples = Cases::new(entries, lab.preprocess()?, 1);
    let one = |index: usize| {
        let id = &samples.entries()[index].id.to_string();
        let unreadable = |fault| Error::new(format!("sample {id}: {fault}"));
        let row = pool.rows.get(id).ok_or_else(|| Error::new(format!("sample {id} has no row")))?;
        let place = places.get(&row.record.scan_id);
        let place = *place.ok_or_else(|| Error::new(format!("the scan of sample {id} is not in the list")))?;
        let (sample, scan) = (samples.get(index).map_err(unreadable)?, unlabeled.cases.get(place).map_err(unreadable)?);
        let geometry = row.record.geometry.clone();
        let geometry = geometry.ok_or_else(|| Error::new(format!("sample {id} has no geometry")))?;
        let candidate = difference(&scan, &sample, geometry)
            .ok_or_else(|| Error::new(format!("sample {id} is not its scan with a tumor in it")))?;
        Ok((place, candidate))
    };
    (0..samples.len()).into_par_iter().map(one).collect()
}

/// What a sample has beside its scan; `None` where it is another scan's, or has nothing.
fn difference(scan: &Case, sample: &Case, geometry: Geometry) -> Option<Candidate> {
    let (before, after) = (&scan.masked, &sample.masked);
    if scan.shape() != sample.shape() {
        return None;
    }
    let whole = before.mask.labels.region();
    let [from, to] = [&before.scan, &after.scan].map(|scan| scan.volume.voxels.hu_of(whole));
    let (old, new) = (&before.mask.labels, &after.mask.labels);
    let differs = Array3::from_fn(scan.shape(), |voxel| old[voxel] != new[voxel] || from[voxel] != to[voxel]);
    let region = differs.extent(|differs| *differs)?;
    let (labels, old) = (new.cut(region), old.cut(region));
    let tumor = Array3::from_fn(region.shape, |voxel| u8::from(labels[voxel] != old[voxel]));
    if tumor.as_slice().iter().all(|inside| *inside == 0) {
        return None;
    }
    let (before, after) = (from.cut(region), to.cut(region));
    Some(Candidate { region, site_box: region, before, after, labels, tumor, geometry })
}
