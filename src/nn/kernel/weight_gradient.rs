//! The gradient of a convolution's weight: products of inputs and output gradients, summed over all positions.

use rayon::prelude::*;

use super::buffer::zeros;
use super::call::{InitialSum, Segment, TileCall};
use super::geometry::Geometry;
use super::pack::{Slab, Source};
use super::shape::TileShape;
use super::shared::SharedSlice;
use crate::simd::Class;

/// The approximate number of elements of all partial sums: 16 MiB.
const PARTIAL: usize = 4 * 1024 * 1024;

/// The maximum number of partial sums: the shapes alone determine their number, so that the result does not depend on threads.
const PARTS: usize = 8;

/// The approximate number of elements of a slab.
const SLAB: usize = 64 * 1024;

/// The number of outputs whose gradients are copied together.
const OUTPUTS: usize = 16;

/// The maximum number of outputs of one task.
const GROUP: usize = 64;

/// Computes `dw[out][in][tap] = Σ x[position · stride + tap − padding][in] · dy[position][out]`.
pub(super) fn weight_gradient(class: Class, geometry: &Geometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let [ox, oy, oz] = geometry.output();
    let ([kx, ky, kz], [sx, sy, sz]) = (geometry.kernel, geometry.stride);
    let (inputs, outputs, taps) = (geometry.channels_in, geometry.channels_out, geometry.taps());
    let planes = geometry.batch * ox;
    let parts = (PARTIAL / geometry.weight_len().max(1)).clamp(1, PARTS).min(planes);
    let groups = outputs.div_ceil(GROUP);
    let group = outputs.div_ceil(groups);
    // The tile's rows are the taps along z and the inputs, its columns the outputs of one group.
    let depth = kz * inputs;
    let shape = TileShape::choose(class, group, depth);
    let blocks = group.div_ceil(shape.columns);
    let padded = blocks * shape.columns;

    let width = (oz - 1) * sz + kz;
    let numbers = |rows: usize| ((rows - 1) * sy + ky) * width * inputs + rows * oz * padded;
    let rows = (1..=oy).rev().find(|&rows| numbers(rows) <= SLAB).unwrap_or(1);

    // [part][kx][group][ky][kz · input][column]
    let task_len = ky * depth * padded;
    let mut partial = zeros(parts * kx * groups * task_len);
    let source = Source { numbers: x, shape: geometry.input, channels: inputs };
    partial.par_chunks_mut(task_len).enumerate().for_each_init(
        || (Slab::new(), Vec::new(), Vec::new()),
        |(slab, packed, segments), (task, sums)| {
            let (part, tap_x, at_group) = (task / groups / kx, task / groups % kx, task % groups);
            let first_output = at_group * group;
            let count = group.min(outputs - first_output);
            let sums = SharedSlice::new(sums);
            for plane in planes * part / parts..planes * (part + 1) / parts {
                let (sample, px) = (plane / ox, plane % ox);
                let at_x = (px * sx + tap_x) as isize - geometry.padding[0] as isize;
                if at_x < 0 || at_x >= geometry.input[0] as isize {
                    continue;
                }
                for first_y in (0..oy).step_by(rows) {
                    let rows = rows.min(oy - first_y);
                    let start =
                        [at_x, (first_y * sy) as isize - geometry.padding[1] as isize, -(geometry.padding[2] as isize)];
                    slab.cut(source, sample, start, [1, (rows - 1) * sy + ky, width], 0, inputs);
                    let row_len = oz * shape.columns;
                    let rows_at = (((sample * ox + px) * oy + first_y) * oz) * outputs;
                    // If the outputs are as many as the columns, the gradient is already packed.
                    let gradients = if shape.columns == outputs {
                        &dy[rows_at..rows_at + rows * row_len]
                    } else {
                        let lines = &dy[rows_at..rows_at + rows * oz * outputs];
                        pack_rows(lines, [rows, oz, outputs], first_output, count, shape.columns, packed);
                        packed.as_slice()
                    };
                    for tap_y in 0..ky {
                        for block in 0..count.div_ceil(shape.columns) {
                            segments.clear();
                            for row in 0..rows {
                                segments.push(Segment {
                                    a: slab.row(0, row * sy + tap_y),
                                    b: gradients[(block * rows + row) * row_len..].as_ptr(),
                                });
                            }
                            shape.split(depth, |first, wide| {
                                let call = TileCall {
                                    segments,
                                    a_offset: first,
                                    steps: oz,
                                    a_row_stride: 1,
                                    a_step_stride: sz * inputs,
                                    c: sums.at((tap_y * depth + first) * padded + block * shape.columns),
                                    c_row_stride: padded,
                                    output_columns: shape.columns,
                                    initial: InitialSum::Output,
                                };
                                // SAFETY: the slab holds the taps of these rows, `gradients` their gradients, and the sums belong
                                // to this task.
                                unsafe { shape.function(wide)(&call) }
                            });
                        }
                    }
                }
            }
        },
    );
    let part_len = kx * groups * task_len;
    let (total, others) = partial.split_at_mut(part_len);
    total.par_chunks_mut(SLAB).enumerate().for_each(|(chunk, sums)| {
        for part in others.chunks_exact(part_len) {
            let numbers = &part[chunk * SLAB..chunk * SLAB + sums.len()];
            sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
        }
    });
    // Neighbouring outputs are adjacent in the sums and far apart in the gradient: each cache line is read once.
    let filter = inputs * taps;
    let offsets: Vec<usize> = (0..outputs).map(|output| output / group * task_len + output % group).collect();
    dw.par_chunks_mut(OUTPUTS * filter).enumerate().for_each(|(chunk, numbers)| {
        for input in 0..inputs {
            for tap in 0..taps {
                let (tap_x, tap_yz) = (tap / (ky * kz), tap % (ky * kz));
                let at = tap_x * groups * task_len + (tap_yz * inputs + input) * padded;
                for (offset, filter) in offsets[chunk * OUTPUTS..].iter().zip(numbers.chunks_exact_mut(filter)) {
                    filter[input * taps + tap] = total[at + offset];
                }
            }
        }
    });
}

