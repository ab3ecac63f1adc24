//! The kernels compared with sums by definition, in double precision.

use proptest::prelude::*;

use super::*;

/// Returns pseudorandom numbers that are the same on every machine.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Calls `each(output position, weight position, input position)` for every product of a convolution.
fn products(g: &Geometry, mut each: impl FnMut(usize, usize, usize)) {
    let [ox, oy, oz] = g.output();
    let [kx, ky, kz] = g.kernel;
    for sample in 0..g.batch {
        for (x, y, z) in cells([ox, oy, oz]) {
            for (i, j, k) in cells([kx, ky, kz]) {
                let at = |o: usize, a: usize, tap: usize| (o * g.stride[a] + tap).checked_sub(g.padding[a]);
                let (Some(p), Some(q), Some(r)) = (at(x, 0, i), at(y, 1, j), at(z, 2, k)) else { continue };
                if p >= g.input[0] || q >= g.input[1] || r >= g.input[2] {
                    continue;
                }
                let input = ((sample * g.input[0] + p) * g.input[1] + q) * g.input[2] + r;
                let output = ((sample * ox + x) * oy + y) * oz + z;
                for o in 0..g.channels_out {
                    for c in 0..g.channels_in {
                        let weight = ((o * g.channels_in + c) * kx * ky * kz) + (i * ky + j) * kz + k;
                        each(output * g.channels_out + o, weight, input * g.channels_in + c);
                    }
                }
            }
        }
    }
}

fn cells([x, y, z]: [usize; 3]) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..x * y * z).map(move |n| (n / (y * z), n / z % y, n % z))
}

/// Returns the largest difference, as a fraction of the largest number.
fn distance(got: &[f32], expected: &[f64]) -> f64 {
    let largest = expected.iter().fold(1e-12f64, |most, number| most.max(number.abs()));
    got.iter().zip(expected).map(|(&a, &b)| (f64::from(a) - b).abs()).fold(0.0, f64::max) / largest
}

fn assert_agrees(g: &Geometry, accuracy: Accuracy, bound: f64) {
    let (x, w) = (numbers(g.input_len(), 1), numbers(g.weight_len(), 2));
    let (bias, dy) = (numbers(g.channels_out, 3), numbers(g.output_len(), 4));
    let mut y: Vec<f64> = (0..g.output_len()).map(|n| f64::from(bias[n % g.channels_out])).collect();
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    products(g, |o, k, i| {
        y[o] += f64::from(w[k]) * f64::from(x[i]);
        dx[i] += f64::from(w[k]) * f64::from(dy[o]);
        dw[k] += f64::from(x[i]) * f64::from(dy[o]);
    });
    for class in Class::available() {
        let mut got = vec![f32::NAN; g.output_len()];
        conv3d(class, accuracy, g, &x, &w, Some(&bias), &mut got);
        assert!(distance(&got, &y) < bound, "{class:?} {accuracy:?} {g:?}: output off by {}", distance(&got, &y));
        let mut got = vec![f32::NAN; x.len()];
        conv3d_input_gradient(class, accuracy, g, &dy, &w, &mut got);
        assert!(distance(&got, &dx) < bound, "{class:?} {accuracy:?} {g:?}: dx off by {}", distance(&got, &dx));
        let mut got = vec![f32::NAN; w.len()];
        conv3d_weight_gradient(class, g, &x, &dy, &mut got);
        assert!(distance(&got, &dw) < bound, "{class:?} {g:?}: dw off by {}", distance(&got, &dw));
    }
}

fn cubic(batch: usize, input: [usize; 3], channels: [usize; 2]) -> Geometry {
    Geometry {
        batch,
        input,
        channels_in: channels[0],
        channels_out: channels[1],
        kernel: [3; 3],
        stride: [1; 3],
        padding: [1; 3],
    }
}

#[test]
fn direct_convolution_equals_reference_for_every_tile_width() {
    for channels in [[1, 1], [3, 7], [5, 8], [8, 16], [16, 17], [9, 32], [20, 48], [33, 64], [130, 40]] {
        assert_agrees(&cubic(2, [4, 5, 14], channels), Accuracy::Direct, 1e-5);
    }
}

/// Lines of every length, in tiles of every number of rows, with more channels than a block holds.
#[test]
fn direct_convolution_equals_reference_for_every_line_length() {
    for length in 1..=24 {
        for outputs in [1, 8, 24] {
            assert_agrees(&cubic(1, [2, 2, length], [30, outputs]), Accuracy::Direct, 1e-5);
        }
    }
    assert_agrees(&cubic(1, [2, 2, 11], [130, 8]), Accuracy::Direct, 1e-5);
}

