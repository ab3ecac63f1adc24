//! Small scans with tumors, and a for-loop that writes a run folder.

use std::collections::BTreeMap;
use std::sync::Arc;

use freetumor::error::{Fault, FaultKind, Result};
use freetumor::graph::SplitShares;
use freetumor::id::{FieldHasher, MaskDigest, PatientKey, SampleId, ScanDigest, ScanId, StageDigest};
use freetumor::ingest::{Companions, Scan, ScanEntry};
use freetumor::mask::{MaskedScan, Organ, OrganMask};
use freetumor::random::Key;
use freetumor::record::{FaultRecord, Outcome, SampleKind, SampleRecord, ScanRecord, Status};
use freetumor::run::seal::{LayoutInput, seal};
use freetumor::run::spool::{ScanOutcome, Spool};
use freetumor::run::{EpochChanges, FORMAT_VERSION, RunFolder, RunManifest, RunWriter};
use freetumor::score::{Score, Scores};
use freetumor::sink::{
    DecathlonConfig, DecathlonSink, Layout, NnunetConfig, NnunetSink, PatchesConfig, PatchesSink, WebDatasetConfig,
    WebDatasetSink,
};
use freetumor::store::DurableStorage;
use freetumor::synth::{Candidate, Geometry};
use freetumor::volume::{Affine, Array3, Grid, Labels, Region, Volume, Voxels};

/// The sinks of a run.
pub type Layouts = Vec<Arc<dyn Layout>>;

/// Converts layouts to the iterator that the library expects.
pub fn layouts(layouts: &[Arc<dyn Layout>]) -> impl Iterator<Item = &dyn Layout> {
    layouts.iter().map(|layout| &**layout)
}

struct NoCompanions;

impl Companions for NoCompanions {
    fn labels(&self, pattern: &str) -> Result<Labels, Fault> {
        Err(Fault::mask(FaultKind::Missing, format!("expected a file {pattern}, got none")))
    }
}

pub fn organs() -> Arc<[Organ]> {
    [("liver", 1), ("kidney", 3)]
        .map(|(name, label)| Organ { name: name.to_owned(), label, tumor_label: label + 1 })
        .into()
}

pub fn sinks() -> Layouts {
    let two_buckets = WebDatasetConfig { buckets: 2, ..WebDatasetConfig::default() };
    vec![
        Arc::new(NnunetSink::new("nnunet", NnunetConfig::default(), [organs()[0].clone()].into()).unwrap()),
        Arc::new(DecathlonSink::new("decathlon", DecathlonConfig::default(), organs()).unwrap()),
        Arc::new(WebDatasetSink::new("webdataset", two_buckets).unwrap()),
        Arc::new(PatchesSink::new("patch_set", &PatchesConfig::default()).unwrap()),
    ]
}

/// Returns inputs in which every sink receives the accepted samples.
pub fn layout_inputs(sinks: &[Arc<dyn Layout>]) -> Vec<LayoutInput<'_>> {
    let accepted = &|record: &SampleRecord| record.outcome == Outcome::Accepted;
    sinks.iter().map(|sink| LayoutInput { layout: &**sink, selects: accepted }).collect()
}

pub fn manifest(seed: u64) -> RunManifest {
    RunManifest {
        format: FORMAT_VERSION,
        pipeline: serde_json::json!({
            "pipeline": { "name": format!("fixture {seed}") },
            "sources": { "made": { "kind": "fixture" } },
        }),
        pipeline_digest: "5e".repeat(32),
        seed,
        code_version: "0.1.0".into(),
        shard_buckets: BTreeMap::from([("patches".to_owned(), 4)]),
        kernel_class: None,
        patient_secret: None,
        models: BTreeMap::new(),
        graphs: BTreeMap::new(),
    }
}

/// Returns scan `number`; every third scan has the patient of the previous scan.
pub fn entry(number: u64) -> ScanEntry {
    let key = format!("Jane Doe/{number}.nii.gz");
    ScanEntry {
        scan_id: ScanId::from_hash(&FieldHasher::new("fixture").add_field(&key).finish()),
        source: "made".into(),
        key,
        dataset: ["north", "south"][number as usize % 2].into(),
        patient_key: PatientKey::from_bytes(
            (number - u64::from(number % 3 == 2)).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes(),
        ),
        bytes: 1000 + number,
        modified_s: 1_700_000_000,
        version: Default::default(),
    }
}

