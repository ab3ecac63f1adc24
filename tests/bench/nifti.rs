//! The time to read NIfTI files, compared with the time of inflating alone: `cargo bench --bench nifti [-- FILE…]`.
//!
//! The benchmark prints a line of JSON for each file, with the values that `tests/peers/nifti.py` compares with nibabel: grid, type, and
//! SHA-256 over HU as f32. `-- --encode FOLDER` writes empty files on grids of all kinds instead, which nibabel reads.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use flate2::read::MultiGzDecoder;
use freetumor::ingest::content_digest;
use freetumor::ingest::nifti::{self, Datatype};
use freetumor::volume::{Affine, Grid, Voxels};
use serde_json::json;
use sha2::{Digest, Sha256};

const ROUNDS: usize = 7;
const REAL: [&str; 6] = [
    "totalseg_abdomen/ct.nii.gz",
    "totalseg_abdomen/labels.nii.gz",
    "totalseg_upper_abdomen/ct.nii.gz",
    "totalseg_liver_dicom/reference.nii.gz",
    "lung1_001/ct.nii.gz",
    "sts_002/ct.nii.gz",
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [flag, folder] = &arguments[..]
        && flag == "--encode"
    {
        return encode(Path::new(folder));
    }
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/ct");
    let files: Vec<PathBuf> = match arguments.is_empty() {
        true => REAL.iter().map(|name| shared.join(name)).collect(),
        false => arguments.iter().map(PathBuf::from).collect(),
    };
    for file in files {
        match file.exists() {
            true => println!("{}", measure(&file)),
            false => println!("skipped: no {}", file.display()),
        }
    }
}

fn measure(file: &Path) -> serde_json::Value {
    let volume = match nifti::read_volume(file) {
        Ok(volume) => volume,
        Err(fault) => return json!({"file": file, "fault": fault.kind.name(), "message": fault.message}),
    };
    let mut hash = Sha256::new();
    (0..volume.grid.voxels()).for_each(|index| hash.update((volume.voxels.hu(index) + 0.0).to_le_bytes()));
    let labels = nifti::read_labels(file).ok().map(|labels| {
        let bytes: Vec<u8> = labels.ids.as_slice().iter().flat_map(|id| id.to_le_bytes()).collect();
        hex::encode(Sha256::digest(bytes))
    });
    let bytes = fs::read(file).expect("a readable file");
    let inflate = || {
        let mut block = vec![0; 128 * 1024];
        let mut decoder = MultiGzDecoder::new(File::open(file).expect("a readable file"));
        while decoder.read(&mut block).is_ok_and(|count| count > 0) {}
    };
    json!({
        "file": file,
        "shape": volume.grid.shape,
        "affine": volume.grid.affine.0,
        "voxels": match volume.voxels { Voxels::I16(_) => "i16", Voxels::F32(_) => "f32" },
        "sha256": hex::encode(hash.finalize()),
        "labels_sha256": labels,
        "read_ms": best_ms(|| drop(nifti::read_volume(file))),
        "inflate_ms": bytes.starts_with(&[0x1f, 0x8b]).then(|| best_ms(inflate)),
        "digest_ms": best_ms(|| _ = content_digest(&volume)),
        "volume_bytes": volume.voxels.bytes(),
    })
}

/// Writes files of one voxel value on rotated, tilted, mirrored and sheared grids; the printed JSON contains their affines.
fn encode(folder: &Path) {
    let (sin, cos) = 0.3f64.sin_cos();
    let grids = [
        ("ras", [[0.75, 0.0, 0.0, -190.0], [0.0, 0.75, 0.0, -170.5], [0.0, 0.0, 5.0, 33.0]]),
        ("lps", [[-0.75, 0.0, 0.0, 190.0], [0.0, -0.75, 0.0, 170.5], [0.0, 0.0, 5.0, 33.0]]),
        ("las", [[-0.75, 0.0, 0.0, 190.0], [0.0, 0.75, 0.0, -170.5], [0.0, 0.0, 5.0, 33.0]]),
        ("coronal", [[0.8, 0.0, 0.0, 1.0], [0.0, 0.0, 2.5, 2.0], [0.0, -0.8, 0.0, 3.0]]),
        ("tilted", [[0.8, 0.0, 0.0, 1.0], [0.0, 0.8 * cos, -3.0 * sin, 2.0], [0.0, 0.8 * sin, 3.0 * cos, 3.0]]),
        ("sheared", [[0.8, 0.0, 0.5, 1.0], [0.0, 0.8, 0.0, 2.0], [0.0, 0.0, 3.0, 3.0]]),
    ];
    for (name, rows) in grids {
        let grid = Grid { shape: [7, 6, 5], affine: Affine(rows) };
        for datatype in Datatype::ALL {
            let mut file = nifti::encode_header(&grid, datatype, "freetumor").expect("a small grid").to_vec();
            file.resize(file.len() + grid.voxels() * datatype.bytes(), 0);
            let path = folder.join(format!("{name}-{}.nii", format!("{datatype:?}").to_lowercase()));
            fs::write(&path, file).expect("a folder that can be written to");
            println!("{}", json!({"file": path, "affine": rows, "sheared": name == "sheared"}));
        }
    }
}

fn best_ms(mut work: impl FnMut()) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64() * 1e3
    });
    rounds.fold(f64::INFINITY, f64::min)
}
