//! Values and gradients beside those of PyTorch, within 1e-4 of the largest value.

use std::collections::HashMap;

use candle_core::{Device, Result, Tensor, safetensors};
use freetumor::nn::ops::{self, Activation, Backend, NormScope};

use super::{channels_last, gradients, relative_error};
use crate::common::shared;

/// One stored case and what it is compared with.
struct Reference {
    numbers: HashMap<String, Tensor>,
}

impl Reference {
    fn get(&self, case: &str, what: &str) -> Tensor {
        self.numbers[&format!("{case}.{what}")].clone()
    }

    /// Compares `f` of the inputs named by `names`, in their order, on both backends. Where `volume`, `x`, `y` and `g`
    /// have their channel second in the file.
    fn check(&self, case: &str, names: &[&str], volume: bool, f: impl Fn(&[Tensor]) -> Result<Tensor>) {
        let turn = |what: &str| {
            let stored = self.get(case, what);
            let turned = volume && matches!(what, "x" | "y" | "g" | "dx");
            if turned { channels_last(&stored).unwrap() } else { stored }
        };
        let inputs: Vec<Tensor> = names.iter().map(|name| turn(name)).collect();
        for backend in [Backend::Native, Backend::Portable] {
            let (y, grads) = ops::with_backend(backend, || gradients(&inputs, &turn("g"), &f)).unwrap();
            let error = relative_error(&y, &turn("y"));
            assert!(error < 1e-4, "{case} on {backend:?}: the values differ by {error:e}");
            for (name, grad) in names.iter().zip(&grads) {
                let error = relative_error(grad, &turn(&format!("d{name}")));
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
fn convolutions() {
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
fn pooling_and_upsampling() {
    let Some(reference) = reference() else { return };
    reference.check("max_pool_2", &["x"], true, |t| ops::max_pool3d(&t[0]));
    reference.check("trilinear_x2", &["x"], true, |t| ops::upsample3d(&t[0]));
}

#[test]
fn normalizations() {
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
fn activations() {
    let Some(reference) = reference() else { return };
    reference.check("gelu_erf", &["x"], false, |t| ops::gelu(&t[0]));
    reference.check("leaky_relu_0.01", &["x"], false, |t| ops::leaky_relu(&t[0], 0.01));
    reference.check("softmax_channels", &["x"], true, |t| ops::softmax(&t[0]));
}

#[test]
fn attention_and_linear() {
    let Some(reference) = reference() else { return };
    let scale = 8f64.powf(-0.5);
    reference.check("attention_qkv_as_xwb", &["x", "w", "b"], false, |t| {
        ops::attention(&t[0], &t[1], &t[2], scale, None, None)
    });
    reference.check("linear", &["x", "w", "b"], false, |t| ops::linear(&t[0], &t[1], Some(&t[2])));
}
