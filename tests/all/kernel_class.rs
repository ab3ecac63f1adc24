//! `--kernel-class`, from outside: which bits networks have in a class, and which classes are refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::{Device, Tensor};
use freetumor::nn::fill;
use freetumor::nn::network::{Config, Model};
use freetumor::nn::weights::read;
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

    /// What the command prints; its output is at `output`.
    fn infer(&self, class: Option<&str>, output: &Path) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_freetumor"));
        command.args(class.map(|class| ["--kernel-class", class]).into_iter().flatten());
        command.args(["infer", "--model", self.model, "--weights"]).arg(self.path("weights.safetensors"));
        command.arg("--input").arg(self.path("in.safetensors")).arg("--output").arg(output).output().unwrap()
    }

    fn logits(&self, class: Option<&str>) -> Vec<f32> {
        let output = self.path("out.safetensors");
        let ended = self.infer(class, &output);
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        read(&output, &Device::Cpu).unwrap()["output"].flatten_all().unwrap().to_vec1().unwrap()
    }
}

fn digest(values: &[f32]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect();
    Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn farthest(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The digests are those of a processor without AVX: `qemu-x86_64 -cpu Nehalem freetumor infer …` without the flag.
#[test]
fn networks_in_the_portable_class_have_the_same_bits_on_every_processor() {
    let unet = Network::new("unet3d", &Config { width: 16, ..config(Model::UNet3D, 16, 3) }, 16);
    let swin = Network::new("swin_unetr", &config(Model::SwinUnetr, 12, 3), 32);
    for (network, expected) in [(unet, "UNET"), (swin, "SWIN")] {
        let portable = network.logits(Some("portable"));
        assert_eq!(digest(&portable), expected, "{}", network.model);
        let widest = network.logits(None);
        assert!(farthest(&portable, &widest) < 1e-4, "{}", network.model);
        // The class decides the last bits: else this test would not show that the flag is obeyed.
        assert_eq!(Class::detect() == Class::Portable, digest(&widest) == expected, "{}", network.model);
        assert!(network.logits(Some(Class::detect().name())) == widest, "{}", network.model);
    }
}

#[test]
fn a_class_that_the_processor_lacks_is_refused_before_anything_is_computed() {
    let network = Network::new("unet3d", &config(Model::UNet3D, 1, 2), 16);
    let output = network.path("out.safetensors");
    for class in Class::ALL.into_iter().filter(|class| !Class::available().contains(class)) {
        let ended = network.infer(Some(class.name()), &output);
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{stderr}");
        assert!(
            stderr.starts_with(&format!("error: this processor lacks the kernel class {class}\nhint: ")),
            "{stderr}"
        );
        assert!(!output.exists());
    }
    let ended = network.infer(Some("sse2"), &output);
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2));
    assert!(stderr.contains("[possible values: portable, avx2, avx512]"), "{stderr}");
}
