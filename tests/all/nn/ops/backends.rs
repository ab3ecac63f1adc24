//! The native kernels compared with the portable implementation, and with themselves on other numbers of threads.

use candle_core::{DType, Result, Tensor};
use freetumor::nn::ops::{self, Activation, Backend, NormScope};
use proptest::prelude::*;

use super::{gradients, numbers, relative_error};

/// Returns values and gradients of `f` at random `f32` inputs of these shapes.
fn run(shapes: &[Vec<usize>], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Vec<Tensor> {
    let inputs: Vec<Tensor> =
        shapes.iter().zip(1..).map(|(shape, seed)| numbers(seed, shape).to_dtype(DType::F32).unwrap()).collect();
    let g = numbers(99, f(&inputs).unwrap().dims()).to_dtype(DType::F32).unwrap();
    let (y, mut all) = gradients(&inputs, &g, f).unwrap();
    all.push(y);
    all
}

/// Checks that both backends return the same values and gradients, and the native backend the same bits on 1, 2 and 3 threads.
fn check(case: &str, shapes: &[Vec<usize>], f: impl Fn(&[Tensor]) -> Result<Tensor> + Sync) {
    let portable = ops::with_backend(Backend::Portable, || run(shapes, &f));
    let native = run(shapes, &f);
    for (i, (portable, native)) in portable.iter().zip(&native).enumerate() {
        let error = relative_error(native, portable);
        let name = if i < shapes.len() { format!("the gradient of input {i}") } else { "the output".into() };
        assert!(error < 2e-5, "{case} {shapes:?}: {name} differs by {error:e}");
    }
    for threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let other = pool.install(|| run(shapes, &f));
        for (a, b) in native.iter().zip(&other) {
            let bits = |t: &Tensor| -> Vec<u32> {
                t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
            };
            assert_eq!(bits(a), bits(b), "{case} {shapes:?}: other bits on {threads} threads");
        }
    }
}

