//! The text of a first graph file.

use std::fmt::Write;
use std::path::Path;

use super::labels::{LabelFiles, organs_of};
use super::{PatientGuess, ScanFolderSurvey, ScanLayout};

/// Organs of TotalSegmentator whose tumors have measured sizes and contrasts.
const ORGANS: [&str; 4] = ["liver", "kidney", "pancreas", "lung"];

/// Drafts a graph file for a surveyed folder; `name` is the name of the pipeline and `root` the path of the folder in the file.
pub fn draft(survey: &ScanFolderSurvey, name: &str, root: &Path) -> String {
    let mut text = format!(
        "# Drafted by `freetumor init` for {}.\n# Check it with `freetumor validate`, then run it with `freetumor run`.\n",
        quoted(root)
    );
    for remark in &survey.remarks {
        let _ = writeln!(text, "# Note: {remark}.");
    }
    let _ = write!(
        text,
        "\n[pipeline]\nname = \"{name}\"\nseed = 2024         # decides every random number\nepoch_scans = 16    # scans in one commit\n\n\
         [sources.scans]\n{}\n[stages.organs]\n{}\n\
         # Tumors by rules; the kind \"generator\" needs weights of a network.\n[stages.tumors]\nkind = \"rules\"\ninputs = [\"organs\"]\n{}\
         variants = 2        # tumors in each organ of each scan\n\n\
         [stages.contrast]\nkind = \"intensity\"\ninputs = [\"tumors\"]\n\n\
         # Which tumors are kept: conditions on the scores, up to this number of attempts at each tumor.\n[stages.test]\n\
         kind = \"quality-test\"\ninputs = [\"contrast\"]\nattempts = 10\naccept = [\"invisible_fraction < 0.5\", \"tumor_hu_deviation <= 0 HU\"]\n\n\
         # Patches of some tens of kilobytes; the kinds \"nnunet\", \"decathlon\" and \"webdataset\" write whole images with labels.\n\
         [sinks.training_set]\nkind = \"patches\"\ninputs = [\"test\"]\n",
        source(survey, root),
        mask(survey),
        priors(survey),
    );
    text
}

/// Returns the settings of the source.
fn source(survey: &ScanFolderSurvey, root: &Path) -> String {
    match &survey.layout {
        ScanLayout::Decathlon { .. } => {
            format!(
                "kind = \"decathlon\"   # a data set with a dataset.json\nlist = {}\n",
                quoted(&root.join("dataset.json"))
            )
        }
        ScanLayout::Nnunet { .. } => {
            format!("kind = \"nnunet\"      # a raw data set of nnU-Net\nroot = {}\n", quoted(root))
        }
        ScanLayout::Files { include, patient, scans, .. } => {
            let include: Vec<String> = include.iter().map(|pattern| quoted(Path::new(pattern))).collect();
            let patient = match patient {
                PatientGuess::Component(component) => format!(
                    "patient = {{ path_component = {component} }}   # the part of the path that names the patient, counted from 0\n"
                ),
                PatientGuess::DicomHeader => {
                    "patient = { dicom = true }   # the PatientID of the header, stored as a keyed hash\n".to_owned()
                }
            };
            format!(
                "kind = \"folder\"      # {scans} files or DICOM folders when this file was drafted\nroot = {}\ninclude = [{}]\n{patient}",
                quoted(root),
                include.join(", ")
            )
        }
    }
}

/// Returns the settings of the organ masks.
fn mask(survey: &ScanFolderSurvey) -> String {
    let files = |pattern: &str, ids: &[(u16, String)]| {
        let organs = organs_of(ids);
        let organs = organs.iter().map(|(organ, (ids, tumor_ids))| match &tumor_ids[..] {
            [] => format!("{organ} = {{ ids = {ids:?} }}"),
            tumor_ids => format!("{organ} = {{ ids = {ids:?}, tumor_ids = {tumor_ids:?} }}"),
        });
        format!(
            "kind = \"labels\"\ninputs = [\"scans\"]\npattern = \"{pattern}\"   # the label file, from the folder of the scan\nscheme = \"custom\"\n\
             organs = {{ {} }}\n",
            organs.collect::<Vec<_>>().join(", ")
        )
    };
    match &survey.layout {
        ScanLayout::Decathlon { labels, .. } | ScanLayout::Nnunet { labels, .. } => files("{label}", labels),
        ScanLayout::Files { labels: Some(LabelFiles { pattern, is_totalsegmentator: true, .. }), .. } => format!(
            "kind = \"labels\"\ninputs = [\"scans\"]\npattern = \"{pattern}\"   # the label file, from the folder of the scan\n\
             scheme = \"totalsegmentator\"\norgans = {ORGANS:?}\n"
        ),
        ScanLayout::Files { labels: Some(labels), .. } => files(&labels.pattern, &labels.ids),
        ScanLayout::Files { labels: None, .. } => "# No label files were found: the lungs are found by their HU. For other organs, make labels with \
             TotalSegmentator,\n# or name a program that makes them with the kind \"command\".\nkind = \"lung\"\ninputs = [\"scans\"]\n"
            .to_owned(),
    }
}

/// Returns the setting of the organs that have no measured sizes and contrasts; empty if there are none.
fn priors(survey: &ScanFolderSurvey) -> String {
    let ids = match &survey.layout {
        ScanLayout::Decathlon { labels, .. } | ScanLayout::Nnunet { labels, .. } => labels,
        ScanLayout::Files { labels: Some(labels), .. } if !labels.is_totalsegmentator => &labels.ids,
        ScanLayout::Files { .. } => return String::new(),
    };
    let prior = |organ: &str| ORGANS.into_iter().find(|known| organ.contains(known)).unwrap_or("liver");
    let organs = organs_of(ids);
    let others = organs.keys().filter(|organ| !ORGANS.contains(&organ.as_str()));
    let priors: Vec<String> = others.map(|organ| format!("{organ} = \"{}\"", prior(organ))).collect();
    match &priors[..] {
        [] => String::new(),
        priors => {
            format!("priors = {{ {} }}   # the organ whose measured sizes and contrasts are used\n", priors.join(", "))
        }
    }
}

/// Returns a path as a TOML string.
fn quoted(path: &Path) -> String {
    toml::Value::String(path.to_string_lossy().into_owned()).to_string()
}
