//! The README and the guide: graph files are valid, commands run, and names of files and examples exist.
//!
//! Commands run one after another in a folder with `pipelines/`, an archive of six scans, and the first graph of the README as
//! `mine.toml`. Training runs are checked instead of started, as they take minutes.

use std::path::{Path, PathBuf};
use std::process::Command;

use freetumor::graph::{GraphFile, Registry, check};
use freetumor::ingest::Source;
use freetumor::ingest::nifti::{Datatype, encode_header};
use freetumor::ingest::phantom::{PhantomConfig, PhantomSource};
use freetumor::volume::Voxels;

use crate::patients::write_compressed;

const PAGES: [&str; 15] = [
    "README.md",
    "src/guide/architecture.md",
    "src/guide/pipelines.md",
    "src/guide/sources_and_masks.md",
    "src/guide/synthesis_and_quality.md",
    "src/guide/calibration.md",
    "src/guide/networks.md",
    "src/guide/run_folder.md",
    "src/guide/training.md",
    "src/guide/evaluation.md",
    "src/guide/privacy.md",
    "src/guide/operating.md",
    "src/guide/measured.md",
    "src/guide/limits.md",
    "src/guide/changelog.md",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

/// Returns the blocks of a page in a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect()
}

/// Returns the commands of a page, without comments.
fn commands(text: &str) -> Vec<Vec<String>> {
    let lines = blocks(text, "console").join("\n");
    let commands = lines.lines().filter_map(|line| line.strip_prefix("$ ")).map(split);
    commands.collect()
}

/// Returns the arguments of a command line with single quotes, up to a comment.
fn split(line: &str) -> Vec<String> {
    let (mut arguments, mut argument, mut is_quoted, mut is_started) = (Vec::new(), String::new(), false, false);
    for letter in line.chars() {
        match letter {
            '\'' => (is_quoted, is_started) = (!is_quoted, true),
            '#' if !is_quoted && !is_started => break,
            ' ' if !is_quoted => {
                if std::mem::take(&mut is_started) {
                    arguments.push(std::mem::take(&mut argument));
                }
            }
            _ => {
                is_started = true;
                argument.push(letter);
            }
        }
    }
    if is_started {
        arguments.push(argument);
    }
    arguments
}

/// Returns a folder with an archive of six scans and their labels, ground truth and predictions, and the pipelines.
fn workplace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-r").arg(root().join("pipelines")).arg(folder.path()).status().unwrap();
    assert!(copied.success());
    // Weights that an earlier training of the page leaves.
    let weights = folder.path().join("runs/segmentor-small/weights");
    std::fs::create_dir_all(&weights).unwrap();
    let kept = root().join("pipelines/networks/segmentor.safetensors");
    std::fs::copy(kept, weights.join("segmentor.safetensors")).unwrap();
    let config =
        PhantomConfig { count: 6, shape: [64, 64, 48], spacing_mm: [5.5, 5.5, 6.0], ..PhantomConfig::default() };
    let phantoms = PhantomSource::new(config, "phantoms").map_err(|errors| errors[0].message.clone()).unwrap();
    for (number, entry) in phantoms.list().unwrap().iter().enumerate() {
        let scan = phantoms.read(entry).unwrap();
        let (grid, labels) = (&scan.volume.grid, scan.companions.labels("labels.nii.gz").unwrap());
        let Voxels::I16(hu) = &scan.volume.voxels else { panic!("phantoms have integer HU") };
        let image: Vec<u8> = hu.as_slice().iter().flat_map(|hu| hu.to_le_bytes()).collect();
        let ids: Vec<u8> = labels.ids.as_slice().iter().flat_map(|id| id.to_le_bytes()).collect();
        let write = |path: String, datatype, voxels: &[u8]| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            write_compressed(&path, &encode_header(grid, datatype, "").unwrap(), voxels);
        };
        let case = number + 1;
        write(format!("archive/case-{case}/ct.nii.gz"), Datatype::I16, &image);
        write(format!("archive/case-{case}/labels.nii.gz"), Datatype::U16, &ids);
        // Liver 1, and a block of tumor 2 in it.
        let truth: Vec<u8> = labels.ids.as_slice().iter().map(|id| u8::from(*id == 5)).collect();
        let mut with_tumor = truth.clone();
        let liver: Vec<usize> = (0..truth.len()).filter(|&voxel| truth[voxel] == 1).collect();
        liver.iter().skip(liver.len() / 3).take(200).for_each(|&voxel| with_tumor[voxel] = 2);
        write(format!("data/imagesTs/case-{case}_0000.nii.gz"), Datatype::I16, &image);
        for folder in ["data/labelsTs", "predictions", "real-0", "real-1", "filtered-0", "filtered-1"] {
            write(format!("{folder}/case-{case}.nii.gz"), Datatype::U8, &with_tumor);
        }
    }
    let mut tar = Command::new("tar");
    tar.args(["-czf", "batches/week-1.tar.gz", "-C", "archive", "."]);
    std::fs::create_dir(folder.path().join("batches")).unwrap();
    assert!(tar.current_dir(folder.path()).status().unwrap().success());
    let rows: String = (1..=6)
        .map(|case| format!("archive/case-{case}/ct.nii.gz,{case},archive/case-{case}/labels.nii.gz\n"))
        .collect();
    std::fs::write(folder.path().join("registry.csv"), format!("uri,patient,mask\n{rows}")).unwrap();
    let graph = blocks(&page("README.md"), "toml").into_iter().next().unwrap();
    std::fs::write(folder.path().join("mine.toml"), graph).unwrap();
    folder
}

