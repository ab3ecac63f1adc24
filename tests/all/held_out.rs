//! Tests of held-out scans: one content under any name and in any format has one digest, and `never_train` keeps it out of runs and
//! trainings.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use freetumor::dataflow::{Progress, RunOptions, finished, run};
use freetumor::error::FaultKind;
use freetumor::graph::{GraphFile, Registry, check};
use freetumor::id::ScanDigest;
use freetumor::ingest::nifti::{self, Datatype, encode_header};
use freetumor::ingest::{
    FolderConfig, FolderSource, HeldOut, HeldOutCache, HeldOutPaths, Source, content_digest, dicom, volume_file,
};
use freetumor::record::parquet::decode_part;
use freetumor::record::{FaultRecord, SampleRow, ScanRecord, Split, Status};
use freetumor::run::RunFolder;
use freetumor::train::data::{CaseEntry, RunSamples};
use freetumor::volume::{Affine, Grid, Region, Volume, Voxels};

use crate::changes::archive::{Archive, SECRET};
use crate::dicom_files;
use crate::patients::{write_compressed, write_decathlon};

const SHAPE: [usize; 3] = [5, 4, 3];
/// Spacing of which f32 is nearest to another thousandth of a millimetre than the decimal number.
const SPACING_MM: [f64; 3] = [0.8105, 0.8105, 2.5];

fn bytes(hu: &[i16]) -> Vec<u8> {
    hu.iter().flat_map(|hu| hu.to_le_bytes()).collect()
}

/// Writes one content in every format of one file; returns the paths.
fn write_every_container(folder: &Path) -> Vec<PathBuf> {
    let mut affine = Affine::from_spacing(SPACING_MM);
    affine.0[2][3] = -77.0;
    let grid = Grid { shape: SHAPE, affine };
    let hu: Vec<i16> = (0..60).map(|voxel| voxel * 31 - 1000).collect();
    let voxels = bytes(&hu);
    let header = encode_header(&grid, Datatype::I16, "").unwrap();
    let float = encode_header(&grid, Datatype::F32, "another program").unwrap();
    let float_voxels: Vec<u8> = hu.iter().flat_map(|hu| f32::from(*hu).to_le_bytes()).collect();
    let [sx, sy, sz] = SPACING_MM;
    // The other direction of x and y, as ITK stores them, with voxels in that order.
    let lps: Vec<i16> = (0..60)
        .map(|voxel| (voxel % 5, voxel / 5 % 4, voxel / 20))
        .map(|(x, y, z)| hu[(4 - x) + 5 * (3 - y) + 20 * z])
        .collect();
    let nrrd = |encoding: &str| {
        format!(
            "NRRD0005\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 5 4 3\nspace directions: ({sx},0,0) (0,{sy},0) \
             (0,0,{sz})\nendian: little\nencoding: {encoding}\nspace origin: (1,2,3)\n\n"
        )
    };
    let meta = |compressed: &str| {
        format!(
            "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n{compressed}TransformMatrix = 1 0 0 0 1 0 0 0 1\n\
             Offset = 0 0 0\nElementSpacing = {sx} {sy} {sz}\nDimSize = 5 4 3\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
        )
    };
    let gzip = |content: &[u8]| {
        let mut file = GzEncoder::new(Vec::new(), Compression::best());
        file.write_all(content).unwrap();
        file.finish().unwrap()
    };
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(&bytes(&lps)).unwrap();
    let zlib = zlib.finish().unwrap();
    let files = [
        ("plain.nii", [&header[..], &voxels].concat()),
        ("of another name.nii.gz", gzip(&[&header[..], &voxels].concat())),
        ("floats.nii.gz", gzip(&[&float[..], &float_voxels].concat())),
        ("raw.nrrd", [nrrd("raw").as_bytes(), &bytes(&lps)].concat()),
        ("compressed.nrrd", [nrrd("gzip").as_bytes(), &gzip(&bytes(&lps))].concat()),
        ("raw.mha", [meta("").as_bytes(), &bytes(&lps)].concat()),
        (
            "compressed.mha",
            [meta(&format!("CompressedData = True\nCompressedDataSize = {}\n", zlib.len())).as_bytes(), &zlib].concat(),
        ),
    ];
    let write = |(name, bytes): (&str, Vec<u8>)| {
        std::fs::write(folder.join(name), bytes).unwrap();
        folder.join(name)
    };
    files.into_iter().map(write).collect()
}