/// Gathers `[row][z][output]` as `[block][row][z][column]`, zero where a block has no output: `count` outputs from `first` on.
fn pack_rows(
    lines: &[f32],
    [rows, length, outputs]: [usize; 3],
    first: usize,
    count: usize,
    columns: usize,
    packed: &mut Vec<f32>,
) {
    let positions = rows * length;
    packed.resize(count.div_ceil(columns) * positions * columns, 0.0);
    for (block, part) in packed.chunks_exact_mut(positions * columns).enumerate() {
        let wide = columns.min(count - block * columns);
        let from = first + block * columns;
        for (to, line) in part.chunks_exact_mut(columns).zip(lines.chunks_exact(outputs)) {
            to[..wide].copy_from_slice(&line[from..from + wide]);
            to[wide..].fill(0.0);
        }
    }
}

/// Computes `db[out] = Σ dy[position][out]`: sums of a few rows in single precision, sums of those in double precision, and sums of
/// chunks in their order. With few outputs, several neighbouring positions are combined into one wide row.
pub(super) fn bias_gradient(dy: &[f32], db: &mut [f32]) {
    /// The rows of one chunk, and of a sum in single precision.
    const CHUNK: usize = 512;
    const SHORT: usize = 8;
    /// The minimum number of elements of a row.
    const WIDE: usize = 64;
    let outputs = db.len();
    let row = WIDE.div_ceil(outputs) * outputs;
    let chunks: Vec<Vec<f64>> = dy
        .par_chunks(CHUNK * row)
        .map(|chunk| {
            let (mut short, mut sums) = (vec![0.0f32; row], vec![0.0f64; row]);
            for rows in chunk.chunks(SHORT * row) {
                for numbers in rows.chunks(row) {
                    short.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
                }
                sums.iter_mut().zip(&mut short).for_each(|(sum, short)| *sum += f64::from(std::mem::take(short)));
            }
            sums
        })
        .collect();
    for (output, sum) in db.iter_mut().enumerate() {
        let columns = |sums: &Vec<f64>| sums.iter().skip(output).step_by(outputs).sum::<f64>();
        *sum = chunks.iter().map(columns).sum::<f64>() as f32;
    }
}
