//! Gradients in f64 compared with central differences, for every element of every input.

use candle_core::{DType, Device, Result, Tensor};
use freetumor::nn::ops::{self, Activation, NormScope};

use super::{gradients, numbers};

/// Compares the gradients of `f` at random inputs of these shapes with central differences.
fn check(case: &str, shapes: &[&[usize]], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let inputs: Vec<Tensor> = shapes.iter().zip(1..).map(|(shape, seed)| numbers(seed, shape)).collect();
    let g = numbers(99, f(&inputs).unwrap().dims());
    let (_, grads) = gradients(&inputs, &g, &f).unwrap();
    let loss = |inputs: &[Tensor]| (f(inputs).unwrap() * &g).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
    let step = 1e-6;
    for (i, grad) in grads.iter().enumerate() {
        let grad = grad.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let values = inputs[i].flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let largest = grad.iter().fold(0f64, |a, b| a.max(b.abs()));
        assert!(largest > 0., "{case}: the gradient of input {i} is zero");
        for at in 0..values.len() {
            let moved = |by: f64| {
                let mut values = values.clone();
                values[at] += by;
                let mut inputs = inputs.clone();
                inputs[i] = Tensor::from_vec(values, shapes[i], &Device::Cpu).unwrap();
                loss(&inputs)
            };
            let difference = (moved(step) - moved(-step)) / (2. * step);
            let error = (difference - grad[at]).abs();
            assert!(error < 1e-7 * (1. + largest), "{case}, input {i}, element {at}: {} is {difference}", grad[at]);
        }
    }
}

#[test]
fn convolution_gradients_equal_finite_differences() {
    for (kernel, stride, padding) in [
        ([3, 3, 3], [1, 1, 1], [1, 1, 1]),
        ([3, 1, 2], [2, 1, 3], [1, 0, 2]),
        ([1, 1, 1], [1, 1, 1], [0, 0, 0]),
        ([1, 1, 1], [2, 3, 1], [0, 1, 0]),
        ([2, 2, 2], [2, 2, 2], [0, 0, 0]),
        ([2, 3, 4], [3, 2, 1], [0, 2, 5]),
        ([4, 5, 3], [1, 1, 9], [0, 0, 0]),
    ] {
        let case = format!("conv3d {kernel:?} {stride:?} {padding:?}");
        let [x, y, z] = kernel;
        let shapes: [&[usize]; 3] = [&[2, 4, 5, 3, 2], &[3, 2, x, y, z], &[3]];
        check(&case, &shapes, |t| ops::conv3d(&t[0], &t[1], Some(&t[2]), stride, padding));
        check(&case, &shapes[..2], |t| ops::conv3d(&t[0], &t[1], None, stride, padding));
    }
}

#[test]
fn transposed_convolution_gradients_equal_finite_differences() {
    let shapes: [&[usize]; 3] = [&[2, 3, 1, 2, 3], &[3, 2, 2, 2, 2], &[2]];
    check("conv_transpose3d", &shapes, |t| ops::conv_transpose3d(&t[0], &t[1], Some(&t[2])));
    check("conv_transpose3d", &shapes[..2], |t| ops::conv_transpose3d(&t[0], &t[1], None));
}

#[test]
fn pooling_and_upsampling_gradients_equal_finite_differences() {
    check("max_pool3d", &[&[2, 5, 4, 3, 3]], |t| ops::max_pool3d(&t[0]));
    check("upsample3d", &[&[2, 3, 1, 2, 3]], |t| ops::upsample3d(&t[0]));
}

#[test]
fn normalization_gradients_equal_finite_differences() {
    for scope in [NormScope::Batch, NormScope::Instance] {
        for activation in [
            Activation::None,
            Activation::LeakyRelu(0.),
            Activation::LeakyRelu(0.01),
            Activation::LeakyRelu(0.5),
            Activation::LeakyRelu(1.5),
        ] {
            let case = format!("normalize over {scope:?}, {activation:?}");
            let shapes: [&[usize]; 3] = [&[3, 2, 3, 1, 5], &[5], &[5]];
            check(&case, &shapes, |t| ops::normalize(&t[0], Some((&t[1], &t[2])), scope, 1e-3, activation));
            check(&case, &shapes[..1], |t| ops::normalize(&t[0], None, scope, 1e-3, activation));
        }
    }
    check("layer_norm", &[&[3, 2, 7], &[7], &[7]], |t| ops::layer_norm(&t[0], &t[1], &t[2], 1e-3));
}

#[test]
fn activation_gradients_equal_finite_differences() {
    let shape: &[&[usize]] = &[&[3, 5, 4]];
    check("gelu", shape, |t| ops::gelu(&(&t[0] * 3.)?));
    check("tanh", shape, |t| ops::tanh(&(&t[0] * 2.)?));
    check("sigmoid", shape, |t| ops::sigmoid(&(&t[0] * 3.)?));
    for slope in [-0.5, 0., 0.01, 2.] {
        check("leaky_relu", shape, |t| ops::leaky_relu(&t[0], slope));
    }
    check("softmax", shape, |t| ops::softmax(&(&t[0] * 5.)?));
    for activation in [Activation::None, Activation::LeakyRelu(0.1)] {
        check("add", &[shape[0], shape[0]], |t| ops::add(t[0].clone(), t[1].clone(), activation));
    }
    check("concat", &[&[2, 2, 1, 3, 2], &[2, 2, 1, 3, 4]], |t| ops::concat(&t[0], &t[1]));
}

#[test]
fn linear_gradients_equal_finite_differences() {
    let shapes: [&[usize]; 3] = [&[2, 3, 5], &[4, 5], &[4]];
    check("linear", &shapes, |t| ops::linear(&t[0], &t[1], Some(&t[2])));
    check("linear", &shapes[..2], |t| ops::linear(&t[0], &t[1], None));
    check("linear of one vector", &[&[5], &[4, 5]], |t| ops::linear(&t[0], &t[1], None));
}

#[test]
fn attention_gradients_equal_finite_differences() {
    let (windows, heads, tokens, dim) = (4, 2, 5, 3);
    let separate: [usize; 4] = [windows, heads, tokens, dim];
    let bias: [usize; 3] = [heads, tokens, tokens];
    let mask = numbers(50, &[2, tokens, tokens]);
    check("attention", &[&separate, &separate, &separate], |t| ops::attention(&t[0], &t[1], &t[2], 2., None, None));
    check("attention with bias and mask", &[&separate, &separate, &separate, &bias], |t| {
        ops::attention(&t[0], &t[1], &t[2], 2., Some(&t[3]), Some(&mask))
    });
    check("attention_packed", &[&[windows, tokens, 3, heads, dim], &bias], |t| {
        ops::attention_packed(&t[0], 0.7, Some(&t[1]), Some(&mask))
    });
}

#[test]
fn gradient_has_the_type_of_its_input() {
    let x = numbers(1, &[1, 2, 2, 2, 3]);
    for dtype in [DType::F32, DType::F64] {
        let x = x.to_dtype(dtype).unwrap();
        let (y, grads) = gradients(std::slice::from_ref(&x), &x, |t| ops::softmax(&t[0])).unwrap();
        assert_eq!((y.dtype(), grads[0].dtype()), (dtype, dtype));
    }
}
