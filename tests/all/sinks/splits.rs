//! Tests that no sink has a patient in two splits, for any mix of patients and scans.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use freetumor::graph::SplitShares;
use freetumor::id::{FieldHasher, PatientKey, SampleId};
use freetumor::record::Split;
use freetumor::sink::{EpochStage, Layout, StagedFile, StagedSample, StagedVolumes, seal_patches};
use freetumor::store::{DurableFolder, DurableStorage};
use proptest::prelude::*;
use serde_json::Value;

use super::fixture;

/// Returns a sample with files of a few bytes; sinks do not read the content of files.
fn staged(store: &dyn DurableStorage, epoch: u64, number: usize, patient: PatientKey, split: Split) -> StagedSample {
    let hash = FieldHasher::new("splits").add_field(patient.as_bytes()).add_field(number.to_le_bytes()).finish();
    let sample_id = SampleId::from_hash(&hash);
    let file = |kind: &str| {
        let path = format!("staging/{epoch:012}/scan{number}/{sample_id}.{kind}");
        let text = format!("{sample_id}, not an image");
        let digest = store.stage(&path, &mut |out| out.write_all(text.as_bytes())).unwrap();
        StagedFile { path, digest }
    };
    let digest = "0".repeat(64);
    let record = serde_json::from_value(serde_json::json!({
        "sample_id": sample_id, "kind": "synthetic", "tumor_id": 0, "candidate_id": sample_id,
        "scan_id": format!("{number:016x}"), "scan_digest": digest, "mask_digest": digest,
        "patient_key": patient, "dataset": "made", "epoch": epoch, "seed": 1, "stage": "rules", "branch": "test",
        "variant": 0, "attempt": 0, "organ": "liver", "tumor_label": 2, "split": split, "geometry": null,
        "candidate_digest": null, "scores": {}, "verdict": "accepted", "stage_digest": digest, "score_stages": [],
        "test_digest": digest, "pipeline_digest": "", "model": "",
    }));
    StagedSample {
        is_retested: false,
        record: record.unwrap(),
        others: Vec::new(),
        patch: Some(file("patch.tar").into()),
        volumes: Some(StagedVolumes { image: file("image.nii.gz"), label: file("label.nii.gz") }),
        committed: None,
    }
}

