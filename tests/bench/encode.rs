//! The time to write the samples of one scan, and their size, at each gzip level.
//!
//! `cargo bench --bench encode [SCAN.nii.gz]`; the default scan is `../shared/ct/totalseg_liver_dicom`. The benchmark prints, for one
//! core, the time of the first sample of a scan (every slab is compressed), of a further sample (only the slabs that the tumor changes
//! are compressed), and of a plain encoder that copies the volume and compresses it in one stream, as nibabel and others do.

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use freetumor::error::Fault;
use freetumor::id::{PatientKey, ScanDigest, ScanId};
use freetumor::ingest::{Companions, Scan, ScanEntry, nifti};
use freetumor::mask::{MaskedScan, OrganMask};
use freetumor::sink::volume_files::Encoder;
use freetumor::synth::{Candidate, Geometry};
use freetumor::volume::{Array3, Labels, Region, Voxels};

struct NoCompanions;

impl Companions for NoCompanions {
    fn labels(&self, pattern: &str) -> Result<Labels, Fault> {
        Err(Fault::mask(freetumor::error::FaultKind::Missing, pattern))
    }
}

fn main() {
    let argument = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let shared = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/ct/totalseg_liver_dicom/reference.nii.gz");
    let path = argument.unwrap_or_else(|| shared.to_owned());
    if !std::path::Path::new(&path).exists() {
        println!("skipped: no {path}; pass a CT scan as the first argument");
        return;
    }
    let masked = masked(&path);
    let candidate = candidate(&masked);
    let [nx, ny, nz] = masked.scan.volume.grid.shape;
    let raw_bytes = masked.scan.volume.voxels.bytes() + nx * ny * nz;
    println!(
        "{nx}×{ny}×{nz}, {:.1} MB with labels; a tumor of {:?} voxels",
        raw_bytes as f64 / 1e6,
        candidate.region.shape
    );
    println!("level   size MB   first ms   further ms   plain ms   plain size MB");
    for level in [1, 2, 3, 4, 6, 9] {
        let size = encode(&Encoder::new(&masked, level).expect("a scan that can be written"), &candidate);
        let first = best(|| Encoder::new(&masked, level).expect("as before"), |encoder| encode(encoder, &candidate));
        let encoder = Encoder::new(&masked, level).expect("as before");
        encode(&encoder, &candidate);
        let further = best(|| (), |()| encode(&encoder, &candidate));
        let plain_size = plain(&masked, &candidate, level);
        let plain = best(|| (), |()| plain(&masked, &candidate, level));
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        println!(
            "{level:5} {:9.2} {:10.1} {:12.1} {:10.1} {:15.2}",
            size as f64 / 1e6,
            ms(first),
            ms(further),
            ms(plain),
            plain_size as f64 / 1e6
        );
    }
}

/// Returns the shortest of five times, as other processes share the machine.
fn best<S>(prepare: impl Fn() -> S, work: impl Fn(&S) -> usize) -> Duration {
    (0..5)
        .map(|_| {
            let input = prepare();
            let start = Instant::now();
            black_box(work(&input));
            start.elapsed()
        })
        .min()
        .unwrap_or_default()
}

fn encode(encoder: &Encoder<'_>, candidate: &Candidate) -> usize {
    let mut bytes = Vec::new();
    encoder.write_image(&[candidate.into()], &mut bytes).expect("writing to memory");
    encoder.write_label(&[candidate.into()], &mut bytes).expect("writing to memory");
    bytes.len()
}

fn plain(masked: &MaskedScan, candidate: &Candidate, level: u32) -> usize {
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(bytes).expect("writing to memory");
        encoder.finish().expect("writing to memory").len()
    };
    let image: Vec<u8> = match masked.scan.volume.voxels.clone() {
        Voxels::I16(mut array) => {
            array.paste(candidate.region.start, &candidate.after.map(|hu| *hu as i16));
            array.as_slice().iter().flat_map(|hu| hu.to_le_bytes()).collect()
        }
        Voxels::F32(mut array) => {
            array.paste(candidate.region.start, &candidate.after);
            array.as_slice().iter().flat_map(|hu| hu.to_le_bytes()).collect()
        }
    };
    let mut labels = masked.mask.labels.clone();
    labels.paste(candidate.region.start, &candidate.labels);
    gzip(&image) + gzip(labels.as_slice())
}

fn masked(path: &str) -> MaskedScan {
    let volume = nifti::read_volume(path).expect("a CT scan");
    let shape = volume.grid.shape;
    // Soft tissue in the right half serves as an organ: its labels compress like real labels, with noise at the edge.
    let mut index = 0;
    let labels = Array3::from_fn(shape, |[x, ..]| {
        index += 1;
        u8::from(2 * x < shape[0] && (80.0..160.0).contains(&volume.voxels.hu(index - 1)))
    });
    let entry = ScanEntry {
        scan_id: ScanId::from_bytes([0; 8]),
        source: "bench".into(),
        key: path.into(),
        dataset: "bench".into(),
        patient_key: PatientKey::from_bytes([0; 8]),
        bytes: 0,
        modified_s: 0,
        version: Default::default(),
    };
    let scan = Scan {
        acquisition: Default::default(),
        entry,
        digest: ScanDigest::from_bytes([0; 32]),
        volume,
        companions: Arc::new(NoCompanions),
    };
    MaskedScan { scan: Arc::new(scan), mask: OrganMask { labels, organs: Arc::new([]), coverage: 1.0 } }
}

/// Returns a candidate with a box of 16 mm in the middle.
fn candidate(masked: &MaskedScan) -> Candidate {
    let grid = &masked.scan.volume.grid;
    let shape = [0, 1, 2].map(|axis| ((16.0 / grid.spacing_mm()[axis]).ceil() as usize).clamp(1, grid.shape[axis]));
    let region = Region { start: [0, 1, 2].map(|axis| (grid.shape[axis] - shape[axis]) / 2), shape };
    let before = masked.scan.volume.voxels.hu_of(region);
    let after = before.map(|hu| hu - 30.0);
    let tumor = Array3::filled(shape, 1);
    let geometry = Geometry {
        drawn_contrast_hu: None,
        size_class: "medium".into(),
        site_voxel: region.start,
        site_mm: [0.0; 3],
        radii_mm: [8.0; 3],
        volume_mm3: 2144.7,
        diameter_mm: 16.0,
        sphericity: 1.0,
        clipped_fraction: 0.0,
        boundary_distance_mm: 8.0,
        ..Geometry::default()
    };
    Candidate {
        region,
        site_box: region,
        support: tumor.clone(),
        before,
        after,
        labels: Array3::filled(shape, 2),
        tumor,
        geometry,
    }
}
