//! The folder source: listing, reading, and faults of unreadable entries.

use std::fs;
use std::path::{Path, PathBuf};

use freetumor::error::{FaultKind, Stage};
use freetumor::ingest::nifti::{self, Datatype};
use freetumor::ingest::{FolderConfig, FolderSource, PatientConfig, ScanEntry, Source, content_digest};
use freetumor::volume::{Affine, Grid};

use crate::common;

/// A folder of scans and a file of the secret.
struct Archive {
    _folder: tempfile::TempDir,
    root: PathBuf,
    secret: PathBuf,
}

impl Archive {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("archive");
        let secret = folder.path().join("secret");
        fs::create_dir(&root).unwrap();
        fs::write(&secret, "a secret for tests only").unwrap();
        Self { _folder: folder, root, secret }
    }

    /// Writes a small scan with this value in every voxel.
    fn add(&self, key: &str, hu: i16) {
        write(&self.root.join(key), hu);
    }

    fn config(&self, include: &[&str]) -> FolderConfig {
        FolderConfig {
            settle: None,
            acquisition_year: false,
            root: self.root.clone(),
            include: include.iter().map(|pattern| (*pattern).to_owned()).collect(),
            exclude: vec![],
            dataset: None,
            allow_unreadable_files: false,
            patient: PatientConfig::default(),
        }
    }

    fn source(&self, config: FolderConfig) -> FolderSource {
        FolderSource::new("archive", config).unwrap().with_secret_file(Some(self.secret.clone()))
    }

    fn list(&self, include: &[&str]) -> Vec<ScanEntry> {
        self.source(self.config(include)).list().unwrap()
    }
}

#[cfg(unix)]
#[test]
fn named_pipe_is_unsupported() {
    let archive = Archive::new();
    let pipe = archive.root.join("ct.nii");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let source = archive.source(archive.config(&["*.nii"]));
    let entry = source.list().unwrap().remove(0);
    for fault in
        [source.header(&entry).unwrap_err(), source.read(&entry).unwrap_err(), nifti::read_volume(&pipe).unwrap_err()]
    {
        assert!(fault.kind == FaultKind::Unsupported && fault.message.contains("a named pipe"), "{fault}");
    }
    // The command ends although no process writes into the pipe.
    let command =
        std::process::Command::new(env!("CARGO_BIN_EXE_freetumor")).arg("inspect").arg(&pipe).output().unwrap();
    assert_eq!(command.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&command.stderr).contains("a named pipe"));
}

fn write(path: &Path, value: i16) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let grid = Grid { shape: [3, 2, 2], affine: Affine::from_spacing([1.0, 1.0, 2.0]) };
    let mut file = nifti::encode_header(&grid, Datatype::I16, "").unwrap().to_vec();
    file.extend([value; 12].into_iter().flat_map(i16::to_le_bytes));
    fs::write(path, file).unwrap();
}

fn keys(entries: &[ScanEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.as_str()).collect()
}

#[test]
fn patterns_select_scans() {
    let archive = Archive::new();
    for key in ["b/ct.nii", "a/ct.nii", "a/labels.nii", "a/deep/er/ct.nii", "c.nii", "a/.hidden.nii", "a/._ct.nii"] {
        archive.add(key, 40);
    }
    assert_eq!(keys(&archive.list(&["*/ct.nii"])), ["a/ct.nii", "b/ct.nii"]);
    assert_eq!(keys(&archive.list(&["**/ct.nii"])), ["a/ct.nii", "a/deep/er/ct.nii", "b/ct.nii"]);
    assert_eq!(keys(&archive.list(&["./*.nii"])), ["c.nii"]);
    let config = FolderConfig { exclude: vec!["a/deep".into(), "**/labels*".into()], ..archive.config(&["**/*.nii"]) };
    assert_eq!(keys(&archive.source(config).list().unwrap()), ["a/ct.nii", "b/ct.nii", "c.nii"]);
}

