//! The phantom source: an archive of CT scans with labels.

use std::collections::BTreeSet;

use freetumor::error::FaultKind;
use freetumor::id::ScanDigest;
use freetumor::ingest::phantom::{Body, PhantomConfig, PhantomSource};
use freetumor::ingest::{Scan, Source};
use freetumor::volume::{Labels, Voxels};

fn read_all(config: PhantomConfig) -> Vec<(Scan, Labels)> {
    let source = PhantomSource::new(config, "phantoms").unwrap();
    let read = |entry| {
        let scan = source.read(&entry).unwrap();
        let labels = scan.companions.labels("labels.nii.gz").unwrap();
        (scan, labels)
    };
    source.list().unwrap().into_iter().map(read).collect()
}

/// Returns the volume in ml and the median HU of some ids.
fn organ(scan: &Scan, labels: &Labels, ids: std::ops::RangeInclusive<u16>) -> (f64, f32) {
    let inside = labels.ids.as_slice().iter().enumerate().filter(|(_, id)| ids.contains(id));
    let mut hu: Vec<f32> = inside.map(|(i, _)| scan.volume.voxels.hu(i)).collect();
    hu.sort_by(f32::total_cmp);
    (hu.len() as f64 * scan.volume.grid.voxel_volume_mm3() / 1000.0, hu.get(hu.len() / 2).copied().unwrap_or(0.0))
}

#[test]
fn abdomen_organs_have_human_size_and_density() {
    for (scan, labels) in read_all(PhantomConfig { count: 6, ..PhantomConfig::default() }) {
        let check = |name: &str, ids, ml: std::ops::Range<f64>, hu: std::ops::Range<f32>| {
            let (found_ml, found_hu) = organ(&scan, &labels, ids);
            assert!(ml.contains(&found_ml), "{}: {name} has {found_ml:.0} ml", scan.entry.key);
            assert!(hu.contains(&found_hu), "{}: {name} has {found_hu} HU", scan.entry.key);
        };
        check("liver", 5..=5, 900.0..2300.0, 25.0..125.0);
        check("spleen", 1..=1, 70.0..420.0, 40.0..155.0);
        check("right kidney", 2..=2, 80.0..260.0, 25.0..210.0);
        check("left kidney", 3..=3, 80.0..260.0, 25.0..210.0);
        check("pancreas", 7..=7, 35.0..130.0, 30.0..125.0);
        check("stomach", 6..=6, 80.0..700.0, -1000.0..110.0);
        check("aorta", 52..=52, 40.0..220.0, 30.0..350.0);
        check("spine", 27..=43, 150.0..900.0, 100.0..700.0);
        check("lung bases", 10..=14, 100.0..3500.0, -920.0..-780.0);
    }
}

#[test]
fn chests_contain_lungs_heart_and_ribs() {
    for (scan, labels) in read_all(PhantomConfig { count: 3, body: Body::Chest, ..PhantomConfig::default() }) {
        let (lung_ml, lung_hu) = organ(&scan, &labels, 10..=14);
        assert!(
            (3000.0..8000.0).contains(&lung_ml) && (-900.0..-800.0).contains(&lung_hu),
            "{lung_ml} ml {lung_hu} HU"
        );
        assert!((10..=14).all(|lobe| organ(&scan, &labels, lobe..=lobe).0 > 100.0), "every lobe exists");
        assert!((300.0..1100.0).contains(&organ(&scan, &labels, 51..=51).0));
        let ribs = (92..=115).filter(|&rib| organ(&scan, &labels, rib..=rib).0 > 0.5).count();
        assert!(ribs >= 16, "{ribs} ribs in view");
    }
}

#[test]
fn tissue_has_noise_and_hu_are_in_range() {
    for (scan, labels) in read_all(PhantomConfig { count: 3, ..PhantomConfig::default() }) {
        // Differences of neighbours within the liver are mostly noise.
        let [nx, ..] = scan.volume.grid.shape;
        let liver = labels.ids.as_slice();
        let inside = |i: usize| [i - nx, i, i + nx].iter().all(|&j| liver[j] == 5);
        let differences: Vec<f64> = (nx..liver.len() - nx)
            .filter(|&i| inside(i))
            .map(|i| f64::from(scan.volume.voxels.hu(i + nx) - scan.volume.voxels.hu(i - nx)))
            .collect();
        let deviation = (differences.iter().map(|d| d * d).sum::<f64>() / differences.len() as f64 / 2.0).sqrt();
        assert!((7.0..24.0).contains(&deviation), "{deviation:.1} HU");
        let Voxels::I16(hu) = &scan.volume.voxels else { panic!("phantoms have integer HU") };
        assert!(hu.as_slice().iter().all(|hu| (-1024..=3071).contains(hu)));
        let (fat_and_air, _) = organ(&scan, &labels, 0..=0);
        assert!(fat_and_air > 1000.0);
    }
}

