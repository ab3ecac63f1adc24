//! A folder of small scans that changes between runs, and the content of a run folder without what depends on its history.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, UNIX_EPOCH};

use freetumor::dataflow::{Progress, RunOptions, RunReport, run};
use freetumor::error::Result;
use freetumor::graph::{GraphFile, Plan, Registry, Resources, check};
use freetumor::id::ScanId;
use freetumor::ingest::nifti::{self, Datatype};
use freetumor::ingest::phantom::{PhantomConfig, PhantomSource};
use freetumor::ingest::{PatientSecret, Source};
use freetumor::record::parquet::{Row, decode_part};
use freetumor::record::{FaultRecord, Placement, QualityRecord, SampleRow, ScanRecord};
use freetumor::run::RunFolder;
use freetumor::store::FileDigest;
use freetumor::volume::Grid;
use serde_json::{Value, json};

pub const SECRET: &str = "a secret for tests only";

/// A phantom: HU and labels.
struct Phantom {
    grid: Grid,
    hu: Vec<i16>,
    labels: Vec<u8>,
}

/// Returns a few phantoms, which are made once.
fn phantoms() -> &'static [Phantom] {
    static PHANTOMS: OnceLock<Vec<Phantom>> = OnceLock::new();
    PHANTOMS.get_or_init(|| {
        let config =
            PhantomConfig { count: 4, shape: [48, 40, 32], spacing_mm: [7.0, 7.0, 8.0], ..PhantomConfig::default() };
        let source = PhantomSource::new(config, "phantoms").unwrap();
        let read = |entry| {
            let scan = source.read(&entry).unwrap();
            let labels = scan.companions.labels("labels.nii.gz").unwrap();
            let whole = freetumor::volume::Region { start: [0; 3], shape: scan.volume.grid.shape };
            let hu = scan.volume.voxels.hu_of(whole);
            Phantom {
                grid: scan.volume.grid,
                hu: hu.as_slice().iter().map(|&hu| hu as i16).collect(),
                labels: labels.ids.as_slice().iter().map(|&id| id as u8).collect(),
            }
        };
        source.list().unwrap().into_iter().map(read).collect()
    })
}

/// An archive in a temporary folder.
pub struct Archive {
    folder: tempfile::TempDir,
    /// Seconds since 2020 of the last change: two changes never have one modification time.
    clock: AtomicU64,
}

