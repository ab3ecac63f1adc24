//! The command `freetumor infer`: tensors compared with the reference, scans compared between settings, invalid input.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::{Device, Tensor};
use freetumor::ingest::nifti;
use freetumor::nn::fill;
use freetumor::nn::network::{Config, Model};
use freetumor::nn::weights::{Precision, read, write_safetensors};
use freetumor::volume::{Affine, Array3, Grid};

use crate::common::shared;

/// The largest difference of a logit from the reference.
const LOGITS: f32 = 2e-4;

fn infer(args: &[(&str, &Path)], more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_freetumor"));
    command.arg("infer").args(more);
    for (name, path) in args {
        command.arg(name).arg(path);
    }
    command.output().unwrap()
}

#[track_caller]
fn assert_success(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn save(path: &Path, tensors: &BTreeMap<String, Tensor>) {
    write_safetensors(&mut File::create(path).unwrap(), tensors, &BTreeMap::new(), Precision::Single).unwrap();
}

fn tensor(values: Vec<f32>, shape: &[usize]) -> Tensor {
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

pub fn config(model: Model, width: usize, classes: usize) -> Config {
    Config { width, classes, ..model.published() }
}

/// Returns weights by `fill`; the names have a prefix in the file that does not affect the values.
pub fn filled(config: &Config, prefix: &str) -> BTreeMap<String, Tensor> {
    let declared = config.parameters().unwrap().into_iter();
    let value = |name: &str, dims: &[usize]| tensor(fill::parameter(name, dims), dims);
    declared.map(|(name, shape)| (format!("{prefix}{name}"), value(&name, shape.dims()))).collect()
}

/// Returns the weights of a U-Net that thresholds the image: class 1 where a voxel is brighter than `threshold` deviations above
/// the mean, class 0 elsewhere.
pub fn bright(config: &Config, threshold: f32) -> BTreeMap<String, Tensor> {
    let w = config.width;
    let declared = config.parameters().unwrap().into_iter();
    declared
        .map(|(name, shape)| {
            let dims = shape.dims();
            let mut values = vec![0.0; shape.elem_count()];
            let middle = |output: usize, input: usize| (output * dims[1] + input) * 27 + 13;
            match name.as_str() {
                "down_tr64.ops.0.conv1.weight" | "down_tr64.ops.1.conv1.weight" => values[middle(0, 0)] = 1.0,
                // The encoder's features are after the upsampled features.
                "up_tr64.ops.0.conv1.weight" => values[middle(0, 4 * w)] = 1.0,
                "up_tr64.ops.1.conv1.weight" => values[middle(0, 0)] = 1.0,
                "out_tr.final_conv.weight" => values[dims[1]] = 1.0,
                "out_tr.final_conv.bias" => values[0] = threshold,
                name if name.ends_with("bn1.weight") => values.fill(1.0),
                _ => {}
            }
            (name, tensor(values, dims))
        })
        .collect()
}

#[test]
fn infer_of_tensor_equals_the_reference() {
    let Some(golden) = shared("golden") else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let golden = |name: &str| candle_core::safetensors::load(golden.join(name), &Device::Cpu).unwrap();
    let mut largest = 0.0f32;
    let mut compare = |case: &str, got: &Tensor, expected: &Tensor, step: usize| {
        let every = |tensor: &Tensor, axis: usize| {
            let indices: Vec<u32> = (0..tensor.dims()[axis] as u32).step_by(step).collect();
            tensor.index_select(&Tensor::new(indices, &Device::Cpu).unwrap(), axis).unwrap()
        };
        let got = (2..5).fold(got.clone(), |got, axis| every(&got, axis));
        assert_eq!(got.dims(), expected.dims());
        let difference = numbers(&got).iter().zip(numbers(expected)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        eprintln!("{case}: largest difference from the reference {difference:.2e}");
        largest = largest.max(difference);
    };

    let unet = golden("unet3d.safetensors");
    save(&at("unet.safetensors"), &filled(&Model::UNet3D.published(), "module.netG."));
    for key in ["16x16x16", "32x24x40"] {
        save(&at("in.safetensors"), &BTreeMap::from([("input".to_owned(), unet[&format!("{key}.x")].clone())]));
        let (weights, input, output) = (at("unet.safetensors"), at("in.safetensors"), at("out.safetensors"));
        let paths = [("--weights", &*weights), ("--input", &*input), ("--output", &*output)];
        let stdout = assert_success(&infer(&paths, &["--model", "unet3d", "--part", "generator"]));
        assert!(stdout.contains(": output [1, 3, "), "{stdout}");
        compare(key, &read(&output, &Device::Cpu).unwrap()["output"], &unet[&format!("{key}.y")], 1);
    }

    let swin = golden("swin_unetr.safetensors");
    save(&at("swin.safetensors"), &filled(&config(Model::SwinUnetr, 12, 3), "backbone."));
    let x = tensor(fill::uniform("swin_unetr.input.64", 64 * 64 * 64, 0.0, 1.0), &[1, 1, 64, 64, 64]);
    save(&at("in.safetensors"), &BTreeMap::from([("input".to_owned(), x)]));
    let (weights, input, output) = (at("swin.safetensors"), at("in.safetensors"), at("out.safetensors"));
    let paths = [("--weights", &*weights), ("--input", &*input), ("--output", &*output)];
    assert_success(&infer(&paths, &["--model", "swin_unetr"]));
    compare("swin_unetr", &read(&output, &Device::Cpu).unwrap()["output"], &swin["width12.64.y_every_2"], 2);
    assert!(largest <= LOGITS, "{largest:e}");
}

/// Returns the Dice of a label map and the voxels above a threshold, for the best threshold in HU.
fn agreement(hu: &[f32], ids: &[u16]) -> f64 {
    let mut pairs: Vec<(f32, bool)> = hu.iter().zip(ids).map(|(hu, id)| (*hu, *id == 1)).collect();
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    let labeled = pairs.iter().filter(|pair| pair.1).count();
    let mut both = 0;
    let dice = |(above, (_, is_labeled)): (usize, &(f32, bool))| {
        both += usize::from(*is_labeled);
        2.0 * both as f64 / (above + 1 + labeled) as f64
    };
    pairs.iter().enumerate().map(dice).fold(0.0, f64::max)
}

#[test]
fn infer_labels_bright_voxels_of_a_real_scan() {
    let Some(scan) = shared("ct/totalseg_upper_abdomen/ct.nii.gz") else { return };
    let volume = nifti::read_volume(&scan).unwrap();
    let hu: Vec<f32> = (0..volume.grid.voxels()).map(|index| volume.voxels.hu(index)).collect();
    let folder = tempfile::tempdir().unwrap();
    let (weights, output) = (folder.path().join("w.safetensors"), folder.path().join("labels.nii.gz"));
    save(&weights, &bright(&config(Model::UNet3D, 1, 3), 0.2));
    let paths = [("--weights", &*weights), ("--input", &*scan), ("--output", &*output)];

    // One window over the whole scan, at the scan's spacing: exactly a threshold, except for voxels that the HU window clips.
    let stdout = assert_success(&infer(&paths, &["--model", "unet3d", "--roi", "128,104,32", "--spacing", "3"]));
    assert!(stdout.contains("3 classes, ") && stdout.contains(" 1 window, "), "{stdout}");
    let labels = nifti::read_labels(&output).unwrap();
    assert_eq!(labels.grid, volume.grid);
    let labeled = labels.ids.as_slice().iter().filter(|id| **id == 1).count();
    assert!((20_000..hu.len() / 2).contains(&labeled), "{labeled}");
    assert!(agreement(&hu, labels.ids.as_slice()) > 0.9999, "{}", agreement(&hu, labels.ids.as_slice()));

    // One window at 2.2 mm: resampling to 2.2 mm and back blurs the noise of single voxels, and shifts nothing.
    assert_success(&infer(&paths, &["--model", "unet3d", "--roi", "168,144,48", "--spacing", "2.2"]));
    let labels = nifti::read_labels(&output).unwrap();
    assert_eq!(labels.grid, volume.grid);
    let fine = agreement(&hu, labels.ids.as_slice());
    let [nx, ny, _] = volume.grid.shape;
    for step in [1, nx, nx * ny] {
        let (mut forward, mut backward) = (hu.clone(), hu.clone());
        forward.rotate_right(step);
        backward.rotate_left(step);
        for shifted in [forward, backward] {
            assert!(agreement(&shifted, labels.ids.as_slice()) < fine - 0.01, "shifted by {step}");
        }
    }

    // Several windows: each has a separate threshold, as this network's normalization layers use the statistics of a window.
    let stdout = assert_success(&infer(&paths, &["--model", "unet3d", "--roi", "64", "--overlap", "0.25"]));
    assert!(stdout.contains(" 20 windows, "), "{stdout}");
    let windowed = agreement(&hu, nifti::read_labels(&output).unwrap().ids.as_slice());
    eprintln!("Dice with the best threshold: {fine:.4} in one window, {windowed:.4} in twenty");
    assert!(fine > 0.93 && windowed > 0.6, "{fine} {windowed}");

    // `inspect` draws the labels on the scan.
    let png = folder.path().join("labels.png");
    let inspected = Command::new(env!("CARGO_BIN_EXE_freetumor"))
        .arg("inspect")
        .arg(&scan)
        .args(["--labels".as_ref(), output.as_os_str(), "--png".as_ref(), png.as_os_str()])
        .output()
        .unwrap();
    assert!(assert_success(&inspected).contains("the scan's grid"));
    assert!(std::fs::metadata(&png).unwrap().len() > 10_000);
}

/// Writes a small scan in another orientation, with a bright block off its centre.
pub fn small_scan(path: &Path) -> (Grid, Array3<i16>) {
    let affine = Affine([[0.0, -2.0, 0.0, 40.0], [0.0, 0.0, 3.0, -20.0], [-2.5, 0.0, 0.0, 7.0]]);
    let grid = Grid { shape: [14, 22, 12], affine };
    let inside = |[x, y, z]: [usize; 3]| (3..9).contains(&x) && (10..19).contains(&y) && (2..6).contains(&z);
    let edge = |[x, y, z]: [usize; 3]| x == 0 || y == 0 || z == 0 || x == 13 || y == 21 || z == 11;
    let hu = Array3::from_fn(grid.shape, |voxel| match (edge(voxel), inside(voxel)) {
        (true, _) => -1000i16,
        (_, true) => 180,
        _ => -60,
    });
    let mut file = nifti::encode_header(&grid, nifti::Datatype::I16, "").unwrap().to_vec();
    file.extend(hu.as_slice().iter().flat_map(|hu| hu.to_le_bytes()));
    std::fs::write(path, file).unwrap();
    (grid, hu)
}

#[test]
fn infer_writes_probabilities_of_each_class_on_the_scan_grid() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (grid, hu) = small_scan(&at("scan.nii"));
    let classes = 3;
    save(&at("w.safetensors"), &bright(&config(Model::UNet3D, 1, classes), 1.0));
    let (weights, input) = (at("w.safetensors"), at("scan.nii"));
    let run = |output: &Path, more: &[&str]| {
        let paths = [("--weights", &*weights), ("--input", &*input), ("--output", output)];
        let common = ["--model", "unet3d", "--roi", "24,16,16", "--spacing", "2,3,2.5", "--overlap", "0"];
        assert_success(&infer(&paths, &[&common, more].concat()))
    };
    run(&at("labels.nii"), &[]);
    let labels = nifti::read_labels(at("labels.nii")).unwrap();
    assert_eq!(labels.grid, nifti::read_volume(at("scan.nii")).unwrap().grid);
    let expected: Vec<u16> = hu.as_slice().iter().map(|hu| u16::from(*hu == 180)).collect();
    let differing = labels.ids.as_slice().iter().zip(&expected).filter(|(got, expected)| got != expected).count();
    assert_eq!(differing, 0);

    run(&at("p.nii"), &["--probabilities"]);
    run(&at("p.nii.gz"), &["--probabilities"]);
    let file = std::fs::read(at("p.nii")).unwrap();
    let mut inflated = Vec::new();
    let gz = std::fs::File::open(at("p.nii.gz")).unwrap();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(gz), &mut inflated).unwrap();
    assert_eq!(file, inflated);
    let voxels = grid.voxels();
    assert_eq!(file.len(), 352 + 4 * classes * voxels);
    assert_eq!(file[40..50], [4, 0, 14, 0, 22, 0, 12, 0, 3, 0]);
    let p: Vec<f32> = file[352..].chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    for voxel in 0..voxels {
        let of = [0, 1, 2].map(|class| p[class * voxels + voxel]);
        assert!((of.iter().sum::<f32>() - 1.0).abs() < 1e-6 && of.iter().all(|p| (0.0..=1.0).contains(p)));
        let likeliest = (0..3).max_by(|a, b| of[*a].total_cmp(&of[*b])).unwrap();
        assert_eq!(likeliest as u16, expected[voxel]);
        if hu.as_slice()[voxel] == -1000 {
            assert_eq!(of, [1.0, 0.0, 0.0], "expected background where the scan was cropped");
        }
    }
}

#[test]
fn infer_of_dicom_folder_equals_infer_of_nifti() {
    let Some(folder) = shared("ct/totalseg_liver_dicom") else { return };
    let out = tempfile::tempdir().unwrap();
    let weights = out.path().join("w.safetensors");
    save(&weights, &bright(&config(Model::UNet3D, 1, 2), 1.0));
    let labels = |input: PathBuf, name: &str| {
        let output = out.path().join(name);
        let paths = [("--weights", &*weights), ("--input", &*input), ("--output", &*output)];
        assert_success(&infer(&paths, &["--model", "unet3d", "--roi", "64", "--spacing", "4", "--overlap", "0"]));
        nifti::read_labels(&output).unwrap()
    };
    let dicom = labels(folder.join("dicom"), "dicom.nii.gz");
    let reference = labels(folder.join("reference.nii.gz"), "nifti.nii.gz");
    let onto = reference.onto(&dicom.grid).unwrap();
    let differing = dicom.ids.as_slice().iter().zip(onto.ids.as_slice()).filter(|(a, b)| a != b).count();
    let labeled = dicom.ids.as_slice().iter().filter(|id| **id > 0).count();
    assert!(labeled > 1000, "{labeled}");
    assert!(differing * 1000 < labeled, "{differing} of {labeled}");
}

/// Weights, input and output, more options; a part of the error and of its hint.
type BadRun<'r> = (&'r str, (&'r str, &'r str), &'r [&'r str], &'r str, &'r str);

