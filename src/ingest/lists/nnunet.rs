//! The source of a raw data set of nnU-Net, with the folds of `splits_final.json`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ListEntry, ListSource, patient_of, patient_rule, read_json};
use crate::error::ConfigError;
use crate::ingest::PatientConfig;

/// Settings of the source kind `nnunet`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NnunetListConfig {
    /// Folder of the raw data set, `…/DatasetNNN_Name`, with `imagesTr` and `labelsTr`.
    pub root: PathBuf,
    /// Cases to read: `all`, or the `train` or `val` part of a fold.
    #[serde(default)]
    pub part: NnunetPart,
    /// Index of the fold, counted from 0.
    #[serde(default)]
    pub fold: usize,
    /// Path of `splits_final.json`, which nnU-Net stores with its preprocessed data; by default next to `imagesTr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub splits: Option<PathBuf>,
    /// Name of the data set in tables; by default the name of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// Rule for the patient of `imagesTr/CASE_0000.nii.gz`; by default every case is a separate patient.
    #[serde(default)]
    pub patient: PatientConfig,
}

/// The cases of a data set to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NnunetPart {
    /// All cases, independent of the folds.
    #[default]
    All,
    /// The training cases of the fold.
    Train,
    /// The validation cases of the fold.
    Val,
}

/// A fold of `splits_final.json`.
#[derive(Deserialize)]
struct Fold {
    train: Vec<String>,
    val: Vec<String>,
}

impl ListSource {
    /// Creates a source of the cases of a raw data set of nnU-Net, or of one part of a fold.
    ///
    /// # Errors
    /// Returns every error in the settings and the folder, and an error if a patient is in both parts of the fold.
    pub fn nnunet(name: &str, config: NnunetListConfig) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let rule = patient_rule(&config.patient, &mut errors);
        let ending = read_json(&config.root.join("dataset.json"), "root", "the description of the data set")
            .map_err(|error| errors.push(error))
            .ok()
            .and_then(|json| json.get("file_ending").and_then(Value::as_str).map(str::to_owned))
            .unwrap_or_else(|| ".nii.gz".to_owned());
        let cases = cases_of(&config.root, &ending).unwrap_or_else(|error| {
            errors.push(error);
            Vec::new()
        });
        let image = |case: &str| format!("imagesTr/{case}_0000{ending}");
        let mut listed = Vec::new();
        let patient = |case: &str| match &rule {
            None => Ok(case.to_owned()),
            Some(_) => patient_of(rule.as_ref(), &image(case), "patient"),
        };
        let selected = match config.part {
            NnunetPart::All => cases.clone(),
            part => fold_of(&config, &cases, part, &patient).unwrap_or_else(|more| {
                errors.extend(more);
                Vec::new()
            }),
        };
        for case in selected {
            match patient(&case) {
                Err(error) => errors.push(error),
                Ok(patient) => {
                    let label = format!("labelsTr/{case}{ending}");
                    let label = config.root.join(&label).exists().then_some(label);
                    listed.push(ListEntry { image: image(&case), label, patient });
                }
            }
        }
        if errors.is_empty() { Ok(Self::new(name, config.dataset, config.root, listed)) } else { Err(errors) }
    }
}

/// Returns the names of the cases in `imagesTr`.
fn cases_of(root: &Path, ending: &str) -> Result<Vec<String>, ConfigError> {
    let folder = root.join("imagesTr");
    let entries = std::fs::read_dir(&folder)
        .map_err(|cause| ConfigError::new("root", format!("cannot list {}: {cause}", folder.display())))?;
    let suffix = format!("_0000{ending}");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut cases: Vec<String> = names.filter_map(|name| name.strip_suffix(&suffix).map(str::to_owned)).collect();
    cases.sort_unstable();
    if cases.is_empty() {
        return Err(ConfigError::new("root", format!("expected images `…{suffix}` in {}, got none", folder.display())));
    }
    Ok(cases)
}

