//! Max pooling.

use candle_core::Result;
use rayon::prelude::*;

use super::filled;
use crate::nn::kernel::zeros;
use crate::nn::ops::operator::{Native, Slices};
use crate::nn::ops::pool::MaxPool3d;
use crate::simd::dispatch;

impl MaxPool3d {
    /// Returns the starts of the four lines along z that are pooled into line `line` of the output.
    fn lines(&self, line: usize) -> [usize; 4] {
        let [nx, ny, nz] = self.size;
        let (plane, y) = (line / (ny / 2), line % (ny / 2) * 2);
        let (batch, x) = (plane / (nx / 2), plane % (nx / 2) * 2);
        let start = |i: usize| (((batch * nx + x + i / 2) * ny) + y + i % 2) * nz * self.channels;
        [0, 1, 2, 3].map(start)
    }

    /// Returns the length of one line of the output.
    fn line(&self) -> usize {
        self.size[2] / 2 * self.channels
    }
}

/// Returns the channel vectors of the eight corners of voxel `z` of a pooled line, in the order x, y, z.
#[inline(always)]
fn corners<'a>(lines: &[&'a [f32]; 4], z: usize, channels: usize) -> [&'a [f32]; 8] {
    std::array::from_fn(|i| {
        let start = (2 * z + i % 2) * channels;
        &lines[i / 2][start..start + channels]
    })
}

impl Native for MaxPool3d {
    fn forward(&self, inputs: &[&[f32]]) -> Result<Vec<f32>> {
        let (x, channels, line) = (inputs[0], self.channels, self.line());
        let [nx, ny, _] = self.size;
        let lines = self.batch * (nx / 2) * (ny / 2);
        Ok(filled(lines * line, line, |i, y| {
            let lines = self.lines(i).map(|start| &x[start..start + 2 * line]);
            dispatch(
                #[inline(always)]
                || {
                    for (z, y) in y.chunks_exact_mut(channels).enumerate() {
                        let corners = corners(&lines, z, channels);
                        y.copy_from_slice(corners[0]);
                        for corner in &corners[1..] {
                            for (y, &x) in y.iter_mut().zip(*corner) {
                                // NaN counts as the maximum.
                                *y = if x > *y || x.is_nan() { x } else { *y };
                            }
                        }
                    }
                },
            );
        }))
    }

    fn backward(&self, call: &Slices) -> Result<Vec<Option<Vec<f32>>>> {
        let (x, channels, line) = (call.inputs[0], self.channels, self.line());
        let [nx, ny, nz] = self.size;
        // A task processes the two planes of the input that are pooled into one plane of the output.
        let (plane, pooled) = (ny * nz * channels, ny / 2 * line);
        let mut x_grad = zeros(x.len());
        x_grad.par_chunks_mut(nx * plane).enumerate().for_each(|(batch, sample)| {
            sample.par_chunks_exact_mut(2 * plane).enumerate().for_each(|(px, planes)| {
                let first = (batch * (nx / 2) + px) * pooled;
                for py in 0..ny / 2 {
                    let at = first + py * line;
                    let starts = self.lines(at / line);
                    let first_plane = starts[0] - 2 * py * nz * channels;
                    let lines = starts.map(|start| &x[start..start + 2 * line]);
                    let (y, grad) = (&call.output[at..at + line], &call.grad[at..at + line]);
                    let starts = starts.map(|start| start - first_plane);
                    dispatch(
                        #[inline(always)]
                        || scatter_gradient(&lines, y, grad, channels, planes, starts),
                    );
                }
            });
        });
        Ok(vec![Some(x_grad)])
    }
}

/// Writes the gradient of a pooled line to the first maximal corners; `starts` are the starts of the lines in `planes`.
#[inline(always)]
fn scatter_gradient(
    lines: &[&[f32]; 4],
    y: &[f32],
    grad: &[f32],
    channels: usize,
    planes: &mut [f32],
    starts: [usize; 4],
) {
    let mut left = vec![0f32; channels];
    for (z, (y, grad)) in y.chunks_exact(channels).zip(grad.chunks_exact(channels)).enumerate() {
        left.copy_from_slice(grad);
        for (i, corner) in corners(lines, z, channels).into_iter().enumerate() {
            let start = starts[i / 2] + (2 * z + i % 2) * channels;
            let x_grad = &mut planes[start..start + channels];
            for (((x_grad, left), &x), &y) in x_grad.iter_mut().zip(&mut left).zip(corner).zip(y) {
                let largest = x == y || x.is_nan();
                *x_grad = if largest { *left } else { 0. };
                *left = if largest { 0. } else { *left };
            }
        }
    }
}
