//! The gradient of a convolution's weight: products of inputs and output gradients, summed over all positions.

use rayon::prelude::*;

use super::buffer::zeros;
use super::class::Class;
use super::geometry::Geometry;
use super::pack::{Slab, Source};
use super::shared::Shared;
use super::tile::{Call, Segment, Start, TileShape};

/// Numbers of partial sums, about: 16 MiB.
const PARTIAL: usize = 4 * 1024 * 1024;

/// Most partial sums: their number follows from the shapes alone, so that the result does not depend on threads.
const PARTS: usize = 8;

/// Numbers of a slab, about.
const SLAB: usize = 64 * 1024;

/// Outputs that one task takes at most.
const GROUP: usize = 64;

/// `dw[out][in][tap] = Σ x[position · stride + tap − padding][in] · dy[position][out]`.
pub(super) fn weight_gradient(class: Class, geometry: &Geometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let [ox, oy, oz] = geometry.output();
    let ([kx, ky, kz], [sx, sy, sz]) = (geometry.kernel, geometry.stride);
    let (inputs, outputs, taps) = (geometry.channels_in, geometry.channels_out, geometry.taps());
    let planes = geometry.batch * ox;
    let parts = (PARTIAL / geometry.weight_len().max(1)).clamp(1, PARTS).min(planes);
    let groups = outputs.div_ceil(GROUP);
    let group = outputs.div_ceil(groups);
    // The tile's rows run over the taps along z and the inputs, its columns over the outputs of one group.
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
    let gradient = Source { numbers: dy, shape: [ox, oy, oz], channels: outputs };
    partial.par_chunks_mut(task_len).enumerate().for_each_init(
        || (Slab::new(), Vec::new(), Vec::new()),
        |(slab, packed, segments), (task, sums)| {
            let (part, tap_x, at_group) = (task / groups / kx, task / groups % kx, task % groups);
            let first_output = at_group * group;
            let count = group.min(outputs - first_output);
            let sums = Shared::new(sums);
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
                    pack_rows(
                        gradient,
                        sample,
                        px,
                        first_y..first_y + rows,
                        first_output,
                        count,
                        shape.columns,
                        packed,
                    );
                    let row_len = oz * shape.columns;
                    for tap_y in 0..ky {
                        for block in 0..count.div_ceil(shape.columns) {
                            shape.split(depth, |first, wide| {
                                segments.clear();
                                for row in 0..rows {
                                    segments.push(Segment {
                                        a: slab.row(0, row * sy + tap_y).wrapping_add(first),
                                        b: packed[(block * rows + row) * row_len..].as_ptr(),
                                    });
                                }
                                let call = Call {
                                    segments,
                                    length: oz,
                                    a_row: 1,
                                    a_step: sz * inputs,
                                    c: sums.at((tap_y * depth + first) * padded + block * shape.columns),
                                    c_row: padded,
                                    width: shape.columns,
                                    start: Start::Output,
                                };
                                // SAFETY: the slab holds the taps of these rows, `packed` their gradients, and the sums belong
                                // to this task.
                                unsafe { shape.function(wide)(&call) }
                            });
                        }
                    }
                }
            }
        },
    );
    dw.par_chunks_mut(inputs * taps).enumerate().for_each(|(output, numbers)| {
        let (at_group, column) = (output / group, output % group);
        for tap in 0..taps {
            let (tap_x, tap_yz) = (tap / (ky * kz), tap % (ky * kz));
            for input in 0..inputs {
                let inner = (tap_yz * inputs + input) * padded + column;
                numbers[input * taps + tap] = (0..parts)
                    .map(|part| partial[((part * kx + tap_x) * groups + at_group) * task_len + inner])
                    .fold(0.0, |sum, number| sum + number);
            }
        }
    });
}

/// Gathers rows of the output's gradient as `[block][row][z][column]`, zero where a block has no output.
#[allow(clippy::too_many_arguments)]
fn pack_rows(
    gradient: Source<'_>,
    sample: usize,
    plane: usize,
    rows: std::ops::Range<usize>,
    first_output: usize,
    count: usize,
    columns: usize,
    packed: &mut Vec<f32>,
) {
    let [nx, ny, nz] = gradient.shape;
    let blocks = count.div_ceil(columns);
    packed.clear();
    packed.resize(blocks * rows.len() * nz * columns, 0.0);
    let row_count = rows.len();
    for (row, y) in rows.enumerate() {
        for z in 0..nz {
            let at = (((sample * nx + plane) * ny + y) * nz + z) * gradient.channels + first_output;
            for block in 0..blocks {
                let wide = columns.min(count - block * columns);
                let to = ((block * row_count + row) * nz + z) * columns;
                let from = at + block * columns;
                packed[to..to + wide].copy_from_slice(&gradient.numbers[from..from + wide]);
            }
        }
    }
}

/// `db[out] = Σ dy[position][out]`: sums of fixed stretches, then of those, in double precision.
pub(super) fn bias_gradient(dy: &[f32], db: &mut [f32]) {
    /// Positions of one stretch.
    const STRETCH: usize = 4096;
    let outputs = db.len();
    let stretches: Vec<Vec<f64>> = dy
        .par_chunks(STRETCH * outputs)
        .map(|stretch| {
            let mut sums = vec![0.0f64; outputs];
            for position in stretch.chunks_exact(outputs) {
                for (sum, &number) in sums.iter_mut().zip(position) {
                    *sum += f64::from(number);
                }
            }
            sums
        })
        .collect();
    for (output, sum) in db.iter_mut().enumerate() {
        *sum = stretches.iter().map(|sums| sums[output]).sum::<f64>() as f32;
    }
}