pub fn masked(entry: &ScanEntry, shape: [usize; 3]) -> MaskedScan {
    let mut random = Key::root(1).with("scan", &entry.scan_id.to_string()).stream("voxels");
    let voxels = Array3::from_fn(shape, |_| random.normal(60.0, 25.0) as i16);
    let affine = Affine([[-0.8, 0.0, 0.0, 120.5], [0.0, -0.8, 0.0, 90.0], [0.0, 0.0, 5.0, -40.0]]);
    let labels = Array3::from_fn(shape, |[x, y, _]| match (2 * x < shape[0], 4 * y < shape[1]) {
        (true, _) => 1,
        (false, true) => 3,
        _ => 0,
    });
    let scan = Scan {
        acquisition: Default::default(),
        entry: entry.clone(),
        digest: ScanDigest::from_hash(&FieldHasher::new("fixture").add_field(entry.scan_id.as_bytes()).finish()),
        volume: Volume { grid: Grid { shape, affine }, voxels: Voxels::I16(voxels) },
        companions: Arc::new(NoCompanions),
    };
    MaskedScan { scan: Arc::new(scan), mask: OrganMask { labels, organs: organs(), coverage: 1.0 } }
}

/// Returns a box with lower HU and tumor labels in the liver.
pub fn candidate(masked: &MaskedScan, key: Key) -> Candidate {
    let mut random = key.stream("box");
    let bounds = masked.scan.volume.grid.shape;
    let shape = bounds.map(|length| 1 + length / 3);
    let start = [0, 1, 2].map(|axis| random.index(bounds[axis] - shape[axis] + 1));
    let region = Region { start, shape };
    let before = masked.scan.volume.voxels.hu_of(region);
    let mut labels = masked.mask.labels.cut(region);
    let tumor = labels.map(|&label| u8::from(label == 1));
    let mut after = before.clone();
    for ((hu, label), _) in
        after.as_mut_slice().iter_mut().zip(labels.as_mut_slice()).zip(tumor.as_slice()).filter(|(_, t)| **t == 1)
    {
        *hu -= 40.0;
        *label = 2;
    }
    let radii_mm = [9.0, 8.0, random.uniform(4.0, 7.0)];
    let geometry = Geometry {
        size_class: ["tiny", "small", "medium", "large"][random.index(4)].into(),
        site_voxel: start,
        site_mm: masked.scan.volume.grid.affine.apply(start.map(|i| i as f64)),
        radii_mm,
        volume_mm3: radii_mm.iter().product(),
        diameter_mm: random.uniform(4.0, 40.0),
        sphericity: random.uniform(0.5, 1.0),
        clipped_fraction: 0.1,
        boundary_distance_mm: 3.0,
        drawn_contrast_hu: Some(-40.0),
        ..Geometry::default()
    };
    Candidate { region, site_box: region, support: tumor.clone(), before, after, labels, tumor, geometry }
}

