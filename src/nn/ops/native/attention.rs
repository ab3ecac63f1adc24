//! Attention, one window and head at a time.
//!
//! The scores of eight tokens are computed, converted to weights and used before the next eight: the scores of a whole window
//! are never in memory. The backward pass computes them again. Tokens and dimensions are padded to whole vectors; a padded
//! token has weight zero, and so has no effect.

use candle_core::{CpuStorage, Result, Storage, bail};
use rayon::prelude::*;

use super::exp::exp;
use super::matmul::{LANES, ROWS, add_transposed, multiply, round_up_to_lanes};
use super::{sum_lanes, sum_pairs};
use crate::nn::ops::attention_geometry::Attention;
use crate::nn::ops::operator::{Native, Slices};
use crate::simd::{Simd, SimdKernel, dispatch};

/// The number of groups of windows; the bias gradients of a group are summed one after another.
const GROUPS: usize = 16;

/// The rows of one window and head.
struct HeadRows<'a> {
    geometry: &'a Attention,
    qkv: &'a [f32],
    bias: Option<&'a [f32]>,
    mask: Option<&'a [f32]>,
    window: usize,
    head: usize,
}

impl HeadRows<'_> {
    /// Returns the numbers of one token: queries (0), keys (1) or values (2).
    #[inline(always)]
    fn token(&self, which: usize, token: usize) -> &[f32] {
        let geometry = self.geometry;
        let start = (((self.window * geometry.tokens + token) * 3 + which) * geometry.heads + self.head) * geometry.dim;
        &self.qkv[start..start + geometry.dim]
    }

    /// Returns the range of this head's numbers of one token in a tensor of the output's shape.
    #[inline(always)]
    fn output_range(&self, token: usize) -> std::ops::Range<usize> {
        let geometry = self.geometry;
        let start = ((self.window * geometry.tokens + token) * geometry.heads + self.head) * geometry.dim;
        start..start + geometry.dim
    }

    /// Returns the tokens as rows of padded length, padded to whole vectors of tokens, times `scale`.
    #[inline(always)]
    fn rows<'b>(&self, token: impl Fn(usize) -> &'b [f32], scale: f32) -> Vec<f32> {
        let (tokens, dim) = (self.geometry.tokens, round_up_to_lanes(self.geometry.dim));
        let mut rows = vec![0f32; round_up_to_lanes(tokens) * dim];
        for (i, row) in rows.chunks_exact_mut(dim).enumerate().take(tokens) {
            for (to, from) in row.iter_mut().zip(token(i)) {
                *to = from * scale;
            }
        }
        rows
    }

    /// Returns the tokens as columns.
    #[inline(always)]
    fn columns(&self, which: usize) -> Vec<f32> {
        let padded = round_up_to_lanes(self.geometry.tokens);
        let mut columns = vec![0f32; self.geometry.dim * padded];
        for i in 0..self.geometry.tokens {
            for (column, value) in columns.chunks_exact_mut(padded).zip(self.token(which, i)) {
                column[i] = *value;
            }
        }
        columns
    }

    /// Converts the products of eight queries from `first` on with all keys to exponentials of the scores; returns the factors that
    /// make each row sum to one.
    #[inline(always)]
    fn weigh<S: Simd>(&self, scores: &mut [f32], first: usize) -> [f32; ROWS] {
        let tokens = self.geometry.tokens;
        let mut scales = [0f32; ROWS];
        for (r, scores) in scores.chunks_exact_mut(round_up_to_lanes(tokens)).enumerate() {
            let token = first + r;
            if token >= tokens {
                continue;
            }
            if let Some(bias) = self.bias {
                add(scores, &bias[(self.head * tokens + token) * tokens..][..tokens]);
            }
            if let Some(mask) = self.mask {
                let window = self.window % (mask.len() / (tokens * tokens));
                add(scores, &mask[(window * tokens + token) * tokens..][..tokens]);
            }
            scores[tokens..].fill(f32::NEG_INFINITY);
            let mut lanes = [f32::NEG_INFINITY; LANES];
            let largest = scores.chunks_exact(S::WIDTH).fold(S::load(&lanes), |a, b| S::max(S::load(b), a));
            S::store(largest, &mut lanes);
            let largest = S::splat(-lanes.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a }));
            let mut sum = S::splat(0.);
            for scores in scores.chunks_exact_mut(S::WIDTH) {
                let weight = exp::<S>(S::add(S::load(scores), largest));
                sum = S::add(sum, weight);
                S::store(weight, scores);
            }
            let mut lanes = [0f32; LANES];
            S::store(sum, &mut lanes);
            scales[r] = 1. / sum_lanes(lanes);
        }
        scales
    }
}

/// Adds one row to the start of another.
#[inline(always)]
fn add(to: &mut [f32], row: &[f32]) {
    to.iter_mut().zip(row).for_each(|(to, value)| *to += value);
}

