//! The source of a `dataset.json` in the format of the Medical Segmentation Decathlon and MONAI.

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
    /// JSON file with the lists.
    pub list: PathBuf,
    /// Name of the list in the file: `training`, `validation`, `test`, `unlabeled`, or any other list. Its items are
    /// `{"image": …, "label": …}` or paths of images without labels.
    #[serde(default = "training")]
    pub section: String,
    /// Folder to which paths in the list are relative; by default the folder of the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// Name of the data set in tables; by default the name of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// Rule for the patient of a scan; by default every image is a separate patient.
    #[serde(default)]
    pub patient: PatientConfig,
}

fn training() -> String {
    "training".to_owned()
}

impl ListSource {
    /// Creates a source of the scans in one list of a `dataset.json`.
    ///
    /// # Errors
    /// Returns every error in the settings and the list.
    pub fn decathlon(name: &str, config: DecathlonListConfig) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let rule = patient_rule(&config.patient, &mut errors);
        let parent = config.list.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let root = config.root.clone().unwrap_or_else(|| parent.to_owned());
        if !root.is_dir() {
            errors.push(ConfigError::new("root", format!("expected an existing folder, got {}", root.display())));
        }
        let scans = read_json(&config.list, "list", "the list").and_then(|json| section_of(&json, &config));
        let mut listed = Vec::new();
        for (index, item) in scans.map_err(|error| errors.push(error)).into_iter().flatten().enumerate() {
            let location = format!("{}[{index}]", config.section);
            match item_of(&item, &root, &location) {
                Err(error) => errors.push(error),
                Ok((image, label)) => match patient_of(rule.as_ref(), &image, "patient") {
                    Err(error) => errors.push(error),
                    Ok(patient) => listed.push(ListEntry { image, label, patient }),
                },
            }
        }
        // The same mistake in every item of a long list must not fill the terminal.
        const MAX_ERRORS: usize = 8;
        if errors.len() > MAX_ERRORS {
            let more = errors.len() - MAX_ERRORS;
            errors.truncate(MAX_ERRORS);
            errors.push(ConfigError::new("list", format!("{more} more errors in the list")));
        }
        if errors.is_empty() { Ok(Self::new(name, config.dataset, root, listed)) } else { Err(errors) }
    }
}

/// Returns the items of the list `section`.
fn section_of(json: &Value, config: &DecathlonListConfig) -> Result<Vec<Value>, ConfigError> {
    let path = config.list.display();
    let Some(table) = json.as_object() else {
        return Err(ConfigError::new("list", format!("{path}: expected an object with lists, got another value")));
    };
    let lists = || table.iter().filter(|(_, value)| value.is_array()).map(|(name, _)| name.as_str());
    let Some(section) = table.get(&config.section) else {
        let known = lists().collect::<Vec<_>>().join(", ");
        let error =
            ConfigError::new("section", format!("{path}: expected one of the lists {known}, got `{}`", config.section));
        return Err(match did_you_mean(&config.section, lists()) {
            Some(hint) => error.with_hint(hint),
            None => error,
        });
    };
    match section.as_array() {
        None => Err(ConfigError::new(
            "section",
            format!("{path}: expected a list in `{}`, got another value", config.section),
        )),
        Some(items) if items.is_empty() => {
            Err(ConfigError::new("section", format!("{path}: the list `{}` is empty", config.section)))
        }
        Some(items) => Ok(items.clone()),
    }
}

/// Returns image and label of an item; `location` is the item in the message of an error.
fn item_of(item: &Value, root: &Path, location: &str) -> Result<(String, Option<String>), ConfigError> {
    let first = |value: &Value| match value {
        Value::String(path) => Some(path.clone()),
        // MONAI supports lists of channels; a CT has one channel.
        Value::Array(paths) if paths.len() == 1 => paths[0].as_str().map(str::to_owned),
        _ => None,
    };
    let invalid = || {
        ConfigError::new("list", format!("{location}: expected {{\"image\": …, \"label\": …}} or a path, got {item}"))
    };
    let (image, label) = match item {
        Value::Object(pair) => {
            let label = match pair.get("label") {
                None | Some(Value::Null) => None,
                Some(label) => Some(first(label).ok_or_else(invalid)?),
            };
            (pair.get("image").and_then(first).ok_or_else(invalid)?, label)
        }
        other => (first(other).ok_or_else(invalid)?, None),
    };
    let key = |path: String| {
        key_of(root, &path).ok_or_else(|| {
            let error = ConfigError::new(
                "list",
                format!("{location}: expected a path below the root {}, got `{path}`", root.display()),
            );
            error.with_hint(match Path::new(&path).is_absolute() {
                true => "set `root` to a folder that contains every scan of the list",
                false => "write absolute paths in the list, and set `root` to a folder that contains every scan",
            })
        })
    };
    Ok((key(image)?, label.map(key).transpose()?))
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
    fn images_are_listed_with_labels_and_patients() {
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
    fn decathlon_reports_all_errors_at_once() {
        let (_folder, config) = config(r#"{"training": [{"img": "a"}, "/a.nii", "../b.nii", 7], "validation": []}"#);
        let errors = ListSource::decathlon("lits", config.clone()).unwrap_err();
        assert_eq!(errors.len(), 4, "{errors:?}");
        let first_error = |section: &str| {
            let config = DecathlonListConfig { section: section.into(), ..config.clone() };
            ListSource::decathlon("lits", config).unwrap_err().remove(0)
        };
        assert!(first_error("validation").message.ends_with("the list `validation` is empty"));
        assert_eq!(first_error("trainin").hint.as_deref(), Some("did you mean `training`?"));
    }
}
