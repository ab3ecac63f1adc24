//! The files of a folder, grouped by name or parent folder, with the content of a few of each group.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::labels::{LabelFiles, ending, label_meaning, pattern_of};
use crate::error::{Error, Result};
use crate::ingest::{is_dicom_slice, nifti, volume_file};

/// Maximum number of files that are listed.
const MAX_FILES: usize = 200_000;

/// Number of files of a group that are read.
const READ_FILES: usize = 2;

/// Lowest HU of a volume that is a scan: air.
const AIR_HU: f32 = -500.0;

/// The origin of the patient of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatientGuess {
    /// A component of the path, counted from 0.
    Component(usize),
    /// The header of a DICOM series.
    DicomHeader,
}

/// The content of the files of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Scan,
    Labels,
    Other,
}

/// Files of one name, or of one parent folder, relative to the surveyed folder.
#[derive(Clone, Debug)]
struct Group {
    /// The pattern that selects the files.
    pattern: String,
    /// Whether the files have one name, each in a folder of its own.
    has_one_name: bool,
    files: Vec<PathBuf>,
    content: Content,
}

/// The groups of files of a folder.
pub(super) struct FileGroups {
    folder: PathBuf,
    groups: Vec<Group>,
    /// Patterns of DICOM folders, with the number of folders.
    dicom: BTreeMap<String, usize>,
    pub remarks: Vec<String>,
}

/// The scans of a folder.
pub(super) struct Scans {
    pub include: Vec<String>,
    pub patient: PatientGuess,
    pub count: usize,
    files: Vec<PathBuf>,
}

impl FileGroups {
    /// Lists a folder and reads a few volumes of each group.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn find(folder: &Path) -> Result<Self> {
        std::fs::read_dir(folder).map_err(|cause| Error::io("cannot list the folder of scans", folder, cause))?;
        let is_hidden = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with('.');
        let walk = WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter();
        let walk = walk.filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry.file_name()));
        let (mut volumes, mut dicom) = (Vec::new(), BTreeMap::new());
        let (mut remarks, mut last_folder, mut files) = (Vec::new(), None, 0);
        for entry in walk.filter_map(std::result::Result::ok).filter(|entry| entry.file_type().is_file()) {
            files += 1;
            if files > MAX_FILES {
                remarks.push(format!("only the first {MAX_FILES} files were listed"));
                break;
            }
            let Ok(path) = entry.path().strip_prefix(folder) else { continue };
            if ending(path).is_some() {
                volumes.push(path.to_owned());
                continue;
            }
            // The first file of a folder shows whether it has slices.
            let parent = path.parent().unwrap_or(Path::new("")).to_owned();
            if last_folder.as_ref() != Some(&parent) && is_dicom_slice(entry.path()) {
                *dicom.entry(folder_pattern(&parent)).or_default() += 1;
            }
            last_folder = Some(parent);
        }
        let mut groups = grouped(volumes);
        for group in &mut groups {
            group.content = content_of(folder, group);
        }
        Ok(Self { folder: folder.to_owned(), groups, dicom, remarks })
    }

    /// Returns the scans; `None` if there are none.
    pub fn scans(&self) -> Option<Scans> {
        let groups: Vec<&Group> = self.groups.iter().filter(|group| group.content == Content::Scan).collect();
        let files: Vec<PathBuf> = groups.iter().flat_map(|group| &group.files).cloned().collect();
        let mut include: Vec<String> = groups.iter().map(|group| group.pattern.clone()).collect();
        include.extend(self.dicom.keys().cloned());
        let count = files.len() + self.dicom.values().sum::<usize>();
        // Files of different names in one folder are of different patients.
        let has_one_name = groups.iter().all(|group| group.has_one_name);
        let depth = files.first().map_or(0, |file| file.components().count().saturating_sub(1));
        let patient = match (files.is_empty(), has_one_name) {
            (true, _) => PatientGuess::DicomHeader,
            (false, true) => PatientGuess::Component(0),
            (false, false) => PatientGuess::Component(depth),
        };
        (!include.is_empty()).then_some(Scans { include, patient, count, files })
    }

    /// Returns the label files of scans, those of the group with most files; `None` if there are none.
    pub fn labels(&self, scans: &Scans, remarks: &mut Vec<String>) -> Option<LabelFiles> {
        let groups = self.groups.iter().filter(|group| group.content == Content::Labels);
        let mut found: Vec<(usize, String, &Group)> = groups
            .filter_map(|group| {
                let (pattern, count) = pattern_of(&self.folder, &scans.files, &group.files)?;
                Some((count, pattern, group))
            })
            .collect();
        found.sort_by_key(|(count, pattern, _)| (std::cmp::Reverse(*count), pattern.clone()));
        let (count, pattern, group) = found.first()?;
        if found.len() > 1 {
            let others: Vec<&str> = found.iter().skip(1).take(3).map(|(_, pattern, _)| pattern.as_str()).collect();
            remarks.push(format!("other label files were found, too: {}", others.join(", ")));
        }
        if *count < scans.files.len() {
            remarks.push(format!(
                "{} of {} scans have no label file {pattern}",
                scans.files.len() - count,
                scans.files.len()
            ));
        }
        let paths: Vec<PathBuf> = group.files.iter().take(READ_FILES).map(|file| self.folder.join(file)).collect();
        Some(label_meaning(pattern.clone(), &paths, remarks))
    }
}