/// The output of one window and head, `[token, dim]`.
impl SimdKernel for &HeadRows<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self) -> Vec<f32> {
        let (tokens, dim) = (self.geometry.tokens, self.geometry.dim);
        let (padded, row) = (round_up_to_lanes(tokens), round_up_to_lanes(dim));
        let queries = self.rows(|i| self.token(0, i), self.geometry.scale as f32);
        let values = self.rows(|i| self.token(2, i), 1.);
        let keys = self.columns(1);
        let mut scores = vec![0f32; ROWS * padded];
        let mut blended = vec![0f32; ROWS * row];
        let mut y = Vec::with_capacity(tokens * dim);
        for first in (0..tokens).step_by(ROWS) {
            multiply::<S>(&queries[first * row..], row, dim, &keys, &mut scores, padded);
            let scales = self.weigh::<S>(&mut scores, first);
            multiply::<S>(&scores, padded, padded, &values, &mut blended, row);
            let here = ROWS.min(tokens - first);
            for (blended, scale) in blended.chunks_exact(row).zip(scales).take(here) {
                y.extend(blended[..dim].iter().map(|value| value * scale));
            }
        }
        y
    }
}

/// The gradients of one window and head.
struct Backward<'a> {
    rows: HeadRows<'a>,
    y: &'a [f32],
    grad: &'a [f32],
    /// The sum of the bias gradients, `[token, token]`; empty if no bias gradient is required.
    bias_grad: &'a mut [f32],
}

/// The gradients of queries, keys and values, `[3, token, dim]`.
impl SimdKernel for Backward<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self) -> Vec<f32> {
        let Self { rows, y, grad, bias_grad } = self;
        let (tokens, dim, scale) = (rows.geometry.tokens, rows.geometry.dim, rows.geometry.scale as f32);
        let (padded, row) = (round_up_to_lanes(tokens), round_up_to_lanes(dim));
        let queries = rows.rows(|i| rows.token(0, i), scale);
        let key_rows = rows.rows(|i| rows.token(1, i), 1.);
        let grads = rows.rows(|i| &grad[rows.output_range(i)], 1.);
        let (keys, values) = (rows.columns(1), rows.columns(2));
        let mut weights = vec![0f32; ROWS * padded];
        let mut score_grads = vec![0f32; ROWS * padded];
        let mut query_grads = vec![0f32; ROWS * row];
        let (mut key_grads, mut value_grads) = (vec![0f32; row * padded], vec![0f32; row * padded]);
        let mut all = vec![0f32; 3 * tokens * dim];
        for first in (0..tokens).step_by(ROWS) {
            multiply::<S>(&queries[first * row..], row, dim, &keys, &mut weights, padded);
            let scales = rows.weigh::<S>(&mut weights, first);
            multiply::<S>(&grads[first * row..], row, dim, &values, &mut score_grads, padded);
            let pairs = weights.chunks_exact_mut(padded).zip(score_grads.chunks_exact_mut(padded)).zip(scales);
            for (r, ((weights, score_grads), scale)) in pairs.enumerate() {
                // A padded query has a scale of zero, and so contributes nothing.
                let range = if first + r < tokens { rows.output_range(first + r) } else { 0..0 };
                let along = sum_pairs(&y[range.clone()], &grad[range], |y, grad| y * grad);
                for (weight, score_grad) in weights.iter_mut().zip(score_grads) {
                    *weight *= scale;
                    *score_grad = *weight * (*score_grad - along);
                }
            }
            let here = ROWS.min(tokens - first);
            if !bias_grad.is_empty() {
                let sums = bias_grad[first * tokens..].chunks_exact_mut(tokens);
                for (sums, score_grads) in sums.zip(score_grads.chunks_exact(padded)).take(here) {
                    add(sums, score_grads);
                }
            }
            add_transposed::<S>(&queries[first * row..], row, dim, &score_grads, &mut key_grads, padded);
            add_transposed::<S>(&grads[first * row..], row, dim, &weights, &mut value_grads, padded);
            multiply::<S>(&score_grads, padded, padded, &key_rows, &mut query_grads, row);
            let to = all[first * dim..tokens * dim].chunks_exact_mut(dim);
            for (to, from) in to.zip(query_grads.chunks_exact(row)).take(here) {
                to.iter_mut().zip(from).for_each(|(to, from)| *to = from * scale);
            }
        }
        let (key_part, value_part) = all[tokens * dim..].split_at_mut(tokens * dim);
        for (part, grads) in [(key_part, key_grads), (value_part, value_grads)] {
            for (i, part) in part.chunks_exact_mut(dim).enumerate() {
                for (to, column) in part.iter_mut().zip(grads.chunks_exact(padded)) {
                    *to = column[i];
                }
            }
        }
        all
    }
}

