//! `dataset.json` as the Medical Segmentation Decathlon has it and MONAI reads it.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ListEntry, ListSource, key_of, patient_of, patient_rule, read_json};
use crate::error::ConfigError;
use crate::ingest::PatientConfig;
use crate::suggest::did_you_mean;

/// Settings of the source kind `decathlon`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecathlonListConfig {
    /// The JSON file with the lists.
    pub list: PathBuf,
    /// Which of its lists: `training`, `validation`, `test`, `unlabeled`, or one of your own. Its items are
    /// `{"image": …, "label": …}`, or paths of images without labels.
    #[serde(default = "training")]
    pub section: String,
    /// The folder to which paths in the list are relative; that of the list unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// The data set's name in tables; the source's name unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// How the patient of a scan is told; every image is a patient of its own unless set.
    #[serde(default)]
    pub patient: PatientConfig,
}

fn training() -> String {
    "training".to_owned()
}

impl ListSource {
    /// The scans of one list of a `dataset.json`.
    ///
    /// # Errors
    /// Everything that is wrong with the settings and the list.
    pub fn decathlon(name: &str, config: DecathlonListConfig) -> Result<Self, Vec<ConfigError>> {
        let mut complaints = Vec::new();
        let rule = patient_rule(&config.patient, &mut complaints);
        let parent = config.list.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let root = config.root.clone().unwrap_or_else(|| parent.to_owned());
        if !root.is_dir() {
            complaints.push(ConfigError::new("root", format!("expected a folder, there is none: {}", root.display())));
        }
        let scans = read_json(&config.list, "list", "the list").and_then(|json| section_of(&json, &config));
        let mut listed = Vec::new();
        for (index, item) in scans.map_err(|complaint| complaints.push(complaint)).into_iter().flatten().enumerate() {
            let place = format!("{}[{index}]", config.section);
            match item_of(&item, &place) {
                Err(complaint) => complaints.push(complaint),
                Ok((image, label)) => match patient_of(rule.as_ref(), &image, "patient") {
                    Err(complaint) => complaints.push(complaint),
                    Ok(patient) => listed.push(ListEntry { image, label, patient }),
                },
            }
        }
        // One mistake in every line of a long list is one mistake.
        const SHOWN: usize = 8;
        if complaints.len() > SHOWN {
            let more = complaints.len() - SHOWN;
            complaints.truncate(SHOWN);
            complaints.push(ConfigError::new("list", format!("and {more} more items like these")));
        }
        if complaints.is_empty() { Ok(Self::new(name, config.dataset, root, listed)) } else { Err(complaints) }
    }
}

/// The items of the list that is asked for.
fn section_of(json: &Value, config: &DecathlonListConfig) -> Result<Vec<Value>, ConfigError> {
    let place = config.list.display();
    let Some(table) = json.as_object() else {
        return Err(ConfigError::new("list", format!("{place}: expected an object with lists, got another value")));
    };
    let lists = || table.iter().filter(|(_, value)| value.is_array()).map(|(name, _)| name.as_str());
    let Some(section) = table.get(&config.section) else {
        let known = lists().collect::<Vec<_>>().join(", ");
        let complaint = ConfigError::new("section", format!("{place} has no list `{}`, but {known}", config.section));
        return Err(match did_you_mean(&config.section, lists()) {
            Some(hint) => complaint.with_hint(hint),
            None => complaint,
        });
    };
    match section.as_array() {
        None => Err(ConfigError::new("section", format!("{place}: `{}` is no list", config.section))),
        Some(items) if items.is_empty() => {
            Err(ConfigError::new("section", format!("{place}: the list `{}` is empty", config.section)))
        }
        Some(items) => Ok(items.clone()),
    }
}

/// Image and label of an item.
fn item_of(item: &Value, place: &str) -> Result<(String, Option<String>), ConfigError> {
    let first = |value: &Value| match value {
        Value::String(path) => Some(path.clone()),
        // MONAI takes lists of channels; a CT has one.
        Value::Array(paths) if paths.len() == 1 => paths[0].as_str().map(str::to_owned),
        _ => None,
    };
    let unlike =
        || ConfigError::new("list", format!("{place}: expected {{\"image\": …, \"label\": …}} or a path, got {item}"));
    let (image, label) = match item {
        Value::Object(pair) => {
            let label = match pair.get("label") {
                None | Some(Value::Null) => None,
                Some(label) => Some(first(label).ok_or_else(unlike)?),
            };
            (pair.get("image").and_then(first).ok_or_else(unlike)?, label)
        }
        other => (first(other).ok_or_else(unlike)?, None),
    };
    let below = |path: String| {
        key_of(&path).ok_or_else(|| {
            ConfigError::new("list", format!("{place}: expected a path below the root, got `{path}`"))
                .with_hint("set `root` to a folder that is above all of them")
        })
    };
    Ok((below(image)?, label.map(below).transpose()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::Source;

    fn config(text: &str) -> (tempfile::TempDir, DecathlonListConfig) {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("dataset.json");
        std::fs::write(&list, text).unwrap();
        let config = DecathlonListConfig {
            list,
            section: training(),
            root: None,
            dataset: None,
            patient: PatientConfig::default(),
        };
        (folder, config)
    }

    #[test]
    fn images_are_listed_once_each_with_their_patients() {
        let (folder, config) = config(
            r#"{"training": [{"image": "./imagesTr/b.nii.gz", "label": "labelsTr/b.nii.gz"}, {"image": ["imagesTr/a.nii.gz"]}],
                "unlabeled": ["u.nii.gz"]}"#,
        );
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "a secret for tests only").unwrap();
        let source = ListSource::decathlon("lits", config.clone()).unwrap().with_secret_file(Some(secret.clone()));
        let entries = source.list().unwrap();
        let keys: Vec<_> = entries.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, ["imagesTr/a.nii.gz", "imagesTr/b.nii.gz"]);
        assert_ne!(entries[0].patient_key, entries[1].patient_key);
        assert_eq!(source.scans[1].label.as_deref(), Some("labelsTr/b.nii.gz"));
        let unlabeled = DecathlonListConfig { section: "unlabeled".into(), ..config };
        assert_eq!(ListSource::decathlon("lits", unlabeled).unwrap().scans.len(), 1);
    }

    #[test]
    fn everything_that_is_wrong_is_said() {
        let (_folder, config) = config(r#"{"training": [{"img": "a"}, "/a.nii", "../b.nii", 7], "validation": []}"#);
        let complaints = ListSource::decathlon("lits", config.clone()).unwrap_err();
        assert_eq!(complaints.len(), 4, "{complaints:?}");
        let refused = |section: &str| {
            let config = DecathlonListConfig { section: section.into(), ..config.clone() };
            ListSource::decathlon("lits", config).unwrap_err().remove(0)
        };
        assert!(refused("validation").message.ends_with("the list `validation` is empty"));
        assert_eq!(refused("trainin").hint.as_deref(), Some("did you mean `training`?"));
    }
}
