//! nnU-Net's raw data sets, and the folds of `splits_final.json`.

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
    /// The raw data set, `…/DatasetNNN_Name`, with `imagesTr` and `labelsTr`.
    pub root: PathBuf,
    /// Which cases of a fold; all of them unless set.
    #[serde(default)]
    pub part: NnunetPart,
    /// The fold, from 0.
    #[serde(default)]
    pub fold: usize,
    /// `splits_final.json`, which nnU-Net keeps with its preprocessed data; beside `imagesTr` unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub splits: Option<PathBuf>,
    /// The data set's name in tables; the source's name unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// How the patient of a scan is told, from `imagesTr/CASE_0000.nii.gz`; every case is a patient of its own unless set.
    #[serde(default)]
    pub patient: PatientConfig,
}

/// Which cases of a fold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NnunetPart {
    /// All cases, whatever the folds.
    #[default]
    All,
    /// Those that are trained on.
    Train,
    /// Those that are validated on.
    Val,
}

/// A fold of `splits_final.json`.
#[derive(Deserialize)]
struct Fold {
    train: Vec<String>,
    val: Vec<String>,
}

impl ListSource {
    /// The cases of a raw data set of nnU-Net, or of one part of a fold.
    ///
    /// # Errors
    /// Everything that is wrong with the settings and the folder, and where a patient is in both parts of the fold.
    pub fn nnunet(name: &str, config: NnunetListConfig) -> Result<Self, Vec<ConfigError>> {
        let mut complaints = Vec::new();
        let rule = patient_rule(&config.patient, &mut complaints);
        let ending = read_json(&config.root.join("dataset.json"), "root", "the data set's description")
            .map_err(|complaint| complaints.push(complaint))
            .ok()
            .and_then(|json| json.get("file_ending").and_then(Value::as_str).map(str::to_owned))
            .unwrap_or_else(|| ".nii.gz".to_owned());
        let cases = cases_of(&config.root, &ending).unwrap_or_else(|complaint| {
            complaints.push(complaint);
            Vec::new()
        });
        let image = |case: &str| format!("imagesTr/{case}_0000{ending}");
        let mut listed = Vec::new();
        let patient = |case: &str| match &rule {
            None => Ok(case.to_owned()),
            Some(_) => patient_of(rule.as_ref(), &image(case), "patient"),
        };
        let wanted = match config.part {
            NnunetPart::All => cases.clone(),
            part => fold_of(&config, &cases, part, &patient).unwrap_or_else(|more| {
                complaints.extend(more);
                Vec::new()
            }),
        };
        for case in wanted {
            match patient(&case) {
                Err(complaint) => complaints.push(complaint),
                Ok(patient) => {
                    let label = format!("labelsTr/{case}{ending}");
                    let label = config.root.join(&label).exists().then_some(label);
                    listed.push(ListEntry { image: image(&case), label, patient });
                }
            }
        }
        if complaints.is_empty() { Ok(Self::new(name, config.dataset, config.root, listed)) } else { Err(complaints) }
    }
}

/// The names of the cases in `imagesTr`.
fn cases_of(root: &Path, ending: &str) -> Result<Vec<String>, ConfigError> {
    let folder = root.join("imagesTr");
    let entries = std::fs::read_dir(&folder)
        .map_err(|cause| ConfigError::new("root", format!("cannot list {}: {cause}", folder.display())))?;
    let suffix = format!("_0000{ending}");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut cases: Vec<String> = names.filter_map(|name| name.strip_suffix(&suffix).map(str::to_owned)).collect();
    cases.sort_unstable();
    if cases.is_empty() {
        return Err(ConfigError::new("root", format!("{} has no image `…{suffix}`", folder.display())));
    }
    Ok(cases)
}

/// The cases of one part of a fold.
fn fold_of(
    config: &NnunetListConfig,
    cases: &[String],
    part: NnunetPart,
    patient: &dyn Fn(&str) -> Result<String, ConfigError>,
) -> Result<Vec<String>, Vec<ConfigError>> {
    let path = config.splits.clone().unwrap_or_else(|| config.root.join("splits_final.json"));
    let place = path.display();
    let one = |complaint: ConfigError| vec![complaint];
    let json = read_json(&path, "splits", "the folds").map_err(one)?;
    let mut folds: Vec<Fold> = serde_json::from_value(json).map_err(|cause| {
        one(ConfigError::new("splits", format!("{place}: expected a list of {{train, val}}: {cause}")))
    })?;
    if config.fold >= folds.len() {
        let message = format!("{place} has folds 0 to {}, got {}", folds.len().saturating_sub(1), config.fold);
        return Err(one(ConfigError::new("fold", message)));
    }
    let Fold { train, val } = folds.swap_remove(config.fold);
    let mut complaints = Vec::new();
    let missing: Vec<&String> = train.iter().chain(&val).filter(|case| cases.binary_search(case).is_err()).collect();
    if let Some(first) = missing.first() {
        let message = format!("{place} names {} cases that are not in imagesTr, such as `{first}`", missing.len());
        complaints.push(ConfigError::new("splits", message));
    }
    let patients = |cases: &[String]| cases.iter().filter_map(|case| patient(case).ok()).collect::<BTreeSet<_>>();
    if let Some(both) = patients(&train).intersection(&patients(&val)).next() {
        let message = format!("{place}: the patient `{both}` is in both parts of fold {}", config.fold);
        complaints.push(ConfigError::new("splits", message).with_hint("a validation on them would mean nothing"));
    }
    let wanted = if part == NnunetPart::Train { train } else { val };
    if wanted.is_empty() {
        complaints.push(ConfigError::new("splits", format!("{place}: this part of fold {} is empty", config.fold)));
    }
    if complaints.is_empty() { Ok(wanted) } else { Err(complaints) }
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
    fn a_fold_gives_its_parts() {
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
    fn no_patient_is_in_both_parts() {
        let (_folder, mut config) = raw(r#"[{"train": ["p1_a"], "val": ["p1_b", "p3_a"]}]"#);
        config.part = NnunetPart::Train;
        config.patient.pattern = Some("imagesTr/{patient}_*_0000.nii.gz".into());
        let complaints = ListSource::nnunet("raw", config.clone()).unwrap_err();
        let said: Vec<_> = complaints.iter().map(|it| it.message.as_str()).collect();
        assert!(said[0].contains("names 1 cases that are not in imagesTr, such as `p3_a`"), "{said:?}");
        assert!(said[1].contains("the patient `p1` is in both parts of fold 0"), "{said:?}");
        config.fold = 3;
        let complaints = ListSource::nnunet("raw", config).unwrap_err();
        assert!(complaints[0].message.ends_with("has folds 0 to 0, got 3"), "{complaints:?}");
    }
}