impl Archive {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), SECRET).unwrap();
        std::fs::create_dir(folder.path().join("ct")).unwrap();
        Self { folder, clock: AtomicU64::new(0) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file below the folder of scans with a new modification time.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path("ct").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        self.touch(name);
    }

    /// Sets a new modification time of a file.
    pub fn touch(&self, name: &str) {
        let clock = self.clock.fetch_add(1, Ordering::Relaxed);
        let time = UNIX_EPOCH + Duration::from_secs(1_577_836_800 + clock);
        let file = std::fs::File::options().write(true).open(self.path("ct").join(name)).unwrap();
        file.set_modified(time).unwrap();
    }

    /// Writes a scan; scans of different `content` differ.
    pub fn write_scan(&self, case: &str, content: usize) {
        let phantom = &phantoms()[content % phantoms().len()];
        let mut file = nifti::encode_header(&phantom.grid, Datatype::I16, "").unwrap().to_vec();
        let mut hu = phantom.hu.clone();
        hu[0] = content as i16;
        file.extend(hu.into_iter().flat_map(i16::to_le_bytes));
        self.write(&format!("{case}/ct.nii"), &file);
    }

    /// Writes the labels of a scan of this content, with or without the kidneys.
    pub fn write_labels(&self, case: &str, content: usize, with_kidneys: bool) {
        let phantom = &phantoms()[content % phantoms().len()];
        let mut file = nifti::encode_header(&phantom.grid, Datatype::U8, "").unwrap().to_vec();
        file.extend(phantom.labels.iter().map(|&id| if [2, 3].contains(&id) && !with_kidneys { 0 } else { id }));
        self.write(&format!("{case}/labels.nii"), &file);
    }

    /// Writes a scan and its labels.
    pub fn add(&self, case: &str, content: usize) {
        self.write_scan(case, content);
        self.write_labels(case, content, true);
    }

    /// Removes a file or folder.
    pub fn remove(&self, name: &str) {
        let path = self.path("ct").join(name);
        if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
    }

    /// Returns the id of the scan of a case.
    pub fn scan_id(&self, case: &str) -> ScanId {
        PatientSecret::new(SECRET).unwrap().scan_id("scans", &format!("{case}/ct.nii"))
    }

    pub fn plan(&self, epoch_scans: usize) -> Plan {
        self.plan_with(epoch_scans, &[])
    }

    /// Returns the plan with changes of the graph file: overrides, and tables of TOML that are added.
    pub fn plan_with(&self, epoch_scans: usize, sets: &[&str]) -> Plan {
        let (tables, sets): (Vec<&str>, Vec<&str>) = sets.iter().partition(|set| set.starts_with('['));
        let text = GRAPH.replace("EPOCH_SCANS", &epoch_scans.to_string()) + STAGES + &tables.join("\n");
        let secret = Some(self.path("secret"));
        let registry = Registry::with_resources(&Resources { patient_secret: secret, ..Resources::default() });
        let checked = check(&GraphFile::new("test.toml", self.folder.path(), text).with_sets(sets), &registry);
        let problems: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
        checked.plan.unwrap_or_else(|| panic!("{}", problems.join("\n")))
    }

    /// Runs the pipeline into a folder.
    pub fn run(&self, out: &str) -> Result<RunReport> {
        self.run_with(out, 3, &RunOptions::default())
    }

    pub fn run_with(&self, out: &str, epoch_scans: usize, options: &RunOptions) -> Result<RunReport> {
        run(self.plan(epoch_scans), &self.path(out), options, &Arc::new(Progress::default()))
    }

    /// Runs the pipeline with changes of the graph file.
    pub fn run_sets(&self, out: &str, sets: &[&str]) -> RunReport {
        run(self.plan_with(3, sets), &self.path(out), &RunOptions::default(), &Arc::new(Progress::default())).unwrap()
    }

    /// Returns the content of a run folder, after checks of all its digests.
    pub fn content(&self, out: &str) -> Content {
        Content::of(&self.path(out))
    }
}

const GRAPH: &str = r#"
[pipeline]
name = "archive"
epoch_scans = EPOCH_SCANS
max_missing = 0.5

[sources.scans]
kind = "folder"
root = "ct"
include = ["*/ct.nii"]

[stages.organs]
kind = "labels"
inputs = ["scans"]
pattern = "labels.nii"
scheme = "totalsegmentator"
organs = ["liver", "kidney"]
"#;

/// The stages after the mask, and sinks of each kind of content: appended to the graphs of several test modules.
pub const STAGES: &str = r#"
[stages.synthesize]
kind = "rules"
inputs = ["organs"]

[stages.score]
kind = "intensity"
inputs = ["synthesize"]

[stages.filter]
kind = "quality-test"
inputs = ["score"]
attempts = 3
accept = ["delta_hu < -12"]

[sinks.patch_set]
kind = "patches"
inputs = ["filter"]

[sinks.training_set]
kind = "decathlon"
inputs = ["filter"]

[sinks.shards]
kind = "webdataset"
inputs = ["filter", "filter.rejected"]
buckets = 2
"#;

/// The content of a run folder, without epochs, shards and offsets, which depend on its history.
#[derive(Debug, PartialEq)]
pub struct Content {
    pub samples: Vec<Value>,
    pub scans: Vec<Value>,
    pub faults: Vec<Value>,
    pub quality: BTreeMap<String, i64>,
    pub counts: Value,
    /// The files of the layout of pairs, with their digests.
    pub layout: BTreeMap<String, FileDigest>,
    /// The members of the shards of whole volumes, with their digests; descriptions are left out.
    pub members: BTreeMap<String, FileDigest>,
}