#[test]
fn phantom_depends_on_seed_and_number_only() {
    let small = |seed, count| PhantomConfig {
        seed,
        count,
        shape: [40, 36, 24],
        spacing_mm: [9.0, 9.0, 12.0],
        ..PhantomConfig::default()
    };
    let first = read_all(small(7, 3));
    let source = PhantomSource::new(small(7, 9), "another name").unwrap();
    let entries = source.list().unwrap();
    // Read in reverse order and on several threads.
    let repeated: Vec<Scan> = std::thread::scope(|scope| {
        let read = |i: usize| {
            scope.spawn({
                let (source, entries) = (&source, &entries);
                move || source.read(&entries[i]).unwrap()
            })
        };
        [read(2), read(1), read(0)].map(|thread| thread.join().unwrap()).into_iter().rev().collect()
    });
    for ((scan, labels), repeated) in first.iter().zip(&repeated) {
        assert_eq!(scan.digest, repeated.digest);
        assert_eq!(*labels, repeated.companions.labels("labels.nii.gz").unwrap());
    }
    let other = read_all(small(8, 3));
    let digests: BTreeSet<ScanDigest> = first.iter().chain(&other).map(|(scan, _)| scan.digest).collect();
    assert_eq!(digests.len(), 6);
}

#[test]
fn patients_have_several_scans() {
    let config = PhantomConfig {
        count: 5,
        patients: Some(2),
        shape: [48, 48, 40],
        spacing_mm: [8.0, 8.0, 7.0],
        ..PhantomConfig::default()
    };
    let scans = read_all(config);
    let keys: Vec<_> = scans.iter().map(|(scan, _)| scan.entry.patient_key).collect();
    assert_eq!(keys[0], keys[2]);
    assert_ne!(keys[0], keys[1]);
    assert_ne!(scans[0].0.digest, scans[2].0.digest);
    // The same liver in another pose.
    let liver = |i: usize| organ(&scans[i].0, &scans[i].1, 5..=5).0;
    assert!((liver(0) / liver(2) - 1.0).abs() < 0.06, "{} {}", liver(0), liver(2));
}

#[test]
fn entries_headers_and_scans_are_consistent() {
    let config = PhantomConfig {
        count: 12,
        body: Body::Mixed,
        shape: [32, 24, 16],
        spacing_mm: [11.0, 12.0, 17.5],
        dataset: Some("bodies".to_owned()),
        ..PhantomConfig::default()
    };
    let source = PhantomSource::new(config, "phantoms").unwrap();
    let entries = source.list().unwrap();
    assert_eq!(entries.len(), 12);
    assert!(entries.is_sorted_by(|a, b| a.key < b.key));
    assert_eq!(entries[0].dataset, "bodies");
    let header = source.header(&entries[3]).unwrap();
    let scan = source.read(&entries[3]).unwrap();
    assert_eq!(header.grid, scan.volume.grid);
    assert_eq!(header.volume_bytes, scan.volume.voxels.bytes() as u64);
    assert_eq!(scan.volume.grid.spacing_mm(), [11.0, 12.0, 17.5]);
    assert_eq!(scan.companions.labels("organs/liver.nii.gz").unwrap_err().kind, FaultKind::Missing);
    let mut gone = entries[0].clone();
    gone.key = "000012".to_owned();
    assert_eq!(source.read(&gone).unwrap_err().kind, FaultKind::Missing);
    // Abdomens and chests alternate: odd scans contain far more lung.
    let lung = |i: usize| {
        let scan = source.read(&entries[i]).unwrap();
        let labels = scan.companions.labels("labels.nii.gz").unwrap();
        organ(&scan, &labels, 10..=14).0
    };
    assert!(lung(1) > 1.5 * lung(0));
}

#[test]
fn new_reports_all_errors_at_once() {
    let config: PhantomConfig =
        toml::from_str("shape = [4, 64, 64]\nspacing_mm = [3.0, 0.0, 3.0]\npatients = 0").unwrap();
    let errors = PhantomSource::new(config, "phantoms").err().unwrap();
    assert_eq!(
        errors.iter().map(|error| error.field.as_str()).collect::<Vec<_>>(),
        ["shape", "spacing_mm", "patients"]
    );
}
