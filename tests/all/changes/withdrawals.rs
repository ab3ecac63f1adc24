//! Tests of withdrawals: removed rows and samples, kept rows and samples, and the remaining files of earlier states.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use freetumor::dataflow::{Progress, Receipt, RunOptions, WithdrawalRequest, withdraw};
use freetumor::error::{ErrorKind, Result};
use freetumor::id::{PatientKey, ScanId};
use freetumor::ingest::PatientSecret;
use freetumor::run::RunFolder;

use super::archive::{Archive, SECRET};
use super::{archive_of_four, assert_as_new};

pub fn withdraw_from(archive: &Archive, request: &WithdrawalRequest, purge: bool) -> Result<Receipt> {
    let options = RunOptions::default();
    withdraw(archive.plan(3), &archive.path("run"), request, purge, &options, &Arc::new(Progress::default()))
}

pub fn scan_request(scans: impl Into<BTreeSet<ScanId>>) -> WithdrawalRequest {
    WithdrawalRequest { scans: scans.into(), ..WithdrawalRequest::default() }
}

fn patient_request(archive: &Archive, case: &str) -> (PatientKey, WithdrawalRequest) {
    let patient = PatientSecret::new(SECRET).unwrap().patient_key("scans", case);
    assert!(archive.path("ct").join(case).exists());
    (patient, WithdrawalRequest { patients: [patient].into(), by_content: true, ..WithdrawalRequest::default() })
}

#[test]
fn withdrawn_scan_is_removed_and_not_ingested_again() {
    let (archive, _) = archive_of_four();
    let scan = archive.scan_id("b");
    let receipt = withdraw_from(&archive, &scan_request([scan]), false).unwrap();
    assert_eq!((receipt.epoch, receipt.scans), (Some(2), [scan].into()));
    assert!(!receipt.removed.is_empty() && !receipt.is_purged);
    let report = archive.run("run").unwrap();
    assert_eq!((report.processed_scans, report.scans), (0, 3));
    let folder = RunFolder::open(archive.path("run")).unwrap();
    assert_eq!(folder.snapshot(Some(1)).unwrap().head.counts.scans, 4, "the earlier state remains readable");
    // A run that never saw the scan.
    archive.remove("b");
    assert_as_new(&archive, "withdrawal");
    archive.add("b", 9);
    assert_eq!(archive.run("run").unwrap().processed_scans, 0, "also after a change");
    let again = withdraw_from(&archive, &scan_request([scan]), false).unwrap();
    assert_eq!((again.epoch, again.scans.len()), (None, 0));
    let unknown = withdraw_from(&archive, &scan_request([ScanId::from_bytes([1; 8])]), false).unwrap_err();
    assert!(unknown.to_string().contains("got 0101010101010101") && unknown.hint().is_some(), "{unknown}");
}

#[test]
fn duplicate_is_processed_after_withdrawal_of_a_scan_and_removed_with_its_patient() {
    let archive = Archive::new();
    for case in ["a", "b", "c"] {
        archive.add(case, if case == "c" { 2 } else { 1 });
    }
    assert_eq!(archive.run("run").unwrap().duplicates, 1);
    let content = archive.content("run");
    let duplicate = content.scans.iter().find(|row| row["status"] == "duplicate").unwrap();
    let [original, other] =
        if duplicate["scan_id"] == archive.scan_id("a").to_string() { ["b", "a"] } else { ["a", "b"] };
    let receipt = withdraw_from(&archive, &scan_request([archive.scan_id(original)]), false).unwrap();
    assert_eq!(receipt.processed_duplicates, [archive.scan_id(other)].into());
    assert_eq!(archive.run("run").unwrap().duplicates, 0);
    let (_, request) = patient_request(&archive, other);
    let receipt = withdraw_from(&archive, &request, false).unwrap();
    assert_eq!((receipt.scans, receipt.processed_duplicates.len()), ([archive.scan_id(other)].into(), 0));
    // The content is not ingested under any name.
    archive.add("d", 1);
    archive.add("e", 3);
    let report = archive.run("run").unwrap();
    assert_eq!((report.new_scans, report.scans), (2, 3));
    let rows = archive.content("run").scans;
    let row = rows.iter().find(|row| row["scan_id"] == archive.scan_id("d").to_string()).unwrap();
    assert_eq!((row["status"].as_str(), row["scan_digest"].is_null()), (Some("withdrawn"), true));
}

