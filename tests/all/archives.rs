//! Scans in tar and zip archives: the same scans as in a folder, damage and hostile members.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dicom_core::VR;
use dicom_dictionary_std::tags;
use flate2::Compression;
use flate2::write::GzEncoder;
use freetumor::dataflow::{Progress, RunOptions, RunReport, run};
use freetumor::error::{Fault, FaultKind};
use freetumor::graph::{GraphFile, Plan, Registry, Resources, check};
use freetumor::ingest::{ArchiveConfig, ArchiveSource, FolderConfig, FolderSource, Scan, ScanEntry, Source};
use proptest::prelude::*;
use zip::write::SimpleFileOptions;

use crate::changes::archive::{Archive, Content, SECRET, STAGES};
use crate::dicom_files::series;

/// A member: its name and content.
type Member = (String, Vec<u8>);

fn tar_of(members: &[Member]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn zip_of(members: &[Member]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in members {
        writer.start_file(name.as_str(), SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Returns the files below a folder as members.
fn members_of(folder: &Path) -> Vec<Member> {
    let mut members = Vec::new();
    for entry in walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().map(Result::unwrap) {
        if entry.file_type().is_file() {
            let name = entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            members.push((name, std::fs::read(entry.path()).unwrap()));
        }
    }
    members
}

/// Creates a source of the archives at a path in a folder with the secret.
fn source(folder: &Path, settings: &str) -> ArchiveSource {
    let mut config: ArchiveConfig = toml::from_str(settings).unwrap();
    config.path = folder.join(config.path);
    std::fs::write(folder.join("secret"), SECRET).unwrap();
    ArchiveSource::new("batches", config).unwrap().with_secret_file(Some(folder.join("secret")))
}

fn keys(entries: &[ScanEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.as_str()).collect()
}

/// Reads every scan, by the key of its entry.
fn read_all(source: &dyn Source) -> Vec<(String, Result<Scan, Fault>)> {
    source.list().unwrap().iter().map(|entry| (entry.key.clone(), source.read(entry))).collect()
}

const GRAPH: &str = r#"
[pipeline]
name = "archives"
epoch_scans = 3
max_missing = 1.0
[sources.scans]
kind = "archive"
path = "PATH"
include = ["*/ct.nii"]
[stages.organs]
kind = "labels"
inputs = ["scans"]
pattern = "labels.nii"
organs = ["liver", "kidney"]
"#;

/// Returns the plan of a source and its masks in the folder of an archive, with the common stages after them.
pub fn plan(archive: &Archive, graph: &str) -> Plan {
    let resources = Resources { patient_secret: Some(archive.path("secret")), ..Resources::default() };
    let checked = check(
        &GraphFile::new("test.toml", archive.path("."), graph.to_owned() + STAGES),
        &Registry::with_resources(&resources),
    );
    let problems: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
    checked.plan.unwrap_or_else(|| panic!("{}", problems.join("\n")))
}

/// Runs a graph in the folder of an archive.
pub fn run_graph(archive: &Archive, graph: &str, out: &str) -> RunReport {
    run(plan(archive, graph), &archive.path(out), &RunOptions::default(), &Arc::new(Progress::default())).unwrap()
}

/// Returns the digests of the members of shards, which contain voxels only.
pub fn voxels(archive: &Archive, out: &str) -> Vec<String> {
    let mut digests: Vec<String> =
        Content::of(&archive.path(out)).members.values().map(|digest| format!("{digest:?}")).collect();
    digests.sort();
    digests
}

fn archive_of_three() -> Archive {
    let archive = Archive::new();
    for (content, case) in ["a", "b", "c"].into_iter().enumerate() {
        archive.add(case, content);
    }
    archive
}

#[test]
fn archives_of_every_format_have_the_samples_of_their_folder() {
    let archive = archive_of_three();
    archive.run("folder").unwrap();
    let expected = voxels(&archive, "folder");
    assert!(expected.len() > 4);
    let members = members_of(&archive.path("ct"));
    let tar = tar_of(&members);
    let (first, second) = tar.split_at(tar.len() / 3);
    for (name, bytes) in [
        ("scans.tar", tar.clone()),
        ("scans.tar.gz", [gzip(first), gzip(second)].concat()),
        ("scans.tar.zst", zstd::encode_all(&tar[..], 1).unwrap()),
        ("scans.zip", zip_of(&members)),
    ] {
        std::fs::write(archive.path(name), bytes).unwrap();
        let report = run_graph(&archive, &GRAPH.replace("PATH", name), &format!("run-{name}"));
        assert_eq!((report.scans, report.faults), (3, 0), "{name}");
        assert!(voxels(&archive, &format!("run-{name}")) == expected, "{name}: other voxels");
    }
}

#[test]
fn only_the_changed_member_is_processed_again() {
    let archive = archive_of_three();
    let graph = GRAPH.replace("PATH", "*.tar");
    std::fs::write(archive.path("scans.tar"), tar_of(&members_of(&archive.path("ct")))).unwrap();
    run_graph(&archive, &graph, "run");
    archive.write_labels("b", 1, false);
    archive.add("d", 3);
    let mut members = members_of(&archive.path("ct"));
    members.reverse();
    std::fs::write(archive.path("scans.tar"), tar_of(&members)).unwrap();
    let report = run_graph(&archive, &graph, "run");
    assert_eq!((report.changed_scans.len(), report.new_scans, report.processed_scans, report.scans), (1, 1, 2, 4));
    let again = run_graph(&archive, &graph, "run");
    assert_eq!(again.processed_scans, 0);
    // A copy of the same content is no change; an archive that is gone removes its scans.
    let bytes = std::fs::read(archive.path("scans.tar")).unwrap();
    std::fs::write(archive.path("scans.tar"), bytes).unwrap();
    assert_eq!(run_graph(&archive, &graph, "run").processed_scans, 0);
}

#[test]
fn damaged_archive_is_one_fault_and_keeps_scans_before_it() {
    let archive = archive_of_three();
    let members = members_of(&archive.path("ct"));
    let (tar, zip) = (tar_of(&members), zip_of(&members));
    // The labels of the last scan are cut.
    for (name, bytes) in [
        ("cut.tar", tar[..tar.len() - 4096].to_vec()),
        ("cut.tar.gz", gzip(&tar[..tar.len() - 4096])),
        ("cut.zip", zip[..zip.len() - 1000].to_vec()),
    ] {
        std::fs::write(archive.path(name), bytes).unwrap();
        let report = run_graph(&archive, &GRAPH.replace("PATH", name), &format!("run-{name}"));
        let faults = Content::of(&archive.path(&format!("run-{name}"))).faults;
        let messages: Vec<&str> = faults.iter().filter_map(|fault| fault["message"].as_str()).collect();
        assert_eq!(report.scans, 4, "{name}: three scans and the archive: {messages:?}");
        let has = |text: &str| messages.iter().any(|message| message.contains(text));
        assert!(has("copy the archive again"), "{name}: {messages:?}");
        assert!(has("expected a label file at `labels.nii`, got none"), "{name}: {messages:?}");
        assert_eq!(messages.len(), 2, "{name}: {messages:?}");
    }
}

#[test]
fn hostile_members_are_refused_and_others_are_read() {
    let archive = archive_of_three();
    let members = members_of(&archive.path("ct"));
    let mut tar = tar::Builder::new(Vec::new());
    let mut link = |name: &str, target: &str, kind| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        tar.append_link(&mut header, name, target).unwrap();
    };
    link("e/ct.nii", "/etc/passwd", tar::EntryType::Symlink);
    link("f/ct.nii", "a/ct.nii", tar::EntryType::Link);
    let mut tar = tar.into_inner().unwrap();
    tar.truncate(tar.len() - 1024);
    for name in ["../up/ct.nii", "/abs/ct.nii"] {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        tar.extend(header.as_bytes());
    }
    tar.extend(tar_of(&members));
    std::fs::write(archive.path("hostile.tar"), tar).unwrap();
    let source = source(&archive.path("."), "path = \"hostile.tar\"\ninclude = [\"*/ct.nii\"]");
    let mut messages = Vec::new();
    let mut read = 0;
    for (key, scan) in read_all(&source) {
        match scan {
            Ok(_) => read += 1,
            Err(fault) => messages.push(format!("{key}: {}", fault.message)),
        }
    }
    assert_eq!(read, 3);
    assert_eq!(
        messages,
        [
            "hostile.tar/../up/ct.nii: expected a member with a path below the archive, got a path with `..`",
            "hostile.tar//abs/ct.nii: expected a member with a path below the archive, got an absolute path",
            "hostile.tar/e/ct.nii: expected a file in the archive, got a symbolic link",
            "hostile.tar/f/ct.nii: expected a file in the archive, got a hard link",
        ]
    );
    assert!(!archive.path("up").exists() && !archive.path("../up").exists());
    let remarks = source.list_archive().unwrap().1;
    assert_eq!(remarks.unreadable_scans(), 4);
    let excluding = self::source(
        &archive.path("."),
        "path = \"hostile.tar\"\ninclude = [\"*/ct.nii\"]\nexclude = [\"e\", \"f/*\"]",
    );
    assert_eq!(excluding.list().unwrap().len(), 5);
}

#[test]
fn bombs_and_special_files_in_zip_are_refused() {
    let archive = archive_of_three();
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default();
    for (name, content) in members_of(&archive.path("ct")) {
        writer.start_file(name.as_str(), options).unwrap();
        writer.write_all(&content).unwrap();
    }
    writer.start_file("bomb/ct.nii", options).unwrap();
    writer.write_all(&vec![0; 8 << 20]).unwrap();
    writer.add_symlink("link/ct.nii", "/etc/passwd", options).unwrap();
    writer.start_file("../up/ct.nii", options).unwrap();
    std::fs::write(archive.path("hostile.zip"), writer.finish().unwrap().into_inner()).unwrap();
    let source =
        source(&archive.path("."), "path = \"hostile.zip\"\ninclude = [\"*/ct.nii\"]").with_free_bytes(1 << 20);
    let scans = read_all(&source);
    assert_eq!(scans.iter().filter(|(_, scan)| scan.is_ok()).count(), 3);
    let faults: Vec<(&str, FaultKind)> =
        scans.iter().filter_map(|(key, scan)| Some((key.as_str(), scan.as_ref().err()?.kind))).collect();
    assert_eq!(
        faults,
        [
            ("hostile.zip/../up/ct.nii", FaultKind::Unsupported),
            ("hostile.zip/bomb/ct.nii", FaultKind::TooLarge),
            ("hostile.zip/link/ct.nii", FaultKind::Unsupported),
        ]
    );
    let few = self::source(&archive.path("."), "path = \"hostile.zip\"\ninclude = [\"*/ct.nii\"]\nmax_members = 4");
    let scans = read_all(&few);
    assert!(scans[0].1.as_ref().is_err_and(|fault| fault.message.contains("at most 4 members")), "{:?}", scans[0]);
    assert_eq!(scans.iter().filter(|(_, scan)| scan.is_ok()).count(), 2);
}

#[test]
fn scan_above_the_scratch_limit_is_a_fault_that_names_the_limit() {
    let archive = archive_of_three();
    let mut members = members_of(&archive.path("ct"));
    members.push(("large/ct.nii".to_owned(), (0..2_000_000u32).map(|index| (index * 7 / 3) as u8).collect()));
    std::fs::write(archive.path("scans.zip"), zip_of(&members)).unwrap();
    let source = source(&archive.path("."), "path = \"scans.zip\"\ninclude = [\"*/ct.nii\"]\nscratch_limit_mib = 1");
    let scans = read_all(&source);
    let faults: Vec<&Fault> = scans.iter().filter_map(|(_, scan)| scan.as_ref().err()).collect();
    assert_eq!((scans.len(), faults.len(), faults[0].kind), (4, 1, FaultKind::TooLarge));
    assert!(faults[0].message.contains("(`scratch_limit_mib`), got 2000000"), "{}", faults[0]);
}

/// The slices of a valid series, as members of a folder.
fn slices(folder: &str) -> Vec<Member> {
    let files = series(5);
    files.iter().enumerate().map(|(number, slice)| (format!("{folder}IM{number}"), slice.bytes())).collect()
}

#[test]
fn dicom_series_are_read_as_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let members = slices("case-1/dicom/");
    for (name, bytes) in &members {
        let path = folder.path().join("ct").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    std::fs::write(folder.path().join("scans.zip"), zip_of(&members)).unwrap();
    std::fs::write(folder.path().join("scans.tar.gz"), gzip(&tar_of(&members))).unwrap();
    let settings = "include = [\"*/dicom\"]\npatient = { dicom = true }\n";
    let config = FolderConfig {
        root: folder.path().join("ct"),
        ..toml::from_str(&format!("root = \"x\"\n{settings}")).unwrap()
    };
    let secret = Some(folder.path().join("secret"));
    let source = source(folder.path(), &format!("path = \"scans.*\"\n{settings}"));
    let expected = FolderSource::new("folder", config).unwrap().with_secret_file(secret);
    let expected_entry = expected.list().unwrap().remove(0);
    let expected = expected.read(&expected_entry).unwrap();
    let entries = source.list().unwrap();
    assert_eq!(entries.len(), 2);
    for entry in &entries {
        assert!(entry.key.ends_with(&expected_entry.key), "{}", entry.key);
        assert_eq!((entry.patient_key, entry.bytes), (expected_entry.patient_key, expected_entry.bytes));
        let scan = source.read(entry).unwrap();
        assert_eq!((scan.digest, scan.volume.grid), (expected.digest, expected.volume.grid));
        assert_eq!(source.header(entry).unwrap().grid, expected.volume.grid);
        assert_eq!(source.version(entry).unwrap(), entry.version);
        source.check(entry).unwrap();
    }
}

#[test]
fn series_without_a_refused_or_lost_slice_fails() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: Vec<u8>| std::fs::write(folder.path().join(name), bytes).unwrap();
    // The last slice is a link, which would leave four slices that look complete.
    let mut four = tar_of(&slices("d/")[..4]);
    four.truncate(four.len() - 1024);
    let mut builder = tar::Builder::new(four);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "d/IM4", "../elsewhere/IM4").unwrap();
    write("link.tar", builder.into_inner().unwrap());
    // The archive ends after the fourth slice.
    let whole = tar_of(&slices("d/")[..4]);
    write("cut.tar", whole[..whole.len() - 1024].to_vec());
    for name in ["link.tar", "cut.tar"] {
        let settings = format!("path = \"{name}\"\ninclude = [\"d\"]\narchive_is_patient = true\n");
        let scans = read_all(&source(folder.path(), &settings));
        assert_eq!(scans.len(), 2, "{name}");
        assert!(scans.iter().all(|(_, scan)| scan.is_err()), "{name}");
        let allowed = read_all(&source(folder.path(), &format!("{settings}allow_unreadable_files = true")));
        assert_eq!(allowed.iter().filter(|(_, scan)| scan.is_ok()).count(), 1, "{name}");
    }
}

#[test]
fn top_folder_of_an_archive_is_a_series_of_the_patient_of_the_archive() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["one.zip", "two.zip"] {
        let mut files = series(5);
        files.iter_mut().for_each(|slice| *slice = slice.clone().text(tags::SERIES_INSTANCE_UID, VR::UI, "2.25.1"));
        let members: Vec<Member> =
            files.iter().enumerate().map(|(number, slice)| (format!("{number}.dcm"), slice.bytes())).collect();
        std::fs::write(folder.path().join(name), zip_of(&members)).unwrap();
    }
    let source = source(folder.path(), "path = \"*.zip\"\ninclude = [\".\"]");
    let entries = source.list().unwrap();
    assert_eq!(entries.len(), 2);
    assert!(entries[0].key.starts_with("one.zip#"), "{}", entries[0].key);
    assert_ne!(entries[0].patient_key, entries[1].patient_key);
    assert!(entries.iter().all(|entry| source.read(entry).is_ok()));
}

