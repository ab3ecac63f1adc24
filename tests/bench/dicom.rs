//! The time to read real DICOM series: `cargo bench --bench dicom` (SimpleITK's times: tests/peers/dicom.py).

use std::path::Path;
use std::time::{Duration, Instant};

use freetumor::ingest::dicom::{Decoder, Limits, list_series, read_series};

const ROUNDS: usize = 7;

fn main() {
    let decoder = Decoder::in_child_process(env!("CARGO_BIN_EXE_freetumor").into());
    for name in ["crlm_1004", "totalseg_liver_dicom"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/ct").join(name).join("dicom");
        if !folder.exists() {
            println!("skipped: no ../shared/ct/{name}");
            continue;
        }
        let series = list_series(&folder).expect("a folder of slices").remove(0);
        let list = best(|| drop(list_series(&folder)));
        println!("{name}: {} slices, headers {list:.1?}", series.files());
        for (mode, decoder) in [
            ("in this process, 1 thread", Decoder::in_process().with_threads(1)),
            ("in this process", Decoder::in_process()),
            ("in a child process, 1 thread", decoder.clone().with_threads(1)),
            ("in a child process", decoder.clone()),
        ] {
            let read = best(|| drop(read_series(&series, &decoder, &Limits::default()).expect("a valid series")));
            println!("  decoded {mode}: {read:.1?}");
        }
    }
}

fn best(mut work: impl FnMut()) -> Duration {
    let time = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    (0..ROUNDS).map(|_| time(&mut work)).min().unwrap_or_default()
}