/// Returns the files below a folder that contain one of the byte strings, also inside tars and Parquet, which are read as rows.
fn files_with(folder: &Path, needles: &[Vec<u8>]) -> Vec<String> {
    let contains =
        |bytes: &[u8]| needles.iter().any(|needle| bytes.windows(needle.len()).any(|part| part == &needle[..]));
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(folder) {
        let entry = entry.unwrap();
        if !entry.file_type().is_file() {
            continue;
        }
        let mut bytes = std::fs::read(entry.path()).unwrap();
        match entry.path().extension().and_then(|ending| ending.to_str()) {
            Some("gz") => {
                let mut inflated = Vec::new();
                std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&bytes[..]), &mut inflated).unwrap();
                bytes = inflated;
            }
            Some("parquet") => {
                let batches =
                    parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes))
                        .unwrap();
                bytes =
                    batches.build().unwrap().flat_map(|batch| format!("{:?}", batch.unwrap()).into_bytes()).collect();
            }
            Some("tar") => {
                let mut members = bytes.clone();
                for member in tar::Archive::new(&bytes[..]).entries().unwrap() {
                    let mut content = Vec::new();
                    let mut member = member.unwrap();
                    std::io::Read::read_to_end(&mut member, &mut content).unwrap();
                    let mut inflated = Vec::new();
                    if std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&content[..]), &mut inflated)
                        .is_ok()
                    {
                        members.extend(inflated);
                    }
                }
                bytes = members;
            }
            _ => {}
        }
        let name = entry.path().strip_prefix(folder).unwrap().to_string_lossy().into_owned();
        if contains(&bytes)
            || needles.iter().any(|needle| name.as_bytes().windows(needle.len()).any(|part| part == &needle[..]))
        {
            found.push(name);
        }
    }
    found
}

#[test]
fn purge_deletes_all_data_of_a_patient() {
    let (archive, _) = archive_of_four();
    let run = archive.path("run");
    let content = archive.content("run");
    let scan = archive.scan_id("b").to_string();
    let row = content.scans.iter().find(|row| row["scan_id"] == scan.as_str()).unwrap();
    let mut needles: Vec<Vec<u8>> = vec![
        scan.clone().into_bytes(),
        row["patient_key"].as_str().unwrap().into(),
        row["scan_digest"].as_str().unwrap().into(),
    ];
    needles.push(b"b/ct.nii".to_vec());
    let samples = content.samples.iter().filter(|sample| sample["row"]["scan_id"] == scan.as_str());
    needles.extend(samples.map(|sample| sample["row"]["sample_id"].as_str().unwrap().into()));
    // A row of voxels with noise, which no other scan has.
    let file = std::fs::read(archive.path("ct/b/ct.nii")).unwrap();
    needles.push(file[file.len() / 2..][..48].to_vec());
    assert!(needles.len() > 6 && files_with(&run, &needles).len() > 10);
    let (_, request) = patient_request(&archive, "b");
    let receipt = withdraw_from(&archive, &request, true).unwrap();
    assert!(receipt.is_purged && receipt.purged.iter().any(|path| path.starts_with("ingest/")), "{:?}", receipt.purged);
    assert_eq!(files_with(&run, &needles), [""; 0]);
    let folder = RunFolder::open(&run).unwrap();
    let error = folder.snapshot(Some(0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Purged, "{error}");
    // The next runs are those of a run that never ingested the patient.
    assert_eq!(archive.run("run").unwrap().processed_scans, 0);
    archive.add("f", 6);
    assert_eq!(archive.run("run").unwrap().new_scans, 1);
    archive.remove("b");
    assert_as_new(&archive, "purge");
    let error = freetumor::run::RunFolder::open(&run).unwrap().commit(0).unwrap_err();
    assert!(error.to_string().contains("expected"), "{error}");
}

#[test]
fn reader_of_purged_state_fails_with_hint_to_reopen() {
    let (archive, _) = archive_of_four();
    let reader = RunFolder::open(archive.path("run")).unwrap();
    let files = reader.files("samples", None).unwrap();
    withdraw_from(&archive, &scan_request([archive.scan_id("a")]), true).unwrap();
    let error = files.iter().find_map(|file| reader.read_verified(file).err()).unwrap();
    assert_eq!(error.kind(), ErrorKind::Purged, "{error}");
    assert!(error.hint().unwrap().contains("again"), "{error:?}");
}
