//! Reading scans again, with the source and mask of the run, and verifying them against the digests in its rows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value as Json;

use super::report::Refusal;
use super::select::SelectedSample;
use crate::compose::ChangedBox;
use crate::error::{Error, ErrorKind, Fault, Result, catch_panic};
use crate::graph::{GraphFile, MaskNode, Problem, Registry, ScanStages};
use crate::id::{MaskDigest, ScanDigest, ScanId};
use crate::ingest::{Scan, ScanEntry};
use crate::mask::{MaskedScan, Organ};
use crate::run::RunFolder;
use crate::sink::patch::{Patch, decode_patch};
use crate::sink::volume_files::Encoder;

/// A reader of the scans of a run.
pub struct ScanReader {
    stages: ScanStages,
    /// The mask stages that are inputs of each synthesis.
    masks_of: BTreeMap<String, Vec<String>>,
    entries: HashMap<ScanId, ScanEntry>,
    organs: Arc<[Organ]>,
}

impl ScanReader {
    /// Creates a reader of the scans of `samples`; `pipeline` is a graph file whose sources and masks replace the recorded ones of the
    /// run folder.
    ///
    /// # Errors
    /// If sources and masks cannot be built or the run folder has no paths of the scans.
    pub fn open(
        run: &RunFolder,
        samples: &[SelectedSample],
        pipeline: Option<&Path>,
        registry: &Registry,
    ) -> Result<Self> {
        let file = graph_file(run, pipeline)?;
        let stages = ScanStages::build(&file, registry).map_err(|problems| build_error(file.name(), &problems))?;
        let masks_of = masks_of(&run.current_manifest()?.pipeline);
        let epochs: BTreeSet<u64> = samples.iter().map(|sample| sample.record.epoch).collect();
        let required: BTreeSet<ScanId> = samples.iter().map(|sample| sample.record.scan_id).collect();
        let mut entries = HashMap::new();
        for epoch in epochs {
            let of_epoch = run.scan_entries(epoch)?.into_iter().filter(|entry| required.contains(&entry.scan_id));
            entries.extend(of_epoch.map(|entry| (entry.scan_id, entry)));
        }
        let organs = organs_of(&stages, &masks_of);
        Ok(Self { stages, masks_of, entries, organs })
    }

    /// Returns the name of the first mask stage whose masks may contain the ignored label, or `None` if there is no such stage.
    pub fn ignoring_mask(&self) -> Option<&str> {
        self.stages.masks.iter().find(|node| node.mask.may_ignore()).map(|node| node.name.as_str())
    }

    /// Returns the organs of the masks of the pipeline.
    pub fn organs(&self) -> &Arc<[Organ]> {
        &self.organs
    }

