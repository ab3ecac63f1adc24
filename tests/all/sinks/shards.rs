//! Tests of tar shards and their index.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use freetumor::record::SampleRow;
use freetumor::record::parquet::decode_part;
use freetumor::record::{Outcome, SampleRecord};
use freetumor::run::RunWriter;
use freetumor::store::{DurableFolder, DurableStorage, FileDigest};
use serde_json::Value;

use super::fixture;

fn run(root: &Path) -> RunWriter {
    let store: Arc<dyn DurableStorage> = Arc::new(DurableFolder::local(root));
    fixture::run(&store, &fixture::sinks(), 2, 10, [12, 10, 8]).unwrap()
}

fn accepted(writer: &RunWriter) -> Vec<SampleRow> {
    let store = writer.folder().store();
    let files = writer.folder().files("samples", None).unwrap();
    let rows =
        files.iter().flat_map(|file| decode_part::<SampleRow>(store.read(&file.path).unwrap().unwrap()).unwrap());
    rows.filter(|row| row.record.outcome == Outcome::Accepted).collect()
}

fn members(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(tar);
    let members = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        assert_eq!((entry.header().mtime().unwrap(), entry.header().uid().unwrap()), (0, 0));
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), content)
    });
    members.collect()
}

#[test]
fn shards_contain_every_accepted_sample_once_in_order() {
    let root = tempfile::tempdir().unwrap();
    let writer = run(root.path());
    let mut keys = Vec::new();
    for file in writer.folder().files("webdataset", None).unwrap() {
        let members = members(&fs::read(root.path().join(&file.path)).unwrap());
        assert!(members.is_sorted_by(|a, b| a.0 < b.0), "{}", file.path);
        assert_eq!(members.len() as u64, 3 * file.rows);
        for member in members.chunks_exact(3) {
            let key = member[0].0.strip_suffix(".image.nii.gz").unwrap();
            assert_eq!((&member[1].0, &member[2].0), (&format!("{key}.json"), &format!("{key}.label.nii.gz")));
            let record: SampleRecord = serde_json::from_slice(&member[1].1).unwrap();
            assert!(record.sample_id.to_string() == key && file.path.contains(&format!("-{}-", record.split)));
            keys.push(key.to_owned());
        }
    }
    let unique: BTreeSet<String> = keys.iter().cloned().collect();
    assert!(unique.len() == keys.len() && keys.len() as u64 == writer.counts().accepted);
}

#[test]
fn placement_of_row_locates_files_of_sample() {
    let root = tempfile::tempdir().unwrap();
    let writer = run(root.path());
    let rows = accepted(&writer);
    assert!(rows.len() > 10);
    for SampleRow { record, placement } in rows {
        let shard = fs::read(root.path().join(placement.shard.unwrap())).unwrap();
        let (offset, length) = (placement.shard_offset_bytes.unwrap(), placement.shard_length_bytes.unwrap());
        let members = members(&shard[offset as usize..(offset + length) as usize]);
        let sha256 = |index: usize| Some(FileDigest::of(&members[index].1).sha256);
        assert_eq!(members[0].0, format!("{}.image.nii.gz", record.sample_id));
        assert_eq!((sha256(0), sha256(2)), (placement.image_sha256.clone(), placement.label_sha256.clone()));
        let file = |path: Option<String>| fs::read(root.path().join(path.unwrap())).unwrap();
        assert!(file(placement.image_path) == members[0].1 && file(placement.label_path) == members[2].1);
    }
}

#[test]
fn index_matches_every_shard() {
    let root = tempfile::tempdir().unwrap();
    let writer = run(root.path());
    let layout = root.path().join("layouts/webdataset");
    let mut samples = 0;
    for split in ["train", "validation", "test"] {
        let index: Value = serde_json::from_slice(&fs::read(layout.join(format!("{split}.json"))).unwrap()).unwrap();
        let listed: BTreeSet<&str> =
            index["shardlist"].as_array().unwrap().iter().map(|shard| shard["url"].as_str().unwrap()).collect();
        let present: BTreeSet<String> = fs::read_dir(layout.join(split))
            .unwrap()
            .map(|entry| format!("{split}/{}", entry.unwrap().file_name().to_str().unwrap()))
            .collect();
        assert_eq!(listed, present.iter().map(String::as_str).collect());
        for shard in index["shardlist"].as_array().unwrap() {
            let bytes = fs::read(layout.join(shard["url"].as_str().unwrap())).unwrap();
            let digest = FileDigest::of(&bytes);
            assert_eq!((&shard["filesize"], &shard["sha256"]), (&digest.bytes.into(), &digest.sha256.into()));
            assert_eq!(shard["nsamples"].as_u64().unwrap() as usize, shard["samples"].as_array().unwrap().len());
            for sample in shard["samples"].as_array().unwrap() {
                // A rank that resumes reads from this offset.
                let mut rest = Cursor::new(&bytes[sample["offset"].as_u64().unwrap() as usize..]);
                let mut archive = tar::Archive::new(&mut rest);
                let first = archive.entries().unwrap().next().unwrap().unwrap();
                let name = format!("{}.image.nii.gz", sample["key"].as_str().unwrap());
                assert_eq!(first.path().unwrap().to_str().unwrap(), name);
                samples += 1;
            }
        }
    }
    assert_eq!(samples, writer.counts().accepted);
}
