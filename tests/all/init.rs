//! Graph files that are drafted for folders of scans.

use std::path::Path;

use freetumor::graph::{GraphFile, Registry, Resources, check};
use freetumor::ingest::Source;
use freetumor::ingest::nifti::{Datatype, encode_header};
use freetumor::ingest::phantom::{PhantomConfig, PhantomSource};
use freetumor::init::{draft, survey_folder};
use freetumor::volume::Voxels;

use crate::patients::write_compressed;

/// Writes phantoms: `names` returns the paths of image and labels of a case, and `ids` the id of a label.
fn write(root: &Path, names: impl Fn(usize) -> [String; 2], ids: impl Fn(u16) -> u16) {
    let config = PhantomConfig { count: 2, shape: [48, 40, 32], spacing_mm: [7.0, 7.0, 8.0], ..Default::default() };
    let phantoms = PhantomSource::new(config, "phantoms").unwrap();
    for (case, entry) in phantoms.list().unwrap().iter().enumerate() {
        let scan = phantoms.read(entry).unwrap();
        let (grid, labels) = (&scan.volume.grid, scan.companions.labels("labels.nii.gz").unwrap());
        let Voxels::I16(hu) = &scan.volume.voxels else { panic!("phantoms have integer HU") };
        let hu: Vec<u8> = hu.as_slice().iter().flat_map(|hu| hu.to_le_bytes()).collect();
        let labels: Vec<u8> = labels.ids.as_slice().iter().flat_map(|id| ids(*id).to_le_bytes()).collect();
        for (name, datatype, voxels) in names(case)
            .iter()
            .zip([Datatype::I16, Datatype::U16])
            .zip([hu, labels])
            .map(|((name, datatype), voxels)| (name, datatype, voxels))
        {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            write_compressed(&path, &encode_header(grid, datatype, "").unwrap(), &voxels);
        }
    }
}

/// Returns the drafted file, its source's keys, and the remarks.
fn drafted(root: &Path) -> (String, Vec<String>, Vec<String>) {
    let survey = survey_folder(root).unwrap();
    let text = draft(&survey, "mine", root);
    let secret = root.join(".secret");
    std::fs::write(&secret, "a secret for tests only").unwrap();
    let registry = Registry::with_resources(&Resources { patient_secret: Some(secret), ..Resources::default() });
    let checked = check(&GraphFile::new("mine.toml", root, text.as_str()), &registry);
    let plan = checked.plan.unwrap_or_else(|| panic!("{text}\n{:?}", checked.problems));
    let entries = plan.list(0).unwrap();
    let patients: std::collections::BTreeSet<_> = entries.iter().map(|entry| entry.patient_key).collect();
    assert_eq!(patients.len(), entries.len(), "{text}");
    let scan = std::sync::Arc::new(plan.sources[0].source.read(&entries[0]).unwrap());
    assert!(plan.masks[0].mask.mask(&scan).is_ok(), "{text}");
    (text, entries.into_iter().map(|entry| entry.key).collect(), survey.remarks)
}

#[test]
fn files_of_one_name_in_folders_of_cases_are_found() {
    let root = tempfile::tempdir().unwrap();
    write(
        root.path(),
        |case| [format!("case-{case}/ct.nii.gz"), format!("case-{case}/seg/labels.nii.gz")],
        |id| u16::from(id == 5),
    );
    let (text, keys, remarks) = drafted(root.path());
    assert_eq!(keys, ["case-0/ct.nii.gz", "case-1/ct.nii.gz"]);
    assert!(text.contains("pattern = \"seg/labels.nii.gz\"") && text.contains("organ_1 = { ids = [1] }"), "{text}");
    assert_eq!(remarks, ["seg/labels.nii.gz does not name its ids {1}: set the names of the organs in the file"]);
}

#[test]
fn images_and_labels_in_two_folders_are_found() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), |case| [format!("images/p{case}.nii.gz"), format!("labels/p{case}_seg.nii.gz")], |id| id);
    let (text, keys, _) = drafted(root.path());
    assert_eq!(keys, ["images/p0.nii.gz", "images/p1.nii.gz"]);
    assert!(
        text.contains("pattern = \"../labels/{stem}_seg.nii.gz\"") && text.contains("path_component = 1"),
        "{text}"
    );
}

#[test]
fn data_set_with_names_has_its_organs_and_tumors() {
    let root = tempfile::tempdir().unwrap();
    let liver = |id| u16::from(id == 5);
    write(root.path(), |case| [format!("imagesTr/c{case}_0000.nii.gz"), format!("labelsTr/c{case}.nii.gz")], liver);
    let json = r#"{"labels": {"background": 0, "liver": 1, "liver_tumor": 2}, "channel_names": {"0": "CT"}, "numTraining": 2, "file_ending": ".nii.gz"}"#;
    std::fs::write(root.path().join("dataset.json"), json).unwrap();
    let (text, keys, _) = drafted(root.path());
    assert_eq!(keys.len(), 2);
    assert!(text.contains("kind = \"nnunet\"") && text.contains("liver = { ids = [1], tumor_ids = [2] }"), "{text}");
}

#[test]
fn scans_without_labels_get_a_mask_of_the_lungs() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), |case| [format!("{case}.nii.gz"), format!(".labels/{case}.nii.gz")], |id| id);
    let (text, keys, _) = drafted(root.path());
    assert_eq!(keys, ["0.nii.gz", "1.nii.gz"]);
    assert!(text.contains("kind = \"lung\""), "{text}");
}

#[test]
fn folder_without_scans_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("notes.txt"), "no scan").unwrap();
    let error = survey_folder(root.path()).unwrap_err();
    assert!(error.to_string().contains("expected CT scans below"), "{error}");
    assert!(survey_folder(&root.path().join("absent")).is_err());
}