/// Returns the splits of each case in the lists of a sink.
fn cases(store: &dyn DurableStorage, sink: &dyn Layout) -> BTreeMap<String, BTreeSet<String>> {
    let json = |name: &str| -> Value { serde_json::from_slice(&store.read(name).unwrap().unwrap()).unwrap() };
    let mut cases: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut add = |case: &str, split: &str| {
        let case = case.rsplit('/').next().unwrap().split('.').next().unwrap();
        cases.entry(case.trim_end_matches("_0000").to_owned()).or_default().insert(split.to_owned());
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    match sink.name() {
        "nnunet" => {
            let root = "layouts/nnunet/Dataset900_FreeTumor";
            let folds = json(&format!("{root}/splits_final.json"));
            for (key, split) in [("train", "train"), ("val", "validation")] {
                folds[0][key].as_array().unwrap().iter().for_each(|case| add(&text(case), split));
            }
            for case in store.list(&format!("{root}/imagesTs")).unwrap() {
                add(&case, "test");
            }
            let training = store.list(&format!("{root}/imagesTr")).unwrap();
            let known: Vec<&String> = cases.iter().filter(|(_, s)| !s.contains("test")).map(|(case, _)| case).collect();
            assert_eq!(training.len(), known.len(), "each file of imagesTr is in one fold");
        }
        "decathlon" => {
            let dataset = json("layouts/decathlon/dataset.json");
            for (key, split) in [("training", "train"), ("validation", "validation"), ("test", "test")] {
                // An empty list is absent if it would make MONAI fail.
                dataset[key].as_array().into_iter().flatten().for_each(|pair| add(&text(&pair["image"]), split));
            }
        }
        _ => {
            for split in ["train", "validation", "test"] {
                let index = json(&format!("layouts/{}/{split}.json", sink.name()));
                for shard in index["shardlist"].as_array().unwrap() {
                    shard["samples"].as_array().unwrap().iter().for_each(|sample| add(&text(&sample["key"]), split));
                }
            }
        }
    }
    cases
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_patient_is_in_two_splits(
        epochs in prop::collection::vec(prop::collection::vec(0..12u8, 0..10), 1..4),
        seed in any::<u64>(),
    ) {
        let root = tempfile::tempdir().unwrap();
        let store: Arc<dyn DurableStorage> = Arc::new(DurableFolder::local(root.path()));
        let shares = SplitShares { train: 0.4, validation: 0.3, test: 0.3 };
        let (mut patients, mut number) = (BTreeMap::new(), 0);
        let mut committed: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for (epoch, scans) in epochs.iter().enumerate() {
            let mut samples: Vec<StagedSample> = scans.iter().map(|patient| {
                number += 1;
                let patient = PatientKey::from_bytes((seed ^ u64::from(*patient)).to_be_bytes());
                staged(&*store, epoch as u64, number, patient, shares.of(patient))
            }).collect();
            samples.sort_by_key(|sample| sample.record.sample_id);
            patients.extend(samples.iter().map(|s| (s.record.sample_id.to_string(), s.record.patient_key)));
            let folder = format!("staging/{epoch:012}");
            let stage = EpochStage { store: &*store, epoch: epoch as u64, folder: &folder, patches: &[], committed: &[] };
            let patches = seal_patches(&stage, &samples, &vec![vec![true]; samples.len()]).unwrap().1;
            let stage = EpochStage { patches: &patches, ..stage };
            for sink in fixture::sinks() {
                let sealed = sink.seal(&stage, &samples).unwrap();
                prop_assert_eq!(sealed.placements.len(), samples.len());
                let index = sealed.files.into_iter().filter(|file| file.table == sink.index());
                committed.entry(sink.name().to_owned()).or_default().extend(index);
            }
        }
        for sink in fixture::sinks() {
            sink.project(&*store, &committed[sink.name()]).unwrap();
            let cases = cases(&*store, &*sink);
            prop_assert_eq!(cases.keys().collect::<Vec<_>>(), patients.keys().collect::<Vec<_>>());
            let mut splits: BTreeMap<PatientKey, BTreeSet<&String>> = BTreeMap::new();
            for (case, of_case) in &cases {
                splits.entry(patients[case]).or_default().extend(of_case);
            }
            prop_assert!(splits.values().all(|splits| splits.len() == 1), "{}: {splits:?}", sink.name());
        }
    }
}

#[test]
fn every_sink_fails_on_patient_in_two_splits() {
    let root = tempfile::tempdir().unwrap();
    let store = DurableFolder::local(root.path());
    let patient = PatientKey::from_bytes([1; 8]);
    let train = staged(&store, 0, 1, patient, Split::Train);
    let test = staged(&store, 0, 2, patient, Split::Test);
    let stage =
        |epoch| EpochStage { store: &store, epoch, folder: "staging/000000000000", patches: &[], committed: &[] };
    for sink in fixture::sinks() {
        let mut both = vec![train.clone(), test.clone()];
        both.sort_by_key(|sample| sample.record.sample_id);
        let error = sink.seal(&stage(0), &both).unwrap_err();
        assert!(error.to_string().contains("patient 0101010101010101 is in two splits"), "{}: {error}", sink.name());
        // Each of two epochs is valid separately, but not both together.
        let mut index = Vec::new();
        for (epoch, sample) in [(1, &train), (2, &test)] {
            let (stage, samples) = (stage(epoch), std::slice::from_ref(sample));
            let patches = seal_patches(&stage, samples, &[vec![true]]).unwrap().1;
            index.extend(sink.seal(&EpochStage { patches: &patches, ..stage }, samples).unwrap().files);
        }
        index.retain(|file| file.table == sink.index());
        let error = sink.project(&store, &index).unwrap_err();
        assert!(error.to_string().contains("two splits"), "{}: {error}", sink.name());
    }
}
