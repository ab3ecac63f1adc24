//! Convolution by its definition: every output is a sum over taps and channels.

use rayon::prelude::*;

use super::call::{InitialSum, Segment, TileCall};
use super::geometry::Geometry;
use super::pack::{Slab, Source, Weight, pack};
use super::shape::TileShape;
use super::shared::SharedSlice;
use crate::simd::Class;

/// The maximum number of channels of a slab: with three planes of rows, the slab stays in a core's second-level cache.
const CHUNK: usize = 64;

/// The approximate number of elements of a slab: 256 KiB.
const SLAB: usize = 64 * 1024;

/// The number of positions that one task of a pointwise convolution computes.
const POSITIONS: usize = 192;

/// The number of tasks below which outputs are split over tasks as well.
const FEW_TASKS: usize = 16;

/// Computes `y = weight ∗ x + bias` for any kernel, stride and padding.
pub(super) fn forward(
    class: Class,
    geometry: &Geometry,
    x: &[f32],
    weight: Weight<'_>,
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    if geometry.is_pointwise() {
        return pointwise(class, x, weight, bias, y);
    }
    let [ox, oy, oz] = geometry.output();
    let ([kx, ky, kz], [sx, sy, sz]) = (geometry.kernel, geometry.stride);
    let (inputs, outputs) = (geometry.channels_in, geometry.channels_out);
    let shape = match (kz, sz) {
        (3, 1) => TileShape::choose_for_three_taps(class, outputs, oz),
        _ => TileShape::choose(class, outputs, oz),
    };
    let chunk = if inputs <= 96 { inputs } else { CHUNK };
    let packed = pack(weight, shape.columns, chunk);
    let blocks = outputs.div_ceil(shape.columns);

    let width = (oz - 1) * sz + kz;
    let numbers = |planes: usize, rows: usize| ((planes - 1) * sx + kx) * ((rows - 1) * sy + ky) * width * chunk;
    let rows = (1..=oy).rev().find(|&rows| numbers(1, rows) <= SLAB).unwrap_or(1);
    let planes = if rows < oy { 1 } else { (1..=ox).rev().find(|&planes| numbers(planes, rows) <= SLAB).unwrap_or(1) };
    let (rows, planes) = (even(oy, rows), even(ox, planes));
    let (along_x, along_y) = (ox.div_ceil(planes), oy.div_ceil(rows));
    let positions = geometry.batch * along_x * along_y;
    let groups = if positions >= FEW_TASKS { 1 } else { blocks.min(FEW_TASKS.div_ceil(positions)) };

    let source = Source { numbers: x, shape: geometry.input, channels: inputs };
    let y = SharedSlice::new(y);
    (0..positions * groups).into_par_iter().for_each_init(Slab::new, |slab, task| {
        let (position, group) = (task / groups, task % groups);
        let (sample, first_x, first_y) =
            (position / along_y / along_x, position / along_y % along_x * planes, position % along_y * rows);
        let (planes, rows) = (planes.min(ox - first_x), rows.min(oy - first_y));
        let mut segments = Vec::with_capacity(kx * ky);
        for first in (0..inputs).step_by(chunk) {
            let channels = chunk.min(inputs - first);
            let at = |first: usize, stride: usize, padding: usize| (first * stride) as isize - padding as isize;
            let start = [
                at(first_x, sx, geometry.padding[0]),
                at(first_y, sy, geometry.padding[1]),
                -(geometry.padding[2] as isize),
            ];
            slab.cut(source, sample, start, [(planes - 1) * sx + kx, (rows - 1) * sy + ky, width], first, channels);
            for block in blocks * group / groups..blocks * (group + 1) / groups {
                let size = geometry.taps() * channels * shape.columns;
                let offset = first * geometry.taps() * blocks * shape.columns + block * size;
                let weights = packed[offset..offset + size].as_ptr();
                let first_output = block * shape.columns;
                let initial = match bias {
                    _ if first > 0 => InitialSum::Output,
                    Some(bias) => InitialSum::Row(bias[first_output..].as_ptr()),
                    None => InitialSum::Zero,
                };
                for plane in 0..planes {
                    for row in 0..rows {
                        let output = (((sample * ox + first_x + plane) * oy + first_y + row) * oz) * outputs;
                        segments.clear();
                        for (i, j) in (0..kx).flat_map(|i| (0..ky).map(move |j| (i, j))) {
                            segments.push(Segment {
                                a: slab.row(plane * sx + i, row * sy + j),
                                b: weights.wrapping_add((i * ky + j) * kz * channels * shape.columns),
                            });
                        }
                        shape.split(oz, |z, count| {
                            let call = TileCall {
                                segments: &segments,
                                a_offset: z * sz * channels,
                                steps: kz * channels,
                                a_row_stride: sz * channels,
                                a_step_stride: 1,
                                c: y.at(output + z * outputs + first_output),
                                c_row_stride: outputs,
                                output_columns: shape.columns.min(outputs - first_output),
                                initial,
                            };
                            // SAFETY: the slab holds the taps of all rows of the tile, the packed weights its columns, and no
                            // other task has these planes, rows and outputs; a shape along a line was chosen only for a kernel of 3
                            // and a stride of 1 along z, as its calls require.
                            unsafe { shape.function(count)(&call) }
                        });
                    }
                }
            }
        }
    });
}