    /// Reads the scan of `samples` and calls `visit` for each sample, with the encoder of its files and the patch.
    ///
    /// All `samples` must be of one scan. The scan and one mask are in memory during the call. Returns the samples without a volume: their
    /// scan cannot be read, voxels or mask differ from those of the run, or the patch is damaged.
    ///
    /// # Errors
    /// If a shard cannot be read or `visit` fails.
    pub fn each_volume(
        &self,
        run: &RunFolder,
        samples: &[&SelectedSample],
        gzip_level: u32,
        visit: &mut dyn FnMut(&SelectedSample, &Encoder<'_>, &Patch) -> Result<()>,
    ) -> Result<Vec<Refusal>> {
        let Some(first) = samples.first() else { return Ok(Vec::new()) };
        let scan_id = first.record.scan_id;
        let refusal = |samples: &[&SelectedSample], message: String| Refusal {
            scan_id,
            samples: samples.iter().map(|sample| sample.record.sample_id).collect(),
            message,
        };
        let scan = match self.read_scan(scan_id, first.record.scan_digest) {
            Ok(scan) => Arc::new(scan),
            Err(message) => return Ok(vec![refusal(samples, message)]),
        };
        let mut by_mask: BTreeMap<MaskDigest, Vec<&SelectedSample>> = BTreeMap::new();
        for &sample in samples {
            by_mask.entry(sample.record.mask_digest).or_default().push(sample);
        }
        let mut refused = Vec::new();
        for (mask_digest, samples) in by_mask {
            // Check the order of axes before the mask, whose digest also differs with another order.
            if let Ok(patch) = read_patch(run, samples[0])
                && let Err(message) = check_axes(&scan, &patch)
            {
                refused.push(refusal(&samples, message));
                continue;
            }
            let masked = match self.compute_mask(&scan, &samples, mask_digest) {
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
                let checked = check_axes(&scan, &patch)
                    .and_then(|()| encoder.check(&patch.overlays()).map_err(|fault| fault.message));
                match checked {
                    Ok(()) => visit(sample, &encoder, &patch)?,
                    Err(message) => refused.push(refusal(&[sample], message)),
                }
            }
        }
        Ok(refused)
    }

    /// Reads a scan and verifies its voxels; the error is a message.
    ///
    /// # Errors
    /// If the scan has no path, cannot be read, or has other voxels.
    pub fn read_scan(&self, scan_id: ScanId, expected: ScanDigest) -> Result<Scan, String> {
        let Some(entry) = self.entries.get(&scan_id) else {
            return Err("expected the path of the scan in the run folder, got none".to_owned());
        };
        let Some(node) = self.stages.sources.iter().find(|node| node.name == entry.source) else {
            return Err(format!(
                "expected the source `{}` of the run in the pipeline, got none of this name",
                entry.source
            ));
        };
        let scan = catch_fault(|| node.source.read(entry))?;
        if scan.digest != expected {
            return Err(format!("expected voxels with digest {expected}, got {}", scan.digest));
        }
        Ok(scan)
    }

    /// Computes the mask of a scan and verifies that it equals the mask of its samples; the error is a message.
    fn compute_mask(
        &self,
        scan: &Arc<Scan>,
        samples: &[&SelectedSample],
        expected: MaskDigest,
    ) -> Result<MaskedScan, String> {
        let stages: BTreeSet<&str> = samples.iter().map(|sample| sample.record.stage.as_str()).collect();
        let names: BTreeSet<&str> =
            stages.iter().filter_map(|stage| self.masks_of.get(*stage)).flatten().map(String::as_str).collect();
        let of_source =
            |node: &&MaskNode| node.sources.iter().any(|&index| self.stages.sources[index].name == scan.entry.source);
        let mut problems = Vec::new();
        for node in self.stages.masks.iter().filter(|node| names.contains(node.name.as_str())).filter(of_source) {
            match catch_fault(|| node.mask.mask(scan)) {
                Ok(mask) => match mask.digest() {
                    digest if digest == expected => return Ok(MaskedScan { scan: Arc::clone(scan), mask }),
                    digest => problems.push(format!("got {digest} from `{}`", node.name)),
                },
                Err(message) => problems.push(format!("`{}` failed: {message}", node.name)),
            }
        }
        if problems.is_empty() {
            let names: Vec<&str> = names.into_iter().collect();
            return Err(format!(
                "expected a mask stage among {names:?} for scans of `{}`, got none",
                scan.entry.source
            ));
        }
        Err(format!("expected an organ mask with digest {expected}, {}", problems.join(", ")))
    }
}

/// Reads the patch of a sample.
///
/// # Errors
/// If the patch does not exist or belongs to another sample.
pub fn read_patch(run: &RunFolder, sample: &SelectedSample) -> Result<Patch> {
    let bytes = read_patch_bytes(run, sample)?;
    let patch = decode_patch(&bytes).map_err(|error| damaged(run, sample, &error.to_string()))?;
    let (record, description) = (&sample.record, &patch.description);
    if description.sample_id != record.sample_id
        || Some(description.candidate_digest) != record.candidate_digest
        || description.scan_digest != record.scan_digest
        || description.mask_digest != record.mask_digest
    {
        return Err(damaged(run, sample, "got the patch of another sample"));
    }
    Ok(patch)
}

/// Reads the encoded patch of a sample from its shard.
///
/// # Errors
/// If the shard does not exist or is too short.
pub fn read_patch_bytes(run: &RunFolder, sample: &SelectedSample) -> Result<Vec<u8>> {
    let bytes = run.store().read_range(&sample.shard, sample.offset_bytes, sample.length_bytes)?;
    let bytes = bytes.ok_or_else(|| damaged(run, sample, "the shard does not exist"))?;
    if bytes.len() as u64 != sample.length_bytes {
        return Err(damaged(run, sample, "the shard is too short"));
    }
    Ok(bytes)
}

fn damaged(run: &RunFolder, sample: &SelectedSample, problem: &str) -> Error {
    let (path, id) = (run.store().display_path(&sample.shard), sample.record.sample_id);
    Error::new(format!("{path}: expected the patch of sample {id} at byte {}: {problem}", sample.offset_bytes))
        .with_kind(ErrorKind::Damaged)
        .with_hint("the run folder is damaged: restore it from a copy")
}

/// Checks that the scan has the voxels of the patch at the patch's position: a file may have the same voxels with reordered or flipped
/// axes.
fn check_axes(scan: &Scan, patch: &Patch) -> Result<(), String> {
    let volume = &scan.volume;
    let shape = volume.voxels.shape();
    let is_equal = |ChangedBox { region, before, .. }: &ChangedBox| {
        (0..3).all(|axis| region.start[axis].checked_add(region.shape[axis]).is_some_and(|end| end <= shape[axis]))
            && volume.voxels.hu_of(*region) == *before
    };
    if !patch.boxes.iter().all(is_equal) {
        let message = "expected the scan with the axis order of the run, got it with reordered or flipped axes";
        return Err(format!("{message}: restore the file that the run read"));
    }
    Ok(())
}

/// Runs a stage and converts its fault or panic to a message.
fn catch_fault<T>(stage: impl FnOnce() -> Result<T, Fault>) -> Result<T, String> {
    match catch_panic(stage) {
        Ok(result) => result.map_err(|fault| format!("{} ({})", fault.message, fault.kind.name())),
        Err(message) => Err(format!("panic: {message}")),
    }
}

fn graph_file(run: &RunFolder, pipeline: Option<&Path>) -> Result<GraphFile> {
    pipeline.map_or_else(|| GraphFile::of_run(run), GraphFile::open)
}

fn build_error(name: &str, problems: &[Problem]) -> Error {
    let sentence = |problem: &Problem| {
        let label = if problem.label.is_empty() { String::new() } else { format!(" ({})", problem.label) };
        format!("{}{label}", problem.message)
    };
    let all: Vec<String> = problems.iter().map(sentence).collect();
    Error::new(format!("{name}: cannot build sources and masks: {}", all.join("; ")))
        .with_hint("if scans, masks or weights were moved, pass a graph file with the new paths with `--pipeline`")
}

/// Returns the input stages of each stage of a resolved pipeline, without ports.
fn masks_of(pipeline: &Json) -> BTreeMap<String, Vec<String>> {
    let stages = pipeline["stages"].as_object();
    let inputs = |stage: &Json| -> Vec<String> {
        stage["inputs"].as_array().into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect()
    };
    stages.into_iter().flatten().map(|(name, stage)| (name.clone(), inputs(stage))).collect()
}

/// Returns the organs of all masks that are inputs of a stage, without duplicates.
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