fn digest_of(path: &Path) -> ScanDigest {
    content_digest(&volume_file::read_volume(path).unwrap_or_else(|fault| panic!("{}: {fault}", path.display())))
}

#[test]
fn digest_is_the_same_in_every_container_under_every_name() {
    let folder = tempfile::tempdir().unwrap();
    let paths = write_every_container(folder.path());
    let digests: Vec<_> = paths.iter().map(|path| (path.file_name().unwrap(), digest_of(path))).collect();
    assert!(digests.iter().all(|(_, digest)| *digest == digests[0].1), "{digests:?}");
    let held_out = HeldOutPaths::new(vec![paths[0].clone()], dicom::Decoder::in_process());
    let held_out = held_out.digests(1, &HeldOutCache::default(), &|_| Ok(())).unwrap();
    assert!(paths.iter().all(|path| held_out.contains(digest_of(path))));
}

#[test]
fn digest_of_dicom_series_is_that_of_its_conversion() {
    let folder = tempfile::tempdir().unwrap();
    let series = folder.path().join("case/dicom");
    std::fs::create_dir_all(&series).unwrap();
    dicom_files::write(&series, &dicom_files::series(4));
    std::fs::write(folder.path().join("secret"), SECRET).unwrap();
    let config = FolderConfig {
        settle: None,
        acquisition_year: false,
        root: folder.path().to_owned(),
        include: vec!["*/dicom".to_owned()],
        exclude: Vec::new(),
        allow_unreadable_files: false,
        dataset: None,
        patient: Default::default(),
    };
    let source = FolderSource::new("archive", config).unwrap().with_secret_file(Some(folder.path().join("secret")));
    let scan = source.read(&source.list().unwrap()[0]).unwrap();
    let Voxels::I16(hu) = &scan.volume.voxels else { panic!("expected integers") };
    let converted = folder.path().join("converted.nii.gz");
    let header = encode_header(&scan.volume.grid, Datatype::I16, "").unwrap();
    write_compressed(&converted, &header, &bytes(hu.as_slice()));
    assert_eq!(digest_of(&converted), scan.digest);
    // A series is held out by its folder, and by a folder above it.
    for path in [series, folder.path().join("case")] {
        let held_out = HeldOutPaths::new(vec![path], dicom::Decoder::in_process());
        assert!(held_out.digests(1, &HeldOutCache::default(), &|_| Ok(())).unwrap().contains(scan.digest));
    }
}

#[test]
fn other_hu_or_spacing_is_another_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_every_container(folder.path()).remove(0);
    let volume = volume_file::read_volume(&path).unwrap();
    let mut resampled = volume.clone();
    resampled.grid.affine.0[2][2] *= 1.01;
    assert_ne!(content_digest(&resampled), content_digest(&volume));
    // Clipping and rounding change voxels: such a copy is not recognized.
    let Voxels::I16(mut hu) = volume.voxels.clone() else { panic!("expected integers") };
    hu.as_mut_slice()[0] += 1;
    assert_ne!(content_digest(&Volume { voxels: Voxels::I16(hu), ..volume.clone() }), content_digest(&volume));
}

/// Writes a compressed copy of the scan of a case with floats, under another name, outside of the source.
fn hold_out(archive: &Archive, case: &str, name: &str) -> PathBuf {
    let volume = nifti::read_volume(archive.path("ct").join(case).join("ct.nii")).unwrap();
    let Voxels::I16(hu) = &volume.voxels else { panic!("expected integers") };
    let path = archive.path("held").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let floats: Vec<u8> = hu.as_slice().iter().flat_map(|hu| f32::from(*hu).to_le_bytes()).collect();
    write_compressed(&path, &encode_header(&volume.grid, Datatype::F32, "").unwrap(), &floats);
    path
}

fn archive_of(cases: &[&str]) -> Archive {
    let archive = Archive::new();
    for (content, case) in cases.iter().enumerate() {
        archive.add(case, content);
    }
    archive
}