#[test]
fn infer_exits_with_code_2_and_a_hint_on_invalid_input() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let narrow = config(Model::UNet3D, 1, 3);
    let good = filled(&narrow, "");
    save(&at("w.safetensors"), &good);
    save(&at("two.safetensors"), &filled(&narrow, "netG.").into_iter().chain(filled(&narrow, "netD.")).collect());
    let mut nan = good.clone();
    nan.insert("out_tr.final_conv.bias".to_owned(), tensor(vec![f32::NAN, 0.0, 0.0], &[3]));
    save(&at("nan.safetensors"), &nan);
    let mut huge = good;
    huge.insert("out_tr.final_conv.bias".to_owned(), tensor(vec![f32::MAX; 3], &[3]));
    huge.insert("out_tr.final_conv.weight".to_owned(), tensor(vec![f32::MAX; 6], &[3, 2, 1, 1, 1]));
    save(&at("huge.safetensors"), &huge);
    save(&at("swin.safetensors"), &filled(&config(Model::SwinUnetr, 12, 3), ""));
    let x = |name: &str, key: &str, shape: &[usize], value: f32| {
        let values = vec![value; shape.iter().product()];
        save(&at(name), &BTreeMap::from([(key.to_owned(), tensor(values, shape))]));
    };
    x("x.safetensors", "input", &[1, 1, 8, 8, 8], 0.5);
    x("odd.safetensors", "input", &[1, 1, 8, 12, 8], 0.5);
    x("flat.safetensors", "input", &[8, 8, 8], 0.5);
    x("two_channels.safetensors", "input", &[1, 2, 8, 8, 8], 0.5);
    x("misnamed.safetensors", "image", &[1, 1, 8, 8, 8], 0.5);
    x("nan_x.safetensors", "input", &[1, 1, 8, 8, 8], f32::NAN);
    small_scan(&at("scan.nii"));
    std::fs::write(at("notes.nii.gz"), "no scan").unwrap();
    std::fs::create_dir(at("empty")).unwrap();

    let (tensors, scans) = (("x.safetensors", "y.safetensors"), ("scan.nii", "y.nii.gz"));
    let table: &[BadRun] = &[
        ("gone.safetensors", tensors, &[], "gone.safetensors: No such file", ""),
        ("scan.nii", tensors, &[], "an unknown format", "pass a safetensors file"),
        ("two.safetensors", tensors, &[], "several networks: generator, discriminator", "such as generator"),
        (
            "w.safetensors",
            tensors,
            &["--classes", "7"],
            "`out_tr.final_conv.bias`: expected [7], got [3]",
            "these weights need --classes 3",
        ),
        ("w.safetensors", tensors, &["--width", "2"], "of another shape", "these weights need --width 1"),
        ("swin.safetensors", tensors, &[], "missing `down_tr64.", "check that these are weights of unet3d"),
        ("nan.safetensors", tensors, &[], "`out_tr.final_conv.bias`: 1 of 3 numbers are NaN", ""),
        ("huge.safetensors", tensors, &[], "logits are NaN or infinite", "inputs of this kind"),
        (
            "w.safetensors",
            ("odd.safetensors", "y.safetensors"),
            &[],
            "multiples of 8, got [1, 1, 8, 12, 8]",
            "pad or crop the volume",
        ),
        ("w.safetensors", ("flat.safetensors", "y.safetensors"), &[], "expected [batch, 1, x, y, z]", "five axes"),
        ("w.safetensors", ("two_channels.safetensors", "y.safetensors"), &[], "got [1, 2, 8, 8, 8]", "channels"),
        (
            "w.safetensors",
            ("misnamed.safetensors", "y.safetensors"),
            &[],
            "expected a tensor `input`, got image",
            "save the volume as `input`",
        ),
        ("w.safetensors", ("nan_x.safetensors", "y.safetensors"), &[], "512 of 512 numbers of `input` are NaN", ""),
        (
            "w.safetensors",
            ("x.safetensors", "y.nii"),
            &[],
            "is a tensor, so the output is a tensor",
            "use an output name that ends in .safetensors",
        ),
        (
            "w.safetensors",
            ("scan.nii", "y.png"),
            &[],
            "is a scan, so the output is a NIfTI file",
            "an output name that ends in .nii.gz",
        ),
        ("w.safetensors", ("scan.nii", "no/y.nii"), &[], "there is no folder", "create the folder first"),
        ("w.safetensors", ("gone.nii", "y.nii"), &[], "gone.nii cannot be read (missing)", ""),
        ("w.safetensors", ("notes.nii.gz", "y.nii"), &[], "notes.nii.gz cannot be read", ""),
        ("w.safetensors", ("empty", "y.nii"), &[], "without DICOM images", "the slices themselves"),
        (
            "w.safetensors",
            scans,
            &["--roi", "20"],
            "--roi [20, 20, 20]: expected sides that are multiples of 8 for unet3d",
            "--roi 24",
        ),
        ("w.safetensors", scans, &["--roi", "0"], "multiples of 8", "--roi 8"),
        ("w.safetensors", scans, &["--roi", "1,2"], "expected one number, or three", "--help"),
        ("w.safetensors", scans, &["--roi", "16", "--overlap", "1"], "--overlap 1: expected a fraction", ""),
        ("w.safetensors", scans, &["--overlap", "-0.5"], "--overlap -0.5: expected a fraction", ""),
        ("w.safetensors", scans, &["--roi", "2048"], "a window of at most 16777216 voxels", ""),
        ("w.safetensors", scans, &["--roi", "1000000000000000000"], "a window of at most 16777216 voxels", ""),
        ("w.safetensors", ("scan.nii", "scan.nii"), &[], "is also the file of --input", "another output file"),
        (
            "w.safetensors",
            ("x.safetensors", "w.safetensors"),
            &[],
            "is also the file of --weights",
            "another output file",
        ),
        ("w.safetensors", scans, &["--spacing", "0"], "--spacing: expected three positive numbers", ""),
        ("w.safetensors", scans, &["--window", "5,5"], "two numbers of HU in ascending order", "--help"),
        ("w.safetensors", scans, &["--device", "tpu"], "possible values: cpu, cuda", "--help"),
        ("huge.safetensors", scans, &["--roi", "16"], "logits are NaN or infinite", "scans of this kind"),
    ];
    for (weights, (input, output), more, message, hint) in table {
        let (weights, input, output) = (at(weights), at(input), at(output));
        let paths = [("--weights", &*weights), ("--input", &*input), ("--output", &*output)];
        let before = std::fs::read(&output).ok();
        let result = infer(&paths, &[&["--model", "unet3d"][..], more].concat());
        let stderr = String::from_utf8_lossy(&result.stderr);
        assert_eq!(result.status.code(), Some(2), "{more:?} {stderr}");
        assert!(stderr.contains(message) && stderr.contains(hint), "expected {message:?} and {hint:?} in\n{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert_eq!(std::fs::read(&output).ok(), before, "expected an unchanged output");
    }

    if !candle_core::utils::cuda_is_available() {
        let (weights, input, output) = (at("w.safetensors"), at("x.safetensors"), at("y.safetensors"));
        let paths = [("--weights", &*weights), ("--input", &*input), ("--output", &*output)];
        let result = infer(&paths, &["--model", "unet3d", "--device", "cuda"]);
        let stderr = String::from_utf8_lossy(&result.stderr);
        assert_eq!(result.status.code(), Some(2));
        assert!(stderr.contains("built without CUDA") && stderr.contains("--features cuda"), "{stderr}");
    }
}