/// Groups files by name, if names repeat, or else by parent folder and ending.
fn grouped(files: Vec<PathBuf>) -> Vec<Group> {
    let mut by_name: BTreeMap<(String, usize), Vec<PathBuf>> = BTreeMap::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        by_name.entry((name, file.components().count())).or_default().push(file);
    }
    let (mut groups, mut by_parent) = (Vec::new(), BTreeMap::<String, Vec<PathBuf>>::new());
    for ((name, depth), files) in by_name {
        // One case in a folder of its own looks like many.
        if files.len() > 1 || (depth > 1 && is_alone(&files[0], &name)) {
            let pattern = format!("{}{name}", "*/".repeat(depth - 1));
            groups.push(Group { pattern, has_one_name: true, files, content: Content::Other });
            continue;
        }
        for file in files {
            let parent = file.parent().unwrap_or(Path::new("")).to_string_lossy().replace('\\', "/");
            let ending = ending(&file).unwrap_or_default();
            let pattern = if parent.is_empty() { format!("*{ending}") } else { format!("{parent}/*{ending}") };
            by_parent.entry(pattern).or_default().push(file);
        }
    }
    groups.extend(by_parent.into_iter().map(|(pattern, files)| Group {
        pattern,
        has_one_name: false,
        files,
        content: Content::Other,
    }));
    groups
}

/// Returns whether a name is a usual one of a file in the folder of its case.
fn is_alone(file: &Path, name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().to_lowercase();
    let parent = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().to_lowercase();
    ["ct", "image", "img", "scan", "volume", "labels", "label", "mask", "seg", "segmentation"].contains(&stem.as_str())
        && parent != "images"
        && parent != "labels"
}

/// Returns the content of a group by its first files.
fn content_of(folder: &Path, group: &Group) -> Content {
    let mut content = Content::Other;
    for file in group.files.iter().take(READ_FILES) {
        // A file that cannot be read shows nothing of the others.
        let Ok(volume) = volume_file::read_volume_within(folder.join(file), &nifti::Limits::default()) else {
            continue;
        };
        let [low, high] = volume.voxels.percentiles(&[0.0, 1.0])[..] else { continue };
        if low <= AIR_HU {
            return Content::Scan;
        }
        if low == 0.0 && high <= f32::from(u8::MAX) && high.fract() == 0.0 {
            content = Content::Labels;
        }
    }
    content
}

/// Returns the pattern of folders at the depth of a DICOM folder.
fn folder_pattern(folder: &Path) -> String {
    let names: Vec<String> = folder.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    let Some((last, parents)) = names.split_last() else { return ".".to_owned() };
    let is_usual = ["dicom", "dcm", "ct"].contains(&last.to_lowercase().as_str());
    format!("{}{}", "*/".repeat(parents.len()), if is_usual { last.as_str() } else { "*" })
}
