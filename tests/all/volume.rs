//! Comparison of volumes with MONAI, nibabel and SciPy: the reference numbers of `../shared/golden` on the real scans of
//! `../shared/ct`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use freetumor::ingest::nifti::{Datatype, encode_header, read_labels, read_volume};
use freetumor::volume::{
    Affine, Array3, Boundary, Gaussian, Grid, HuWindow, Labels, Orientation, Preprocess, Scratch, Volume, Voxels,
    padding_to,
};
use safetensors::SafeTensors;

use crate::common;

/// Reads a tensor as an array [x, y, z]; z is fastest in the file.
fn array(tensors: &SafeTensors<'_>, name: &str) -> Array3<f32> {
    let tensor = tensors.tensor(name).unwrap();
    let [nx, ny, nz] = tensor.shape().try_into().unwrap();
    let values: Vec<f32> =
        tensor.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    Array3::from_fn([nx, ny, nz], |[x, y, z]| values[z + nz * (y + ny * x)])
}

fn every_5th<T>(array: &Array3<T>, value: impl Fn(&T) -> f32) -> Array3<f32> {
    let shape = array.shape().map(|voxels| voxels.div_ceil(5));
    Array3::from_fn(shape, |voxel| value(&array[voxel.map(|i| 5 * i)]))
}

fn hu(volume: &Volume) -> Array3<f32> {
    volume.voxels.hu_of(volume.grid.region())
}

/// The reference of one step of one scan.
struct Step<'a> {
    name: String,
    numbers: &'a serde_json::Value,
    tensors: &'a SafeTensors<'a>,
}

impl Step<'_> {
    fn check(&self, grid: &Grid, image: &Array3<f32>, labels: &Array3<u16>, window_width: f32) {
        let Self { name, numbers, tensors } = self;
        let shape: Vec<usize> = serde_json::from_value(numbers["shape"].clone()).unwrap();
        assert_eq!([grid.shape, image.shape(), labels.shape()], [<[usize; 3]>::try_from(shape).unwrap(); 3], "{name}");

        let affine: Vec<Vec<f64>> = serde_json::from_value(numbers["affine"].clone()).unwrap();
        let rounded = grid.affine.0.map(|row| row.map(|value| (value * 1e6).round_ties_even() / 1e6));
        assert_eq!(
            rounded.as_slice(),
            affine[..3].iter().map(|row| <[f64; 4]>::try_from(&row[..]).unwrap()).collect::<Vec<_>>(),
            "{name}"
        );

        let mut counts = BTreeMap::new();
        for id in labels.as_slice() {
            *counts.entry(id.to_string()).or_insert(0u64) += 1;
        }
        let expected: BTreeMap<String, u64> = serde_json::from_value(numbers["label_voxels"].clone()).unwrap();
        assert_eq!(counts, expected, "{name}");
        let expected = array(tensors, &format!("{name}.label_every_5th"));
        assert!(every_5th(labels, |id| f32::from(*id)) == expected, "{name}: label positions differ");

        // The requirement is a thousandth of the window. Both sides round to f32, so the difference in every voxel is far smaller.
        let expected = array(tensors, &format!("{name}.image_every_5th"));
        let pairs = every_5th(image, |value| *value);
        let farthest = pairs.as_slice().iter().zip(expected.as_slice()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(farthest <= 2e-6 * window_width, "{name}: a voxel differs by {farthest}");

        let count = image.as_slice().len() as f64;
        let mean = image.as_slice().iter().map(|v| f64::from(*v)).sum::<f64>() / count;
        let deviation =
            (image.as_slice().iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / (count - 1.0)).sqrt();
        for (value, key) in [(mean, "mean"), (deviation, "std")] {
            let expected = numbers[key].as_f64().unwrap();
            assert!(
                (value - expected).abs() <= 1e-6 * f64::from(window_width),
                "{name}: {key}: expected {expected}, got {value}"
            );
        }
    }
}

