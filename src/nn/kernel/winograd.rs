//! Convolution with fewer multiplications, for kernels of 3 × 3 in y and z (Lavin and Gray, arXiv 1509.09308).
//!
//! `OUT × OUT` outputs of a plane are computed from a patch of `OUT + 2` squared inputs: patch and kernel are transformed, multiplied
//! number by number, summed over channels and over the kernel's planes along x, and the sum is transformed back. For each of
//! the `(OUT + 2)²` numbers of a patch that sum is a matrix product, computed by the same tiles as all convolutions. Each output
//! costs 4 (`OUT` = 2) or 2.25 (`OUT` = 4) multiplications instead of 9, and some bits of accuracy.

use std::marker::PhantomData;

use rayon::prelude::*;

use super::call::{InitialSum, Segment, TileCall};
use super::geometry::Geometry;
use super::pack::{Weight, within};
use super::shape::TileShape;
use super::shared::SharedSlice;
use super::transform::{Transform, WinogradF2, WinogradF4, transform_weights};
use crate::simd::{self, Class, Simd, SimdKernel};

/// The approximate number of patches of one task.
const PATCHES: usize = 96;

/// The approximate number of elements of transformed input of one task: 8 MiB.
const TRANSFORMED: usize = 2 * 1024 * 1024;

/// The minimum number of patches of a convolution for which transforming the weights saves time.
const MIN_PATCHES: usize = 128;

/// The number of outputs that are computed from a patch along each axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outputs {
    /// Two outputs: within a few units in the last place of the plain sum.
    WinogradF2,
    /// Four outputs: the fewest multiplications, about one decimal digit less accurate.
    WinogradF4,
}

/// Returns whether this algorithm supports a convolution and is faster than the plain sum.
pub(super) fn fits(class: Class, geometry: &Geometry, outputs: Outputs) -> bool {
    let [x, y, z] = geometry.output();
    let out = if outputs == Outputs::WinogradF2 { 2 } else { 4 };
    // The patches of one sample: the size of the batch must not affect the last bits of a sample's result.
    let patches = x * y.div_ceil(out) * z.div_ceil(out);
    let width = class.lanes();
    geometry.kernel[1..] == [3, 3]
        && geometry.stride == [1; 3]
        && geometry.channels_in.is_multiple_of(width)
        && geometry.channels_out.is_multiple_of(width)
        && geometry.channels_in.min(geometry.channels_out) >= 16
        && patches >= MIN_PATCHES
        && y >= out
        && z >= out
}

/// Computes `y = weight ∗ x + bias` for a geometry that [`fits`].
pub(super) fn forward(
    class: Class,
    outputs: Outputs,
    geometry: &Geometry,
    x: &[f32],
    weight: Weight<'_>,
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    match outputs {
        Outputs::WinogradF2 => run::<WinogradF2, 2, 4>(class, geometry, x, weight, bias, y),
        Outputs::WinogradF4 => run::<WinogradF4, 4, 6>(class, geometry, x, weight, bias, y),
    }
}

/// The plan of a convolution: the division of patches among tasks.
struct WinogradPlan {
    geometry: Geometry,
    /// The planes along x, rows of patches along y, and patches along z of a task.
    planes: usize,
    rows: usize,
    along_z: usize,
    shape: TileShape,
}

impl WinogradPlan {
    fn new(class: Class, geometry: Geometry, out: usize, points: usize) -> Self {
        let [nx, ny, nz] = geometry.output();
        let (along_y, along_z) = (ny.div_ceil(out), nz.div_ceil(out));
        let plane = |rows: usize| rows * along_z * points * geometry.channels_in;
        let fitting = |rows: usize| (1..=nx).rev().find(|&p| (p + 2) * plane(rows) <= TRANSFORMED).unwrap_or(1);
        // First enough rows to fill a tile, then enough planes for the patches of a task.
        let rows = (1..=along_y).find(|&rows| rows * along_z >= 24).unwrap_or(along_y);
        let rows = (1..=rows).rev().find(|&rows| fitting(rows) >= 2.min(nx)).unwrap_or(1);
        let rows = along_y.div_ceil(along_y.div_ceil(rows));
        let planes = PATCHES.div_ceil(rows * along_z).clamp(1, fitting(rows));
        let planes = nx.div_ceil(nx.div_ceil(planes));
        let shape = TileShape::choose(class, geometry.channels_out, rows * along_z);
        Self { geometry, planes, rows, along_z, shape }
    }
}

/// The buffers of one thread.
#[derive(Default)]
struct Scratch {
    /// `[plane][point][patch][channel]`; points are padded so that they do not share cache sets.
    transformed: Vec<f32>,
    /// `[point][plane][patch][column]` of one block of outputs.
    products: Vec<f32>,
    /// One patch with its padding.
    patch: Vec<f32>,
}

