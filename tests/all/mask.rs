//! Organ masks on real scans and on phantoms.

use std::path::Path;
use std::sync::Arc;

use freetumor::error::{Fault, FaultKind};
use freetumor::id::{PatientKey, ScanDigest, ScanId};
use freetumor::ingest::phantom::{Body, PhantomConfig, PhantomSource};
use freetumor::ingest::{Companions, FolderConfig, FolderSource, Scan, ScanEntry, Source, nifti};
use freetumor::mask::{LabelsMask, LungConfig, LungMask, Mask, OrganMask, TotalSegmentatorMask};
use freetumor::volume::{Affine, Array3, Grid, Labels, Region, Volume, Voxels};

use crate::common;

/// Reads the first scan below the shared folder that matches a pattern.
fn shared_scan(pattern: &str) -> Option<Scan> {
    let root = common::shared("ct")?;
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "0".repeat(64)).unwrap();
    let config = toml::from_str::<FolderConfig>(&format!("root = {root:?}\ninclude = [{pattern:?}]")).unwrap();
    let source = FolderSource::new("ct", config).unwrap().with_secret_file(Some(secret.path().to_owned()));
    let entries = source.list().unwrap();
    Some(source.read(entries.first().expect("a scan matches the pattern")).unwrap())
}

fn labels_mask(settings: &str) -> LabelsMask {
    LabelsMask::new(toml::from_str(settings).unwrap()).unwrap()
}

fn count(mask: &OrganMask, organ: &str) -> usize {
    let organ = mask.organs.iter().find(|candidate| candidate.name == organ).unwrap();
    mask.labels.as_slice().iter().filter(|&&id| id == organ.label).count()
}

/// Returns mean and standard deviation of HU of the voxels for which `inside` is true.
fn moments(volume: &Volume, inside: impl Fn(usize) -> bool) -> (f64, f64) {
    let hu: Vec<f64> =
        (0..volume.grid.voxels()).filter(|&i| inside(i)).map(|i| f64::from(volume.voxels.hu(i))).collect();
    let mean = hu.iter().sum::<f64>() / hu.len() as f64;
    (mean, (hu.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / hu.len() as f64).sqrt())
}

#[test]
fn las_labels_align_with_lps_series() {
    let Some(scan) = shared_scan("totalseg_liver_dicom/dicom") else { return };
    let found = labels_mask("organs = ['liver', 'spleen', 'pancreas']").mask(&scan).unwrap();
    assert_eq!(["liver", "spleen", "pancreas"].map(|organ| count(&found, organ)), [366_708, 130_634, 1327]);
    let liver = |i: usize| found.labels.as_slice()[i] == 1;
    let (mean, deviation) = moments(&scan.volume, liver);
    // Without its affine, the same label file covers fat, stomach and air.
    let path = common::shared("ct/totalseg_liver_dicom/labels.nii.gz").unwrap();
    let raw = nifti::read_labels(path).unwrap();
    let (wrong_mean, wrong_deviation) = moments(&scan.volume, |i| raw.ids.as_slice()[i] == 5);
    assert!((80.0..140.0).contains(&mean) && deviation < 40.0, "{mean} ± {deviation} HU");
    assert!(wrong_deviation > 3.0 * deviation, "{wrong_mean} ± {wrong_deviation} HU");
}

#[test]
fn label_file_and_binary_masks_yield_similar_organs() {
    let Some(scan) = shared_scan("totalseg_upper_abdomen/ct.nii.gz") else { return };
    // Voxels in the label file and in the binary masks, which are of another run of the same model.
    let expected = [("liver", 38_634, 39_350), ("kidney", 7623, 7672), ("pancreas", 644, 548), ("spleen", 9452, 9630)];
    for (organ, in_labels, in_files) in expected {
        let organs = format!("organs = ['{organ}']");
        let single = labels_mask(&organs).mask(&scan).unwrap();
        let merged = TotalSegmentatorMask::new(toml::from_str(&organs).unwrap()).unwrap().mask(&scan).unwrap();
        assert_eq!((count(&single, organ), count(&merged, organ)), (in_labels, in_files), "{organ}");
        let both =
            single.labels.as_slice().iter().zip(merged.labels.as_slice()).filter(|(a, b)| **a != 0 && a == b).count();
        assert!(2 * both * 100 > 80 * (in_labels + in_files), "{organ}: {both} voxels in common");
    }
}

