//! Long runs: the growth of memory, and the cost of the dataflow compared with a plain loop.
//!
//! `cargo bench --bench soak` runs five pairs of loop and dataflow over 200 phantoms, alternating, and prints the processor time of each;
//! then it runs 5,000 phantoms of 64³ through a whole pipeline, and prints the resident memory of the first and the last thousand.
//! `-- SCANS PAIR_SCANS` sets other numbers.

#[path = "../all/for_loop.rs"]
mod for_loop;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use freetumor::dataflow::{Progress, RunOptions, run};
use freetumor::graph::{GraphFile, Plan, Registry, check};

const GRAPH: &str = r#"
[pipeline]
name = "soak"
seed = 11
[sources.phantoms]
kind = "phantom"
count = COUNT
shape = [64, 64, 64]
spacing_mm = [5.5, 5.5, 5]
[stages.organs]
kind = "labels"
inputs = ["phantoms"]
organs = ["liver"]
[stages.synthesize]
kind = "rules"
inputs = ["organs"]
[stages.score]
kind = "intensity"
inputs = ["synthesize"]
[stages.filter]
kind = "quality-test"
inputs = ["score"]
attempts = 3
accept = ["delta_hu < -10"]
[sinks.shards]
kind = "webdataset"
inputs = ["filter"]
"#;

fn plan(count: usize) -> Plan {
    let text = GRAPH.replace("COUNT", &count.to_string());
    let checked = check(&GraphFile::new("soak.toml", ".", text), &Registry::standard());
    let problems: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
    checked.plan.unwrap_or_else(|| panic!("{}", problems.join("\n")))
}

/// Returns the current resident memory in MiB.
fn resident_mib() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
}

/// Returns the processor seconds of this process so far: user and system.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = text.rsplit(')').next().unwrap_or_default();
    // Fields 14 and 15 of the line; the first after the name is field 3. Ticks are hundredths on Linux.
    let ticks = |field: usize| after_name.split_whitespace().nth(field - 3).and_then(|t| t.parse::<f64>().ok());
    (ticks(14).unwrap_or(0.0) + ticks(15).unwrap_or(0.0)) / 100.0
}

fn soak(scans: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let progress = Arc::new(Progress::default());
    let done = Arc::new(AtomicBool::new(false));
    let monitor = {
        let (progress, done) = (Arc::clone(&progress), Arc::clone(&done));
        std::thread::spawn(move || {
            let mut peaks = [0.0f64; 2];
            while !done.load(Ordering::Acquire) {
                let finished = progress.snapshot().finished as usize;
                let share = (scans / 5).max(1);
                if finished <= share {
                    peaks[0] = peaks[0].max(resident_mib());
                } else if finished + share >= scans {
                    peaks[1] = peaks[1].max(resident_mib());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            peaks
        })
    };
    let report = run(plan(scans), folder.path(), &RunOptions::default(), &progress).expect("a run");
    done.store(true, Ordering::Release);
    let [first, last] = monitor.join().expect("a monitor");
    println!(
        "{scans} phantoms of 64³ in {:.0} s: {} tumors accepted, {} faults",
        report.seconds, report.accepted, report.faults
    );
    println!("peak resident memory: first fifth {first:.0} MiB, last fifth {last:.0} MiB, ratio {:.3}", last / first);
}

fn processor_seconds_of(work: impl FnOnce(&Path)) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let before = processor_seconds();
    work(folder.path());
    processor_seconds() - before
}

fn overhead(scans: usize) {
    let options = RunOptions { threads: 2, ..RunOptions::default() };
    let mut ratios = Vec::new();
    for pair in 1..=5 {
        let plain = processor_seconds_of(|folder| for_loop::plain_loop(plan(scans), folder).expect("a loop"));
        let flow = processor_seconds_of(|folder| {
            run(plan(scans), folder, &options, &Arc::new(Progress::default())).expect("a run");
        });
        println!("pair {pair}: loop {plain:.2} s, dataflow {flow:.2} s of processor time, ratio {:.3}", flow / plain);
        ratios.push(flow / plain);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.3}", ratios[ratios.len() / 2]);
}

fn main() {
    // Cargo adds `--bench`.
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    overhead(numbers.get(1).copied().unwrap_or(200));
    soak(numbers.first().copied().unwrap_or(5000));
}
