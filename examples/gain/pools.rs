//! Scored pools: all candidates of one synthesis with their scores, made by a normal pipeline.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use freetumor::dataflow::{Progress, RunOptions, run};
use freetumor::error::{Error, Result};
use freetumor::graph::{GraphFile, Plan, Registry, check};
use freetumor::id::ScanId;
use freetumor::ingest::HeldOut;
use freetumor::random::Key;
use freetumor::record::SampleRow;
use freetumor::record::Split;
use freetumor::record::parquet::decode_part;
use freetumor::run::RunFolder;
use freetumor::synth::{Candidate, Geometry};
use freetumor::train::data::{Case, Cases, RunSamples};
use freetumor::volume::Array3;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::config::PoolKind;
use super::data_set::{LABELS, Scans, list};
use super::segmentors::{HELD_OUT, QUALITY, generator_weights, weights};
use super::selection::{ScoredCandidate, limit_pool};
use super::workspace::{Workspace, print_status};

/// Returns the run folder of a pool.
fn folder(workspace: &Workspace, pool_kind: PoolKind) -> PathBuf {
    workspace.out.join("pools").join(pool_kind.name())
}

/// Returns the graph of a pool. The quality test accepts all candidates; there is another attempt only if a tumor has no site.
pub fn graph(workspace: &Workspace, pool_kind: PoolKind) -> Result<String> {
    let experiment = &workspace.experiment;
    let preprocess = &experiment.segmentation.preprocess;
    let network = |weights: PathBuf| {
        json!({
            "weights": weights, "model": "unet3d", "window_hu": preprocess.window_hu, "spacing_mm": preprocess.spacing_mm,
            "roi_voxels": preprocess.patch_voxels,
        })
    };
    let mut shapes = remove_nulls(json!(experiment.shapes));
    shapes["variants"] = json!(experiment.pool.variants);
    let tumors = if pool_kind == PoolKind::Rules {
        shapes["kind"] = json!("rules");
        shapes["inputs"] = json!(["organs"]);
        shapes
    } else {
        let activation = json!(experiment.synthesis.activation);
        let network = network(absolute(generator_weights(workspace, pool_kind))?);
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
    let scorer = |name: &str, from: &str, held_out: bool| -> Result<Value> {
        let network = network(absolute(weights(workspace, name))?);
        Ok(json!({ "kind": "segmentor", "inputs": [from], "network": network, "held_out": held_out }))
    };
    let graph = json!({
        "pipeline": {
            "name": format!("pool-{}", pool_kind.name()), "seed": experiment.seeds.pool, "epoch_scans": 8,
            "split": { "train": 1.0 },
        },
        "sources": {
            // The scans of the list have the same ids in the pool and in the training.
            "unlabeled": { "kind": "decathlon", "list": absolute(list(workspace))?, "section": "unlabeled" },
        },
        "stages": {
            "organs": organs,
            "tumors": tumors,
            "contrast": { "kind": "intensity", "inputs": ["tumors"] },
            "judge": scorer(QUALITY, "contrast", false)?,
            "held_out": scorer(HELD_OUT, "judge", true)?,
            "everything": { "kind": "quality-test", "inputs": ["held_out"], "attempts": 5 },
        },
        "sinks": { "pool": { "kind": "decathlon", "inputs": ["everything"], "gzip_level": 1 } },
    });
    toml::to_string(&graph).map_err(|cause| Error::new(format!("cannot serialize the graph of a pool: {cause}")))
}

/// Removes null values, which TOML does not support.
fn remove_nulls(value: Value) -> Value {
    match value {
        Value::Object(table) => {
            let present = table.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(present.map(|(key, value)| (key, remove_nulls(value))).collect())
        }
        value => value,
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path).map_err(|cause| Error::io("cannot resolve the path", &path, cause))
}

/// Checks the graph of a pool and returns its plan.
///
/// # Errors
/// Returns an error if the graph is invalid.
pub fn plan(workspace: &Workspace, pool_kind: PoolKind, registry: &Registry) -> Result<Plan> {
    let file = GraphFile::new(format!("pool-{}.toml", pool_kind.name()), &workspace.out, graph(workspace, pool_kind)?);
    let checked = check(&file, registry);
    checked.plan.ok_or_else(|| {
        let messages: Vec<String> = checked.problems.iter().map(|problem| problem.message.clone()).collect();
        Error::new(format!("the graph of pool {} is invalid: {}", pool_kind.name(), messages.join("; ")))
    })
}

/// Makes and scores the candidates of a pool that are missing.
///
/// # Errors
/// Returns an error if the pipeline cannot be run, or a scan fails.
pub fn make(workspace: &Workspace, pool_kind: PoolKind) -> Result<()> {
    let (out, registry) = (folder(workspace, pool_kind), workspace.registry());
    let done = out.join("done.json");
    if done.exists() {
        return Ok(());
    }
    print_status(&format!("pool {}: making and scoring candidates", pool_kind.name()));
    workspace.write(
        &workspace.out.join("pools").join(format!("{}.toml", pool_kind.name())),
        graph(workspace, pool_kind)?.as_bytes(),
    )?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let options = RunOptions { threads, ..RunOptions::default() };
    let report = run(plan(workspace, pool_kind, &registry)?, &out, &options, &Arc::new(Progress::default()))?;
    if report.failed_scans > 0 {
        return Err(Error::new(format!("{} scans of {} failed", report.failed_scans, out.display())));
    }
    let (accepted, seconds) = (report.accepted, report.seconds);
    print_status(&format!("pool {}: {accepted} candidates in {seconds:.0} s", pool_kind.name()));
    workspace.write_json(&done, &json!({ "candidates": accepted, "without_a_place": report.rejected }))
}

/// The rows of a pool, limited to the size of all pools.
pub struct Pool {
    pub scored: Vec<ScoredCandidate>,
    rows: BTreeMap<String, SampleRow>,
}

/// Reads the tables of a pool.
///
/// # Errors
/// Returns an error if a table cannot be read.
pub fn read(workspace: &Workspace, pool_kind: PoolKind) -> Result<Pool> {
    let folder = folder(workspace, pool_kind);
    let run = RunFolder::open(&folder)?;
    let mut rows = BTreeMap::new();
    for file in run.files("samples", None)? {
        let path = folder.join(&file.path);
        let bytes = std::fs::read(&path).map_err(|cause| Error::io("cannot read", &path, cause))?;
        let accepted = decode_part::<SampleRow>(bytes)?.into_iter().filter(|row| row.record.outcome.is_accepted());
        rows.extend(accepted.map(|row| (row.record.sample_id.to_string(), row)));
    }
    let scored = rows.iter().map(|(id, row)| ScoredCandidate {
        id: id.clone(),
        diameter_mm: row.record.geometry.as_ref().map_or(f64::NAN, |geometry| geometry.diameter_mm),
        scores: row.record.scores.clone(),
    });
    let key = Key::root(workspace.experiment.seeds.pool).with("pool", pool_kind.name());
    let expected = workspace.experiment.pool.candidates;
    let scored = limit_pool(scored.collect(), expected, key);
    if scored.len() < expected {
        let got = scored.len();
        return Err(Error::new(format!("pool {}: expected {expected} candidates, got {got}", pool_kind.name()))
            .with_hint("raise `pool.variants`"));
    }
    Ok(Pool { scored, rows })
}

/// Reads the tumors of samples, each with the index of its case in `unlabeled` and on the grid of that case.
///
/// # Errors
/// Returns an error if a sample or its scan cannot be read, or the sample does not match the scan.
pub fn tumors(
    workspace: &Workspace,
    pool_kind: PoolKind,
    pool: &Pool,
    ids: &[String],
    unlabeled: &Scans,
) -> Result<Vec<(usize, Candidate)>> {
    let mut entries = RunSamples::open(&folder(workspace, pool_kind), None)?.entries(
        Split::Train,
        &workspace.organs,
        &HeldOut::default(),
    )?;
    entries.retain(|entry| ids.binary_search(&entry.id.to_string()).is_ok());
    if entries.len() != ids.len() {
        return Err(Error::new(format!("expected files of {} samples, got {}", ids.len(), entries.len())));
    }
    let indices: BTreeMap<ScanId, usize> =
        unlabeled.cases.entries().iter().enumerate().map(|(index, entry)| (entry.id, index)).collect();
    // Each sample is read once, and only the region that differs from the scan is kept.
    let samples = Cases::new(entries, workspace.preprocess()?, 1);
    let read_tumor = |index: usize| {
        let id = &samples.entries()[index].id.to_string();
        let unreadable = |fault| Error::new(format!("sample {id}: {fault}"));
        let row = pool.rows.get(id).ok_or_else(|| Error::new(format!("sample {id} has no row")))?;
        let scan_index = indices.get(&row.record.scan_id);
        let scan_index =
            *scan_index.ok_or_else(|| Error::new(format!("the scan of sample {id} is not in the list")))?;
        let sample = samples.get(index).map_err(unreadable)?;
        let scan = unlabeled.cases.get(scan_index).map_err(unreadable)?;
        let geometry = row.record.geometry.clone();
        let geometry = geometry.ok_or_else(|| Error::new(format!("sample {id} has no geometry")))?;
        let candidate = difference(&scan, &sample, geometry)
            .ok_or_else(|| Error::new(format!("sample {id}: expected its scan with a tumor")))?;
        Ok((scan_index, candidate))
    };
    (0..samples.len()).into_par_iter().map(read_tumor).collect()
}

/// Returns the difference between a sample and its scan as a candidate; `None` if the sample has no tumor or another shape.
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
    // Labels of displaced tissue differ, too.
    let organs = &after.mask.organs;
    let is_tumor = |label: u8| organs.iter().any(|organ| organ.tumor_label == label);
    let tumor = Array3::from_fn(region.shape, |voxel| u8::from(is_tumor(labels[voxel]) && !is_tumor(old[voxel])));
    if tumor.as_slice().iter().all(|inside| *inside == 0) {
        return None;
    }
    let (before, after) = (from.cut(region), to.cut(region));
    Some(Candidate {
        region,
        site_box: region,
        support: differs.cut(region).map(|differs| u8::from(*differs)),
        before,
        after,
        labels,
        tumor,
        geometry,
    })
}