impl Content {
    pub fn of(path: &Path) -> Self {
        let folder = RunFolder::open(path).unwrap();
        let verified = folder.verify().unwrap();
        assert!(verified.problems.is_empty(), "{:?}", verified.problems);
        let mut samples: Vec<Value> = rows::<SampleRow>(&folder).iter().map(|row| sample(path, row)).collect();
        let mut scans: Vec<Value> = rows::<ScanRecord>(&folder).iter().map(|row| without_epoch(json!(row))).collect();
        let mut faults: Vec<Value> = rows::<FaultRecord>(&folder).iter().map(|row| without_epoch(json!(row))).collect();
        for rows in [&mut samples, &mut scans, &mut faults] {
            rows.sort_by_key(Value::to_string);
        }
        let mut quality = BTreeMap::new();
        for row in rows::<QualityRecord>(&folder) {
            *quality.entry(json!(row.group).to_string()).or_default() += row.attempts;
        }
        quality.retain(|_, count| *count != 0);
        let counts = json!(folder.snapshot(None).unwrap().head.counts);
        let shards = folder.files("shards", None).unwrap_or_default();
        let shards = shards.iter().flat_map(|file| members(&std::fs::read(path.join(&file.path)).unwrap()));
        Self { samples, scans, faults, quality, counts, layout: layout(path), members: shards.collect() }
    }
}

fn rows<R: Row>(folder: &RunFolder) -> Vec<R> {
    let files = folder.files(R::TABLE.name(), None).unwrap();
    files.iter().flat_map(|file| decode_part::<R>(folder.read_verified(file).unwrap()).unwrap()).collect()
}

fn without_epoch(mut row: Value) -> Value {
    row.as_object_mut().unwrap().remove("epoch");
    row
}

/// Returns a row of `samples` with the digests of its patch; rejected candidates are kept by epoch, so their patches are left out.
fn sample(path: &Path, row: &SampleRow) -> Value {
    let Placement { patch_shard, patch_offset_bytes, patch_length_bytes, image_sha256, label_sha256, .. } =
        row.placement.clone();
    let patch = patch_shard.filter(|_| row.record.outcome.is_accepted()).map(|shard| {
        let bytes = std::fs::read(path.join(shard)).unwrap();
        let start = patch_offset_bytes.unwrap() as usize;
        members(&bytes[start..start + patch_length_bytes.unwrap() as usize])
            .into_iter()
            .map(|(name, digest)| (name, json!(digest)))
            .collect::<serde_json::Map<_, _>>()
    });
    json!({ "row": without_epoch(json!(row.record)), "patch": patch, "image": image_sha256, "label": label_sha256 })
}

/// Returns the members of a tar with their digests, without descriptions, which contain epochs.
fn members(bytes: &[u8]) -> BTreeMap<String, FileDigest> {
    let mut members = BTreeMap::new();
    for member in tar::Archive::new(bytes).entries().unwrap() {
        let mut member = member.unwrap();
        let name = member.path().unwrap().to_string_lossy().into_owned();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut member, &mut content).unwrap();
        if !name.ends_with(".json") {
            members.insert(name, FileDigest::of(&content));
        }
    }
    members
}

/// Returns the files of the layout of the decathlon, whose lists are sorted by epoch, which the digest ignores.
fn layout(path: &Path) -> BTreeMap<String, FileDigest> {
    let root = path.join("layouts/training_set");
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(&root).into_iter().filter_map(std::result::Result::ok) {
        let name = entry.path().strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        if entry.file_type().is_file() && name.ends_with(".nii.gz") {
            files.insert(name, FileDigest::of(&std::fs::read(entry.path()).unwrap()));
        }
    }
    files
}
