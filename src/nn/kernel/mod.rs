//! The CPU kernels: plain functions over slices, and all unsafe code of the networks.
//!
//! Volumes are `[batch, x, y, z, channel]`, weights `[out, in, kx, ky, kz]`. Every convolution is divided into tiles of outputs
//! that stay in registers while their sums are computed (`tile`). The algorithms differ in the factors of a tile: rows of the
//! input (`direct`), transformed patches (`winograd`), or inputs and output gradients (`weight_gradient`). Each kernel is
//! compiled for AVX-512, AVX2 and plain arithmetic, and chosen at run time ([`Class`]).
//!
//! Each number is computed by one task in a fixed order, so that results have the same bits for any number of threads.

mod buffer;
mod call;
mod direct;
mod geometry;
mod pack;
mod shape;
mod shared;
#[cfg(target_arch = "x86_64")]
mod slide;
mod tile;
mod transform;
mod weight_gradient;
mod winograd;

pub use buffer::{prepare_process, zeros};
pub use geometry::Geometry;

pub use crate::simd::Class;

#[cfg(test)]
mod tests;

use pack::{Weight, WeightOrder};
use winograd::Outputs;

/// The accuracy of a convolution; less accurate algorithms are faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accuracy {
    /// Direct convolution: the sum over taps and channels.
    Direct,
    /// Winograd convolution with errors of a few units in the last place: for training.
    Training,
    /// Winograd convolution with errors of about 1e-6 of the largest output: for inference.
    Inference,
}

impl Accuracy {
    fn outputs(self) -> Option<Outputs> {
        match self {
            Self::Direct => None,
            Self::Training => Some(Outputs::WinogradF2),
            Self::Inference => Some(Outputs::WinogradF4),
        }
    }
}

/// Computes `y = weight ∗ x + bias`. The slices must have the lengths that `geometry` determines.
pub fn conv3d(
    class: Class,
    accuracy: Accuracy,
    geometry: &Geometry,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    check(class, geometry, x, weight, y);
    assert!(bias.is_none_or(|bias| bias.len() == geometry.channels_out), "expected one bias for each channel");
    convolve(class, accuracy, geometry, x, weight_view(geometry, weight, WeightOrder::Forward), bias, y);
}

/// Computes the gradient of [`conv3d`]'s input: `dx[p] = Σ weight[tap] · dy[(p + padding − tap) / stride]`.
pub fn conv3d_input_gradient(
    class: Class,
    accuracy: Accuracy,
    geometry: &Geometry,
    dy: &[f32],
    weight: &[f32],
    dx: &mut [f32],
) {
    check(class, geometry, dx, weight, dy);
    let disjoint = geometry.kernel == geometry.stride && geometry.padding == [0; 3];
    let whole = (0..3).all(|a| geometry.input[a].is_multiple_of(geometry.kernel[a]));
    if disjoint && whole {
        return direct::transposed(class, geometry, dy, weight, None, dx);
    }
    let output = geometry.output();
    // With a stride, zeros between the gradients; after the last whole step, zeros for inputs that no output depends on.
    let spread: [usize; 3] =
        std::array::from_fn(|a| geometry.input[a] + 2 * geometry.padding[a] - geometry.kernel[a] + 1);
    let mirrored = Geometry {
        batch: geometry.batch,
        input: spread,
        channels_in: geometry.channels_out,
        channels_out: geometry.channels_in,
        kernel: geometry.kernel,
        stride: [1; 3],
        padding: std::array::from_fn(|a| geometry.kernel[a] - 1),
    };
    let dilated;
    let dy = if spread == output {
        dy
    } else {
        dilated = dilate(dy, geometry, output, spread);
        &dilated
    };
    let weight = weight_view(&mirrored, weight, WeightOrder::Mirrored);
    if geometry.padding == [0; 3] {
        return convolve(class, accuracy, &mirrored, dy, weight, None, dx);
    }
    // A padding smaller than the kernel reduces the mirrored padding; with a larger padding, the result is cropped.
    let fits = (0..3).all(|a| geometry.padding[a] < geometry.kernel[a]);
    if fits {
        let padding = std::array::from_fn(|a| geometry.kernel[a] - 1 - geometry.padding[a]);
        return convolve(class, accuracy, &Geometry { padding, ..mirrored }, dy, weight, None, dx);
    }
    let mut padded = vec![0.0; mirrored.output_len()];
    convolve(class, accuracy, &mirrored, dy, weight, None, &mut padded);
    let [_, py, pz] = mirrored.output();
    let [nx, ny, nz] = geometry.input;
    for (row, numbers) in dx.chunks_exact_mut(nz * geometry.channels_in).enumerate() {
        let (sample, x, y) = (row / ny / nx, row / ny % nx + geometry.padding[0], row % ny + geometry.padding[1]);
        let at = ((sample * mirrored.output()[0] + x) * py + y) * pz + geometry.padding[2];
        let at = at * geometry.channels_in;
        let count = numbers.len();
        numbers.copy_from_slice(&padded[at..at + count]);
    }
}