/// Returns the size of equal parts of `whole` that are at most `max_size`.
fn even(whole: usize, max_size: usize) -> usize {
    whole.div_ceil(whole.div_ceil(max_size))
}

/// Computes `y[p] = weight · x[p] + bias` at every position: a matrix product.
fn pointwise(class: Class, x: &[f32], weight: Weight<'_>, bias: Option<&[f32]>, y: &mut [f32]) {
    let (inputs, outputs) = (weight.inputs, weight.outputs);
    let positions = y.len() / outputs;
    let shape = TileShape::choose(class, outputs, POSITIONS.min(positions));
    let packed = pack(weight, shape.columns, inputs);
    let y = SharedSlice::new(y);
    (0..positions.div_ceil(POSITIONS)).into_par_iter().for_each(|task| {
        let first = task * POSITIONS;
        let count = POSITIONS.min(positions - first);
        for block in 0..outputs.div_ceil(shape.columns) {
            let first_output = block * shape.columns;
            shape.split(count, |p, rows| {
                let call = TileCall {
                    segments: &[Segment {
                        a: x[(first + p) * inputs..(first + p + rows) * inputs].as_ptr(),
                        b: packed[block * inputs * shape.columns..(block + 1) * inputs * shape.columns].as_ptr(),
                    }],
                    a_offset: 0,
                    steps: inputs,
                    a_row_stride: inputs,
                    a_step_stride: 1,
                    c: y.at((first + p) * outputs + first_output),
                    c_row_stride: outputs,
                    output_columns: shape.columns.min(outputs - first_output),
                    initial: bias.map_or(InitialSum::Zero, |bias| InitialSum::Row(bias[first_output..].as_ptr())),
                };
                // SAFETY: the slices above hold the tile's rows and columns, and no other task has these positions.
                unsafe { shape.function(rows)(&call) }
            });
        }
    });
}

/// Computes a transposed convolution whose stride equals its kernel: every input voxel writes a separate box of the output.
///
/// `geometry` is the geometry of the strided convolution: `x` has the shape of its output, `y` the shape of its input, and `weight` is its
/// weight.
pub(super) fn transposed(
    class: Class,
    geometry: &Geometry,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    let ([nx, ny, nz], [kx, ky, kz]) = (geometry.output(), geometry.kernel);
    let (inputs, outputs) = (geometry.channels_out, geometry.channels_in);
    let taps = kx * ky * kz;
    let shape = TileShape::choose(class, outputs, nz);
    let blocks = outputs.div_ceil(shape.columns);
    // One small matrix for each tap: [tap][block][input][column].
    let mut packed = vec![0.0; taps * blocks * inputs * shape.columns];
    packed.par_chunks_mut(inputs * shape.columns).enumerate().for_each(|(part, numbers)| {
        let (tap, block) = (part / blocks, part % blocks);
        for (input, row) in numbers.chunks_exact_mut(shape.columns).enumerate() {
            for (column, number) in row.iter_mut().enumerate().take(outputs - block * shape.columns) {
                *number = weight[(input * outputs + block * shape.columns + column) * taps + tap];
            }
        }
    });
    let y = SharedSlice::new(y);
    let rows = x.len() / (nz * inputs);
    (0..rows).into_par_iter().for_each(|row| {
        let (sample_x, at_y) = (row / ny, row % ny);
        let (sample, at_x) = (sample_x / nx, sample_x % nx);
        for tap in 0..taps {
            let [i, j, k] = [tap / (ky * kz), tap / kz % ky, tap % kz];
            let output = (((sample * nx + at_x) * kx + i) * ny * ky + at_y * ky + j) * nz * kz + k;
            for block in 0..blocks {
                let first_output = block * shape.columns;
                shape.split(nz, |z, count| {
                    let offset = (tap * blocks + block) * inputs * shape.columns;
                    let call = TileCall {
                        segments: &[Segment {
                            a: x[(row * nz + z) * inputs..(row * nz + z + count) * inputs].as_ptr(),
                            b: packed[offset..offset + inputs * shape.columns].as_ptr(),
                        }],
                        a_offset: 0,
                        steps: inputs,
                        a_row_stride: inputs,
                        a_step_stride: 1,
                        c: y.at((output + z * kz) * outputs + first_output),
                        c_row_stride: kz * outputs,
                        output_columns: shape.columns.min(outputs - first_output),
                        initial: bias.map_or(InitialSum::Zero, |bias| InitialSum::Row(bias[first_output..].as_ptr())),
                    };
                    // SAFETY: the slices above hold the tile's rows and columns; each output voxel belongs to one input
                    // voxel, and no other task has this row.
                    unsafe { shape.function(count)(&call) }
                });
            }
        }
    });
}