#[test]
fn label_files_and_data_files_are_found_in_the_archive() {
    let archive = archive_of_three();
    let read = |name: &str| std::fs::read(archive.path("ct").join(name)).unwrap();
    let header = "ObjectType = Image\nNDims = 3\nElementSpacing = 1 1 2\nDimSize = 4 3 2\nElementType = MET_SHORT\n\
        ElementDataFile = ct.raw\n";
    let voxels = vec![7; 4 * 3 * 2 * 2];
    let members: Vec<Member> = vec![
        ("set/labelsTr/a.nii".into(), read("a/labels.nii")),
        ("set/dataset.json".into(), b"{\"labels\": {\"background\": 0, \"liver\": 5}}".to_vec()),
        ("set/imagesTr/a.nii".into(), read("a/ct.nii")),
        ("m/ct.raw".into(), voxels),
        ("m/ct.mhd".into(), header.into()),
    ];
    std::fs::write(archive.path("scans.tar.gz"), gzip(&tar_of(&members))).unwrap();
    let source = source(&archive.path("."), "path = \"scans.tar.gz\"\ninclude = [\"set/imagesTr/*.nii\", \"m/*.mhd\"]");
    let entries = source.list().unwrap();
    assert_eq!(keys(&entries), ["scans.tar.gz/m/ct.mhd", "scans.tar.gz/set/imagesTr/a.nii"]);
    assert_eq!(source.read(&entries[0]).unwrap().volume.grid.shape, [4, 3, 2]);
    assert_eq!(entries[0].bytes, header.len() as u64 + 48);
    let scan = source.read(&entries[1]).unwrap();
    let pattern = "../labelsTr/{stem}.nii";
    assert_eq!(scan.companions.labels(pattern).unwrap().grid, scan.volume.grid);
    assert_eq!(scan.companions.label_grid(pattern).unwrap(), Some(scan.volume.grid));
    assert_eq!(scan.companions.data_set_label_names(pattern)[&5], "liver");
    assert!(scan.companions.exists(pattern) && !scan.companions.exists("none.nii"));
    assert_eq!(scan.companions.labels("none.nii").unwrap_err().kind, FaultKind::Missing);
    assert_eq!(scan.companions.labels("../../../../../../etc/passwd").unwrap_err().kind, FaultKind::Mismatch);
    let companions = source.companions(&entries[1]).unwrap();
    assert_eq!(companions.file_states(pattern), scan.companions.file_states(pattern));
}