fn rows<R: freetumor::record::parquet::Row>(run: &Path) -> Vec<R> {
    let folder = RunFolder::open(run).unwrap();
    let files = folder.files(R::TABLE.name(), None).unwrap();
    files.iter().flat_map(|file| decode_part::<R>(folder.read_verified(file).unwrap()).unwrap()).collect()
}

const HELD: &[&str] = &["pipeline.never_train=[\"held\"]"];

#[test]
fn held_out_scan_is_a_fault_without_samples_and_is_not_processed_again() {
    let archive = archive_of(&["a", "b", "c"]);
    let held = hold_out(&archive, "b", "test set/Miller_Anna.nii.gz");
    let report = archive.run_sets("run", HELD);
    assert_eq!(report.newly_failed_scans, [archive.scan_id("b")]);
    assert_eq!((report.failed_scans, report.pending_scans), (1, 0));
    assert_eq!(report.fault_kinds.keys().collect::<Vec<_>>(), ["read/held_out"]);
    let run = archive.path("run");
    let faults: Vec<FaultRecord> = rows(&run);
    assert_eq!((faults.len(), faults[0].fault.kind), (1, FaultKind::HeldOut));
    assert!(faults[0].fault.message.contains("never_train") && !faults[0].fault.message.contains("Miller"));
    assert!(rows::<SampleRow>(&run).iter().all(|row| row.record.scan_id != archive.scan_id("b")));
    let scans: Vec<ScanRecord> = rows(&run);
    let scan = scans.iter().find(|row| row.scan_id == archive.scan_id("b")).unwrap();
    assert_eq!((scan.status, scan.scan_digest), (Status::Fault, Some(digest_of(&held))));
    // The path is in no shared file.
    for entry in walkdir::WalkDir::new(&run).into_iter().map(Result::unwrap).filter(|entry| entry.file_type().is_file())
    {
        let content = String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).into_owned();
        let is_private = entry.path().starts_with(run.join("private"));
        assert!(is_private || !(content.contains("Miller") || content.contains("test set")), "{:?}", entry.path());
    }
    // The next run decodes nothing: the voxels of the held-out file are no longer readable, but its size and time are the same.
    let modified = held.metadata().unwrap().modified().unwrap();
    let length = std::fs::read(&held).unwrap().len();
    std::fs::write(&held, vec![7; length]).unwrap();
    std::fs::File::options().write(true).open(&held).unwrap().set_modified(modified).unwrap();
    let again = archive.run_sets("run", HELD);
    assert_eq!((again.processed_scans, again.failed_scans, again.newly_failed_scans.len()), (0, 1, 0));
    let plan = archive.plan_with(3, HELD);
    assert_eq!(finished(&plan, &run).unwrap().unwrap().failed_scans, 1);
}

#[test]
fn change_of_held_out_scans_processes_only_affected_scans_again() {
    let archive = archive_of(&["a", "b", "c", "d"]);
    archive.add("e", 1);
    let before = archive.run_sets("run", &[]);
    assert_eq!((before.duplicates, before.failed_scans), (1, 0));
    let content = archive.content("run");
    let mut pair = vec![archive.scan_id("b"), archive.scan_id("e")];
    pair.sort();
    hold_out(&archive, "b", "b.nii.gz");
    let mut report = archive.run_sets("run", HELD);
    report.affected_scans.sort();
    assert_eq!((report.processed_scans, &report.affected_scans), (2, &pair));
    assert_eq!((report.failed_scans, report.duplicates), (2, 0));
    let new = archive.run_sets("new", HELD);
    assert_eq!((new.accepted, new.rejected), (report.accepted, report.rejected));
    assert_eq!(archive.content("run").samples.len(), archive.content("new").samples.len());
    assert_eq!(archive.content("run").faults, archive.content("new").faults);
    // The path stays the same, and its content is that of another scan.
    hold_out(&archive, "c", "b.nii.gz");
    let report = archive.run_sets("run", HELD);
    assert_eq!((report.processed_scans, report.affected_scans.len(), report.failed_scans), (3, 3, 1));
    let report = archive.run_sets("run", &[]);
    assert_eq!((report.affected_scans, report.failed_scans), (vec![archive.scan_id("c")], 0));
    assert_eq!(archive.content("run").samples.len(), content.samples.len());
    assert_eq!(archive.content("run").faults, content.faults);
}

