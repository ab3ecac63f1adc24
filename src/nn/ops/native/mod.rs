//! The kernels of this crate for `f32` on the CPU.
//!
//! Work is divided into pieces by the sizes alone, never by the number of threads, and sums over pieces are computed in the
//! pieces' order: a result has the same bits on any number of threads. Most of these operators are bound by memory, so each
//! reads its inputs once for its sums, and once more to write its result.

mod attention;
mod exp;
mod matmul;
mod norm;
mod pointwise;
mod pool;
mod rowwise;
mod upsample;

use crate::nn::kernel::zeros;
use rayon::prelude::*;

/// The number of elements that one task processes: enough that the start of the task takes little of its time, few enough for the cache.
const PIECE: usize = 1 << 15;

/// Returns the number of rows of this many columns that one task processes.
fn rows_per_piece(columns: usize) -> usize {
    (PIECE / columns).max(1)
}

/// Returns the sums of equally long vectors, computed in their order.
fn sum_in_order(parts: &[Vec<f64>]) -> Vec<f64> {
    let mut sums = vec![0.; parts[0].len()];
    for part in parts {
        for (sum, value) in sums.iter_mut().zip(part) {
            *sum += value;
        }
    }
    sums
}

/// Converts `values` to single precision.
fn single(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

/// Returns a vector whose pieces are filled by `fill`, which is called with a piece's index and the piece.
fn filled(len: usize, piece: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut values = zeros(len);
    values.par_chunks_mut(piece).enumerate().for_each(|(i, piece)| fill(i, piece));
    values
}

/// Returns piece `i` of `values`, for pieces of length `piece`.
fn piece_of(values: &[f32], i: usize, piece: usize) -> &[f32] {
    &values[i * piece..values.len().min((i + 1) * piece)]
}

/// Returns the sum of 16 lanes, computed as a tree.
#[inline(always)]
fn sum_lanes(lanes: [f32; 16]) -> f32 {
    let mut lanes = lanes;
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

/// Returns the sum of `term` over the positions of two rows, in 16 lanes if the rows are that long.
#[inline(always)]
fn sum_pairs(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    if a.len() < 16 {
        return a.iter().zip(b).fold(0., |sum, (&a, &b)| sum + term(a, b));
    }
    let mut lanes = [0f32; 16];
    let (a_blocks, b_blocks) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest = a_blocks.remainder().iter().zip(b_blocks.remainder());
    for (lane, (&a, &b)) in lanes.iter_mut().zip(rest) {
        *lane = term(a, b);
    }
    for (a, b) in a_blocks.zip(b_blocks) {
        for i in 0..16 {
            lanes[i] += term(a[i], b[i]);
        }
    }
    sum_lanes(lanes)
}
