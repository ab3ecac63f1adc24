//! How long preprocessing takes, step by step and as a whole, beside what the memory allows.
//!
//! `cargo bench --bench preprocessing [-- SCAN LABELS] [--repeat N] [--json] [--write FOLDER]`; without a scan it
//! takes `../shared/ct/totalseg_abdomen`. `--json` prints the seconds of each whole run on one line, `--write` leaves
//! the result behind: both are for `tests/peers/preprocessing.py`.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use freetumor::ingest::nifti::{read_labels, read_volume};
use freetumor::volume::{
    HuWindow, Labels, Orientation, OutsideValue, Preprocess, PreprocessedScan, Resampling, Volume,
};

/// What the command line asks for.
struct Asked {
    scan: PathBuf,
    labels: PathBuf,
    repeats: usize,
    json: bool,
    write: Option<PathBuf>,
}

impl Asked {
    fn parse() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/ct/totalseg_abdomen");
        let mut asked = Self {
            scan: folder.join("ct.nii.gz"),
            labels: folder.join("labels.nii.gz"),
            repeats: 15,
            json: false,
            write: None,
        };
        let mut files = Vec::new();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--bench" => {} // cargo adds it
                "--json" => asked.json = true,
                "--repeat" => asked.repeats = words.next().and_then(|n| n.parse().ok()).expect("--repeat NUMBER"),
                "--write" => asked.write = Some(words.next().expect("--write FOLDER").into()),
                _ => files.push(PathBuf::from(word)),
            }
        }
        if let Ok([scan, labels]) = <[PathBuf; 2]>::try_from(files) {
            (asked.scan, asked.labels) = (scan, labels);
        }
        asked
    }

    fn read(&self) -> (Volume, Labels) {
        // Both files at once: inflating is most of reading, and each stream is one thread's work.
        let (scan, labels) = rayon::join(|| read_volume(&self.scan), || read_labels(&self.labels));
        (scan.expect("the scan reads"), labels.expect("the labels read"))
    }

    fn prepare(&self) -> PreprocessedScan {
        let (scan, labels) = self.read();
        Preprocess::ABDOMEN.apply(&scan, Some(&labels)).expect("the scan resamples")
    }
}

/// The median of seconds, and what the last call gave.
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
    let asked = Asked::parse();
    if !asked.scan.exists() {
        eprintln!("skipped: {} is not here", asked.scan.display());
        return;
    }
    if asked.json {
        let runs: Vec<f64> = (0..asked.repeats).map(|_| measure(1, || asked.prepare()).0).collect();
        println!("{}", serde_json::json!({ "seconds": runs }));
    } else {
        print_steps(&asked);
    }
    if let Some(folder) = &asked.write {
        write(folder, &asked.prepare()).expect("the folder can be written");
    }
}

fn print_steps(asked: &Asked) {
    let repeats = asked.repeats;
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

    let (seconds, scan) = measure(repeats, || read_volume(&asked.scan).expect("the scan reads"));
    report("read the scan", seconds, scan.voxels.bytes());
    let (seconds, labels) = measure(repeats, || read_labels(&asked.labels).expect("the labels read"));
    report("read the labels", seconds, labels.ids.as_slice().len() * 2);
    let (seconds, _) = measure(repeats, || asked.read());
    report("read both at once", seconds, scan.voxels.bytes() + labels.ids.as_slice().len() * 2);

    // The farthest way: all axes change places and run backwards.
    let turned = Orientation::from_code("IPL").expect("an orientation");
    let (seconds, _) = measure(repeats, || scan.reoriented(turned));
    report("orient, x and z changing places", seconds, scan.voxels.bytes());

    let (scan, labels) = (scan.reoriented(Orientation::RAS), labels.reoriented(Orientation::RAS));
    let way = Resampling::to_spacing(&scan.grid, [1.5; 3]).expect("the scan resamples");
    let (seconds, fine) = measure(repeats, || scan.resampled(&way, OutsideValue::Edge));
    report("resample the scan", seconds, fine.voxels.bytes());
    let (seconds, ids) = measure(repeats, || way.nearest(&labels.ids, OutsideValue::Edge));
    report("resample the labels", seconds, ids.as_slice().len() * 2);

    let hu = fine.voxels.hu_of(fine.grid.region());
    let (seconds, image) = measure(repeats, || hu.map(|hu| HuWindow::ABDOMEN.apply(*hu)));
    report("window", seconds, hu.as_slice().len() * 4);
    let (seconds, foreground) = measure(repeats, || image.bounds_of(|value| *value > 0.0));
    report("find the foreground", seconds, image.as_slice().len() * 4);
    let foreground = foreground.expect("a body");
    let (seconds, _) = measure(repeats, || image.cut(foreground));
    report("crop", seconds, foreground.voxels() * 4);

    let (seconds, prepared) =
        measure(repeats, || Preprocess::ABDOMEN.apply(&scan, Some(&labels)).expect("the scan resamples"));
    let bytes = prepared.image.as_slice().len() * 6;
    report("all but reading", seconds, bytes);
    let (seconds, _) = measure(repeats, || asked.prepare());
    report("all", seconds, bytes);
}

/// Leaves image and labels as raw little-endian numbers, x fastest, and the grid as JSON.
fn write(folder: &Path, prepared: &PreprocessedScan) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let image: Vec<u8> = prepared.image.as_slice().iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(folder.join("image.f32"), image)?;
    let labels = prepared.labels.as_ref().expect("labels were given");
    let labels: Vec<u8> = labels.as_slice().iter().flat_map(|id| id.to_le_bytes()).collect();
    std::fs::write(folder.join("labels.u16"), labels)?;
    let grid = serde_json::json!({ "shape": prepared.grid.shape, "affine": prepared.grid.affine.0 });
    std::fs::write(folder.join("grid.json"), grid.to_string())
}