/// Spools synthetic results of a scan.
pub fn spool_scan(spool: &Spool, epoch: u64, entry: &ScanEntry, shape: [usize; 3]) -> Result<ScanOutcome> {
    let root = Key::root(7);
    let split = SplitShares { train: 0.5, validation: 0.3, test: 0.2 }.of(entry.patient_key);
    let scan_key = root.with("scan", &entry.scan_id.to_string());
    let mut scan = ScanRecord {
        acquisition: Default::default(),
        scan_id: entry.scan_id,
        scan_digest: None,
        patient_key: entry.patient_key,
        dataset: entry.dataset.clone(),
        source: entry.source.clone(),
        epoch,
        split,
        status: Status::Fault,
        duplicate_of: None,
        bytes: entry.bytes,
        shape: None,
        spacing_mm: None,
        orientation: None,
        hu_min: None,
        hu_max: None,
        organs: Vec::new(),
        mask_coverage: Some(1.0),
        accepted: 0,
        rejected: 0,
    };
    if scan_key.stream("fate").chance(0.15) {
        let fault = Fault::read(FaultKind::Truncated, "expected 4096 bytes of voxels, got 1000");
        let (scan_id, dataset, source) = (entry.scan_id, entry.dataset.clone(), entry.source.clone());
        let faults = vec![FaultRecord { scan_id, dataset, source, epoch, fault }];
        return Ok(spool.save(epoch, ScanOutcome { scan, samples: Vec::new(), faults, files: Vec::new() })?.unwrap());
    }
    let masked = masked(entry, shape);
    scan.status = Status::Done;
    scan.scan_digest = Some(masked.scan.digest);
    scan.shape = Some(shape.map(|length| length as u32));
    scan.spacing_mm = Some(masked.scan.volume.grid.spacing_mm());
    scan.orientation = Some("LPS".into());
    (scan.hu_min, scan.hu_max) = (Some(-80.0), Some(200.0));
    scan.organs = vec![("liver".into(), 1.0 / 3.0), ("kidney".into(), 0.1)];
    let open = spool.open(epoch, &masked).unwrap();
    let (mut samples, mut files) = (Vec::new(), Vec::new());
    for attempt in 0..3u32 {
        let key = scan_key.number("attempt", attempt.into());
        let mut random = key.stream("fate");
        let mut scores = Scores::default();
        scores.set(Score::Cnr, random.normal(-2.0, 1.0));
        scores.set(Score::DeltaHu, random.uniform(-60.0, -5.0));
        scores.set(Score::FoundFraction, random.uniform(0.0, 1.0));
        // A score that is not finite.
        scores.set(Score::HuRing, f64::NAN);
        let found = scores.get(Score::FoundFraction).unwrap();
        let (outcome, has_site) = match found {
            f if f > 0.4 => (Outcome::Accepted, true),
            f if f > 0.2 => (Outcome::Rejected { reason: "found_fraction > 0.4".into() }, true),
            _ => (Outcome::Rejected { reason: "no_site".into() }, false),
        };
        let candidate = candidate(&masked, key);
        let hash = FieldHasher::new("fixture").add_field(entry.scan_id.as_bytes()).add_field(attempt.to_le_bytes());
        let sample_id = SampleId::from_hash(&hash.finish());
        let record = SampleRecord {
            sample_id,
            kind: SampleKind::Synthetic,
            tumor_id: 0,
            candidate_id: Some(sample_id),
            scan_id: entry.scan_id,
            scan_digest: masked.scan.digest,
            mask_digest: MaskDigest::from_bytes([7; 32]),
            patient_key: entry.patient_key,
            dataset: entry.dataset.clone(),
            epoch,
            seed: u64::MAX - 1,
            stage: "rules".into(),
            branch: "test".into(),
            variant: 0,
            attempt,
            organ: "liver".into(),
            tumor_label: 2,
            split,
            geometry: has_site.then(|| candidate.geometry.clone()),
            candidate_digest: has_site.then(|| candidate.digest()),
            scores,
            likeness: Some(0.25 + f64::from(attempt)),
            acceptance: (attempt > 0).then_some(0.5),
            outcome,
            stage_digest: StageDigest::from_bytes([1; 32]),
            score_stages: vec![("scores".into(), StageDigest::from_bytes([2; 32]))],
            test_digest: StageDigest::from_bytes([3; 32]),
            pipeline_digest: "5e".repeat(32),
            model: "rules-1".into(),
        };
        let accepted = record.outcome.is_accepted();
        if has_site {
            files.push(open.add(&[(&candidate).into()], std::slice::from_ref(&record), accepted)?.unwrap());
        }
        *(if accepted { &mut scan.accepted } else { &mut scan.rejected }) += 1;
        samples.push(record);
    }
    files.sort_by_key(|files| files.sample_id);
    Ok(spool.save(epoch, ScanOutcome { scan, samples, faults: Vec::new(), files })?.unwrap())
}

/// Writes or resumes a run of `epochs` epochs with `scans` scans each.
pub fn run(
    store: &Arc<dyn DurableStorage>,
    sinks: &[Arc<dyn Layout>],
    epochs: u64,
    scans: u64,
    shape: [usize; 3],
) -> Result<RunWriter> {
    let mut writer = RunFolder::create_or_resume_in(Arc::clone(store), &manifest(7))?;
    let spool = writer.spool(layouts(sinks));
    spool.clear_committed(writer.next_epoch())?;
    while writer.next_ingest() < epochs {
        let first = writer.next_ingest() * scans;
        writer.ingest(&EpochChanges::of_entries((first..first + scans).map(entry).collect::<Vec<_>>()))?;
    }
    for epoch in writer.next_epoch()..epochs {
        let mut outcomes = Vec::new();
        for entry in writer.folder().scan_entries(epoch)? {
            outcomes.push(match spool.load_verified(epoch, entry.scan_id)? {
                Some(outcome) => outcome,
                None => spool_scan(&spool, epoch, &entry, shape)?,
            });
        }
        let sealed = seal(&**store, epoch, outcomes, &layout_inputs(sinks))?;
        writer.commit(sealed)?;
        spool.clear(epoch)?;
    }
    writer.project(layouts(sinks))?;
    Ok(writer)
}