/// Returns the cases of one part of a fold.
fn fold_of(
    config: &NnunetListConfig,
    cases: &[String],
    part: NnunetPart,
    patient: &dyn Fn(&str) -> Result<String, ConfigError>,
) -> Result<Vec<String>, Vec<ConfigError>> {
    let path = config.splits.clone().unwrap_or_else(|| config.root.join("splits_final.json"));
    let shown_path = path.display();
    let single = |error: ConfigError| vec![error];
    let json = read_json(&path, "splits", "the folds").map_err(single)?;
    let mut folds: Vec<Fold> = serde_json::from_value(json).map_err(|cause| {
        single(ConfigError::new("splits", format!("{shown_path}: expected a list of {{train, val}}: {cause}")))
    })?;
    if config.fold >= folds.len() {
        let message =
            format!("{shown_path}: expected a fold from 0 to {}, got {}", folds.len().saturating_sub(1), config.fold);
        return Err(single(ConfigError::new("fold", message)));
    }
    let Fold { train, val } = folds.swap_remove(config.fold);
    let mut errors = Vec::new();
    let missing: Vec<&String> = train.iter().chain(&val).filter(|case| cases.binary_search(case).is_err()).collect();
    if let Some(first) = missing.first() {
        let message =
            format!("{shown_path}: expected cases of imagesTr, got {} others, such as `{first}`", missing.len());
        errors.push(ConfigError::new("splits", message));
    }
    let patients = |cases: &[String]| cases.iter().filter_map(|case| patient(case).ok()).collect::<BTreeSet<_>>();
    if let Some(both) = patients(&train).intersection(&patients(&val)).next() {
        let message = format!("{shown_path}: the patient `{both}` is in both parts of fold {}", config.fold);
        errors.push(ConfigError::new("splits", message).with_hint(
            "move all cases of a patient to one part, so that no patient is in both training and validation",
        ));
    }
    let selected = if part == NnunetPart::Train { train } else { val };
    if selected.is_empty() {
        errors.push(ConfigError::new("splits", format!("{shown_path}: this part of fold {} is empty", config.fold)));
    }
    if errors.is_empty() { Ok(selected) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(splits: &str) -> (tempfile::TempDir, NnunetListConfig) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        for (name, text) in [("dataset.json", r#"{"file_ending": ".nii.gz"}"#), ("splits_final.json", splits)] {
            std::fs::write(root.join(name), text).unwrap();
        }
        for folder in ["imagesTr", "labelsTr"] {
            std::fs::create_dir(root.join(folder)).unwrap();
        }
        for case in ["p1_a", "p1_b", "p2_a"] {
            std::fs::write(root.join(format!("imagesTr/{case}_0000.nii.gz")), b"").unwrap();
            std::fs::write(root.join(format!("labelsTr/{case}.nii.gz")), b"").unwrap();
        }
        let text = format!("root = {:?}\nfold = 0\n", root.display().to_string());
        (folder, toml::from_str(&text).unwrap())
    }

    #[test]
    fn source_lists_selected_part_of_fold() {
        let (_folder, config) = raw(r#"[{"train": ["p1_a", "p1_b"], "val": ["p2_a"]}]"#);
        let images = |part| {
            let source = ListSource::nnunet("raw", NnunetListConfig { part, ..config.clone() }).unwrap();
            source.scans.into_iter().map(|listed| listed.image).collect::<Vec<_>>()
        };
        assert_eq!(images(NnunetPart::Val), ["imagesTr/p2_a_0000.nii.gz"]);
        assert_eq!(images(NnunetPart::Train).len(), 2);
        assert_eq!(images(NnunetPart::All).len(), 3);
    }

    #[test]
    fn patient_in_both_parts_of_fold_is_error() {
        let (_folder, mut config) = raw(r#"[{"train": ["p1_a"], "val": ["p1_b", "p3_a"]}]"#);
        config.part = NnunetPart::Train;
        config.patient.pattern = Some("imagesTr/{patient}_*_0000.nii.gz".into());
        let errors = ListSource::nnunet("raw", config.clone()).unwrap_err();
        let messages: Vec<_> = errors.iter().map(|error| error.message.as_str()).collect();
        assert!(messages[0].contains("expected cases of imagesTr, got 1 others, such as `p3_a`"), "{messages:?}");
        assert!(messages[1].contains("the patient `p1` is in both parts of fold 0"), "{messages:?}");
        config.fold = 3;
        let errors = ListSource::nnunet("raw", config).unwrap_err();
        assert!(errors[0].message.ends_with("expected a fold from 0 to 0, got 3"), "{errors:?}");
    }
}