/// Returns the smallest absolute value of `f` at the inputs of [`run`].
fn nearest_to_zero(shapes: &[Vec<usize>], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> f32 {
    let inputs: Vec<Tensor> =
        shapes.iter().zip(1..).map(|(shape, seed)| numbers(seed, shape).to_dtype(DType::F32).unwrap()).collect();
    let numbers = f(&inputs).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    numbers.into_iter().map(f32::abs).fold(f32::INFINITY, f32::min)
}

fn volume() -> impl Strategy<Value = Vec<usize>> {
    (1..3usize, 1..8usize, 1..8usize, 1..8usize, 1..40usize).prop_map(|(b, x, y, z, c)| vec![b, x, y, z, c])
}

fn activation() -> impl Strategy<Value = Activation> {
    let slopes = prop_oneof![Just(0.), Just(0.01), 0f64..2.];
    prop_oneof![Just(Activation::None), slopes.prop_map(Activation::LeakyRelu)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn convolution_backends_agree(
        x in volume(),
        c_out in 1..20usize,
        kernel in prop::array::uniform3(1..4usize),
        stride in prop::array::uniform3(1..3usize),
        padding in prop::array::uniform3(0..3usize),
        bias: bool,
    ) {
        let fits = (0..3).all(|i| x[i + 1] + 2 * padding[i] >= kernel[i]);
        prop_assume!(fits);
        let [kx, ky, kz] = kernel;
        let mut shapes = vec![x.clone(), vec![c_out, x[4], kx, ky, kz]];
        shapes.extend(bias.then(|| vec![c_out]));
        check("conv3d", &shapes, |t| ops::conv3d(&t[0], &t[1], t.get(2), stride, padding));
        shapes[1] = vec![x[4], c_out, 2, 2, 2];
        check("conv_transpose3d", &shapes, |t| ops::conv_transpose3d(&t[0], &t[1], t.get(2)));
    }

    #[test]
    fn pooling_and_upsampling_backends_agree(x in volume()) {
        check("upsample3d", std::slice::from_ref(&x), |t| ops::upsample3d(&t[0]));
        let x = x.iter().zip([1, 2, 2, 2, 1]).map(|(&n, least)| n.max(least)).collect();
        check("max_pool3d", &[x], |t| ops::max_pool3d(&t[0]));
    }

    #[test]
    fn normalization_backends_agree(x in volume(), scope in prop_oneof![Just(NormScope::Batch), Just(NormScope::Instance)], activation in activation()) {
        let channels = vec![x[4]];
        let shapes = [x, channels.clone(), channels];
        // Rounding may change the sign of a number within a rounding error of zero, the kink of the activation.
        let kink = |shapes: &[Vec<usize>]| {
            nearest_to_zero(shapes, |t| ops::normalize(&t[0], t.get(1).zip(t.get(2)), scope, 0.1, Activation::None))
        };
        prop_assume!(activation == Activation::None || kink(&shapes).min(kink(&shapes[..1])) > 1e-5);
        // With few voxels, a large eps limits the amplification of rounding errors.
        check("normalize", &shapes, |t| ops::normalize(&t[0], Some((&t[1], &t[2])), scope, 0.1, activation));
        check("normalize", &shapes[..1], |t| ops::normalize(&t[0], None, scope, 0.1, activation));
        check("layer_norm", &shapes, |t| ops::layer_norm(&t[0], &t[1], &t[2], 0.1));
    }

    #[test]
    fn activation_backends_agree(x in volume(), slope in -2f64..2.) {
        let x = &[x][..];
        check("gelu", x, |t| ops::gelu(&(&t[0] * 4.)?));
        check("leaky_relu", x, |t| ops::leaky_relu(&t[0], slope));
        check("tanh", x, |t| ops::tanh(&(&t[0] * 2.)?));
        check("sigmoid", x, |t| ops::sigmoid(&(&t[0] * 4.)?));
        check("softmax", x, |t| ops::softmax(&(&t[0] * 8.)?));
        let pair = &[x[0].clone(), x[0].clone()][..];
        // The first input is a copy: without gradients, the sum overwrites its memory.
        check("add", pair, |t| ops::add((&t[0] * 1.)?, t[1].clone(), Activation::LeakyRelu(slope.abs())));
        check("concat", pair, |t| ops::concat(&t[0], &t[1]));
    }

    #[test]
    fn overwriting_operators_return_the_same_values(
        x in volume(), scope in prop_oneof![Just(NormScope::Batch), Just(NormScope::Instance)], activation in activation()
    ) {
        let channels = x[4];
        let make = |seed: u64, shape: &[usize]| numbers(seed, shape).to_dtype(DType::F32).unwrap();
        let (weight, bias) = (make(2, &[channels]), make(3, &[channels]));
        for affine in [None, Some((&weight, &bias))] {
            let expected = ops::normalize(&make(1, &x), affine, scope, 0.1, activation).unwrap();
            let overwritten = ops::normalize_owned(make(1, &x), affine, scope, 0.1, activation).unwrap();
            prop_assert_eq!(relative_error(&overwritten, &expected), 0.0);
        }
        // A tensor and a view of it: the sum must not overwrite memory that is still read.
        let a = make(1, &x);
        let twice = ops::add(a.clone(), a.reshape(x.as_slice()).unwrap(), activation).unwrap();
        prop_assert_eq!(relative_error(&a, &make(1, &x)), 0.0);
        let other = ops::add(make(1, &x), make(1, &x), activation).unwrap();
        prop_assert_eq!(relative_error(&twice, &other), 0.0);
    }

    #[test]
    fn linear_backends_agree(rows in 1..70usize, c_in in 1..70usize, c_out in 1..70usize) {
        let shapes = [vec![rows, c_in], vec![c_out, c_in], vec![c_out]];
        check("linear", &shapes, |t| ops::linear(&t[0], &t[1], Some(&t[2])));
        check("linear", &shapes[..2], |t| ops::linear(&t[0], &t[1], None));
    }

    #[test]
    fn attention_backends_agree(
        windows in 1..6usize,
        heads in 1..4usize,
        tokens in 1..80usize,
        dim in 1..40usize,
        masks in 0..4usize,
        bias: bool,
    ) {
        let mask = numbers(7, &[masks.max(1), tokens, tokens]).affine(10., 0.).unwrap().to_dtype(DType::F32).unwrap();
        let mask = (masks > 0).then_some(&mask);
        let mut shapes = vec![vec![windows, tokens, 3, heads, dim]];
        shapes.extend(bias.then(|| vec![heads, tokens, tokens]));
        check("attention", &shapes, |t| ops::attention_packed(&t[0], 0.5, t.get(1), mask));
    }
}

/// Volumes of many pieces and windows of many groups, whose sums are computed in a fixed order.
#[test]
fn backends_agree_on_large_inputs() {
    for channels in [3, 40] {
        let (volume, channel) = (vec![2, 14, 15, 16, channels], vec![channels]);
        let shapes = [volume.clone(), channel.clone(), channel];
        for scope in [NormScope::Batch, NormScope::Instance] {
            let relu = Activation::LeakyRelu(0.);
            check("normalize", &shapes, |t| ops::normalize(&t[0], Some((&t[1], &t[2])), scope, 1e-5, relu));
        }
        check("layer_norm", &shapes, |t| ops::layer_norm(&t[0], &t[1], &t[2], 1e-3));
        check("softmax", &shapes[..1], |t| ops::softmax(&t[0]));
        check("gelu", &shapes[..1], |t| ops::gelu(&t[0]));
    }
    let shapes = [vec![37, 27, 3, 2, 9], vec![2, 27, 27]];
    check("attention", &shapes, |t| ops::attention_packed(&t[0], 0.5, Some(&t[1]), None));
}

#[test]
fn normalize_is_accurate_for_a_mean_far_from_zero() {
    let x = numbers(1, &[1, 8, 8, 8, 5]);
    let normalize = |x: &Tensor| ops::normalize(x, None, NormScope::Instance, 1e-5, Activation::None).unwrap();
    // The input is rounded first, so that both precisions have the same input.
    let single = x.affine(0.1, 1e3).unwrap().to_dtype(DType::F32).unwrap();
    let error = relative_error(&normalize(&single), &normalize(&single.to_dtype(DType::F64).unwrap()));
    assert!(error < 1e-6, "{error:e}");
}

/// Equal voxels are frequent: ReLU returns many zeros.
#[test]
fn max_pool3d_gradient_goes_to_the_first_of_equal_voxels() {
    let x = Tensor::zeros((1, 2, 3, 2, 17), DType::F32, &candle_core::Device::Cpu).unwrap();
    for backend in [Backend::Native, Backend::Portable] {
        let g = numbers(3, &[1, 1, 1, 1, 17]).to_dtype(DType::F32).unwrap();
        let pool = |t: &[Tensor]| ops::max_pool3d(&t[0]);
        let (_, grads) = ops::with_backend(backend, || gradients(std::slice::from_ref(&x), &g, pool)).unwrap();
        let first = grads[0].narrow(1, 0, 1).and_then(|t| t.narrow(2, 0, 1)).and_then(|t| t.narrow(3, 0, 1)).unwrap();
        assert_eq!(relative_error(&first, &g), 0.);
        let gradients = grads[0].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(gradients.into_iter().filter(|v| *v != 0.).count(), 17, "{backend:?}");
    }
}

#[test]
fn operators_propagate_nan() {
    let mut values = vec![1f32; 8 * 17];
    values[40] = f32::NAN;
    let x = Tensor::from_vec(values, (1, 2, 2, 2, 17), &candle_core::Device::Cpu).unwrap();
    let nans = |y: Result<Tensor>| {
        let values = y.unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values.into_iter().filter(|v| v.is_nan()).count()
    };
    assert_eq!(nans(ops::max_pool3d(&x)), 1);
    assert_eq!(nans(ops::softmax(&x)), 17);
    assert_eq!(nans(ops::gelu(&x)), 1);
    assert_eq!(nans(ops::leaky_relu(&x, 0.1)), 1);
    assert_eq!(nans(ops::normalize(&x, None, NormScope::Instance, 1e-5, Activation::LeakyRelu(0.1))), 8);
}

#[test]
fn max_pool3d_of_a_view_equals_that_of_a_copy() {
    let x = numbers(1, &[2, 6, 5, 4, 3]).to_dtype(DType::F32).unwrap();
    let g = numbers(2, &[2, 2, 2, 2, 3]).to_dtype(DType::F32).unwrap();
    for backend in [Backend::Native, Backend::Portable] {
        let run = |f: &dyn Fn(&Tensor) -> Result<Tensor>| {
            ops::with_backend(backend, || gradients(std::slice::from_ref(&x), &g, |t| ops::max_pool3d(&f(&t[0])?)))
                .unwrap()
        };
        let view = |t: &Tensor| t.transpose(1, 3)?.narrow(1, 0, 4)?.narrow(3, 1, 4);
        let (y, grads) = run(&view);
        let (copy_y, copy_grads) = run(&|t| view(t)?.force_contiguous());
        assert_eq!((relative_error(&y, &copy_y), relative_error(&grads[0], &copy_grads[0])), (0., 0.));
    }
}
