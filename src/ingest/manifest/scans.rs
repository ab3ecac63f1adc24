//! The scans of a manifest: rows with paths, and rows that cannot be used.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::row::{COLUMNS, ManifestFormat, Row, Rows};
use super::uri::path_of_uri;
use super::{csv_rows, json_rows, parquet_rows};
use crate::ingest::key::key_of;
use crate::suggest::did_you_mean;

/// Maximum number of columns that a remark names.
const MAX_NAMED: usize = 8;

/// A row that names a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ManifestScan {
    /// The path of the file or the DICOM folder, absolute.
    pub path: PathBuf,
    pub dataset: Option<String>,
    pub patient: Option<String>,
    /// The path of the label file, absolute.
    pub mask: Option<PathBuf>,
}

/// The content of a manifest.
#[derive(Debug, Default)]
pub(super) struct Manifest {
    /// The scans by the key of their path.
    pub scans: BTreeMap<String, ManifestScan>,
    /// The message of each row that cannot be used, by its key.
    pub faults: BTreeMap<String, String>,
    /// Remarks on the manifest.
    pub notes: Vec<String>,
    /// Number of rows, with those of other splits.
    pub rows: usize,
}

impl Manifest {
    /// Reads a manifest; with `split`, only the rows of this split.
    ///
    /// # Errors
    /// Returns a message with a hint if the file cannot be read, or has no column `uri`.
    pub fn read(path: &Path, split: Option<&str>) -> Result<Self, (String, Option<String>)> {
        let shown = path.display();
        let unreadable = |reason: String| (format!("cannot read the manifest {shown}: {reason}"), None);
        let format = ManifestFormat::of(path).map_err(|error| unreadable(error.to_string()))?;
        let rows = match format {
            ManifestFormat::Csv => csv_rows::read(path),
            ManifestFormat::JsonLines => json_rows::read(path),
            ManifestFormat::Parquet => parquet_rows::read(path),
        };
        let rows = rows.map_err(unreadable)?;
        for column in ["uri"].into_iter().chain(split.map(|_| "split")) {
            if !rows.columns.contains(column) {
                let got = rows.columns.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                let message = format!("expected a column `{column}` in the manifest {shown}, got {got}");
                return Err((message, did_you_mean(column, rows.columns.iter().map(String::as_str))));
            }
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let name = path.file_name().map(|name| key_of(name.as_ref())).unwrap_or_default();
        Ok(Self::of(rows, &folder, &name, format.row_noun(), split))
    }

    fn of(rows: Rows, folder: &Path, name: &str, row_noun: &str, split: Option<&str>) -> Self {
        let mut manifest = Self { notes: ignored_columns(&rows.columns), rows: rows.rows.len(), ..Self::default() };
        let mut lines: BTreeMap<PathBuf, u64> = BTreeMap::new();
        let mut splits: BTreeMap<(Option<String>, String), BTreeSet<String>> = BTreeMap::new();
        for row in rows.rows {
            if let (Some(patient), Some(split)) = (&row.patient, &row.split) {
                splits.entry((row.dataset.clone(), patient.clone())).or_default().insert(split.clone());
            }
            if row.malformed.is_none() && split.is_some_and(|split| row.split.as_deref() != Some(split)) {
                continue;
            }
            let line = row.line;
            match scan_of(row, folder, row_noun, &mut lines) {
                Ok(scan) => drop(manifest.scans.insert(key_of_path(&scan.path, folder), scan)),
                Err(message) => {
                    manifest.faults.insert(format!("{name}:{line}"), format!("{row_noun} {line}: {message}"));
                }
            }
        }
        let several = splits.values().filter(|splits| splits.len() > 1).count();
        if several > 0 {
            manifest.notes.push(format!(
                "{several} patient(s) of the manifest are in more than one `split`: expected one split for each patient"
            ));
        }
        manifest
    }
}

/// Returns the scan of a row, or a message; `lines` are the lines of the paths of earlier rows.
fn scan_of(
    row: Row,
    folder: &Path,
    row_noun: &str,
    lines: &mut BTreeMap<PathBuf, u64>,
) -> Result<ManifestScan, String> {
    if let Some(reason) = row.malformed {
        return Err(reason);
    }
    let uri = row.uri.ok_or("expected a path in `uri`, got none")?;
    let path = path_of_uri(&uri, folder).map_err(|message| format!("`uri`: {message}"))?;
    let mask = row.mask.map(|mask| path_of_uri(&mask, folder)).transpose();
    let mask = mask.map_err(|message| format!("`mask`: {message}"))?;
    if let Some(first) = lines.get(&path) {
        return Err(format!("expected each `uri` once, got the `uri` of {row_noun} {first} again"));
    }
    lines.insert(path.clone(), row.line);
    Ok(ManifestScan { path, dataset: row.dataset, patient: row.patient, mask })
}

/// Returns the key of a path: relative to the folder of the manifest, or absolute.
pub(super) fn key_of_path(path: &Path, folder: &Path) -> String {
    match path.strip_prefix(crate::ingest::folder::resolve(folder)) {
        Ok(relative) if !relative.as_os_str().is_empty() => key_of(relative),
        _ => {
            let (_, relative) = split_root(path);
            format!("/{}", key_of(&relative))
        }
    }
}

/// Returns the root of an absolute path and the path below it.
pub(super) fn split_root(path: &Path) -> (PathBuf, PathBuf) {
    let root = path.ancestors().last().unwrap_or(path).to_owned();
    let relative = path.strip_prefix(&root).unwrap_or(path).to_owned();
    (root, relative)
}

/// Returns a remark on the columns that are ignored.
fn ignored_columns(columns: &BTreeSet<String>) -> Vec<String> {
    let ignored: Vec<&str> = columns.iter().map(String::as_str).filter(|name| !COLUMNS.contains(name)).collect();
    if ignored.is_empty() {
        return Vec::new();
    }
    let named = ignored.iter().take(MAX_NAMED).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let more = match ignored.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let known = COLUMNS.map(|name| format!("`{name}`")).join(", ");
    vec![format!("columns of the manifest that are ignored: {named}{more}; read are {known}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &[u8], split: Option<&str>) -> Result<Manifest, (String, Option<String>)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Manifest::read(&path, split)
    }

    #[test]
    fn rows_of_csv_and_json_lines_are_equal() {
        let csv = b"\xEF\xBB\xBFuri, patient ,split,site\na/ct.nii.gz,p1,train,x\n\"b, c/ct.nii\",,test,y\n";
        let json = b"{\"uri\": \"a/ct.nii.gz\", \"patient\": \"p1\", \"split\": \"train\", \"site\": 1}\n\n\
            {\"uri\": \"b, c/ct.nii\", \"patient\": null, \"split\": \"test\", \"site\": []}\n";
        for (name, text) in [("list.csv", &csv[..]), ("list.jsonl", &json[..])] {
            let manifest = read(name, text, None).unwrap();
            assert_eq!(manifest.scans.keys().collect::<Vec<_>>(), ["a/ct.nii.gz", "b, c/ct.nii"], "{name}");
            assert_eq!(manifest.scans["a/ct.nii.gz"].patient.as_deref(), Some("p1"));
            assert_eq!(manifest.scans["b, c/ct.nii"].patient, None);
            assert!(manifest.notes[0].contains("`site`") && manifest.faults.is_empty(), "{manifest:?}");
            assert_eq!(read(name, text, Some("test")).unwrap().scans.len(), 1);
        }
    }

    #[test]
    fn bad_rows_are_named_by_line() {
        let csv =
            "uri,mask\na.nii,\n,m.nii\na.nii,x\ns3://b/c.nii,\nb.nii\nc.nii,http://m\n\n./d/../a.nii,\nd.nii,m.nii\n";
        let manifest = read("list.csv", csv.as_bytes(), None).unwrap();
        assert_eq!(manifest.scans.keys().collect::<Vec<_>>(), ["a.nii", "d.nii"]);
        assert_eq!(manifest.scans["d.nii"].mask.as_ref().unwrap().file_name().unwrap(), "m.nii");
        let faults: Vec<&str> = manifest.faults.values().map(String::as_str).collect();
        let expected = [
            "line 3: expected a path in `uri`, got none",
            "line 4: expected each `uri` once, got the `uri` of line 2 again",
            "line 5: `uri`: expected a path or a `file://` URI, got the scheme `s3`: copy the file to a disk first",
            "line 6: expected 2 fields as in the header, got 1",
            "line 7: `mask`: expected a path or a `file://` URI, got the scheme `http`: copy the file to a disk first",
            "line 9: expected each `uri` once, got the `uri` of line 2 again",
        ];
        assert_eq!(faults, expected);
        let json = "{\"uri\": \"a.nii\"}\n{\"uri\": 7\n[1]\n{\"uri\": {}}\n{\"mask\": \"x\"}\n";
        let manifest = read("list.jsonl", json.as_bytes(), None).unwrap();
        assert_eq!(
            manifest.faults.keys().collect::<Vec<_>>(),
            ["list.jsonl:2", "list.jsonl:3", "list.jsonl:4", "list.jsonl:5"]
        );
    }

    #[test]
    fn missing_column_is_an_error_with_a_suggestion() {
        let (message, hint) = read("list.csv", b"urn,patient\na,b\n", None).unwrap_err();
        assert!(message.contains("expected a column `uri`") && message.ends_with("got patient, urn"), "{message}");
        assert_eq!(hint.as_deref(), Some("did you mean `urn`?"));
        assert!(read("list.csv", b"uri\na\n", Some("train")).unwrap_err().0.contains("expected a column `split`"));
        assert!(read("list.parquet", b"PAR1 damaged PAR1", None).unwrap_err().0.contains("cannot read the manifest"));
    }
}
