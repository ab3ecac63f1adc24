//! Scans that a manifest names: CSV, JSON lines and Parquet, rows that cannot be used, and growth.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use freetumor::error::FaultKind;
use freetumor::ingest::{ManifestConfig, ManifestSource, Source};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::archives::{run_graph, voxels};
use crate::changes::archive::{Archive, Content, SECRET};
use crate::dicom_files::{series, write};

const GRAPH: &str = r#"
[pipeline]
name = "manifests"
epoch_scans = 3
max_missing = 1.0
[sources.scans]
kind = "manifest"
path = "PATH"
[stages.organs]
kind = "labels"
inputs = ["scans"]
pattern = "{mask}"
organs = ["liver", "kidney"]
"#;

fn archive_of_three() -> Archive {
    let archive = Archive::new();
    for (content, case) in ["a", "b", "c"].into_iter().enumerate() {
        archive.add(case, content);
    }
    archive
}

/// Writes a table of strings as Parquet with the default compression of pandas.
fn write_parquet(path: &Path, columns: &[(&str, Vec<Option<String>>)]) {
    let column = |(name, values): &(&'static str, Vec<Option<String>>)| {
        (*name, Arc::new(StringArray::from(values.clone())) as ArrayRef)
    };
    let columns: Vec<(&'static str, Vec<Option<String>>)> = columns
        .iter()
        .map(|(name, values)| (&*Box::leak((*name).to_owned().into_boxed_str()), values.clone()))
        .collect();
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.iter().map(column).map(|(name, array)| (name, array, true)))
            .unwrap();
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn manifests_of_every_format_have_the_samples_of_their_folder() {
    let archive = archive_of_three();
    archive.run("folder").unwrap();
    let expected = voxels(&archive, "folder");
    let cases = ["a", "b", "c"];
    let root = archive.path("ct");
    let uri = |case: &str| match case {
        "a" => "ct/a/ct.nii".to_owned(),
        "b" => root.join("b/ct.nii").display().to_string(),
        _ => format!("file://{}", root.join("c/ct.nii").display()),
    };
    let mask = |case: &str| format!("ct/{case}/labels.nii");
    let csv: String = cases.iter().map(|case| format!("{},p{case},{}\n", uri(case), mask(case))).collect();
    std::fs::write(archive.path("list.csv"), format!("uri,patient,mask\n{csv}")).unwrap();
    let json: String =
        cases.iter().map(|case| format!("{{\"uri\": \"{}\", \"mask\": \"{}\"}}\n", uri(case), mask(case))).collect();
    std::fs::write(archive.path("list.jsonl"), json).unwrap();
    let column = |value: &dyn Fn(&str) -> String| cases.iter().map(|case| Some(value(case))).collect::<Vec<_>>();
    write_parquet(&archive.path("list.parquet"), &[("uri", column(&uri)), ("mask", column(&mask))]);
    for name in ["list.csv", "list.jsonl", "list.parquet"] {
        let report = run_graph(&archive, &GRAPH.replace("PATH", name), &format!("run-{name}"));
        assert_eq!((report.scans, report.faults), (3, 0), "{name}");
        assert!(voxels(&archive, &format!("run-{name}")) == expected, "{name}: other voxels");
    }
}

#[test]
fn rows_that_cannot_be_used_cost_only_themselves_and_growth_is_found() {
    let archive = archive_of_three();
    let graph = GRAPH.replace("PATH", "list.csv");
    let list = |rows: &str| std::fs::write(archive.path("list.csv"), format!("uri,mask\n{rows}")).unwrap();
    let first = "ct/a/ct.nii,ct/a/labels.nii\ns3://x/ct.nii,\nct/b/ct.nii\n";
    list(first);
    let report = run_graph(&archive, &graph, "run");
    assert_eq!((report.scans, report.faults), (3, 2));
    let messages = |out: &str| {
        let faults = Content::of(&archive.path(out)).faults;
        let mut messages: Vec<String> =
            faults.iter().filter_map(|fault| fault["message"].as_str().map(str::to_owned)).collect();
        messages.sort();
        messages
    };
    let found = messages("run");
    assert!(
        found[0].starts_with("line 3: `uri`: expected a path or a `file://` URI, got the scheme `s3`"),
        "{found:?}"
    );
    assert!(found[1].starts_with("line 4: expected 2 fields"), "{found:?}");
    // A repaired line, a new scan, a scan without a mask, and a file that does not exist.
    list("ct/a/ct.nii,ct/a/labels.nii\nct/c/ct.nii,ct/c/labels.nii\nct/b/ct.nii,\nct/none.nii,\n");
    let report = run_graph(&archive, &graph, "run");
    assert_eq!((report.scans, report.removed_scans.len(), report.processed_scans), (4, 2, 3));
    let found = messages("run");
    assert_eq!(found, ["the file does not exist", "the list has no label for this scan"]);
    assert_eq!(run_graph(&archive, &graph, "run").processed_scans, 0);
}

#[test]
fn columns_name_data_set_patient_and_split() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), SECRET).unwrap();
    for name in ["x", "y"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        write(&folder.path().join(name), &series(5));
    }
    let csv = "uri,dataset,patient,split,site\nx,LiTS,p1,train,A\ny/,LiTS,p1,test,A\nz.nii,,,train,B\n";
    std::fs::write(folder.path().join("list.csv"), csv).unwrap();
    let source = |settings: &str| {
        let config: ManifestConfig = toml::from_str(&format!("path = \"list.csv\"\n{settings}")).unwrap();
        let config = ManifestConfig { path: folder.path().join("list.csv"), ..config };
        ManifestSource::new("registry", config).unwrap().with_secret_file(Some(folder.path().join("secret")))
    };
    let (entries, remarks) = source("").list_archive().unwrap();
    assert_eq!(entries.len(), 3);
    assert!(entries[0].key.starts_with("x#") && entries[1].key.starts_with("y#") && entries[2].key == "z.nii");
    assert_eq!(entries.iter().map(|entry| entry.dataset.as_str()).collect::<Vec<_>>(), ["LiTS", "LiTS", "registry"]);
    assert_eq!(entries[0].patient_key, entries[1].patient_key);
    assert_ne!(entries[0].patient_key, entries[2].patient_key);
    assert!(remarks.notes.iter().any(|note| note.contains("ignored: `site`")), "{remarks:?}");
    assert!(remarks.notes.iter().any(|note| note.contains("more than one `split`")), "{remarks:?}");
    let training = source("split = \"train\"");
    let entries = training.list().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(training.read(&entries[0]).unwrap().volume.grid.shape[2], 5);
    assert_eq!(training.version(&entries[0]).unwrap(), entries[0].version);
    assert_eq!(training.version(&entries[1]).unwrap(), entries[1].version);
    assert_eq!(training.read(&entries[1]).unwrap_err().kind, FaultKind::Missing);
    assert!(source("split = \"other\"").explain_empty().contains("no row of the manifest"));
}

#[test]
fn missing_manifest_is_an_error_of_the_setting() {
    let config: ManifestConfig = toml::from_str("path = \"/none/list.csv\"").unwrap();
    let errors = ManifestSource::new("registry", config).unwrap_err();
    assert!(errors[0].field == "path" && errors[0].message.contains("cannot read the manifest"), "{errors:?}");
}
