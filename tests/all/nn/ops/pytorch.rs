//! Values and gradients compared with those of PyTorch, within 1e-4 of the largest value.

use std::collections::HashMap;

use candle_core::{Device, Result, Tensor, safetensors};
use freetumor::nn::ops::{self, Activation, Backend, NormScope};

use super::{channels_last, gradients, relative_error};
use crate::common::shared;

/// The stored tensors of all cases.
struct Reference {
    numbers: HashMap<String, Tensor>,
}

impl Reference {
    fn get(&self, case: &str, name: &str) -> Tensor {
        self.numbers[&format!("{case}.{name}")].clone()
    }

    /// Compares `f` of the inputs `names`, in their order, on both backends. If `volume`, the channel of `x`, `y` and `g` is the second
    /// axis in the file.
    fn check(&self, case: &str, names: &[&str], volume: bool, f: impl Fn(&[Tensor]) -> Result<Tensor>) {
        let load = |name: &str| {
            let stored = self.get(case, name);
            let is_channels_first = volume && matches!(name, "x" | "y" | "g" | "dx");
            if is_channels_first { channels_last(&stored).unwrap() } else { stored }
        };
        let inputs: Vec<Tensor> = names.iter().map(|name| load(name)).collect();
        for backend in [Backend::Native, Backend::Portable] {
            let (y, grads) = ops::with_backend(backend, || gradients(&inputs, &load("g"), &f)).unwrap();
            let error = relative_error(&y, &load("y"));
            assert!(error < 1e-4, "{case} on {backend:?}: the values differ by {error:e}");
            for (name, grad) in names.iter().zip(&grads) {
                let error = relative_error(grad, &load(&format!("d{name}")));
                assert!(error < 1e-4, "{case} on {backend:?}: the gradient of {name} differs by {error:e}");
            }
        }
    }
}

fn reference() -> Option<Reference> {
    let path = shared("golden/ops.safetensors")?;
    Some(Reference { numbers: safetensors::load(path, &Device::Cpu).unwrap() })
}

#[test]
fn convolutions_equal_pytorch() {
    let Some(reference) = reference() else { return };
    for (case, stride, padding) in [
        ("conv_k3", [1; 3], [1; 3]),
        ("conv_k3s2", [2; 3], [1; 3]),
        ("conv_k1", [1; 3], [0; 3]),
        ("conv_k2s2", [2; 3], [0; 3]),
        ("conv_k7p3", [1; 3], [3; 3]),
        ("conv_wide", [1; 3], [1; 3]),
        ("conv_k315s122", [1, 2, 2], [1, 0, 2]),
        ("conv_k135", [1; 3], [0, 1, 2]),
    ] {
        let conv = |t: &[Tensor]| ops::conv3d(&t[0], &t[1], Some(&t[2]), stride, padding);
        reference.check(case, &["x", "w", "b"], true, conv);
    }
    let up = |t: &[Tensor]| ops::conv_transpose3d(&t[0], &t[1], Some(&t[2]));
    reference.check("conv_transpose_k2s2", &["x", "w", "b"], true, up);
}

#[test]
fn pooling_and_upsampling_equal_pytorch() {
    let Some(reference) = reference() else { return };
    reference.check("max_pool_2", &["x"], true, |t| ops::max_pool3d(&t[0]));
    reference.check("trilinear_x2", &["x"], true, |t| ops::upsample3d(&t[0]));
}

#[test]
fn normalizations_equal_pytorch() {
    let Some(reference) = reference() else { return };
    reference.check("batch_norm_batch_statistics", &["x", "w", "b"], true, |t| {
        ops::normalize(&t[0], Some((&t[1], &t[2])), NormScope::Batch, 1e-5, Activation::None)
    });
    reference.check("instance_norm", &["x"], true, |t| {
        ops::normalize(&t[0], None, NormScope::Instance, 1e-5, Activation::None)
    });
    reference.check("layer_norm_last", &["x", "w", "b"], false, |t| ops::layer_norm(&t[0], &t[1], &t[2], 1e-5));
}

#[test]
fn activations_equal_pytorch() {
    let Some(reference) = reference() else { return };
    reference.check("gelu_erf", &["x"], false, |t| ops::gelu(&t[0]));
    reference.check("leaky_relu_0.01", &["x"], false, |t| ops::leaky_relu(&t[0], 0.01));
    reference.check("softmax_channels", &["x"], true, |t| ops::softmax(&t[0]));
}

#[test]
fn attention_and_linear_equal_pytorch() {
    let Some(reference) = reference() else { return };
    let scale = 8f64.powf(-0.5);
    reference.check("attention_qkv_as_xwb", &["x", "w", "b"], false, |t| {
        ops::attention(&t[0], &t[1], &t[2], scale, None, None)
    });
    reference.check("linear", &["x", "w", "b"], false, |t| ops::linear(&t[0], &t[1], Some(&t[2])));
}
