//! Invalid inputs of operators: an error that names them, never a panic.

use candle_core::{DType, Device, Result, Tensor, Var};
use freetumor::nn::ops::{self, Activation, NormScope};

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

/// Asserts that `result` is an error that contains each of these strings.
fn assert_error(result: Result<Tensor>, expected: &[&str]) {
    let message = result.expect_err("an error").to_string();
    for part in expected {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn convolution_fails_on_invalid_shapes() {
    let conv = |x: &[usize], w: &[usize], stride, padding| ops::conv3d(&zeros(x), &zeros(w), None, stride, padding);
    let (x, w): (&[usize], &[usize]) = (&[1, 4, 4, 4, 2], &[3, 2, 3, 3, 3]);
    assert_error(conv(&[4, 4, 4, 2], w, [1; 3], [1; 3]), &["conv3d", "[batch, x, y, z, channel]", "[4, 4, 4, 2]"]);
    assert_error(conv(&[0, 4, 4, 4, 2], w, [1; 3], [1; 3]), &["conv3d", "empty", "[0, 4, 4, 4, 2]"]);
    assert_error(conv(x, &[3, 5, 3, 3, 3], [1; 3], [1; 3]), &["conv3d", "[c_out, 2, kx, ky, kz]", "[3, 5, 3, 3, 3]"]);
    assert_error(conv(x, &[3, 2, 3, 3], [1; 3], [1; 3]), &["conv3d", "weight", "[3, 2, 3, 3]"]);
    assert_error(conv(x, &[3, 2, 0, 3, 3], [1; 3], [1; 3]), &["conv3d", "weight", "[3, 2, 0, 3, 3]"]);
    assert_error(conv(x, w, [1, 0, 1], [1; 3]), &["conv3d", "strides", "[1, 0, 1]"]);
    assert_error(conv(&[1, 2, 4, 4, 2], w, [1; 3], [0; 3]), &["conv3d", "padded", "[2, 4, 4]"]);
    assert_error(conv(x, w, [1; 3], [usize::MAX; 3]), &["conv3d", "padding"]);
    let bias = zeros(&[4]);
    assert_error(ops::conv3d(&zeros(x), &zeros(w), Some(&bias), [1; 3], [1; 3]), &["conv3d", "bias", "[3]", "[4]"]);
    let double = zeros(w).to_dtype(DType::F64).unwrap();
    assert_error(ops::conv3d(&zeros(x), &double, None, [1; 3], [1; 3]), &["conv3d", "F32", "F64"]);
    assert_error(ops::conv_transpose3d(&zeros(x), &zeros(w), None), &["conv_transpose3d", "[2, c_out, 2, 2, 2]"]);

    let far = conv(x, w, [usize::MAX, 1 << 40, 3], [1; 3]).unwrap();
    assert_eq!(far.dims(), [1, 1, 1, 2, 3], "a stride beyond the volume leaves one position");
}

#[test]
fn operators_fail_on_invalid_volumes_and_vectors() {
    let x = zeros(&[1, 4, 4, 4, 2]);
    assert_error(ops::max_pool3d(&zeros(&[1, 4, 1, 4, 2])), &["max_pool3d", "two voxels", "[4, 1, 4]"]);
    assert_error(ops::upsample3d(&zeros(&[1, 4, 0, 4, 2])), &["upsample3d", "empty"]);
    let normalize = |eps, activation| ops::normalize(&x, None, NormScope::Batch, eps, activation);
    assert_error(normalize(0., Activation::None), &["normalize", "positive eps", "0"]);
    assert_error(normalize(1e-5, Activation::LeakyRelu(-1.)), &["normalize", "slope", "-1"]);
    assert_error(normalize(1e-5, Activation::LeakyRelu(f64::NAN)), &["normalize", "slope", "NaN"]);
    let (two, three) = (zeros(&[2]), zeros(&[3]));
    let affine = ops::normalize(&x, Some((&two, &three)), NormScope::Batch, 1e-5, Activation::None);
    assert_error(affine, &["normalize", "bias", "[2]", "[3]"]);
    assert_error(ops::layer_norm(&x, &three, &two, 1e-5), &["layer_norm", "weight", "[2]", "[3]"]);
    assert_error(ops::softmax(&zeros(&[])), &["softmax", "scalar"]);
    assert_error(ops::softmax(&zeros(&[3, 0])), &["softmax", "empty", "[3, 0]"]);
    assert_error(ops::gelu(&x.to_dtype(DType::U32).unwrap()), &["gelu", "floating-point", "U32"]);
    assert_error(ops::leaky_relu(&x, f64::INFINITY), &["leaky_relu", "finite", "inf"]);
    assert_error(ops::linear(&x, &zeros(&[5, 3]), None), &["linear", "[c_out, 2]", "[5, 3]"]);
    assert_error(ops::linear(&x, &zeros(&[5, 2]), Some(&three)), &["linear", "bias", "[5]", "[3]"]);
}

#[test]
fn attention_fails_on_invalid_shapes() {
    let q = zeros(&[2, 3, 5, 4]);
    assert_error(ops::attention(&q, &q, &zeros(&[2, 3, 5, 6]), 1., None, None), &["attention", "v", "[2, 3, 5, 6]"]);
    assert_error(ops::attention(&q, &q, &q, f64::NAN, None, None), &["attention", "scale"]);
    assert_error(ops::attention(&q, &q, &q, 1., Some(&zeros(&[5, 5])), None), &["attention", "bias", "[3, 5, 5]"]);
    assert_error(ops::attention(&q, &q, &q, 1., None, Some(&zeros(&[0, 5, 5]))), &["attention", "mask", "[0, 5, 5]"]);
    assert_error(ops::attention_packed(&zeros(&[2, 5, 2, 3, 4]), 1., None, None), &["attention", "[2, 5, 2, 3, 4]"]);
}

#[test]
fn frozen_inputs_have_no_gradient() {
    let (x, weight) = (zeros(&[1, 3, 3, 3, 2]), zeros(&[4, 2, 3, 3, 3]));
    let x = Var::from_tensor(&x).unwrap();
    let grads = ops::conv3d(&x, &weight, None, [1; 3], [1; 3]).unwrap().sum_all().unwrap().backward().unwrap();
    assert!(grads.get(&x).is_some() && grads.get(&weight).is_none());
    let frozen = ops::conv3d(&x.as_detached_tensor(), &weight, None, [1; 3], [1; 3]).unwrap();
    assert!(!frozen.track_op(), "expected no graph without variables");
}