fn run<T: Transform<OUT, IN>, const OUT: usize, const IN: usize>(
    class: Class,
    geometry: &Geometry,
    x: &[f32],
    weight: Weight<'_>,
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    let plan = WinogradPlan::new(class, *geometry, OUT, IN * IN);
    let weights = transform_weights::<T, OUT, IN>(weight, geometry.kernel[0], plan.shape.columns);
    let [nx, ny, _] = geometry.output();
    let along_x = nx.div_ceil(plan.planes);
    let along_y = ny.div_ceil(OUT).div_ceil(plan.rows);
    let y = SharedSlice::new(y);
    (0..geometry.batch * along_x * along_y).into_par_iter().for_each_init(Scratch::default, |scratch, task| {
        let (sample, first_x, first_row) =
            (task / along_y / along_x, task / along_y % along_x * plan.planes, task % along_y * plan.rows);
        let task = Task::<'_, T, OUT, IN> {
            plan: &plan,
            x,
            weights: &weights,
            bias,
            y,
            sample,
            first_x,
            first_row,
            planes: plan.planes.min(nx - first_x),
            rows: plan.rows.min(ny.div_ceil(OUT) - first_row),
            transform: PhantomData,
        };
        simd::run(class, (&task, scratch));
    });
}

/// The outputs of some planes and rows of patches. [`run`] creates one task for each part of the output, so that no other task writes
/// that part.
struct Task<'a, T, const OUT: usize, const IN: usize> {
    plan: &'a WinogradPlan,
    x: &'a [f32],
    weights: &'a [f32],
    bias: Option<&'a [f32]>,
    y: SharedSlice<'a>,
    sample: usize,
    first_x: usize,
    first_row: usize,
    planes: usize,
    rows: usize,
    transform: PhantomData<T>,
}

impl<T: Transform<OUT, IN>, const OUT: usize, const IN: usize> SimdKernel for (&Task<'_, T, OUT, IN>, &mut Scratch) {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        self.0.run::<S>(self.1);
    }
}

