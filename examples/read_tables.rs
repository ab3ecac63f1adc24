//! Reads the table `samples` of a run folder, and prints how many attempts were accepted by organ and why the others were not.
//!
//! ```console
//! $ cargo run --release -- run pipelines/quickstart.toml --out runs/quickstart
//! $ cargo run --release --example read_tables -- runs/quickstart
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use freetumor::error::Result;
use freetumor::record::SampleRow;
use freetumor::record::parquet::decode_part;
use freetumor::run::RunFolder;

/// Attempts of an organ.
#[derive(Debug, Default, PartialEq)]
struct Attempts {
    accepted: usize,
    rejected: BTreeMap<String, usize>,
}

/// Counts the attempts of a run by organ; one part of the table is in memory at a time.
fn count(folder: &Path) -> Result<BTreeMap<String, Attempts>> {
    let run = RunFolder::open(folder)?;
    let mut organs: BTreeMap<String, Attempts> = BTreeMap::new();
    for file in run.files("samples", None)? {
        let rows: Vec<SampleRow> = decode_part(run.read_verified(&file)?)?;
        for row in rows {
            let attempts = organs.entry(row.record.organ.clone()).or_default();
            match row.record.outcome.reason() {
                None => attempts.accepted += 1,
                Some(reason) => *attempts.rejected.entry(reason.to_owned()).or_default() += 1,
            }
        }
    }
    Ok(organs)
}

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "runs/quickstart".to_owned());
    for (organ, attempts) in count(Path::new(&folder))? {
        let rejected: usize = attempts.rejected.values().sum();
        println!("{organ}: {} accepted, {rejected} rejected", attempts.accepted);
        for (reason, count) in &attempts.rejected {
            println!("  {count:5}  {reason}");
        }
    }
    Ok(())
}

#[test]
fn counts_equal_the_report_of_the_run() {
    use freetumor::dataflow::{Progress, RunOptions, run};
    use freetumor::graph::{GraphFile, Registry, check};

    let text = r#"
        [pipeline]
        name = "counted"
        [sources.phantoms]
        kind = "phantom"
        count = 3
        shape = [80, 80, 56]
        spacing_mm = [4.5, 4.5, 5]
        [stages.organs]
        kind = "labels"
        inputs = ["phantoms"]
        organs = ["liver", "kidney"]
        [stages.tumors]
        kind = "rules"
        inputs = ["organs"]
        [stages.contrast]
        kind = "intensity"
        inputs = ["tumors"]
        [stages.test]
        kind = "quality-test"
        inputs = ["contrast"]
        accept = ["delta_hu < -15"]
    "#;
    let folder = tempfile::tempdir().unwrap();
    let plan = check(&GraphFile::new("counted.toml", ".", text), &Registry::standard()).plan.expect("a valid graph");
    let report = run(plan, folder.path(), &RunOptions::default(), &std::sync::Arc::new(Progress::default())).unwrap();
    let organs = count(folder.path()).unwrap();
    assert_eq!(organs.values().map(|organ| organ.accepted as u64).sum::<u64>(), report.accepted);
    assert_eq!(organs.values().flat_map(|organ| organ.rejected.values()).sum::<usize>() as u64, report.rejected);
    assert!(organs.contains_key("liver"));
}
