//! Scans once more: read by the source and mask that the run used, and compared with what its rows say of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value as Json;

use super::report::Refusal;
use super::select::Selected;
use crate::error::{Error, ErrorKind, Fault, Result, catch_panic};
use crate::graph::{GraphFile, MaskNode, Problem, Registry, ScanStages};
use crate::id::{MaskDigest, ScanDigest, ScanId};
use crate::ingest::{Scan, ScanEntry};
use crate::mask::{MaskedScan, Organ};
use crate::run::RunFolder;
use crate::sink::patch::{Patch, decode_patch};
use crate::sink::volume_files::Encoder;

/// Reads scans of a run folder.
pub struct ScanReader {
    stages: ScanStages,
    /// The masks that each synthesis takes scans from.
    masks_of: BTreeMap<String, Vec<String>>,
    entries: HashMap<ScanId, ScanEntry>,
    organs: Arc<[Organ]>,
}

impl ScanReader {
    /// A reader of the scans of some samples; `pipeline` is a graph file whose sources and masks are used in place of those that the
    /// run folder records.
    ///
    /// # Errors
    /// If sources and masks cannot be built, or the run folder does not say which scan is where.
    pub fn open(run: &RunFolder, samples: &[Selected], pipeline: Option<&Path>, registry: &Registry) -> Result<Self> {
        let file = graph_file(run, pipeline)?;
        let stages = ScanStages::build(&file, registry).map_err(|problems| unbuilt(file.name(), &problems))?;
        let masks_of = masks_of(&run.manifest().pipeline);
        let epochs: BTreeSet<u64> = samples.iter().map(|sample| sample.record.epoch).collect();
        let wanted: BTreeSet<ScanId> = samples.iter().map(|sample| sample.record.scan_id).collect();
        let mut entries = HashMap::new();
        for epoch in epochs {
            let of_epoch = run.scan_entries(epoch)?.into_iter().filter(|entry| wanted.contains(&entry.scan_id));
            entries.extend(of_epoch.map(|entry| (entry.scan_id, entry)));
        }
        let organs = organs_of(&stages, &masks_of);
        Ok(Self { stages, masks_of, entries, organs })
    }

    /// The organs whose labels the masks of the pipeline may hold.
    pub fn organs(&self) -> &Arc<[Organ]> {
        &self.organs
    }