/// Computes the gradient of [`conv3d`]'s weight.
pub fn conv3d_weight_gradient(class: Class, geometry: &Geometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    check(class, geometry, x, dw, dy);
    weight_gradient::weight_gradient(class, geometry, x, dy, dw);
}

/// Computes the gradient of a bias: the sum over all positions of `dy`, `[position, channel]`.
pub fn bias_gradient(dy: &[f32], db: &mut [f32]) {
    assert!(!db.is_empty() && dy.len().is_multiple_of(db.len()), "expected whole positions");
    weight_gradient::bias_gradient(dy, db);
}

/// Computes the transposed convolution with kernel and stride 2: `x` is `[batch, x, y, z, in]`, the weight `[in, out, 2, 2, 2]`.
pub fn conv_transpose3d(
    class: Class,
    shape: [usize; 3],
    channels: [usize; 2],
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    class.require();
    let positions = x.len() / channels[0];
    assert!(x.len().is_multiple_of(shape.iter().product::<usize>() * channels[0]), "expected whole samples");
    assert_eq!(weight.len(), channels[0] * channels[1] * 8, "expected a weight of kernel 2");
    assert_eq!(y.len(), positions * 8 * channels[1], "expected an output twice as large");
    assert!(bias.is_none_or(|bias| bias.len() == channels[1]), "expected one bias for each channel");
    let strided = Geometry {
        batch: positions / shape.iter().product::<usize>(),
        input: shape.map(|n| 2 * n),
        channels_in: channels[1],
        channels_out: channels[0],
        kernel: [2; 3],
        stride: [2; 3],
        padding: [0; 3],
    };
    direct::transposed(class, &strided, x, weight, bias, y);
}

/// Computes a convolution with the fastest algorithm of the given accuracy.
fn convolve(
    class: Class,
    accuracy: Accuracy,
    geometry: &Geometry,
    x: &[f32],
    weight: Weight<'_>,
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    match accuracy.outputs() {
        Some(outputs) if winograd::fits(class, geometry, outputs) => {
            winograd::forward(class, outputs, geometry, x, weight, bias, y);
        }
        _ => direct::forward(class, geometry, x, weight, bias, y),
    }
}

fn weight_view<'a>(geometry: &Geometry, numbers: &'a [f32], order: WeightOrder) -> Weight<'a> {
    Weight { numbers, outputs: geometry.channels_out, inputs: geometry.channels_in, taps: geometry.taps(), order }
}

/// Asserts the requirements of the kernels: the lengths of the slices, and a class of this processor, on which unsafe code relies.
fn check(class: Class, geometry: &Geometry, x: &[f32], weight: &[f32], y: &[f32]) {
    class.require();
    for a in 0..3 {
        let padded = geometry.input[a] + 2 * geometry.padding[a];
        let fits = geometry.stride[a] > 0 && (1..=padded).contains(&geometry.kernel[a]);
        assert!(fits, "expected a kernel within the padded input");
    }
    assert_eq!(x.len(), geometry.input_len(), "numbers of the input");
    assert_eq!(weight.len(), geometry.weight_len(), "numbers of the weight");
    assert_eq!(y.len(), geometry.output_len(), "numbers of the output");
}

/// Moves every gradient to the start of its output's window, with zeros between.
fn dilate(dy: &[f32], geometry: &Geometry, output: [usize; 3], spread: [usize; 3]) -> Vec<f32> {
    let channels = geometry.channels_out;
    let [sx, sy, sz] = geometry.stride;
    let mut dilated = vec![0.0; geometry.batch * spread.iter().product::<usize>() * channels];
    for (position, numbers) in dy.chunks_exact(channels).enumerate() {
        let z = position % output[2];
        let y = position / output[2] % output[1];
        let x = position / output[2] / output[1] % output[0];
        let sample = position / output[2] / output[1] / output[0];
        let at = ((sample * spread[0] + x * sx) * spread[1] + y * sy) * spread[2] + z * sz;
        dilated[at * channels..(at + 1) * channels].copy_from_slice(numbers);
    }
    dilated
}