impl Attention {
    /// Calls `work` with the mask's numbers.
    fn with_mask<T>(&self, work: impl FnOnce(Option<&[f32]>) -> T) -> Result<T> {
        let Some(mask) = &self.mask else { return Ok(work(None)) };
        let (storage, layout) = mask.storage_and_layout();
        match (&*storage, layout.contiguous_offsets()) {
            (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => Ok(work(Some(&values[start..end]))),
            _ => bail!(
                "attention: expected a contiguous mask of f32 on the CPU, got {:?} on {:?} with strides {:?}",
                mask.dtype(),
                mask.device().location(),
                layout.stride()
            ),
        }
    }
}

impl Native for Attention {
    fn forward(&self, inputs: &[&[f32]]) -> Result<Vec<f32>> {
        let (tokens, heads, dim) = (self.tokens, self.heads, self.dim);
        let bias = inputs.get(1).copied();
        let parts: Vec<Vec<f32>> = self.with_mask(|mask| {
            (0..self.windows * heads)
                .into_par_iter()
                .map(|i| {
                    dispatch(&HeadRows {
                        geometry: self,
                        qkv: inputs[0],
                        bias,
                        mask,
                        window: i / heads,
                        head: i % heads,
                    })
                })
                .collect()
        })?;
        let window = tokens * heads * dim;
        Ok(super::filled(self.windows * window, window, |w, y| {
            for (token, y) in y.chunks_exact_mut(heads * dim).enumerate() {
                for (head, y) in y.chunks_exact_mut(dim).enumerate() {
                    y.copy_from_slice(&parts[w * heads + head][token * dim..(token + 1) * dim]);
                }
            }
        }))
    }

    fn backward(&self, call: &Slices) -> Result<Vec<Option<Vec<f32>>>> {
        let (windows, tokens, heads, dim) = (self.windows, self.tokens, self.heads, self.dim);
        let (qkv, bias) = (call.inputs[0], call.inputs.get(1).copied());
        let bias_required = call.required.get(1) == Some(&true);
        let per_group = if bias_required { windows.div_ceil(GROUPS) } else { 1 };
        let groups = windows.div_ceil(per_group);
        let parts: Vec<(Vec<Vec<f32>>, Vec<f32>)> = self.with_mask(|mask| {
            (0..groups * heads)
                .into_par_iter()
                .map(|i| {
                    let (group, head) = (i / heads, i % heads);
                    let mut bias_grad = vec![0f32; if bias_required { tokens * tokens } else { 0 }];
                    let range = group * per_group..windows.min((group + 1) * per_group);
                    let part = |window| {
                        let rows = HeadRows { geometry: self, qkv, bias, mask, window, head };
                        dispatch(Backward { rows, y: call.output, grad: call.grad, bias_grad: &mut bias_grad })
                    };
                    (range.map(part).collect(), bias_grad)
                })
                .collect()
        })?;
        let window = tokens * 3 * heads * dim;
        let qkv_grad = super::filled(windows * window, window, |w, grad| {
            for (at, grad) in grad.chunks_exact_mut(dim).enumerate() {
                let (token, which, head) = (at / (3 * heads), at / heads % 3, at % heads);
                let part = &parts[w / per_group * heads + head].0[w % per_group];
                grad.copy_from_slice(&part[(which * tokens + token) * dim..][..dim]);
            }
        });
        let mut gradients = vec![Some(qkv_grad)];
        if bias.is_some() {
            gradients.push(bias_required.then(|| {
                super::filled(heads * tokens * tokens, tokens * tokens, |head, sum| {
                    for group in 0..groups {
                        let part = &parts[group * heads + head].1;
                        add(sum, part);
                    }
                })
            }));
        }
        Ok(gradients)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::on_every_class;

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + 11) % 64) as f32 / 32. - 1.).collect()
    }

    /// Every instruction set is compared with plain loops in double precision.
    #[test]
    fn attention_of_one_head_equals_plain_loops() {
        for (tokens, dim) in [(1, 1), (7, 4), (21, 16), (40, 33)] {
            let (windows, heads, scale) = (2, 3, 0.7);
            let geometry = Attention { windows, tokens, heads, dim, scale, mask: None };
            let qkv = numbers(windows * tokens * 3 * heads * dim);
            let (bias, mask) = (numbers(heads * tokens * tokens), numbers(tokens * tokens));
            let rows =
                HeadRows { geometry: &geometry, qkv: &qkv, bias: Some(&bias), mask: Some(&mask), window: 1, head: 2 };
            let mut expected = Vec::new();
            for i in 0..tokens {
                let weight = |j: usize| {
                    let dot: f64 =
                        (0..dim).map(|d| f64::from(rows.token(0, i)[d]) * f64::from(rows.token(1, j)[d])).sum();
                    let (bias, mask) = (bias[(2 * tokens + i) * tokens + j], mask[i * tokens + j]);
                    (scale * dot + f64::from(bias) + f64::from(mask)).exp()
                };
                let sum: f64 = (0..tokens).map(weight).sum();
                for d in 0..dim {
                    expected.push((0..tokens).map(|j| weight(j) / sum * f64::from(rows.token(2, j)[d])).sum::<f64>());
                }
            }
            for y in on_every_class(&rows) {
                assert_eq!(y.len(), expected.len());
                assert!(y.iter().zip(&expected).all(|(y, expected)| (f64::from(*y) - expected).abs() < 2e-6));
            }
        }
    }
}