#[test]
fn held_out_scans_have_the_same_result_in_epochs_of_one_scan() {
    // An epoch may process a duplicate before the epoch that processes its original again.
    let archive = archive_of(&["a", "b"]);
    for case in ["c", "d", "e"] {
        archive.add(case, 1);
    }
    let run_with = |sets: &[&str]| {
        let progress = Arc::new(Progress::default());
        run(archive.plan_with(1, sets), &archive.path("run"), &RunOptions::default(), &progress).unwrap()
    };
    assert_eq!(run_with(&[]).duplicates, 3);
    hold_out(&archive, "b", "b.nii");
    let report = run_with(HELD);
    assert_eq!((report.affected_scans.len(), report.failed_scans, report.duplicates), (4, 4, 0));
    assert_eq!(run_with(HELD).processed_scans, 0);
    let report = run_with(&[]);
    assert_eq!((report.failed_scans, report.duplicates), (0, 3));
}

#[test]
fn unreadable_held_out_path_is_an_error() {
    let archive = archive_of(&["a"]);
    let file =
        GraphFile::new("a.toml", archive.path(""), "[pipeline]\nname = \"a\"\nnever_train = [\n  \"no-such\",\n]\n");
    let checked = check(&file, &Registry::standard());
    let problem = checked.problems.iter().find(|problem| problem.message.contains("no-such")).unwrap();
    assert_eq!(problem.location.as_ref().unwrap().line, 4);
    let held = hold_out(&archive, "a", "damaged.nii.gz");
    std::fs::write(&held, b"no scan").unwrap();
    let plan = archive.plan_with(3, HELD);
    let run_again = || run(plan.clone(), &archive.path("run"), &RunOptions::default(), &Arc::new(Progress::default()));
    let error = run_again().unwrap_err();
    assert!(error.to_string().contains("cannot read the held-out scans of"), "{error}");
    assert!(error.to_string().contains("damaged.nii.gz") && error.hint().unwrap().contains("never_train"));
    // An empty folder of an unmounted disk.
    std::fs::remove_file(&held).unwrap();
    assert!(run_again().unwrap_err().to_string().contains("at least one scan"));
    hold_out(&archive, "a", "damaged.nii.gz");
    assert_eq!(run_again().unwrap().failed_scans, 1);
}

#[test]
fn content_of_two_patients_and_parts_of_scans_are_warnings() {
    let archive = archive_of(&["a", "b"]);
    archive.add("c", 0);
    let volume = nifti::read_volume(archive.path("ct/b/ct.nii")).unwrap();
    let [nx, ny, nz] = volume.grid.shape;
    let lower = volume.cut(Region { start: [0, 0, 4], shape: [nx, ny, nz - 10] });
    let Voxels::I16(hu) = &lower.voxels else { panic!("expected integers") };
    let header = encode_header(&lower.grid, Datatype::I16, "").unwrap();
    archive.write("part/ct.nii", &[&header[..], &bytes(hu.as_slice())].concat());
    let report = archive.run_sets("run", &[]);
    let ids = [archive.scan_id("a"), archive.scan_id("c")];
    assert_eq!(report.shared_contents.len(), 1, "{:?}", report.warnings);
    assert!(ids.contains(&report.shared_contents[0].scan) && ids.contains(&report.shared_contents[0].original));
    let part = &report.parts_of_scans[..];
    assert_eq!(
        part.iter().map(|part| (part.part, part.whole)).collect::<Vec<_>>(),
        [(archive.scan_id("part"), archive.scan_id("b"))]
    );
    assert_eq!((part[0].first_slice, part[0].slices), (4, nz - 10));
    let warned = |text: &str| report.warnings.iter().any(|warning| warning.contains(text));
    assert!(
        warned("the same content under two patients") && warned("is part of another scan"),
        "{:?}",
        report.warnings
    );
    // The first is a property of the run folder, the second is found among the scans of one run.
    let again = archive.run_sets("run", &[]);
    assert_eq!((again.shared_contents.len(), again.parts_of_scans.len()), (1, 0));
}