#[test]
fn scan_is_read_with_digest_and_labels() {
    let archive = Archive::new();
    archive.add("imagesTr/liver_7.nii", 40);
    archive.add("labelsTr/liver_7.nii", 3);
    let config = FolderConfig { dataset: Some("Task03".into()), ..archive.config(&["imagesTr/*"]) };
    let source = archive.source(config);
    let entry = &source.list().unwrap()[0];
    assert_eq!((entry.dataset.as_str(), entry.source.as_str(), entry.bytes), ("Task03", "archive", 376));
    assert!(entry.modified_s > 1_600_000_000);
    assert_eq!(source.header(entry).unwrap().grid.shape, [3, 2, 2]);

    let scan = source.read(entry).unwrap();
    assert_eq!(scan.volume.voxels.hu(5), 40.0);
    assert_eq!(scan.digest, content_digest(&scan.volume));
    let labels = scan.companions.labels("../labelsTr/{stem}.nii").unwrap();
    assert!(labels.ids.as_slice().iter().all(|&id| id == 3));
    let fault = scan.companions.labels("{stem}_mask.nii.gz").unwrap_err();
    assert_eq!((fault.stage, fault.kind), (Stage::Mask, FaultKind::Missing));
    assert!(fault.message.contains("{stem}") && !fault.message.contains("liver_7"), "{fault}");
}

#[test]
fn labels_are_limited_to_parent_of_root() {
    let archive = Archive::new();
    archive.add("imagesTr/liver_7.nii", 40);
    archive.add("labelsTr/liver_7.nii", 3);
    write(&archive.root.join("../outside.nii"), 1);
    let config = FolderConfig { root: archive.root.join("imagesTr"), ..archive.config(&["*.nii"]) };
    let source = archive.source(config);
    let scan = source.read(&source.list().unwrap()[0]).unwrap();
    assert!(scan.companions.labels("../labelsTr/{stem}.nii").is_ok());
    let absolute = archive.root.join("labelsTr/liver_7.nii");
    for pattern in
        ["../../outside.nii", "../labelsTr/../../outside.nii", "/etc/hostname", absolute.to_str().unwrap(), ".."]
    {
        let fault = scan.companions.labels(pattern).unwrap_err();
        assert_eq!((fault.stage, fault.kind), (Stage::Mask, FaultKind::Mismatch), "{pattern}");
    }
}

#[test]
fn unreadable_entries_are_faults_and_others_are_read() {
    let archive = Archive::new();
    archive.add("a/ct.nii", 1);
    archive.add("c/ct.nii", 3);
    fs::create_dir(archive.root.join("b")).unwrap();
    fs::write(archive.root.join("b/ct.nii"), b"some text that is not a scan").unwrap();
    fs::create_dir_all(archive.root.join("d/ct.nii")).unwrap();
    let mut slice = vec![0; 400];
    slice[128..132].copy_from_slice(b"DICM");
    fs::create_dir(archive.root.join("e")).unwrap();
    fs::write(archive.root.join("e/ct.nii"), slice).unwrap();
    let source = archive.source(archive.config(&["*/ct.nii"]));
    let entries = source.list().unwrap();
    fs::remove_file(archive.root.join("c/ct.nii")).unwrap();
    let outcomes: Vec<_> = entries
        .iter()
        .map(|entry| {
            let read = source.read(entry).map(|scan| scan.volume.voxels.hu(0)).map_err(|fault| fault.kind);
            (entry.key.as_str(), read)
        })
        .collect();
    assert_eq!(
        outcomes,
        [
            ("a/ct.nii", Ok(1.0)),
            ("b/ct.nii", Err(FaultKind::Corrupt)),
            ("c/ct.nii", Err(FaultKind::Missing)),
            ("d/ct.nii", Err(FaultKind::Missing)),
            ("e/ct.nii", Err(FaultKind::Unsupported)),
        ]
    );
    let outside = ScanEntry { key: "../secret".into(), ..entries[0].clone() };
    assert_eq!(source.read(&outside).unwrap_err().kind, FaultKind::Corrupt);
}