/// A number does not depend on its tile: lines with the same start have the same results, except at the end of the shorter line.
#[test]
fn convolution_bits_do_not_depend_on_line_length() {
    for channels in [[5, 8], [30, 24], [24, 8]] {
        let long = cubic(1, [2, 3, 35], channels);
        let (x, w) = (numbers(long.input_len(), 1), numbers(long.weight_len(), 2));
        for class in Class::available() {
            let mut whole = vec![0.0; long.output_len()];
            conv3d(class, Accuracy::Direct, &long, &x, &w, None, &mut whole);
            for length in [21, 22, 23, 33] {
                let short = cubic(1, [2, 3, length], channels);
                let start = |line: &[f32], channels: usize| line[..length * channels].to_vec();
                let lines: Vec<f32> = x.chunks_exact(35 * channels[0]).flat_map(|x| start(x, channels[0])).collect();
                let mut part = vec![0.0; short.output_len()];
                conv3d(class, Accuracy::Direct, &short, &lines, &w, None, &mut part);
                let same = (length - 1) * channels[1];
                for (part, whole) in part.chunks_exact(length * channels[1]).zip(whole.chunks_exact(35 * channels[1])) {
                    assert!(part[..same] == whole[..same], "{class:?} {channels:?}, {length} of 35");
                }
            }
        }
    }
}

#[test]
fn winograd_convolution_agrees_with_direct_convolution() {
    for (accuracy, bound) in [(Accuracy::Training, 1e-5), (Accuracy::Inference, 5e-5)] {
        for (input, channels) in
            [([8, 12, 24], [32, 32]), ([6, 9, 31], [48, 32]), ([9, 20, 11], [32, 80]), ([4, 23, 26], [64, 48])]
        {
            let g = cubic(2, input, channels);
            for class in Class::available() {
                assert!(
                    winograd::fits(class, &g, accuracy.outputs().unwrap()),
                    "expected a Winograd convolution for {g:?}"
                );
            }
            assert_agrees(&g, accuracy, bound);
        }
        // One plane of taps, and a different padding for each axis.
        assert_agrees(
            &Geometry { kernel: [1, 3, 3], padding: [0, 2, 0], ..cubic(1, [9, 17, 19], [32, 32]) },
            accuracy,
            bound,
        );
    }
}

#[test]
fn kernel_bits_do_not_depend_on_threads() {
    for (g, accuracy) in [
        (cubic(2, [7, 9, 10], [20, 24]), Accuracy::Direct),
        (cubic(1, [8, 16, 24], [64, 32]), Accuracy::Inference),
        (cubic(1, [8, 16, 24], [64, 32]), Accuracy::Training),
    ] {
        let (x, w, dy) = (numbers(g.input_len(), 1), numbers(g.weight_len(), 2), numbers(g.output_len(), 4));
        let run = |threads: usize| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                let (mut y, mut dx, mut dw) = (vec![0.0; dy.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
                conv3d(Class::current(), accuracy, &g, &x, &w, None, &mut y);
                conv3d_input_gradient(Class::current(), accuracy, &g, &dy, &w, &mut dx);
                conv3d_weight_gradient(Class::current(), &g, &x, &dy, &mut dw);
                let mut db = vec![0.0; g.channels_out];
                bias_gradient(&dy, &mut db);
                (y, dx, dw, db)
            })
        };
        assert!(run(1) == run(2) && run(1) == run(3), "{g:?}");
    }
}

#[test]
fn transposed_convolution_equals_gradient_of_strided_convolution() {
    for (inputs, outputs) in [(6, 4), (33, 17), (64, 64)] {
        let shape = [3, 2, 13];
        let g = Geometry {
            batch: 2,
            input: shape.map(|n| 2 * n),
            channels_in: outputs,
            channels_out: inputs,
            kernel: [2; 3],
            stride: [2; 3],
            padding: [0; 3],
        };
        let (x, w) = (numbers(g.output_len(), 5), numbers(g.weight_len(), 6));
        let bias = numbers(outputs, 7);
        let mut expected: Vec<f64> = (0..g.input_len()).map(|n| f64::from(bias[n % outputs])).collect();
        products(&g, |o, k, i| expected[i] += f64::from(w[k]) * f64::from(x[o]));
        for class in Class::available() {
            let mut y = vec![f32::NAN; g.input_len()];
            conv_transpose3d(class, shape, [inputs, outputs], &x, &w, Some(&bias), &mut y);
            assert!(distance(&y, &expected) < 1e-5, "{class:?}: {}", distance(&y, &expected));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn direct_convolution_equals_reference_for_every_geometry(
        batch in 1usize..3, channels in prop::array::uniform2(1usize..20), input in prop::array::uniform3(1usize..9),
        kernel in prop::array::uniform3(1usize..5), stride in prop::array::uniform3(1usize..4),
        padding in prop::array::uniform3(0usize..5),
    ) {
        let g = Geometry { batch, input, channels_in: channels[0], channels_out: channels[1], kernel, stride, padding };
        prop_assume!((0..3).all(|a| input[a] + 2 * padding[a] >= kernel[a]));
        assert_agrees(&g, Accuracy::Direct, 1e-5);
    }
}

#[test]
fn conv3d_panics_for_unsupported_kernel_class() {
    let Some(missing) = [Class::Avx2, Class::Avx512].into_iter().find(|class| !Class::available().contains(class))
    else {
        return;
    };
    let geometry = Geometry {
        batch: 1,
        input: [1; 3],
        channels_in: 1,
        channels_out: 1,
        kernel: [1; 3],
        stride: [1; 3],
        padding: [0; 3],
    };
    let run = || conv3d(missing, Accuracy::Direct, &geometry, &[1.0], &[1.0], None, &mut [0.0]);
    assert!(std::panic::catch_unwind(run).is_err());
}