fn check_scan(name: &str, image: &Path, labels: &Path) {
    let Some(numbers) = common::shared("golden/preprocessing.json") else { return };
    let numbers: serde_json::Value = serde_json::from_slice(&std::fs::read(numbers).unwrap()).unwrap();
    let Some(tensors) = common::shared("golden/preprocessing.safetensors") else { return };
    let bytes = std::fs::read(tensors).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let step = |step: &str| {
        let name = format!("{name}.{step}");
        Step { numbers: &numbers[&name], name, tensors: &tensors }
    };

    // Each step separately.
    let (scan, labels) = (read_volume(image).unwrap(), read_labels(labels).unwrap());
    let ras = scan.reoriented(Orientation::RAS);
    let ras_labels = labels.reoriented(Orientation::RAS);
    assert_eq!(ras.grid, ras_labels.grid);
    step("ras").check(&ras.grid, &hu(&ras), &ras_labels.ids, 425.0);

    let spaced = ras.with_spacing([1.5; 3]).unwrap();
    let spaced_labels = ras_labels.with_spacing([1.5; 3]).unwrap();
    step("spacing").check(&spaced.grid, &hu(&spaced), &spaced_labels.ids, 425.0);

    let windowed = hu(&spaced).map(|hu| HuWindow::ABDOMEN.apply(*hu));
    step("window").check(&spaced.grid, &windowed, &spaced_labels.ids, 1.0);

    let foreground = windowed.bounds_of(|value| *value > 0.0).unwrap();
    let cropped_grid = spaced.grid.cut(foreground);
    let (cropped, cropped_labels) = (windowed.into_cut(foreground), spaced_labels.ids.into_cut(foreground));
    step("crop").check(&cropped_grid, &cropped, &cropped_labels, 1.0);

    let (before, shape) = padding_to(cropped.shape(), [96; 3]);
    let padded = (cropped.padded(before, shape, 0.0), cropped_labels.padded(before, shape, 0));
    step("pad").check(&cropped_grid.padded(before, shape), &padded.0, &padded.1, 1.0);

    // All steps at once.
    let preprocessed = Preprocess::ABDOMEN.apply(&scan, Some(&labels)).unwrap();
    step("pad").check(&preprocessed.grid, &preprocessed.image, preprocessed.labels.as_ref().unwrap(), 1.0);
    assert!(preprocessed.image.cut(preprocessed.scanned) == cropped);
}

#[test]
fn preprocessing_of_abdomen_equals_monai() {
    let Some(folder) = common::shared("ct/totalseg_abdomen") else { return };
    check_scan("totalseg_abdomen", &folder.join("ct.nii.gz"), &folder.join("labels.nii.gz"));
}

#[test]
fn preprocessing_of_labels_in_another_orientation_equals_monai() {
    let Some(folder) = common::shared("ct/totalseg_liver_dicom") else { return };
    check_scan("totalseg_liver_dicom", &folder.join("reference.nii.gz"), &folder.join("labels.nii.gz"));
}

#[test]
fn labels_onto_another_grid_follow_both_affines() {
    let Some(folder) = common::shared("ct/totalseg_liver_dicom") else { return };
    let scan = read_volume(folder.join("reference.nii.gz")).unwrap();
    let labels = read_labels(folder.join("labels.nii.gz")).unwrap();
    assert_ne!(scan.grid.orientation(), labels.grid.orientation());
    let resampled = labels.onto(&scan.grid).unwrap();
    // The grids have the same voxels in another order, so reorientation has the same result.
    let reoriented = labels.reoriented(scan.grid.orientation());
    assert!(resampled.ids == reoriented.ids);
    assert_eq!(resampled.ids.as_slice().iter().filter(|id| **id == 5).count(), 366_708);
    // The mean is that of the liver only if the labels are at the right positions.
    let mean = |labels: &Array3<u16>| {
        let (mut sum, mut count) = (0.0, 0.0);
        for (index, _) in labels.as_slice().iter().enumerate().filter(|(_, id)| **id == 5) {
            sum += f64::from(scan.voxels.hu(index));
            count += 1.0;
        }
        sum / count
    };
    assert!(mean(&resampled.ids) > 80.0 && mean(&labels.ids) < 20.0, "{} {}", mean(&resampled.ids), mean(&labels.ids));
}

#[test]
fn resampling_to_finer_spacing_and_back_restores_scan() {
    let Some(folder) = common::shared("ct/totalseg_upper_abdomen") else { return };
    let scan = read_volume(folder.join("ct.nii.gz")).unwrap();
    let fine = scan.with_spacing([1.5; 3]).unwrap();
    let restored = fine.onto(&scan.grid, f32::NAN).unwrap();
    // Every voxel of the scan is a voxel of the finer grid, so no value is lost.
    assert!(hu(&restored) == hu(&scan));
}

#[test]
fn preprocessing_resamples_labels_of_another_grid() {
    let Some(folder) = common::shared("ct/totalseg_abdomen") else { return };
    let scan = read_volume(folder.join("ct.nii.gz")).unwrap();
    let labels = read_labels(folder.join("labels.nii.gz")).unwrap();
    // The upper half of the labels has another grid at the same position in the patient.
    let upper = freetumor::volume::Region { start: [0, 0, 56], shape: [122, 101, 56] };
    let part = Labels { grid: labels.grid.cut(upper), ids: labels.ids.cut(upper) };
    let count = |labels: &Labels, id: u16| {
        let preprocessed = Preprocess::ABDOMEN.apply(&scan, Some(labels)).unwrap().labels.unwrap();
        preprocessed.as_slice().iter().filter(|other| **other == id).count() as f64
    };
    let mut low = labels.clone();
    low.ids.paste([0; 3], &Array3::filled([122, 101, 56], 0));
    let (expected, got) = (count(&low, 5), count(&part, 5));
    assert!(expected > 100_000.0 && (got / expected - 1.0).abs() < 0.02, "expected {expected}, got {got}");
}

