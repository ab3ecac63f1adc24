//! The native kernels beside the portable way, and beside themselves on other numbers of threads.

use candle_core::{DType, Result, Tensor};
use freetumor::nn::ops::{self, Activation, Backend, Over};
use proptest::prelude::*;

use super::{gradients, numbers, relative_error};

/// Values and gradients of `f` at random `f32` inputs of these shapes.
fn run(shapes: &[Vec<usize>], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Vec<Tensor> {
    let inputs: Vec<Tensor> =
        shapes.iter().zip(1..).map(|(shape, seed)| numbers(seed, shape).to_dtype(DType::F32).unwrap()).collect();
    let g = numbers(99, f(&inputs).unwrap().dims()).to_dtype(DType::F32).unwrap();
    let (y, mut all) = gradients(&inputs, &g, f).unwrap();
    all.push(y);
    all
}

/// Both backends give the same values and gradients, and the native one gives the same bits on 1, 2 and 3 threads.
fn check(case: &str, shapes: &[Vec<usize>], f: impl Fn(&[Tensor]) -> Result<Tensor> + Sync) {
    let portable = ops::with_backend(Backend::Portable, || run(shapes, &f));
    let native = run(shapes, &f);
    for (i, (portable, native)) in portable.iter().zip(&native).enumerate() {
        let error = relative_error(native, portable);
        let what = if i < shapes.len() { format!("the gradient of input {i}") } else { "the output".into() };
        assert!(error < 2e-5, "{case} {shapes:?}: {what} differs by {error:e}");
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
    fn convolutions_agree(
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
    fn pooling_and_upsampling_agree(x in volume()) {
        check("upsample3d", &[x.clone()], |t| ops::upsample3d(&t[0]));
        let x = x.iter().zip([1, 2, 2, 2, 1]).map(|(&n, least)| n.max(least)).collect();
        check("max_pool3d", &[x], |t| ops::max_pool3d(&t[0]));
    }

    #[test]
    fn normalizations_agree(x in volume(), over in prop_oneof![Just(Over::Batch), Just(Over::Instance)], activation in activation()) {
        let channels = vec![x[4]];
        let shapes = [x, channels.clone(), channels];
        // A large eps keeps few voxels from being all noise.
        check("normalize", &shapes, |t| ops::normalize(&t[0], Some((&t[1], &t[2])), over, 0.1, activation));
        check("normalize", &shapes[..1], |t| ops::normalize(&t[0], None, over, 0.1, activation));
        check("layer_norm", &shapes, |t| ops::layer_norm(&t[0], &t[1], &t[2], 0.1));
    }

    #[test]
    fn activations_agree(x in volume(), slope in -2f64..2.) {
        let x = &[x][..];
        check("gelu", x, |t| ops::gelu(&(&t[0] * 4.)?));
        check("leaky_relu", x, |t| ops::leaky_relu(&t[0], slope));
        check("softmax", x, |t| ops::softmax(&(&t[0] * 8.)?));
    }

    #[test]
    fn linears_agree(rows in 1..70usize, c_in in 1..70usize, c_out in 1..70usize) {
        let shapes = [vec![rows, c_in], vec![c_out, c_in], vec![c_out]];
        check("linear", &shapes, |t| ops::linear(&t[0], &t[1], Some(&t[2])));
        check("linear", &shapes[..2], |t| ops::linear(&t[0], &t[1], None));
    }

    #[test]
    fn attentions_agree(
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