#[test]
fn training_refuses_samples_of_held_out_scans_in_run_folders() {
    let archive = archive_of(&["a", "b", "c"]);
    archive.run_sets("run", &["pipeline.split={ train = 1.0, validation = 0.0, test = 0.0 }"]);
    let run = archive.path("run");
    let organs = archive.plan(3).sinks[1].organs.clone();
    let refused = |held_out: &HeldOut| {
        let samples = RunSamples::open(&run, None).unwrap();
        let entries = samples.entries(Split::Train, &organs, held_out).unwrap();
        let is_refused = |entry: &&CaseEntry| entry.read().is_err_and(|fault| fault.kind == FaultKind::HeldOut);
        (entries.iter().filter(is_refused).count(), entries.len())
    };
    let accepted: Vec<SampleRow> =
        rows::<SampleRow>(&run).into_iter().filter(|row| row.record.outcome.is_accepted()).collect();
    let (none, all) = refused(&HeldOut::default());
    assert_eq!((none, all), (0, accepted.len()));
    let of_b: Vec<_> = accepted.iter().filter(|row| row.record.scan_id == archive.scan_id("b")).collect();
    assert!(!of_b.is_empty() && of_b.len() < all);
    let held_out: HeldOut = [of_b[0].record.scan_digest].into_iter().collect();
    assert_eq!(refused(&held_out), (of_b.len(), all));
}

fn freetumor(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_freetumor"));
    command.env("FREETUMOR_PATIENT_KEY", SECRET).args(arguments).output().unwrap()
}

/// A training of two steps on the scans of a data set in the folder `data`.
const TRAINING: &str = r#"
[pipeline]
name = "held-out"
never_train = ["test.nii"]
split = { train = 1.0, validation = 0.0 }

[sources.scans]
kind = "decathlon"
list = "data/dataset.json"

[stages.organs]
kind = "labels"
inputs = ["scans"]
pattern = "{label}"
organs = { liver = { ids = [1], tumor_ids = [2] } }

[train]
steps = 2
batch = 1
labeled = ["organs"]

[train.preprocess]
spacing_mm = [4.0, 4.0, 4.0]
window_hu = [-175.0, 250.0]
patch_voxels = [16, 16, 16]

[train.network]
model = "unet3d"
width = 2
norm = "instance"

[train.every]
checkpoint = 1
validation = 2
picture = 2
"#;

#[test]
fn training_skips_held_out_scans_and_is_bound_to_their_contents() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_decathlon(&data, 3, [32, 32, 24], 4.0);
    let copy = |number: usize| {
        let volume = nifti::read_volume(data.join(format!("imagesTr/labeled_{number:03}.nii.gz"))).unwrap();
        let Voxels::I16(hu) = &volume.voxels else { panic!("expected integers") };
        let header = encode_header(&volume.grid, Datatype::I16, "").unwrap();
        std::fs::write(folder.path().join("test.nii"), [&header[..], &bytes(hu.as_slice())].concat()).unwrap();
    };
    copy(1);
    let config = folder.path().join("train.toml");
    std::fs::write(&config, TRAINING).unwrap();
    let out = folder.path().join("out");
    let train = |more: &[&str]| {
        let (config, out) = (config.to_str().unwrap(), out.to_str().unwrap());
        let output = freetumor(&[&["train", "segmentor", config, "--out", out], more].concat());
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, stderr) = train(&["--limit", "1"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("held_out") && stderr.contains("skipped 1 scan"), "{stderr}");
    assert!(out.join("private/held_out.json").exists());
    let (code, stderr) = train(&["--resume"]);
    assert_eq!(code, 1, "{stderr}");
    // Other held-out contents are another training.
    copy(2);
    let (code, stderr) = train(&["--resume"]);
    assert!(code == 2 && stderr.contains("belongs to another training run"), "{code} {stderr}");
    std::fs::remove_file(folder.path().join("test.nii")).unwrap();
    let (code, stderr) = train(&["--resume"]);
    assert!(code == 2 && stderr.contains("never_train") || stderr.contains("held-out"), "{code} {stderr}");
}
