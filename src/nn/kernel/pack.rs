//! Packing of weights and rows in the order in which the tiles read them.

use rayon::prelude::*;

use super::buffer::zeros;

/// The order in which a weight tensor is read: for the forward pass, or for the gradient of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WeightOrder {
    /// `w[out][in][tap]`: the forward pass.
    Forward,
    /// `w[in][out][taps − 1 − tap]`: the gradient of the input, a convolution with the mirrored kernel.
    Mirrored,
}

/// A weight of `[first, second, taps]` numbers, as the weight of a convolution from `inputs` to `outputs` channels.
#[derive(Clone, Copy)]
pub(super) struct Weight<'a> {
    pub numbers: &'a [f32],
    pub outputs: usize,
    pub inputs: usize,
    pub taps: usize,
    pub order: WeightOrder,
}

impl Weight<'_> {
    /// Returns one number of the weight.
    #[inline(always)]
    pub fn at(&self, output: usize, input: usize, tap: usize) -> f32 {
        match self.order {
            WeightOrder::Forward => self.numbers[(output * self.inputs + input) * self.taps + tap],
            WeightOrder::Mirrored => self.numbers[(input * self.outputs + output) * self.taps + self.taps - 1 - tap],
        }
    }
}

/// Packs a weight for tiles of `columns` outputs: blocks of `[tap][input][column]`, zero where the last block has no output.
///
/// Inputs are divided into chunks of `chunk` channels (the last may be narrower), each packed separately: the order is
/// `[chunk][block][tap][input][column]`, and a chunk starts at `first input · taps · blocks · columns`.
pub(super) fn pack(weight: Weight<'_>, columns: usize, chunk: usize) -> Vec<f32> {
    let blocks = weight.outputs.div_ceil(columns);
    let mut packed = zeros(blocks * columns * weight.inputs * weight.taps);
    let mut parts = Vec::new();
    let mut rest = packed.as_mut_slice();
    for first in (0..weight.inputs).step_by(chunk) {
        let inputs = chunk.min(weight.inputs - first);
        for block in 0..blocks {
            let (part, tail) = rest.split_at_mut(weight.taps * inputs * columns);
            parts.push((first, inputs, block, part));
            rest = tail;
        }
    }
    parts.into_par_iter().for_each(|(first, inputs, block, part)| {
        for column in 0..columns.min(weight.outputs - block * columns) {
            for input in 0..inputs {
                for tap in 0..weight.taps {
                    part[(tap * inputs + input) * columns + column] =
                        weight.at(block * columns + column, first + input, tap);
                }
            }
        }
    });
    packed
}

/// A box of input voxels, surrounded by zeros, as `[x][y][z][channel]`.
pub(super) struct Slab {
    /// The values.
    pub numbers: Vec<f32>,
    /// The number of rows along y of one plane.
    pub rows: usize,
    /// The number of elements of one row along z.
    pub row_len: usize,
    /// Channels of a voxel.
    pub channels: usize,
}

/// The input from which slabs are copied: `[batch][x][y][z][channel]`.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub numbers: &'a [f32],
    pub shape: [usize; 3],
    pub channels: usize,
}

impl Slab {
    /// Creates an empty slab.
    pub fn new() -> Self {
        Self { numbers: Vec::new(), rows: 0, row_len: 0, channels: 0 }
    }

    /// Copies the box of `size` voxels at `start`, which may be negative, with `channels` channels from `first` on. Voxels outside the
    /// input are zero.
    pub fn cut(
        &mut self,
        source: Source<'_>,
        sample: usize,
        start: [isize; 3],
        size: [usize; 3],
        first: usize,
        channels: usize,
    ) {
        (self.rows, self.row_len, self.channels) = (size[1], size[2] * channels, channels);
        // Every number is written below: clearing all of them first takes as long as the copy.
        self.numbers.resize(size[0] * size[1] * self.row_len, 0.0);
        let [nx, ny, nz] = source.shape;
        let (from, to) = inside(start[2], size[2], nz);
        for (at, row) in self.numbers.chunks_exact_mut(self.row_len.max(1)).enumerate() {
            let (x, y) = (within(start[0], at / size[1], nx), within(start[1], at % size[1], ny));
            let (Some(x), Some(y), true) = (x, y, from < to) else {
                row.fill(0.0);
                continue;
            };
            let z = (start[2] + from as isize) as usize;
            let read = (((sample * nx + x) * ny + y) * nz + z) * source.channels + first;
            let (before, rest) = row.split_at_mut(from * channels);
            let (row, after) = rest.split_at_mut((to - from) * channels);
            before.fill(0.0);
            after.fill(0.0);
            if channels == source.channels {
                row.copy_from_slice(&source.numbers[read..read + row.len()]);
            } else {
                for (voxel, row) in row.chunks_exact_mut(channels).enumerate() {
                    let at = read + voxel * source.channels;
                    row.copy_from_slice(&source.numbers[at..at + channels]);
                }
            }
        }
    }

    /// Returns a pointer to the row `y` of plane `x`.
    #[inline]
    pub fn row(&self, x: usize, y: usize) -> *const f32 {
        self.numbers[(x * self.rows + y) * self.row_len..].as_ptr()
    }
}

/// Returns the part of `start .. start + size` that is in `0 .. end`, relative to `start`.
pub(super) fn inside(start: isize, size: usize, end: usize) -> (usize, usize) {
    let from = (-start).max(0) as usize;
    let to = (end as isize - start).clamp(0, size as isize) as usize;
    (from.min(size), to)
}

/// Returns `start + step`, or `None` if the sum is not in `0 .. end`.
pub(super) fn within(start: isize, step: usize, end: usize) -> Option<usize> {
    let at = start + step as isize;
    (0..end as isize).contains(&at).then_some(at as usize)
}