    /// Reads a scan and passes on each of its samples with the encoder for its files.
    ///
    /// `samples` are samples of this scan. The scan and one mask are in memory meanwhile.
    ///
    /// # Errors
    /// If a shard cannot be read, or `take` fails. What keeps volumes from being made is returned: a scan that cannot be read, or
    /// whose voxels or mask are others than those of the run, or a damaged patch.
    pub fn each_volume(
        &self,
        run: &RunFolder,
        samples: &[&Selected],
        gzip_level: u32,
        take: &mut dyn FnMut(&Selected, &Encoder<'_>, &Patch) -> Result<()>,
    ) -> Result<Vec<Refusal>> {
        let Some(first) = samples.first() else { return Ok(Vec::new()) };
        let scan_id = first.record.scan_id;
        let refusal = |samples: &[&Selected], message: String| Refusal {
            scan_id,
            samples: samples.iter().map(|sample| sample.record.sample_id).collect(),
            message,
        };
        let scan = match self.scan(scan_id, first.record.scan_digest) {
            Ok(scan) => Arc::new(scan),
            Err(message) => return Ok(vec![refusal(samples, message)]),
        };
        let mut by_mask: BTreeMap<MaskDigest, Vec<&Selected>> = BTreeMap::new();
        for &sample in samples {
            by_mask.entry(sample.record.mask_digest).or_default().push(sample);
        }
        let mut refused = Vec::new();
        for (mask_digest, samples) in by_mask {
            // Before the mask, which has another digest, too, where axes are others.
            if let Ok(patch) = read_patch(run, samples[0])
                && let Err(message) = fits(&scan, &patch)
            {
                refused.push(refusal(&samples, message));
                continue;
            }
            let masked = match self.masked(&scan, &samples, mask_digest) {
                Ok(masked) => masked,
                Err(message) => {
                    refused.push(refusal(&samples, message));
                    continue;
                }
            };
            let encoder = match Encoder::new(&masked, gzip_level) {
                Ok(encoder) => encoder,
                Err(fault) => {
                    refused.push(refusal(&samples, fault.message));
                    continue;
                }
            };
            for sample in samples {
                let patch = match read_patch(run, sample) {
                    Ok(patch) => patch,
                    Err(error) if error.kind() == ErrorKind::Damaged => {
                        refused.push(refusal(&[sample], error.to_string()));
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let fits = fits(&scan, &patch).and_then(|()| encoder.check(&patch).map_err(|fault| fault.message));
                match fits {
                    Ok(()) => take(sample, &encoder, &patch)?,
                    Err(message) => refused.push(refusal(&[sample], message)),
                }
            }
        }
        Ok(refused)
    }

    /// A scan whose voxels are those of the run, or what is wrong with it.
    fn scan(&self, scan_id: ScanId, expected: ScanDigest) -> Result<Scan, String> {
        let Some(entry) = self.entries.get(&scan_id) else {
            return Err("the run folder does not say where it is".to_owned());
        };
        let Some(node) = self.stages.sources.iter().find(|node| node.name == entry.source) else {
            return Err(format!(
                "its source `{}` is not in the pipeline, where sources have to have the names that they have in the run",
                entry.source
            ));
        };
        let scan = guarded(|| node.source.read(entry))?;
        if scan.digest != expected {
            return Err(format!("expected voxels with digest {expected}, got {}", scan.digest));
        }
        Ok(scan)
    }

    /// A scan with the mask that its samples were made with, or what is wrong with it.
    fn masked(&self, scan: &Arc<Scan>, samples: &[&Selected], expected: MaskDigest) -> Result<MaskedScan, String> {
        let stages: BTreeSet<&str> = samples.iter().map(|sample| sample.record.stage.as_str()).collect();
        let names: BTreeSet<&str> =
            stages.iter().filter_map(|stage| self.masks_of.get(*stage)).flatten().map(String::as_str).collect();
        let of_source =
            |node: &&MaskNode| node.sources.iter().any(|&index| self.stages.sources[index].name == scan.entry.source);
        let mut problems = Vec::new();
        for node in self.stages.masks.iter().filter(|node| names.contains(node.name.as_str())).filter(of_source) {
            match guarded(|| node.mask.mask(scan)) {
                Ok(mask) => match mask.digest() {
                    digest if digest == expected => return Ok(MaskedScan { scan: Arc::clone(scan), mask }),
                    digest => problems.push(format!("`{}` gives {digest}", node.name)),
                },
                Err(message) => problems.push(format!("`{}` fails: {message}", node.name)),
            }
        }
        if problems.is_empty() {
            let names: Vec<&str> = names.into_iter().collect();
            return Err(format!("none of the pipeline's masks {names:?} takes scans of `{}`", scan.entry.source));
        }
        Err(format!("expected an organ mask with digest {expected}, {}", problems.join(", ")))
    }
}

/// Reads the patch of a sample.
///
/// # Errors
/// If it is not there, or another one.
pub fn read_patch(run: &RunFolder, sample: &Selected) -> Result<Patch> {
    let bytes = patch_bytes(run, sample)?;
    let patch = decode_patch(&bytes).map_err(|error| damaged(run, sample, &error.to_string()))?;
    let (record, description) = (&sample.record, &patch.description);
    if description.sample_id != record.sample_id
        || Some(description.candidate_digest) != record.candidate_digest
        || description.scan_digest != record.scan_digest
        || description.mask_digest != record.mask_digest
    {
        return Err(damaged(run, sample, "it is the patch of another sample"));
    }
    Ok(patch)
}

/// The members of a sample's patch as they are in their shard.
///
/// # Errors
/// If the shard is not there or shorter.
pub fn patch_bytes(run: &RunFolder, sample: &Selected) -> Result<Vec<u8>> {
    let bytes = run.store().read_range(&sample.shard, sample.offset_bytes, sample.length_bytes)?;
    let bytes = bytes.ok_or_else(|| damaged(run, sample, "the shard is not there"))?;
    if bytes.len() as u64 != sample.length_bytes {
        return Err(damaged(run, sample, "the shard ends before"));
    }
    Ok(bytes)
}

fn damaged(run: &RunFolder, sample: &Selected, problem: &str) -> Error {
    let (place, id) = (run.store().display_path(&sample.shard), sample.record.sample_id);
    Error::new(format!("{place} should have the patch of sample {id} at byte {}: {problem}", sample.offset_bytes))
        .with_kind(ErrorKind::Damaged)
        .with_hint("the run folder was damaged: restore it from a copy")
}

/// Whether a patch belongs at its place in the scan: a scan may have the right voxels in another order of its axes.
fn fits(scan: &Scan, patch: &Patch) -> Result<(), String> {
    let (region, volume) = (patch.region(), &scan.volume);
    let shape = volume.voxels.shape();
    let inside =
        (0..3).all(|axis| region.start[axis].checked_add(region.shape[axis]).is_some_and(|end| end <= shape[axis]));
    if !inside || volume.voxels.hu_of(region) != patch.before {
        return Err("its voxels are those of the run, but in another order: it was stored with other axes".to_owned());
    }
    Ok(())
}

/// Runs a stage; its fault or panic as a sentence.
fn guarded<T>(stage: impl FnOnce() -> Result<T, Fault>) -> Result<T, String> {
    match catch_panic(stage) {
        Ok(result) => result.map_err(|fault| format!("{} ({})", fault.message, fault.kind.name())),
        Err(words) => Err(format!("panic: {words}")),
    }
}

fn graph_file(run: &RunFolder, pipeline: Option<&Path>) -> Result<GraphFile> {
    if let Some(path) = pipeline {
        return GraphFile::open(path);
    }
    let recorded = run.private_pipeline()?.ok_or_else(|| {
        Error::new(format!(
            "{} is missing, which names the sources of the scans",
            run.store().display_path("private/pipeline.json")
        ))
        .with_hint("give the graph file with --pipeline")
    })?;
    GraphFile::from_resolved(&run.store().display_path("private/pipeline.json"), &recorded.folder, &recorded.pipeline)
}

fn unbuilt(name: &str, problems: &[Problem]) -> Error {
    let sentence = |problem: &Problem| {
        let label = if problem.label.is_empty() { String::new() } else { format!(" ({})", problem.label) };
        format!("{}{label}", problem.message)
    };
    let all: Vec<String> = problems.iter().map(sentence).collect();
    Error::new(format!("{name}: its sources and masks cannot be built: {}", all.join("; ")))
        .with_hint("where scans, masks or weights were moved, give a graph file with their places by --pipeline")
}

/// The stages that each stage of a resolved pipeline takes from, without ports.
fn masks_of(pipeline: &Json) -> BTreeMap<String, Vec<String>> {
    let stages = pipeline["stages"].as_object();
    let inputs = |stage: &Json| -> Vec<String> {
        stage["inputs"].as_array().into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect()
    };
    stages.into_iter().flatten().map(|(name, stage)| (name.clone(), inputs(stage))).collect()
}

/// The organs of all masks that some stage takes scans from, each once.
fn organs_of(stages: &ScanStages, masks_of: &BTreeMap<String, Vec<String>>) -> Arc<[Organ]> {
    let used: BTreeSet<&str> = masks_of.values().flatten().map(String::as_str).collect();
    let mut organs: Vec<Organ> = Vec::new();
    for node in stages.masks.iter().filter(|node| used.contains(node.name.as_str())) {
        for organ in node.mask.organs().iter() {
            if organs.iter().all(|known| known.name != organ.name) {
                organs.push(organ.clone());
            }
        }
    }
    organs.into()
}