#[cfg(unix)]
#[test]
fn names_that_are_not_utf8_are_read() {
    use std::os::unix::ffi::OsStrExt;
    let archive = archive_of_three();
    let content = std::fs::read(archive.path("ct/a/ct.nii")).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_path(Path::new(std::ffi::OsStr::from_bytes(b"caf\xE9/ct.nii"))).unwrap();
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, &content[..]).unwrap();
    std::fs::write(archive.path("x.tar"), builder.into_inner().unwrap()).unwrap();
    let scans = read_all(&source(&archive.path("."), "path = \"x.tar\"\ninclude = [\"*/ct.nii\"]"));
    assert_eq!(scans[0].0, "x.tar/caf\u{FFFD}e9/ct.nii");
    assert!(scans[0].1.is_ok());
}

#[test]
fn settings_report_all_errors() {
    let config: ArchiveConfig =
        toml::from_str("path = \"/none.tar\"\ninclude = []\nscratch_limit_mib = 0\nscratch = \"/none\"").unwrap();
    let fields: Vec<String> =
        ArchiveSource::new("x", config).unwrap_err().into_iter().map(|error| error.field).collect();
    assert_eq!(fields, ["path", "include", "scratch_limit_mib", "scratch"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn members_in_any_order_are_the_same_scans(order in Just((0..9usize).collect::<Vec<_>>()).prop_shuffle(), is_zip: bool) {
        let folder = tempfile::tempdir().unwrap();
        let mut members = slices("c/d/");
        for case in ["a", "b"] {
            members.push((format!("{case}/ct.nii"), vec![case.as_bytes()[0]; 600]));
            members.push((format!("{case}/labels.nii"), vec![1; 10]));
        }
        let entries = |members: &[Member]| {
            let path: PathBuf = folder.path().join("x.bin");
            std::fs::write(&path, if is_zip { zip_of(members) } else { tar_of(members) }).unwrap();
            let source = source(folder.path(), "path = \"x.bin\"\ninclude = [\"*/ct.nii\", \"c/d\"]");
            let entries = source.list().unwrap();
            let states: Vec<_> = entries.iter().map(|entry| source.companions(entry).unwrap().file_states("labels.nii")).collect();
            let entries = entries.into_iter().map(|entry| ScanEntry { modified_s: 0, ..entry });
            (entries.collect::<Vec<_>>(), states)
        };
        let shuffled: Vec<Member> = order.iter().map(|&index| members[index].clone()).collect();
        let expected = entries(&members);
        prop_assert_eq!(expected.0.len(), 3);
        prop_assert_eq!(entries(&shuffled), expected);
    }
}