#[cfg(unix)]
#[test]
fn link_loops_non_utf8_names_and_unreadable_folders_are_handled() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    let archive = Archive::new();
    archive.add("a/ct.nii", 1);
    symlink(&archive.root, archive.root.join("a/again")).unwrap();
    // Broken links: two that may have been scans, one of another file, and a hidden one.
    for name in ["a/broken.nii", "broken", "a/notes.txt", ".hidden.nii"] {
        symlink("missing", archive.root.join(name)).unwrap();
    }
    symlink(archive.root.join("a/ct.nii"), archive.root.join("linked.nii")).unwrap();
    for name in [b"\xff.nii".as_slice(), b"\xfe.nii"] {
        fs::copy(archive.root.join("a/ct.nii"), archive.root.join(OsStr::from_bytes(name))).unwrap();
    }
    fs::create_dir(archive.root.join("closed")).unwrap();
    fs::set_permissions(archive.root.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    let is_closed = fs::read_dir(archive.root.join("closed")).is_err();

    let source = archive.source(archive.config(&["**/*.nii"]));
    let entries = source.list().unwrap();
    let read = |entry: &ScanEntry| source.read(entry).map(|_| ()).map_err(|fault| fault.kind);
    let outcome = |key: &str| entries.iter().find(|entry| entry.key == key).map(read);
    assert_eq!(outcome("a/ct.nii"), Some(Ok(())));
    assert_eq!(outcome("linked.nii"), Some(Ok(())));
    assert!(!entries.iter().any(|entry| entry.key.contains("again")));
    for name in ["a/broken.nii", "broken"] {
        assert_eq!(outcome(name), Some(Err(FaultKind::Missing)), "{name}");
        let entry = entries.iter().find(|entry| entry.key == name).unwrap();
        assert!(source.read(entry).unwrap_err().message.contains("the target of the link"), "{name}");
    }
    assert!(!entries.iter().any(|entry| entry.key.contains("notes") || entry.key.contains("hidden")));
    let non_utf8: Vec<_> = entries.iter().filter(|entry| entry.key.contains('\u{fffd}')).collect();
    assert_eq!(non_utf8.len(), 2, "different names have different keys: {:?}", keys(&entries));
    assert!(non_utf8.iter().all(|entry| read(entry) == Ok(())));
    // The root user may list every folder.
    assert_eq!(outcome("closed"), is_closed.then_some(Err(FaultKind::Io)));
    fs::set_permissions(archive.root.join("closed"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn patient_keys_group_scans_without_names() {
    let archive = Archive::new();
    for key in ["doe-jane/2019/ct.nii", "doe-jane/2021/ct.nii", "roe-richard/2020/ct.nii"] {
        archive.add(key, 40);
    }
    let entries = archive.list(&["**/ct.nii"]);
    assert_eq!(entries[0].patient_key, entries[1].patient_key);
    assert_ne!(entries[0].patient_key, entries[2].patient_key);

    let by_year = PatientConfig { pattern: Some("*/{patient}/ct.nii".into()), ..PatientConfig::default() };
    let config = FolderConfig { patient: by_year, ..archive.config(&["**/ct.nii"]) };
    assert_ne!(archive.source(config).list().unwrap()[0].patient_key, entries[0].patient_key);

    // A rule that matches no key must not create patients.
    let unmatched = PatientConfig { path_component: Some(5), ..PatientConfig::default() };
    let source = archive.source(FolderConfig { patient: unmatched, ..archive.config(&["**/ct.nii"]) });
    let listed = source.list().unwrap();
    let fault = source.read(&listed[0]).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Missing);
    assert!(!fault.message.contains("doe-jane"), "{}", fault.message);
    let by_header = PatientConfig { dicom: true, ..PatientConfig::default() };
    let source = archive.source(FolderConfig { patient: by_header, ..archive.config(&["**/ct.nii"]) });
    assert_eq!(source.read(&listed[0]).unwrap_err().kind, FaultKind::Missing);
}

#[test]
fn new_reports_all_errors_at_once() {
    let config = FolderConfig {
        settle: None,
        acquisition_year: false,
        root: "/no/such/folder".into(),
        include: vec!["**/[ct.nii".into(), "/absolute".into(), "../up".into()],
        exclude: vec!["{a,b".into()],
        dataset: Some(String::new()),
        allow_unreadable_files: false,
        patient: PatientConfig { path_component: Some(1), dicom: true, pattern: None },
    };
    let errors = FolderSource::new("archive", config).unwrap_err();
    let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(fields, ["root", "dataset", "include[0]", "include[1]", "include[2]", "exclude[0]", "patient"]);
    let archive = Archive::new();
    assert_eq!(FolderSource::new("archive", archive.config(&[])).unwrap_err()[0].field, "include");
}

#[test]
fn real_scans_of_both_formats_are_listed_and_read() {
    let Some(root) = common::shared("ct") else { return };
    let archive = Archive::new();
    let include = vec!["*/ct.nii.gz".to_owned(), "*/dicom".to_owned()];
    let config = FolderConfig { root, include, ..archive.config(&[]) };
    let source = archive.source(config);
    let entries = source.list().unwrap();
    let folders: Vec<_> = entries.iter().map(|entry| entry.key.split('/').next().unwrap()).collect();
    assert_eq!(
        folders,
        ["crlm_1004", "lung1_001", "sts_002", "totalseg_abdomen", "totalseg_liver_dicom", "totalseg_upper_abdomen"]
    );
    for (entry, pattern) in entries.iter().zip([
        "liver.nii.gz",
        "labels.nii.gz",
        "tumor.nii.gz",
        "labels.nii.gz",
        "labels.nii.gz",
        "organs/liver.nii.gz",
    ]) {
        let header = source.header(entry).unwrap();
        let scan = source.read(entry).unwrap();
        assert_eq!(scan.volume.grid, header.grid);
        assert!(scan.volume.voxels.bytes() as u64 <= header.volume_bytes);
        let labels = scan.companions.labels(pattern).unwrap();
        assert!(labels.ids.as_slice().iter().any(|&id| id > 0));
    }
}

/// Compares the digests of one scan as DICOM slices and as a NIfTI file.
#[test]
fn digest_is_independent_of_format() {
    let Some(root) = common::shared("ct") else { return };
    let archive = Archive::new();
    let include = vec!["totalseg_liver_dicom/dicom".to_owned(), "totalseg_liver_dicom/reference.nii.gz".to_owned()];
    let source = archive.source(FolderConfig { root, include, ..archive.config(&[]) });
    let digests: Vec<_> = source.list().unwrap().iter().map(|entry| source.read(entry).unwrap().digest).collect();
    assert_eq!(digests.len(), 2);
    assert_eq!(digests[0], digests[1]);
}

#[cfg(unix)]
#[test]
fn scans_in_folders_with_arbitrary_bytes_are_separate_patients() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let archive = Archive::new();
    let names: [&[u8]; 9] = [
        b"a#1",
        b"a#2",
        b"a",
        b"\xFF",
        b"\xFE",
        "\u{FFFD}".as_bytes(),
        "\u{FFFD}ff".as_bytes(),
        b"new\nline",
        b"a%20\\\"b",
    ];
    for name in names {
        let folder = archive.root.join(OsStr::from_bytes(name));
        fs::create_dir(&folder).unwrap();
        archive.add("ct.nii", 1);
        fs::rename(archive.root.join("ct.nii"), folder.join(OsStr::from_bytes(&[name, b".nii"].concat()))).unwrap();
        fs::copy(
            folder.join(OsStr::from_bytes(&[name, b".nii"].concat())),
            folder.join(OsStr::from_bytes(&[name, b"-labels.nii"].concat())),
        )
        .unwrap();
    }
    let config = FolderConfig { exclude: vec!["**/*-labels.nii".into()], ..archive.config(&["*/*.nii"]) };
    let source = archive.source(config);
    let entries = source.list().unwrap();
    assert_eq!(entries.len(), names.len());
    for entry in &entries {
        let scan = source.read(entry).unwrap_or_else(|fault| panic!("{:?}: {fault}", entry.key));
        assert!(source.header(entry).is_ok());
        let fault = scan.companions.labels("{stem}-missing.nii").unwrap_err();
        assert_eq!(fault.kind, FaultKind::Missing, "{:?}: {fault}", entry.key);
        assert!(scan.companions.exists("{stem}-labels.nii"), "{:?}", entry.key);
        assert!(source.companions(entry).unwrap().exists("{stem}-labels.nii"), "{:?}", entry.key);
    }
    let patients: std::collections::BTreeSet<_> = entries.iter().map(|entry| entry.patient_key).collect();
    assert_eq!(patients.len(), names.len(), "every folder is a patient");
}
