//! The time of preprocessing, for each step and in total, compared with the speed of the memory.
//!
//! `cargo bench --bench preprocessing [-- SCAN LABELS] [--repeat N] [--json] [--write FOLDER]`; the default scan is
//! `../shared/ct/totalseg_abdomen`. `--json` prints the seconds of each whole run on one line, `--write` writes
//! the result: both are for `tests/peers/preprocessing.py`.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use freetumor::ingest::nifti::{read_labels, read_volume};
use freetumor::volume::{
    HuWindow, Labels, Orientation, OutsideValue, Preprocess, PreprocessedScan, Resampling, Volume,
};

/// The arguments of the command line.
struct Arguments {
    scan: PathBuf,
    labels: PathBuf,
    repeats: usize,
    json: bool,
    write: Option<PathBuf>,
}

impl Arguments {
    fn parse() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/ct/totalseg_abdomen");
        let mut arguments = Self {
            scan: folder.join("ct.nii.gz"),
            labels: folder.join("labels.nii.gz"),
            repeats: 15,
            json: false,
            write: None,
        };
        let mut files = Vec::new();
        let mut inputs = std::env::args().skip(1);
        while let Some(input) = inputs.next() {
            match input.as_str() {
                "--bench" => {} // cargo adds it
                "--json" => arguments.json = true,
                "--repeat" => arguments.repeats = inputs.next().and_then(|n| n.parse().ok()).expect("--repeat NUMBER"),
                "--write" => arguments.write = Some(inputs.next().expect("--write FOLDER").into()),
                _ => files.push(PathBuf::from(input)),
            }
        }
        if let Ok([scan, labels]) = <[PathBuf; 2]>::try_from(files) {
            (arguments.scan, arguments.labels) = (scan, labels);
        }
        arguments
    }

    fn read(&self) -> (Volume, Labels) {
        // Both files in parallel: inflating takes most of the time, and each stream runs on one thread.
        let (scan, labels) = rayon::join(|| read_volume(&self.scan), || read_labels(&self.labels));
        (scan.expect("a readable scan"), labels.expect("readable labels"))
    }

    fn preprocess(&self) -> PreprocessedScan {
        let (scan, labels) = self.read();
        Preprocess::ABDOMEN.apply(&scan, Some(&labels)).expect("a scan that can be resampled")
    }
}

/// Returns the median of the seconds, and the result of the last call.
fn measure<T>(repeats: usize, mut work: impl FnMut() -> T) -> (f64, T) {
    let mut seconds = Vec::with_capacity(repeats);
    let mut last = None;
    for _ in 0..repeats {
        drop(last.take());
        let start = Instant::now();
        last = Some(black_box(work()));
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    (seconds[repeats / 2], last.expect("at least one repeat"))
}

fn main() {
    let arguments = Arguments::parse();
    if !arguments.scan.exists() {
        eprintln!("skipped: no {}", arguments.scan.display());
        return;
    }
    if arguments.json {
        let runs: Vec<f64> = (0..arguments.repeats).map(|_| measure(1, || arguments.preprocess()).0).collect();
        println!("{}", serde_json::json!({ "seconds": runs }));
    } else {
        print_steps(&arguments);
    }
    if let Some(folder) = &arguments.write {
        write(folder, &arguments.preprocess()).expect("a writable folder");
    }
}

fn print_steps(arguments: &Arguments) {
    let repeats = arguments.repeats;
    let memory = vec![1u8; 256 << 20];
    let mut copy = memory.clone();
    let (seconds, ()) = measure(repeats, || copy.copy_from_slice(black_box(&memory)));
    let limit = memory.len() as f64 / seconds / 1e9;
    println!("memcpy of 256 MiB on one thread: {limit:.1} GB/s\n");
    println!("{:<34} {:>9} {:>10} {:>10} {:>8}", "step", "ms", "MB written", "GB/s", "of limit");
    let report = |step: &str, seconds: f64, bytes: usize| {
        let rate = bytes as f64 / seconds / 1e9;
        let (ms, megabytes, share) = (seconds * 1e3, bytes as f64 / 1e6, 100.0 * rate / limit);
        println!("{step:<34} {ms:>9.2} {megabytes:>10.1} {rate:>10.2} {share:>7.0}%");
    };

    let (seconds, scan) = measure(repeats, || read_volume(&arguments.scan).expect("a readable scan"));
    report("read the scan", seconds, scan.voxels.bytes());
    let (seconds, labels) = measure(repeats, || read_labels(&arguments.labels).expect("readable labels"));
    report("read the labels", seconds, labels.ids.as_slice().len() * 2);
    let (seconds, _) = measure(repeats, || arguments.read());
    report("read both at once", seconds, scan.voxels.bytes() + labels.ids.as_slice().len() * 2);

    // The slowest orientation: x and z are exchanged and reversed.
    let orientation = Orientation::from_code("IPL").expect("an orientation");
    let (seconds, _) = measure(repeats, || scan.reoriented(orientation));
    report("orient, exchanging x and z", seconds, scan.voxels.bytes());

    let (scan, labels) = (scan.reoriented(Orientation::RAS), labels.reoriented(Orientation::RAS));
    let resampling = Resampling::to_spacing(&scan.grid, [1.5; 3]).expect("a scan that can be resampled");
    let (seconds, fine) = measure(repeats, || scan.resampled(&resampling, OutsideValue::Edge));
    report("resample the scan", seconds, fine.voxels.bytes());
    let (seconds, ids) = measure(repeats, || resampling.nearest(&labels.ids, OutsideValue::Edge));
    report("resample the labels", seconds, ids.as_slice().len() * 2);

    let hu = fine.voxels.hu_of(fine.grid.region());
    let (seconds, image) = measure(repeats, || hu.map(|hu| HuWindow::ABDOMEN.apply(*hu)));
    report("window", seconds, hu.as_slice().len() * 4);
    let (seconds, foreground) = measure(repeats, || image.bounds_of(|value| *value > 0.0));
    report("find the foreground", seconds, image.as_slice().len() * 4);
    let foreground = foreground.expect("a body");
    let (seconds, _) = measure(repeats, || image.cut(foreground));
    report("crop", seconds, foreground.voxels() * 4);

    let (seconds, preprocessed) =
        measure(repeats, || Preprocess::ABDOMEN.apply(&scan, Some(&labels)).expect("a scan that can be resampled"));
    let bytes = preprocessed.image.as_slice().len() * 6;
    report("all except reading", seconds, bytes);
    let (seconds, _) = measure(repeats, || arguments.preprocess());
    report("all", seconds, bytes);
}

/// Writes image and labels as raw little-endian numbers, x fastest, and the grid as JSON.
fn write(folder: &Path, preprocessed: &PreprocessedScan) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let image: Vec<u8> = preprocessed.image.as_slice().iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(folder.join("image.f32"), image)?;
    let labels = preprocessed.labels.as_ref().expect("preprocessed labels");
    let labels: Vec<u8> = labels.as_slice().iter().flat_map(|id| id.to_le_bytes()).collect();
    std::fs::write(folder.join("labels.u16"), labels)?;
    let grid = serde_json::json!({ "shape": preprocessed.grid.shape, "affine": preprocessed.grid.affine.0 });
    std::fs::write(folder.join("grid.json"), grid.to_string())
}