#[test]
fn fault_names_missing_binary_mask_without_path() {
    let Some(scan) = shared_scan("totalseg_upper_abdomen/ct.nii.gz") else { return };
    let lung = TotalSegmentatorMask::new(toml::from_str("organs = ['lung']").unwrap()).unwrap();
    let fault = lung.mask(&scan).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Missing);
    assert!(fault.message.contains("lung_") && !fault.message.contains('/'), "{fault}");
}

#[test]
fn labels_of_another_scan_are_mismatch() {
    let Some(scan) = shared_scan("totalseg_upper_abdomen/ct.nii.gz") else { return };
    // The same shape at another position: only the affine differs.
    let mask = labels_mask("pattern = '../lung1_001/labels.nii.gz'\nscheme = 'custom'\norgans.lung = { ids = [1, 2] }");
    assert_eq!(mask.mask(&scan).unwrap_err().kind, FaultKind::Mismatch);
    let full = labels_mask("pattern = '../totalseg_abdomen/labels.nii.gz'\norgans = ['liver']");
    assert_eq!(count(&full.mask(&scan).unwrap(), "liver"), overlap_of_the_full_volume());
}

/// Counts the liver voxels of the full abdomen whose centres are in the grid of the crop.
fn overlap_of_the_full_volume() -> usize {
    let full = nifti::read_labels(common::shared("ct/totalseg_abdomen/labels.nii.gz").unwrap()).unwrap();
    let cut = nifti::read_header(common::shared("ct/totalseg_upper_abdomen/ct.nii.gz").unwrap()).unwrap();
    let inverse = cut.grid.affine.inverse().unwrap();
    let [nx, ny, nz] = full.grid.shape;
    (0..nx * ny * nz)
        .filter(|&i| full.ids.as_slice()[i] == 5)
        .filter(|&i| {
            let voxel = [i % nx, i / nx % ny, i / (nx * ny)].map(|v| v as f64);
            let at = inverse.apply(full.grid.affine.apply(voxel)).map(f64::round);
            (0..3).all(|a| (0.0..cut.grid.shape[a] as f64).contains(&at[a]))
        })
        .count()
}

struct NoCompanions;

impl Companions for NoCompanions {
    fn labels(&self, _: &str) -> Result<Labels, Fault> {
        Err(Fault::mask(FaultKind::Missing, "the scan has no label files"))
    }
}

fn scan_without_labels(volume: Volume) -> Scan {
    let entry = ScanEntry {
        scan_id: ScanId::from_bytes([0; 8]),
        source: "test".to_owned(),
        key: "1".to_owned(),
        dataset: "test".to_owned(),
        patient_key: PatientKey::from_bytes([0; 8]),
        bytes: 0,
        modified_s: 0,
        version: Default::default(),
    };
    Scan {
        acquisition: Default::default(),
        entry,
        digest: ScanDigest::from_bytes([0; 32]),
        volume,
        companions: Arc::new(NoCompanions),
    }
}

/// Returns the Dice of the lungs in `volume` and the voxels with truth 1; voxels with truth 2 are ignored.
fn lung_dice(volume: Volume, truth: &[u8]) -> f64 {
    let lung = LungMask::new(LungConfig::default()).unwrap();
    let found = lung.mask(&scan_without_labels(volume)).unwrap();
    let (mut both, mut sum) = (0usize, 0usize);
    for (&found, &truth) in found.labels.as_slice().iter().zip(truth) {
        if truth != 2 {
            both += usize::from(found == 1 && truth == 1);
            sum += usize::from(found == 1) + usize::from(truth == 1);
        }
    }
    2.0 * both as f64 / sum as f64
}

/// Reads the chest with a tumor and its truth: 1 for lung, 2 for tumor.
fn chest() -> Option<(Volume, Array3<u8>)> {
    let folder = common::shared("ct/lung1_001")?;
    let read = |name: &str| Path::new(&folder).join(name);
    let labels = nifti::read_labels(read("labels.nii.gz")).unwrap();
    let truth = labels.ids.map(|&id| match id {
        1 | 2 => 1,
        4 => 2,
        _ => 0,
    });
    Some((nifti::read_volume(read("ct.nii.gz")).unwrap(), truth))
}