#[test]
fn gaussian_equals_scipy() {
    let Some(path) = common::shared("golden/filters.safetensors") else { return };
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut scratch = Scratch::default();
    let mut check = |input: &str, name: &str, filter: &Gaussian| {
        let mut smoothed = array(&tensors, input);
        filter.smooth(&mut smoothed, &mut scratch);
        let expected = array(&tensors, name);
        let pairs = smoothed.as_slice().iter().zip(expected.as_slice());
        let farthest = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(farthest < 1e-6, "{name} differs by {farthest}");
    };
    for sigma in [1.0, 1.37, 2.0, 4.0] {
        for input in ["noise", "box"] {
            let name = format!("gaussian.{input}.sigma{sigma:?}");
            check(input, &name, &Gaussian::new([sigma; 3], Boundary::Reflect));
        }
    }
    check("noise", "difference_blur", &Gaussian::difference_blur());
}

#[test]
fn chest_preset_equals_published_preprocessing() {
    let chest = Volume {
        grid: Grid { shape: [20, 20, 10], affine: Affine::from_spacing([2.5, 2.5, 5.0]) },
        voxels: Voxels::F32(Array3::filled([20, 20, 10], -250.0)),
    };
    let preprocessed = Preprocess::CHEST.apply(&chest, None).unwrap();
    assert_eq!((preprocessed.grid.spacing_mm(), preprocessed.image.shape()), ([1.25, 1.25, 5.0], [192, 192, 32]));
    assert_eq!(preprocessed.scanned.shape, [39, 39, 10]);
    assert!(preprocessed.image.cut(preprocessed.scanned).as_slice().iter().all(|value| *value == 0.5));
}

/// Runs `freetumor inspect` and returns the exit code, standard output and standard error.
fn inspect(arguments: &[&std::ffi::OsStr]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_freetumor"))
        .arg("inspect")
        .args(arguments)
        .output()
        .expect("failed to start the command");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn inspect_describes_scan_and_writes_png() {
    let Some(folder) = common::shared("ct/totalseg_upper_abdomen") else { return };
    let temporary = tempfile::tempdir().unwrap();
    let picture = temporary.path().join("three planes.png");
    let (scan, labels) = (folder.join("ct.nii.gz"), folder.join("labels.nii.gz"));
    let arguments = [scan.as_os_str(), "--labels".as_ref(), labels.as_os_str(), "--png".as_ref(), picture.as_os_str()];
    let (code, out, err) = inspect(&arguments);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("122 x 101 x 30 voxels, RAS") && out.contains("3 x 3 x 3 mm"), "{out}");
    assert!(out.lines().any(|line| line.split_whitespace().eq(["5", "38634", "1043.12", "liver"])), "{out}");
    let png = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&picture).unwrap())).read_info().unwrap();
    // 366 x 303 x 90 mm; the longest side has 512 pixels.
    assert_eq!((png.info().width, png.info().height), (512 + 6 + 512 + 6 + 424, 424));

    let (code, out, _) = inspect(&[arguments[0], arguments[1], arguments[2], "--json".as_ref()]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let volume = read_volume(&scan).unwrap();
    assert_eq!((code, &report["shape"], &report["voxel_type"]), (0, &serde_json::json!([122, 101, 30]), &"i16".into()));
    assert_eq!(report["hu"]["percentiles"][3]["hu"].as_f64().unwrap(), f64::from(volume.voxels.percentiles(&[0.5])[0]));
    assert_eq!(report["labels"]["on_scan_grid"], true);
    assert_eq!(
        report["labels"]["ids"][4],
        serde_json::json!({ "id": 5, "name": "liver", "voxels": 38634, "ml": 38634.0 * 0.027 })
    );
}

#[test]
fn inspect_reads_dicom_folder() {
    let Some(folder) = common::shared("ct/crlm_1004") else { return };
    let (dicom, labels) = (folder.join("dicom"), folder.join("liver.nii.gz"));
    let (code, out, err) = inspect(&[dicom.as_os_str(), "--labels".as_ref(), labels.as_os_str()]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("512 x 512 x 41 voxels") && out.contains("353154"), "{out}");
}

