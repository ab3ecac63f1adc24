//! The names of the labels of a label map: from its header, or from the `dataset.json` of its data set.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;

use super::volume_file;

/// Returns the names of the labels in a file, by id: those of the label table in its header, or those of the `dataset.json` (of
/// nnU-Net or the Decathlon) in its folder or the folder above. Empty if the names are unknown.
///
/// ```
/// let folder = tempfile::tempdir()?;
/// std::fs::write(folder.path().join("dataset.json"), r#"{"labels": {"background": 0, "liver": 1, "liver_tumor": 2}}"#)?;
/// let names = freetumor::ingest::known_label_names(&folder.path().join("labelsTr/case.nii.gz"));
/// assert_eq!(names[&2], "liver_tumor");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn known_label_names(path: &Path) -> BTreeMap<u16, String> {
    let names = volume_file::read_label_names(path).unwrap_or_default();
    if names.is_empty() { data_set_label_names(path) } else { names }
}

/// Returns the names of labels by id of the `dataset.json` in the folder of a label file, or the folder above; empty if there is none.
pub(crate) fn data_set_label_names(path: &Path) -> BTreeMap<u16, String> {
    let folders = path.ancestors().skip(1).take(2);
    folders
        .map(|folder| names_of_data_set(&folder.join("dataset.json")))
        .find(|names| !names.is_empty())
        .unwrap_or_default()
}

/// Reads the names of a `dataset.json`: names with ids (nnU-Net, version 2), or ids with names (the Decathlon).
fn names_of_data_set(path: &Path) -> BTreeMap<u16, String> {
    let json: Option<Json> = std::fs::read(path)
        .ok()
        .and_then(|text| serde_json::from_slice(text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&text)).ok());
    let labels = json.as_ref().and_then(|json| json.get("labels")?.as_object());
    let entry = |(key, value): (&String, &Json)| match value {
        Json::Number(id) => Some((u16::try_from(id.as_u64()?).ok()?, key.clone())),
        Json::String(name) => Some((key.parse().ok()?, name.clone())),
        _ => None,
    };
    labels.into_iter().flatten().filter_map(entry).filter(|(id, _)| *id > 0).collect()
}

/// Returns whether the name of a label is that of tumors.
///
/// ```
/// use freetumor::ingest::is_tumor_name;
/// assert!(is_tumor_name("liver_tumor") && is_tumor_name("Cancer") && !is_tumor_name("liver"));
/// ```
pub fn is_tumor_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["tumor", "tumour", "lesion", "cancer", "metast", "nodule", "carcinoma"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_decathlon_and_nested_folder_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let json = r#"{"labels": {"0": "background", "1": "pancreas", "2": "cancer", "x": "no id", "3": [1, 2]}}"#;
        std::fs::write(folder.path().join("dataset.json"), json).unwrap();
        for path in ["labelsTr/a.nii", "a.nii"] {
            let names: Vec<_> = known_label_names(&folder.path().join(path)).into_iter().collect();
            assert_eq!(names, [(1, "pancreas".to_owned()), (2, "cancer".to_owned())], "{path}");
        }
        assert!(known_label_names(&folder.path().join("a/b/c.nii")).is_empty());
        std::fs::write(folder.path().join("dataset.json"), "not json").unwrap();
        assert!(known_label_names(&folder.path().join("a.nii")).is_empty());
    }
}