#[test]
fn lungs_are_found_without_labels() {
    let Some((volume, truth)) = chest() else { return };
    let dice = lung_dice(volume, truth.as_slice());
    assert!(dice >= 0.95, "Dice {dice:.4}");
}

#[test]
fn lungs_are_found_in_cropped_body() {
    let Some((volume, truth)) = chest() else { return };
    // The crop cuts both lungs on three sides and at both ends.
    let region = Region { start: [45, 40, 50], shape: [78, 60, 50] };
    let hu = volume.voxels.hu_of(region);
    let cropped = Volume { grid: volume.grid.cut(region), voxels: Voxels::F32(hu) };
    let dice = lung_dice(cropped, truth.cut(region).as_slice());
    assert!(dice >= 0.93, "Dice {dice:.4}");
}

#[test]
fn padding_around_field_of_view_is_not_lung() {
    let Some((mut volume, mut truth)) = chest() else { return };
    let [nx, ny, _] = volume.grid.shape;
    let Voxels::I16(hu) = &mut volume.voxels else { panic!("the scan has integer HU") };
    // A circle that cuts the lungs, as in a reconstruction with a small field of view.
    let outside = |i: usize| (i % nx).abs_diff(nx / 2).pow(2) + (i / nx % ny).abs_diff(ny / 2).pow(2) > 45 * 45;
    for i in (0..nx * ny * volume.grid.shape[2]).filter(|&i| outside(i)) {
        hu.as_mut_slice()[i] = -3024;
        truth.as_mut_slice()[i] = 0;
    }
    let dice = lung_dice(volume, truth.as_slice());
    assert!(dice >= 0.93, "Dice {dice:.4}");
}

#[test]
fn lung_mask_is_independent_of_axis_order() {
    let Some((volume, _)) = chest() else { return };
    let lung = LungMask::new(LungConfig::default()).unwrap();
    let Grid { shape: [nx, ny, nz], affine: Affine(rows) } = volume.grid;
    // Stored [z, x, y].
    let reordered = Volume {
        grid: Grid { shape: [nz, nx, ny], affine: Affine(rows.map(|[a, b, c, d]| [c, a, b, d])) },
        voxels: Voxels::F32(Array3::from_fn([nz, nx, ny], |[z, x, y]| volume.voxels.hu(x + nx * (y + ny * z)))),
    };
    let expected = lung.mask(&scan_without_labels(volume)).unwrap().labels;
    let found = lung.mask(&scan_without_labels(reordered)).unwrap().labels;
    let restored = Array3::from_fn([nx, ny, nz], |[x, y, z]| found[[z, x, y]]);
    assert!(restored == expected);
}

#[test]
fn lungs_of_phantoms_are_found() {
    let config = PhantomConfig { count: 3, body: Body::Chest, ..PhantomConfig::default() };
    let source = PhantomSource::new(config, "phantoms").unwrap();
    for entry in source.list().unwrap() {
        let scan = source.read(&entry).unwrap();
        let labels = scan.companions.labels("labels.nii.gz").unwrap();
        let truth = labels.ids.map(|&id| u8::from((10..=14).contains(&id)));
        let dice = lung_dice(scan.volume, truth.as_slice());
        assert!(dice >= 0.96, "phantom {}: Dice {dice:.4}", entry.key);
    }
}

#[test]
fn abdomen_without_lungs_has_empty_lung_mask() {
    let config = PhantomConfig { count: 2, shape: [96, 96, 20], spacing_mm: [4.0; 3], ..PhantomConfig::default() };
    let source = PhantomSource::new(config, "phantoms").unwrap();
    for entry in source.list().unwrap() {
        let mut scan = source.read(&entry).unwrap();
        // Below the lower half of the liver: gas in the bowel, a couch, the room.
        let region = Region { start: [0, 0, 0], shape: [96, 96, 10] };
        let hu = scan.volume.voxels.hu_of(region);
        scan.volume = Volume { grid: scan.volume.grid.cut(region), voxels: Voxels::F32(hu) };
        let found = LungMask::new(LungConfig::default()).unwrap().mask(&scan).unwrap();
        assert_eq!(count(&found, "lung"), 0, "phantom {}", entry.key);
    }
}
