//! Stages that run an external program: their results and faults.

#![cfg(unix)]

mod checks;
mod faults;
mod stages;

use std::path::Path;
use std::sync::Arc;

use freetumor::dataflow::{Progress, RunOptions, RunReport, run};
use freetumor::graph::Plan;
use freetumor::ingest::nifti::{Datatype, encode_header};
use freetumor::record::parquet::{Row, decode_part};
use freetumor::run::RunFolder;

use crate::dataflow::plan_of;

/// The start of every pipeline here: small abdomens.
pub const PHANTOMS: &str = r#"
[pipeline]
name = "command"
seed = 7
[sources.phantoms]
kind = "phantom"
count = 3
body = "abdomen"
shape = [40, 36, 24]
spacing_mm = [8, 8, 12]
"#;

/// The stages after a mask stage named `organs`.
pub const AFTER_MASK: &str = r#"
[stages.tumors]
kind = "rules"
inputs = ["organs"]
min_diameter_voxels = 1.5
[stages.contrast]
kind = "intensity"
inputs = ["tumors"]
"#;

/// The end of every pipeline here.
pub const TEST: &str = r#"
[stages.test]
kind = "quality-test"
inputs = ["contrast"]
accept = ["delta_hu < 1000"]
"#;

/// Writes a label file on the grid of all phantoms: a block of organ 1 in the middle.
pub fn write_labels(folder: &Path) {
    let plan = plan_of(&format!("{PHANTOMS}{MASK_BY_LABELS}{AFTER_MASK}{TEST}"), folder);
    write_labels_for(&plan, &folder.join("labels.nii"));
}

/// Writes a label file on the grid of the phantoms of a graph file.
pub fn write_labels_of(graph: &Path, path: &Path) {
    let plan = plan_of(&std::fs::read_to_string(graph).unwrap(), graph.parent().unwrap());
    write_labels_for(&plan, path);
}

fn write_labels_for(plan: &Plan, path: &Path) {
    let source = &plan.sources[0].source;
    let grid = source.header(&source.list().unwrap()[0]).unwrap().grid;
    let mut file = encode_header(&grid, Datatype::U8, "").unwrap().to_vec();
    for z in 0..grid.shape[2] {
        for y in 0..grid.shape[1] {
            for x in 0..grid.shape[0] {
                file.push(u8::from((8..32).contains(&x) && (8..28).contains(&y) && (4..20).contains(&z)));
            }
        }
    }
    std::fs::write(path, file).unwrap();
}

/// A mask stage without a program.
pub const MASK_BY_LABELS: &str = r#"
[stages.organs]
kind = "labels"
inputs = ["phantoms"]
organs = ["liver"]
"#;

/// Runs a plan into `folder/run`.
pub fn run_plan(plan: Plan, folder: &Path, threads: usize) -> RunReport {
    let options = RunOptions { threads, ..RunOptions::default() };
    run(plan, &folder.join("run"), &options, &Arc::new(Progress::default())).unwrap()
}

/// Reads all rows of a table of `folder/run`.
pub fn rows<R: Row>(folder: &Path, table: &str) -> Vec<R> {
    let run = RunFolder::open(folder.join("run")).unwrap();
    let files = run.files(table, None).unwrap();
    files.iter().flat_map(|file| decode_part::<R>(run.read_verified(file).unwrap()).unwrap()).collect()
}

/// Returns whether Python is installed; if not, prints a message.
pub fn has_python() -> bool {
    let found =
        std::process::Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: python3 is not installed");
    }
    found
}
