//! Reordering of whole channel vectors.

use std::sync::Arc;

use candle_core::{Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::check;
use super::operator::{BackwardInputs, Native, Operator, Slices, apply};
use crate::nn::kernel::zeros;

/// The index of a row of zeros.
const NONE: u32 = u32::MAX;

/// The row of the input at each position of the output, for [`arrange_rows`].
///
/// Each input row has at most one position, so that the inverse is a row order, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowOrder {
    forward: Arc<[u32]>,
    backward: Arc<[u32]>,
}

impl RowOrder {
    /// Creates the order that moves row `source[i]` to position `i`, or zeros if `source[i]` is `None`.
    ///
    /// # Errors
    ///
    /// If a source is not below `rows` or occurs twice, or there are 2³² rows or more.
    pub fn new(source: Vec<Option<usize>>, rows: usize) -> Result<Self> {
        if rows.max(source.len()) >= NONE as usize {
            bail!("row order: expected fewer than 2^32 rows, got {rows} and {}", source.len())
        }
        let mut backward = vec![NONE; rows];
        for (position, &row) in source.iter().enumerate() {
            match row {
                Some(row) if row >= rows => bail!("row order: expected rows below {rows}, got {row}"),
                Some(row) if backward[row] != NONE => bail!("row order: expected each row once, got {row} twice"),
                Some(row) => backward[row] = position as u32,
                None => {}
            }
        }
        let forward = source.into_iter().map(|row| row.map_or(NONE, |row| row as u32)).collect();
        Ok(Self { forward, backward: backward.into() })
    }

    /// Returns the order that undoes this one: rows that this order drops become zeros.
    #[must_use]
    pub fn inverse(&self) -> Self {
        Self { forward: Arc::clone(&self.backward), backward: Arc::clone(&self.forward) }
    }
}

/// Reorders the rows of each sample.
///
/// # Shapes
///
/// `x` `[batch, row, channel]`; returns `[batch, position, channel]`.
///
/// # Errors
///
/// If `x` has another number of rows than `order`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use freetumor::nn::ops::{RowOrder, arrange_rows};
///
/// let order = RowOrder::new(vec![Some(2), None, Some(0)], 3)?;
/// let x = Tensor::new(&[[[1f32, 2.], [3., 4.], [5., 6.]]], &Device::Cpu)?;
/// let y = arrange_rows(&x, &order)?;
/// assert_eq!(y.to_vec3::<f32>()?, [[[5., 6.], [0., 0.], [1., 2.]]]);
/// assert_eq!(arrange_rows(&y, &order.inverse())?.to_vec3::<f32>()?, [[[1., 2.], [0., 0.], [5., 6.]]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn arrange_rows(x: &Tensor, order: &RowOrder) -> Result<Tensor> {
    let expected = order.backward.len();
    let (batch, channels) = match *x.dims() {
        [batch, rows, channels] if rows == expected => (batch, channels),
        ref got => bail!("arrange_rows: expected a tensor of shape [batch, {expected}, channel], got {got:?}"),
    };
    check::not_empty("arrange_rows", "tensor", x)?;
    apply(ArrangeRows { order: order.clone(), batch, channels }, &[x])
}

/// The operator of [`arrange_rows`].
struct ArrangeRows {
    order: RowOrder,
    batch: usize,
    channels: usize,
}

impl Operator for ArrangeRows {
    const NAME: &'static str = "arrange_rows";

    fn shape(&self) -> Shape {
        Shape::from((self.batch, self.order.forward.len(), self.channels))
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor> {
        select(&inputs[0], &self.order.forward)
    }

    fn backward(&self, call: &BackwardInputs) -> Result<Vec<Option<Tensor>>> {
        call.gradients(|_| select(&call.grad, &self.order.backward))
    }

    fn native(&self) -> Option<&dyn Native> {
        Some(self)
    }
}

impl Native for ArrangeRows {
    fn forward(&self, inputs: &[&[f32]]) -> Result<Vec<f32>> {
        Ok(self.copy(inputs[0], &self.order.backward, &self.order.forward))
    }

    fn backward(&self, call: &Slices) -> Result<Vec<Option<Vec<f32>>>> {
        let gradient = || self.copy(call.grad, &self.order.forward, &self.order.backward);
        Ok(vec![call.required[0].then(gradient)])
    }
}

impl ArrangeRows {
    /// Copies the rows `index` of each sample of `x`, which has as many rows as `from` is long.
    fn copy(&self, x: &[f32], from: &[u32], index: &[u32]) -> Vec<f32> {
        const ROWS: usize = 256; // rows that one thread moves at a time
        let c = self.channels;
        let mut y = zeros(self.batch * index.len() * c);
        let samples = x.chunks_exact(from.len() * c).zip(y.chunks_exact_mut(index.len() * c));
        for (x, y) in samples {
            y.par_chunks_mut(ROWS * c).zip(index.par_chunks(ROWS)).for_each(|(y, index)| {
                for (to, &row) in y.chunks_exact_mut(c).zip(index) {
                    if row != NONE {
                        to.copy_from_slice(&x[row as usize * c..][..c]);
                    }
                }
            });
        }
        y
    }
}

/// Selects the rows `index` of each sample by candle's tensor operations: a row of zeros is prepended.
fn select(x: &Tensor, index: &[u32]) -> Result<Tensor> {
    let zeros = x.narrow(1, 0, 1)?.zeros_like()?;
    let index = Tensor::from_iter(index.iter().map(|&row| row.wrapping_add(1)), x.device())?;
    Tensor::cat(&[&zeros, x], 1)?.index_select(&index, 1)
}
