//! Trilinear doubling.
//!
//! Each line of the output along z is computed from the weighted sum of four lines of the input. In the backward pass, each line of
//! the input's gradient is computed from the sixteen lines of the output to which the line contributed.

use candle_core::Result;

use super::filled;
use crate::nn::ops::operator::{Native, Slices};
use crate::nn::ops::upsample::Upsample3d;
use crate::simd::dispatch;

/// Returns the two inputs along one axis that output `i` blends, with their weights: the near input with 3/4, the far input with 1/4.
fn sources(i: usize, size: usize) -> [(usize, f32); 2] {
    let near = i / 2;
    let far = if i.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(size - 1) };
    [(near, 0.75), (far, 0.25)]
}

/// Returns the outputs along one axis to which input `i` contributes, with their weights.
fn targets(i: usize, size: usize) -> [(usize, f32); 4] {
    let before = if i == 0 { 0 } else { 2 * i - 1 };
    let after = if i + 1 == size { 2 * i + 1 } else { 2 * i + 2 };
    [(before, 0.25), (2 * i, 0.75), (2 * i + 1, 0.75), (after, 0.25)]
}

impl Native for Upsample3d {
    fn forward(&self, inputs: &[&[f32]]) -> Result<Vec<f32>> {
        let ([nx, ny, nz], channels, x) = (self.size, self.channels, inputs[0]);
        let line = nz * channels;
        let lines = self.batch * 2 * nx * 2 * ny;
        Ok(filled(lines * 2 * line, 2 * ny * 2 * line, |plane, y| {
            let (batch, ox) = (plane / (2 * nx), plane % (2 * nx));
            let mut blended = vec![0f32; line];
            for (oy, y) in y.chunks_exact_mut(2 * line).enumerate() {
                let (xs, ys) = (sources(ox, nx), sources(oy, ny));
                let parts: [(&[f32], f32); 4] = std::array::from_fn(|i| {
                    let ((sx, wx), (sy, wy)) = (xs[i / 2], ys[i % 2]);
                    let start = ((batch * nx + sx) * ny + sy) * line;
                    (&x[start..start + line], wx * wy)
                });
                dispatch(
                    #[inline(always)]
                    || {
                        blend(&parts, &mut blended);
                        double(&blended, y, channels);
                    },
                );
            }
        }))
    }

    fn backward(&self, call: &Slices) -> Result<Vec<Option<Vec<f32>>>> {
        let ([nx, ny, nz], channels, grad) = (self.size, self.channels, call.grad);
        let line = nz * channels;
        let x_grad = filled(self.batch * nx * ny * line, ny * line, |plane, x_grad| {
            let (batch, ix) = (plane / nx, plane % nx);
            let mut gathered = vec![0f32; 2 * line];
            for (iy, x_grad) in x_grad.chunks_exact_mut(line).enumerate() {
                let (xs, ys) = (targets(ix, nx), targets(iy, ny));
                let parts: [(&[f32], f32); 16] = std::array::from_fn(|i| {
                    let ((tx, wx), (ty, wy)) = (xs[i / 4], ys[i % 4]);
                    let start = ((batch * 2 * nx + tx) * 2 * ny + ty) * 2 * line;
                    (&grad[start..start + 2 * line], wx * wy)
                });
                dispatch(
                    #[inline(always)]
                    || {
                        blend(&parts, &mut gathered);
                        halve(&gathered, x_grad, channels);
                    },
                );
            }
        });
        Ok(vec![Some(x_grad)])
    }
}

/// Computes the weighted sum of lines.
#[inline(always)]
fn blend<const N: usize>(parts: &[(&[f32], f32); N], sum: &mut [f32]) {
    const BLOCK: usize = 16;
    let len = sum.len();
    let parts = parts.map(|(part, weight)| (&part[..len], weight));
    let whole = len / BLOCK * BLOCK;
    for start in (0..whole).step_by(BLOCK) {
        let mut lanes = [0f32; BLOCK];
        for (part, weight) in &parts {
            for (lane, value) in lanes.iter_mut().zip(&part[start..start + BLOCK]) {
                *lane += value * weight;
            }
        }
        sum[start..start + BLOCK].copy_from_slice(&lanes);
    }
    for i in whole..len {
        sum[i] = parts.iter().fold(0., |sum, (part, weight)| sum + part[i] * weight);
    }
}

/// Doubles a line along z.
#[inline(always)]
fn double(x: &[f32], y: &mut [f32], channels: usize) {
    let size = x.len() / channels;
    for (i, y) in y.chunks_exact_mut(channels).enumerate() {
        let [near, far] = sources(i, size).map(|(at, _)| &x[at * channels..(at + 1) * channels]);
        for ((y, near), far) in y.iter_mut().zip(near).zip(far) {
            *y = 0.75 * near + 0.25 * far;
        }
    }
}

/// Computes the gradient of [`double`].
#[inline(always)]
fn halve(grad: &[f32], x_grad: &mut [f32], channels: usize) {
    let size = x_grad.len() / channels;
    for (i, x_grad) in x_grad.chunks_exact_mut(channels).enumerate() {
        let [before, even, odd, after] = targets(i, size).map(|(at, _)| &grad[at * channels..(at + 1) * channels]);
        for ((((x_grad, before), even), odd), after) in x_grad.iter_mut().zip(before).zip(even).zip(odd).zip(after) {
            *x_grad = 0.75 * (even + odd) + 0.25 * (before + after);
        }
    }
}