#[test]
fn inspect_shows_share_of_scan_that_labels_cover() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, mm: f64, id: u8| {
        let mut grid = Grid { shape: [4, 4, 10], affine: Affine::from_spacing([1.0; 3]) };
        grid.affine.0[2][3] = mm;
        let mut file = encode_header(&grid, Datatype::U8, "").unwrap().to_vec();
        file.extend([id; 160]);
        let path = folder.path().join(name);
        std::fs::write(&path, file).unwrap();
        path
    };
    let scan = write("ct.nii", 0.0, 40);
    for (mm, id, message) in [
        (0.0, 5, None),
        (3.0, 5, Some("the labels cover 70% of the scan's voxels")),
        (100.0, 5, Some("none of the scan's voxels is within the labels")),
        (0.0, 0, Some("no voxel of the scan has a label")),
    ] {
        let labels = write("labels.nii", mm, id);
        let (code, out, _) = inspect(&[scan.as_os_str(), "--labels".as_ref(), labels.as_os_str()]);
        assert_eq!(code, 0);
        match message {
            Some(message) => assert!(out.contains(message), "{out}"),
            None => assert!(!out.contains("of the scan"), "{out}"),
        }
    }
}

#[test]
fn inspect_names_labels_and_shows_the_tumor() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("labelsTr")).unwrap();
    let grid = Grid { shape: [24, 24, 24], affine: Affine::from_spacing([2.0; 3]) };
    // The liver is in the lower half, its small tumor near one corner.
    let id = |[x, y, z]: [usize; 3]| match (x < 4 && y < 4 && z < 4, z < 12) {
        (true, _) => 118u8,
        (false, true) => 5,
        _ => 0,
    };
    let ids = Array3::from_fn(grid.shape, id);
    let mut scan = encode_header(&grid, Datatype::I16, "").unwrap().to_vec();
    scan.extend(ids.as_slice().iter().flat_map(|id| (10 * i16::from(*id)).to_le_bytes()));
    std::fs::write(at("ct.nii"), scan).unwrap();
    let mut labels = encode_header(&grid, Datatype::U8, "").unwrap().to_vec();
    labels.extend(ids.as_slice());
    std::fs::write(at("labelsTr/ct.nii"), labels).unwrap();
    let [ct, labels, first, second] =
        ["ct.nii", "labelsTr/ct.nii", "first.png", "second.png"].map(|name| at(name).into_os_string());
    let show = |more: &[&std::ffi::OsStr], png: &std::ffi::OsString| {
        let arguments = [&[&*ct, "--labels".as_ref(), &*labels, "--png".as_ref(), &**png], more].concat();
        let (code, out, err) = inspect(&arguments);
        assert_eq!((code, err.as_str()), (0, ""));
        out
    };
    let has = |out: &str, row: &[&str]| out.lines().any(|line| line.split_whitespace().eq(row.iter().copied()));
    let out = show(&[], &first);
    assert!(has(&out, &["118", "64", "0.51"]), "{out}");
    std::fs::write(at("dataset.json"), r#"{"labels": {"background": 0, "liver": 5, "liver_tumor": 118}}"#).unwrap();
    let out = show(&[], &second);
    assert!(has(&out, &["118", "64", "0.51", "liver_tumor"]) && has(&out, &["5", "6848", "54.78", "liver"]), "{out}");
    assert_ne!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap(), "another slice");
    let graph = "[pipeline]\nname = \"a\"\n[sources.s]\nkind = \"phantom\"\n[stages.organs]\nkind = \"labels\"\n\
                 inputs = [\"s\"]\norgans = { spleen = { ids = [5], tumor_ids = [118] } }\n";
    std::fs::write(at("a.toml"), graph).unwrap();
    let out = show(&["--pipeline".as_ref(), at("a.toml").as_ref()], &second);
    assert!(has(&out, &["118", "64", "0.51", "spleen_tumor"]) && has(&out, &["5", "6848", "54.78", "spleen"]), "{out}");
}

#[test]
fn inspect_fails_on_paths_that_are_not_scans() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.nii");
    std::fs::write(&text, "no scan at all").unwrap();
    for (path, reason) in [
        (text, "cannot be read"),
        (folder.path().join("absent.nii.gz"), "cannot be read (missing)"),
        (folder.path().to_owned(), "a folder without DICOM images"),
    ] {
        let (code, out, err) = inspect(&[path.as_os_str()]);
        assert_eq!((code, out.as_str()), (2, ""));
        assert!(err.starts_with("error: ") && err.contains(reason), "{err}");
    }
    let (code, _, err) = inspect(&["scan.nii".as_ref(), "--window".as_ref(), "250,-175".as_ref()]);
    assert_eq!(code, 2);
    assert!(err.contains("two numbers of HU in ascending order"), "{err}");
}
