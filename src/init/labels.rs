//! The label files of scans: the pattern from a scan to its labels, and the meaning of the ids.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use crate::ingest::{case_name, is_tumor_name, known_label_names, volume_file};
use crate::mask::class_name;

/// Smallest number of ids of a file that names none and is taken for labels of TotalSegmentator.
const MANY_IDS: usize = 15;

/// Number of scans for which a pattern must find a label file.
const CHECKED_SCANS: usize = 20;

/// The label files of the scans of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelFiles {
    /// The pattern from a scan to its label file, as in the mask kind `labels`.
    pub pattern: String,
    /// The ids with the names that the files state, or with invented names.
    pub ids: Vec<(u16, String)>,
    /// Whether the ids are those of TotalSegmentator.
    pub is_totalsegmentator: bool,
}

/// Returns the pattern from scans to label files that finds labels for most scans, and the number of these scans; `None` if no pattern
/// does.
pub(super) fn pattern_of(folder: &Path, scans: &[PathBuf], labels: &[PathBuf]) -> Option<(String, usize)> {
    let scan = scans.first()?;
    let candidates: BTreeSet<String> =
        labels.iter().take(CHECKED_SCANS).filter_map(|label| relative(scan, label)).collect();
    let found = |pattern: &String| {
        // A file that is found for every scan is the label file of one of them.
        let paths: BTreeSet<PathBuf> =
            scans.iter().filter_map(|scan| folder.join(label_of(scan, pattern)).canonicalize().ok()).collect();
        (!paths.is_empty()).then(|| (pattern.clone(), paths.len()))
    };
    candidates.iter().filter_map(found).max_by_key(|(pattern, count)| (*count, std::cmp::Reverse(pattern.len())))
}

/// Returns the ending of the name of a volume; `None` if the file has another ending.
pub(super) fn ending(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    case_name(&name).map(|case| name[case.len()..].to_owned())
}

/// Returns the path of the label file of a scan by a pattern.
fn label_of(scan: &Path, pattern: &str) -> PathBuf {
    let pattern = pattern.replace("{stem}", &stem(scan));
    scan.parent().unwrap_or(Path::new("")).join(pattern)
}

/// Returns the name of a file without its ending.
fn stem(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let length = ending(file).map_or(name.len(), |ending| name.len() - ending.len());
    name[..length].to_owned()
}

/// Returns a pattern from a scan to a label file, with the name of the scan as `{stem}`; `None` if the label belongs to another scan.
fn relative(scan: &Path, label: &Path) -> Option<String> {
    let (from, to) = (scan.parent()?, label.parent()?);
    let common = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().count() - common;
    let down: PathBuf = to.components().skip(common).collect();
    let scan_stem = stem(scan);
    let name = label.file_name()?.to_string_lossy().replace(&scan_stem, "{stem}");
    let mut parts = vec!["..".to_owned(); up];
    for part in down.components() {
        let Component::Normal(part) = part else { return None };
        parts.push(part.to_string_lossy().replace(&scan_stem, "{stem}"));
    }
    parts.push(name);
    Some(parts.join("/"))
}

/// Reads the ids and names of a few label files.
pub(super) fn label_meaning(pattern: String, files: &[PathBuf], remarks: &mut Vec<String>) -> LabelFiles {
    let (mut names, mut ids) = (BTreeMap::new(), BTreeSet::new());
    for file in files {
        names.extend(known_label_names(file));
        if let Ok(labels) = volume_file::read_labels(file) {
            ids.extend(labels.ids.as_slice().iter().copied().filter(|id| *id > 0));
        }
    }
    let is_unnamed = names.is_empty() && ids.len() >= MANY_IDS;
    let has_class_name = |(id, name): (&u16, &String)| class_name(*id).as_ref() == Some(name);
    let is_totalsegmentator = is_unnamed
        || (names.len() >= MANY_IDS && 2 * names.iter().filter(|&entry| has_class_name(entry)).count() > names.len());
    if is_unnamed {
        remarks.push(format!(
            "{pattern} does not name its {} ids: they were taken for those of TotalSegmentator",
            ids.len()
        ));
    } else if names.is_empty() {
        remarks.push(format!("{pattern} does not name its ids {ids:?}: set the names of the organs in the file"));
    }
    let of_id = |id: u16| (id, names.get(&id).cloned().unwrap_or_else(|| format!("organ_{id}")));
    let ids: Vec<(u16, String)> =
        if names.is_empty() { ids.into_iter().map(of_id).collect() } else { names.clone().into_iter().collect() };
    LabelFiles { pattern, ids, is_totalsegmentator }
}

/// Returns organs with their ids, and the ids of their tumors, by the names of labels.
pub(super) fn organs_of(ids: &[(u16, String)]) -> BTreeMap<String, (Vec<u16>, Vec<u16>)> {
    let mut organs: BTreeMap<String, (Vec<u16>, Vec<u16>)> = BTreeMap::new();
    let plain = |name: &str| -> String {
        let name = name.trim().to_lowercase();
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
    };
    for (id, name) in ids.iter().filter(|(_, name)| !is_tumor_name(name)) {
        organs.entry(plain(name)).or_default().0.push(*id);
    }
    for (id, name) in ids.iter().filter(|(_, name)| is_tumor_name(name)) {
        let name = plain(name);
        // A tumor of no named organ is one of the only organ.
        let organ = organs.keys().find(|organ| name.starts_with(organ.as_str())).cloned();
        let only = (organs.len() == 1).then(|| organs.keys().next().cloned()).flatten();
        if let Some(organ) = organ.or(only) {
            organs.entry(organ).or_default().1.push(*id);
        }
    }
    organs
}