fn freetumor(folder: &Path, arguments: &[String]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_freetumor"));
    command.current_dir(folder).env("FREETUMOR_PATIENT_KEY", "a secret for tests only");
    command.args(arguments).output().unwrap()
}

#[test]
fn commands_of_the_guide_run() {
    let folder = workplace();
    let mut count = 0;
    for name in PAGES {
        for arguments in commands(&page(name)) {
            let line = arguments.join(" ");
            match arguments[0].as_str() {
                "freetumor" if arguments[1] == "train" => {
                    assert!(arguments[2].starts_with("seg") || arguments[2] == "synthesis", "{line}");
                    let checked = freetumor(folder.path(), &["validate".to_owned(), arguments[3].clone()]);
                    assert!(checked.status.success(), "{name}: {line}\n{}", String::from_utf8_lossy(&checked.stderr));
                }
                "freetumor" => {
                    let output = freetumor(folder.path(), &arguments[1..]);
                    let stderr = String::from_utf8_lossy(&output.stderr);
                    assert!(output.status.success(), "{name}: {line}\n{stderr}");
                }
                "cargo" => {
                    let named = arguments.windows(2).find(|pair| pair[0] == "--example" || pair[0] == "--bench");
                    let exists = named.is_none_or(|pair| {
                        let folder = if pair[0] == "--bench" { "tests/bench" } else { "examples" };
                        let place = root().join(folder);
                        place.join(format!("{}.rs", pair[1])).exists() || place.join(&pair[1]).is_dir()
                    });
                    assert!(exists, "{name}: {line}");
                }
                other => panic!("{name}: the test has no rule for `{other}`"),
            }
            count += 1;
        }
    }
    assert!(count > 25, "{count} commands were found");
}

#[test]
fn graph_files_of_the_guide_are_valid() {
    let folder = workplace();
    let mut count = 0;
    for name in PAGES {
        for block in blocks(&page(name), "toml").into_iter().filter(|block| block.contains("[pipeline]")) {
            let text = block.replace("\"/archive/ct\"", "\"archive\"").replace(", \"*/dicom\"", "");
            let checked = check(&GraphFile::new("guide.toml", folder.path(), text), &Registry::standard());
            let problems: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
            assert!(problems.is_empty(), "{name}\n{}", problems.join("\n"));
            count += 1;
        }
    }
    assert!(count >= 2);
}

/// Paths in backticks that begin with a folder of the project.
#[test]
fn files_that_the_guide_names_exist() {
    for name in PAGES {
        let text = page(name);
        for code in text.split('`').skip(1).step_by(2) {
            let path = code.split_whitespace().next().unwrap_or_default();
            let is_file = ["pipelines/", "examples/", "tests/", "schemas/", "src/", ".ci/"]
                .iter()
                .any(|start| path.starts_with(start));
            if is_file && !path.contains(['*', '…', 'N']) {
                assert!(root().join(path).exists(), "{name} names {path}");
            }
        }
        for target in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let is_local = !target.starts_with("http") && !target.contains("::") && target != "crate";
            let base: PathBuf = root().join(name).parent().unwrap().to_owned();
            assert!(!is_local || base.join(target).exists(), "{name} links to {target}");
        }
    }
}

#[test]
fn readme_is_short() {
    let text = page("README.md");
    assert!(text.len() <= 12_000, "{} bytes", text.len());
}

#[test]
fn command_lines_are_split_as_a_shell_does() {
    assert_eq!(split("freetumor x --where 'organ = liver'   # why"), ["freetumor", "x", "--where", "organ = liver"]);
}
