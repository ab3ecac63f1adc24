//! The option `--kernel-class`: the bits of networks in a class, and unavailable classes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::{Device, Tensor};
use freetumor::id::SampleId;
use freetumor::nn::fill;
use freetumor::nn::network::{Config, Model};
use freetumor::nn::weights::read;
use freetumor::record::SampleRow;
use freetumor::record::parquet::decode_part;
use freetumor::run::RunFolder;
use freetumor::simd::Class;
use sha2::{Digest, Sha256};

use crate::infer::{config, filled, save};

/// A network with weights and an input in files.
struct Network {
    model: &'static str,
    folder: tempfile::TempDir,
}

impl Network {
    fn new(model: &'static str, config: &Config, side: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        save(&folder.path().join("weights.safetensors"), &filled(config, ""));
        let x = fill::uniform("input", side.pow(3), 0.0, 1.0);
        let x = Tensor::from_vec(x, (1, 1, side, side, side), &Device::Cpu).unwrap();
        save(&folder.path().join("in.safetensors"), &BTreeMap::from([("input".to_owned(), x)]));
        Self { model, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the command, which writes its result to `output`.
    fn infer(&self, class: Option<&str>, output: &Path) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_freetumor"));
        command.args(class.map(|class| ["--kernel-class", class]).into_iter().flatten());
        command.args(["infer", "--model", self.model, "--weights"]).arg(self.path("weights.safetensors"));
        command.arg("--input").arg(self.path("in.safetensors")).arg("--output").arg(output).output().unwrap()
    }

    fn logits(&self, class: Option<&str>) -> Vec<f32> {
        let output = self.path("out.safetensors");
        let result = self.infer(class, &output);
        assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
        read(&output, &Device::Cpu).unwrap()["output"].flatten_all().unwrap().to_vec1().unwrap()
    }
}

fn digest(values: &[f32]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect();
    hex::encode(&Sha256::digest(bytes)[..8])
}

fn farthest(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The digests were computed on an emulated processor without AVX, without the option: `qemu-x86_64 -cpu Nehalem freetumor
/// infer …`.
#[test]
fn portable_class_has_the_same_bits_on_every_processor() {
    let unet = Network::new("unet3d", &Config { width: 16, ..config(Model::UNet3D, 16, 3) }, 16);
    let swin = Network::new("swin_unetr", &config(Model::SwinUnetr, 12, 3), 32);
    for (network, expected) in [(unet, "30c5091fa65fb424"), (swin, "7994c877d1c4810a")] {
        let portable = network.logits(Some("portable"));
        assert_eq!(digest(&portable), expected, "{}", network.model);
        let widest = network.logits(None);
        assert!(farthest(&portable, &widest) < 1e-4, "{}", network.model);
        // Another class has other bits: otherwise, this test would pass if the command ignored the option.
        assert_eq!(Class::detect() == Class::Portable, digest(&widest) == expected, "{}", network.model);
        assert!(network.logits(Some(Class::detect().name())) == widest, "{}", network.model);
    }
}

#[test]
fn infer_fails_for_unsupported_kernel_class() {
    let network = Network::new("unet3d", &config(Model::UNet3D, 1, 2), 16);
    let output = network.path("out.safetensors");
    for class in Class::ALL.into_iter().filter(|class| !Class::available().contains(class)) {
        let result = network.infer(Some(class.name()), &output);
        let stderr = String::from_utf8_lossy(&result.stderr);
        assert_eq!(result.status.code(), Some(2), "{stderr}");
        assert!(
            stderr.starts_with(&format!("error: this processor lacks the kernel class {class}\nhint: ")),
            "{stderr}"
        );
        assert!(!output.exists());
    }
    let result = network.infer(Some("sse2"), &output);
    let stderr = String::from_utf8_lossy(&result.stderr);
    assert_eq!(result.status.code(), Some(2));
    assert!(stderr.contains("[possible values: portable, avx2, avx512]"), "{stderr}");
}

/// Runs the quickstart into `out`, up to `limit` new scans.
fn quickstart(class: Option<&str>, limit: &str, out: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_freetumor"));
    command.args(class.map(|class| ["--kernel-class", class]).into_iter().flatten());
    let pipeline = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/quickstart.toml");
    command.arg("run").arg(pipeline).args(["--set", "pipeline.epoch_scans=1", "--limit", limit]);
    command.arg("--out").arg(out).env("FREETUMOR_PATIENT_KEY", "secret of a test").output().unwrap()
}

fn rows(out: &Path) -> Vec<SampleRow> {
    let run = RunFolder::open(out).unwrap();
    let files = run.files("samples", None).unwrap();
    let parts = files.iter().flat_map(|file| decode_part::<SampleRow>(run.read_verified(file).unwrap()).unwrap());
    let mut rows: Vec<SampleRow> = parts.collect();
    rows.sort_by_key(|row| row.record.sample_id);
    rows
}

#[test]
fn resumed_run_computes_in_the_recorded_class() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let run = |class: Option<&str>, limit: &str, name: &str| {
        let output = quickstart(class, limit, &path(name));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(Some("portable"), "2", "whole");
    run(Some("portable"), "1", "parts");
    run(None, "1", "parts");
    let recorded = std::fs::read_to_string(path("parts").join("run.json")).unwrap();
    assert!(recorded.contains("\"kernel_class\": \"portable\""), "{recorded}");
    assert!(rows(&path("parts")) == rows(&path("whole")), "rows differ");

    // Another class, if the processor has one, produces other candidate ids, as the class decides the last bits of a network.
    if Class::detect() != Class::Portable {
        run(None, "1", "widest");
        let ids = |name: &str, with_networks: bool| -> BTreeSet<SampleId> {
            let rows = rows(&path(name)).into_iter().filter(|row| (row.record.stage == "generated") == with_networks);
            rows.map(|row| row.record.sample_id).collect()
        };
        assert!(!ids("widest", true).is_empty() && ids("widest", true).is_disjoint(&ids("whole", true)));
        assert!(!ids("widest", false).is_empty() && ids("widest", false).is_subset(&ids("whole", false)));
        let output = quickstart(Some(Class::detect().name()), "1", &path("parts"));
        assert_eq!(output.status.code(), Some(2));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            stderr.contains("was started with the kernel class portable, but `--kernel-class` selects"),
            "{stderr}"
        );
    }
}

#[test]
fn resume_fails_if_processor_lacks_kernel_class_of_run_folder() {
    let Some(missing) = Class::ALL.into_iter().find(|class| !Class::available().contains(class)) else {
        eprintln!("skipped: this processor has every kernel class");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("run.json"), format!("{{\"kernel_class\": \"{missing}\"}}")).unwrap();
    let output = quickstart(None, "1", folder.path());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains(&format!("was started with the kernel class {missing}, but this processor lacks the class")),
        "{stderr}"
    );
}
