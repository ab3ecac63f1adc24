//! The inner loop of all convolutions except narrow ones (`slide`): a tile of the output that stays in registers, and the choice of
//! its shape.

use super::call::{InitialSum, TileCall, TileFn};
use super::shape::TileShape;
use crate::simd::{Class, Kernel, Simd, kernel_portable};
#[cfg(target_arch = "x86_64")]
use crate::simd::{kernel_avx2, kernel_avx512};

/// The number of steps whose products are added before their sum is added to the total: a chain of `n` sums accumulates about `√n`
/// roundings, so that many short chains are more accurate than a long one, and an additional sum after every block takes little time.
const BLOCK: usize = 64;

impl TileShape {
    /// Returns the shape that computes `columns` columns over runs of `run` rows in the fewest cycles.
    pub fn choose(class: Class, columns: usize, run: usize) -> Self {
        let cost = |shape: &TileShape| {
            let pieces = run.div_ceil(shape.rows);
            let rows = run as f64 / pieces as f64;
            let multiply = rows * shape.cycles_per_row;
            // A chain of dependent sums takes at least four cycles for each step; two loads fit into a cycle.
            let loads = (rows + (shape.columns as f64 / 16.0).max(1.0)) / 2.0;
            columns.div_ceil(shape.columns) as f64 * pieces as f64 * multiply.max(loads).max(4.0)
        };
        let shapes = Self::of(class);
        *shapes.iter().min_by(|a, b| cost(a).total_cmp(&cost(b))).expect("every class has shapes")
    }

    /// Returns the tile shape for a convolution with three taps along a line of voxels. Consecutive rows of the tile are consecutive
    /// voxels, so that row m at tap t reads the same inputs as row m + 1 at tap t − 1. The `TileCall` must have `steps` = 3 × channels,
    /// `a_row_stride` = channels and `a_step_stride` = 1.
    ///
    /// With one vector for each row, loading factors takes as long as multiplying them: a sliding tile moves along the line and loads
    /// each factor once. With AVX2, a sliding tile is also used if half of the last pair of vectors would be empty.
    pub fn choose_for_three_taps(class: Class, columns: usize, run: usize) -> Self {
        let shape = Self::choose(class, columns, run);
        #[cfg(target_arch = "x86_64")]
        {
            let one_vector = class >= Class::Avx2 && shape.columns == 8;
            let odd_vector = class == Class::Avx2 && columns.div_ceil(8) % 2 == 1;
            if one_vector || odd_vector {
                return super::slide::shape();
            }
        }
        shape
    }

    /// Returns all shapes of a class, in order of preference.
    fn of(class: Class) -> Vec<Self> {
        /// Defines the shape of `$vectors` vectors for each row, with a function for each number of rows.
        macro_rules! tiles {
            ($compiled:ident for $class:expr, $vectors:literal by [$($rows:literal),*], $cycles_per_row:literal) => {
                Self::new(
                    $vectors * $class.lanes(),
                    [$($compiled::<Tile<$rows, $vectors>> as TileFn),*],
                    $cycles_per_row,
                )
            };
        }
        #[cfg(target_arch = "x86_64")]
        let eight_columns = || tiles!(kernel_avx2 for Class::Avx2, 1 by [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], 0.5);
        match class {
            #[cfg(target_arch = "x86_64")]
            Class::Avx512 => vec![
                tiles!(kernel_avx512 for class, 2 by [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], 2.0),
                tiles!(kernel_avx512 for class, 3 by [1, 2, 3, 4, 5, 6, 7, 8], 3.0),
                tiles!(kernel_avx512 for class, 4 by [1, 2, 3, 4, 5, 6], 4.0),
                tiles!(kernel_avx512 for class, 1 by [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], 1.0),
                eight_columns(),
            ],
            #[cfg(target_arch = "x86_64")]
            Class::Avx2 => vec![tiles!(kernel_avx2 for class, 2 by [1, 2, 3, 4, 5, 6], 1.0), eight_columns()],
            _ => vec![tiles!(kernel_portable for class, 1 by [1, 2, 3, 4], 1.0)],
        }
    }
}

/// A tile of `ROWS` × `VECTORS` sums in registers.
struct Tile<const ROWS: usize, const VECTORS: usize>;

impl<const ROWS: usize, const VECTORS: usize> Kernel for Tile<ROWS, VECTORS> {
    type Input<'a> = &'a TileCall<'a>;

    /// # Safety
    /// The requirements of [`TileFn`].
    #[inline(always)]
    unsafe fn run<S: Simd>(call: &TileCall<'_>) {
        // SAFETY: the caller guarantees the same.
        unsafe { tile::<S, ROWS, VECTORS>(call) }
    }
}

/// Runs a [`Tile`].
///
/// # Safety
/// The requirements of [`TileFn`].
#[inline(always)]
unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(call: &TileCall<'_>) {
    // SAFETY: every pointer is derived from the call, within its rows, columns and steps.
    unsafe {
        let left = |v: usize| call.output_columns.saturating_sub(v * S::WIDTH).min(S::WIDTH);
        let mut totals = [[S::zero(); VECTORS]; ROWS];
        if let InitialSum::Row(bias) = call.initial {
            for row in &mut totals {
                for (v, total) in row.iter_mut().enumerate() {
                    *total = S::load_first(bias.wrapping_add(v * S::WIDTH), left(v));
                }
            }
        }
        for segment in call.segments {
            let (mut a, mut b, mut steps) = (segment.a.wrapping_add(call.a_offset), segment.b, call.steps);
            while steps > 0 {
                let block = steps.min(BLOCK);
                let mut sums = [[S::zero(); VECTORS]; ROWS];
                for _ in 0..block {
                    let mut columns = [S::zero(); VECTORS];
                    for (v, column) in columns.iter_mut().enumerate() {
                        *column = S::load_at(b.wrapping_add(v * S::WIDTH));
                    }
                    for (m, row) in sums.iter_mut().enumerate() {
                        let factor = S::splat(*a.wrapping_add(m * call.a_row_stride));
                        for (sum, column) in row.iter_mut().zip(&columns) {
                            *sum = S::mul_add(factor, *column, *sum);
                        }
                    }
                    a = a.wrapping_add(call.a_step_stride);
                    b = b.wrapping_add(VECTORS * S::WIDTH);
                }
                for (total, sum) in totals.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
                    *total = S::add(*total, *sum);
                }
                steps -= block;
            }
        }
        for (m, row) in totals.iter().enumerate() {
            let c = call.c.wrapping_add(m * call.c_row_stride);
            for (v, total) in row.iter().enumerate() {
                let (c, left) = (c.wrapping_add(v * S::WIDTH), left(v));
                let total = match call.initial {
                    InitialSum::Output => S::add(*total, S::load_first(c, left)),
                    _ => *total,
                };
                if left == S::WIDTH {
                    S::store_at(total, c);
                } else {
                    S::store_first(total, c, left);
                }
            }
        }
    }
}