impl<T: Transform<OUT, IN>, const OUT: usize, const IN: usize> Task<'_, T, OUT, IN> {
    /// Returns the number of patches of one plane.
    fn patches(&self) -> usize {
        self.rows * self.plan.along_z
    }

    /// Returns the distance between the points of a transformed plane, in elements: one cache line more than the size of a point.
    fn point_len(&self) -> usize {
        self.patches() * self.plan.geometry.channels_in + 16
    }

    #[inline(always)]
    fn run<S: Simd>(&self, scratch: &mut Scratch) {
        let geometry = &self.plan.geometry;
        let kernel_planes = geometry.kernel[0];
        let plane_len = IN * IN * self.point_len();
        let patches = self.patches();
        let columns = self.plan.shape.columns;
        let input_plane =
            |plane: usize| within(self.first_x as isize - geometry.padding[0] as isize, plane, geometry.input[0]);
        scratch.transformed.resize((self.planes + kernel_planes - 1) * plane_len, 0.0);
        scratch.products.resize(IN * IN * self.planes * patches * columns, 0.0);
        scratch.patch.resize(IN * IN * geometry.channels_in, 0.0);
        for (plane, numbers) in scratch.transformed.chunks_exact_mut(plane_len).enumerate() {
            if let Some(at_x) = input_plane(plane) {
                self.transform_plane::<S>(at_x, numbers, &mut scratch.patch);
            }
        }
        let size = kernel_planes * geometry.channels_in * columns;
        let mut segments = Vec::with_capacity(kernel_planes);
        for block in 0..geometry.channels_out.div_ceil(columns) {
            let products = SharedSlice::new(&mut scratch.products);
            for point in 0..IN * IN {
                let weights = self.weights[(block * IN * IN + point) * size..][..size].as_ptr();
                for plane in 0..self.planes {
                    segments.clear();
                    for tap in (0..kernel_planes).filter(|tap| input_plane(plane + tap).is_some()) {
                        segments.push(Segment {
                            a: scratch.transformed[(plane + tap) * plane_len + point * self.point_len()..].as_ptr(),
                            b: weights.wrapping_add(tap * geometry.channels_in * columns),
                        });
                    }
                    self.plan.shape.split(patches, |first, rows| {
                        let call = TileCall {
                            segments: &segments,
                            a_offset: first * geometry.channels_in,
                            steps: geometry.channels_in,
                            a_row_stride: geometry.channels_in,
                            a_step_stride: 1,
                            c: products.at(((point * self.planes + plane) * patches + first) * columns),
                            c_row_stride: columns,
                            output_columns: columns,
                            initial: InitialSum::Zero,
                        };
                        // SAFETY: the transformed planes hold all patches, the weights all columns, and the processor has
                        // the plan's class, in which this function runs.
                        unsafe { self.plan.shape.function(rows)(&call) }
                    });
                }
            }
            for plane in 0..self.planes {
                self.write_plane::<S>(plane, block, &scratch.products);
            }
        }
    }

    /// Transforms all patches of one input plane.
    #[inline(always)]
    fn transform_plane<S: Simd>(&self, at_x: usize, numbers: &mut [f32], patch: &mut [f32]) {
        let geometry = &self.plan.geometry;
        let ([_, ny, nz], channels) = (geometry.input, geometry.channels_in);
        let plane = (self.sample * geometry.input[0] + at_x) * ny;
        let point_len = self.point_len();
        for row in 0..self.rows {
            let y = ((self.first_row + row) * OUT) as isize - geometry.padding[1] as isize;
            for at_z in 0..self.plan.along_z {
                let z = (at_z * OUT) as isize - geometry.padding[2] as isize;
                let whole = y >= 0 && y as usize + IN <= ny && z >= 0 && z as usize + IN <= nz;
                let (from, row_len) = if whole {
                    let first = ((plane + y as usize) * nz + z as usize) * channels;
                    let last = ((plane + y as usize + IN - 1) * nz + z as usize + IN) * channels;
                    (self.x[first..last].as_ptr(), nz * channels)
                } else {
                    patch.fill(0.0);
                    for i in 0..IN {
                        let Some(y) = within(y, i, ny) else { continue };
                        for j in 0..IN {
                            let Some(z) = within(z, j, nz) else { continue };
                            let at = ((plane + y) * nz + z) * channels;
                            patch[(i * IN + j) * channels..][..channels].copy_from_slice(&self.x[at..at + channels]);
                        }
                    }
                    (patch.as_ptr(), IN * channels)
                };
                let to = (row * self.plan.along_z + at_z) * channels;
                let numbers = &mut numbers[to..to + (IN * IN - 1) * point_len + channels];
                for channel in (0..channels).step_by(S::WIDTH) {
                    // SAFETY: `from` and `numbers` span a whole patch, and the channels are whole vectors, as [`fits`] requires.
                    unsafe {
                        let mut half = [[S::zero(); IN]; IN];
                        for (j, half) in half.iter_mut().enumerate() {
                            let mut column = [S::zero(); IN];
                            for (i, number) in column.iter_mut().enumerate() {
                                *number = S::load_at(from.wrapping_add(i * row_len + j * channels + channel));
                            }
                            *half = T::input::<S>(column);
                        }
                        for i in 0..IN {
                            let mut row = [S::zero(); IN];
                            for (number, half) in row.iter_mut().zip(&half) {
                                *number = half[i];
                            }
                            for (j, number) in T::input::<S>(row).into_iter().enumerate() {
                                let to = numbers.as_mut_ptr().wrapping_add((i * IN + j) * point_len + channel);
                                S::store_at(number, to);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Transforms the products of one plane and block back, and writes the outputs.
    #[inline(always)]
    fn write_plane<S: Simd>(&self, plane: usize, block: usize, products: &[f32]) {
        let geometry = &self.plan.geometry;
        let ([nx, ny, nz], outputs) = (geometry.output(), geometry.channels_out);
        let columns = self.plan.shape.columns;
        let patches = self.patches();
        let point_len = self.planes * patches * columns;
        let at_x = (self.sample * nx + self.first_x + plane) * ny;
        for row in 0..self.rows {
            let y = (self.first_row + row) * OUT;
            for at_z in 0..self.plan.along_z {
                let z = at_z * OUT;
                let from = (plane * patches + row * self.plan.along_z + at_z) * columns;
                let products = &products[from..from + (IN * IN - 1) * point_len + columns];
                for column in (0..columns).step_by(S::WIDTH) {
                    let output = block * columns + column;
                    if output >= outputs {
                        break;
                    }
                    let wide = S::WIDTH.min(outputs - output);
                    // SAFETY: `products` spans a whole patch; rows and columns beyond the output's sides are skipped, and of the
                    // last vector only the existing channels are written. No other task writes these outputs.
                    unsafe {
                        let bias = match self.bias {
                            Some(bias) => S::load_first(bias[output..output + wide].as_ptr(), wide),
                            None => S::zero(),
                        };
                        let mut half = [[S::zero(); OUT]; IN];
                        for (j, half) in half.iter_mut().enumerate() {
                            let mut numbers = [S::zero(); IN];
                            for (i, number) in numbers.iter_mut().enumerate() {
                                let from = products.as_ptr().wrapping_add((i * IN + j) * point_len + column);
                                *number = S::load_at(from);
                            }
                            *half = T::output::<S>(numbers);
                        }
                        for i in 0..OUT.min(ny - y) {
                            let mut numbers = [S::zero(); IN];
                            for (number, half) in numbers.iter_mut().zip(&half) {
                                *number = half[i];
                            }
                            for (j, number) in T::output::<S>(numbers).into_iter().enumerate().take(nz - z) {
                                let to = self.y.at(((at_x + y + i) * nz + z + j) * outputs + output);
                                S::store_first(S::add(number, bias), to, wide);
                            }
                        }
                    }
                }
            }
        }
    }
}
