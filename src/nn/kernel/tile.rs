//! The inner loop of all convolutions but narrow ones (`slide`): a tile of the output that stays in registers.

use crate::simd::{Class, Kernel, Simd, kernel_portable};
#[cfg(target_arch = "x86_64")]
use crate::simd::{kernel_avx2, kernel_avx512};

/// Rows of the widest tile.
pub(super) const MOST_ROWS: usize = 12;

/// Steps whose products are added up before their sum goes to the total: a chain of `n` sums loses about `√n` roundings, so
/// many short chains lose fewer than a long one, and a sum every so many steps costs next to nothing.
const BLOCK: usize = 64;

/// A stretch of the sum: `length` steps from `a` and `b` on.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    /// The factor of a run's first row, one number a step.
    pub a: *const f32,
    /// The factors of all columns, a row of packed numbers a step.
    pub b: *const f32,
}

/// What a tile starts from.
#[derive(Clone, Copy)]
pub(super) enum Start {
    /// Zero.
    Zero,
    /// The same numbers in every row: a bias, one number a column.
    Row(*const f32),
    /// Zero; what the output holds is added at the end, so that long sums are made of short ones.
    Output,
}

/// One tile: `c[m][n] = start + Σ over segments and steps k of a[a_first + m·a_row + k·a_step] · b[k·columns + n]`.
///
/// The sum is made in the order of segments and steps (of a sliding tile, `slide`, channel by channel), in blocks of about [`BLOCK`],
/// one rounding a step (fused) or two, so that its bits do not depend on where the tile lies in the output or how many rows it has.
pub(super) struct Call<'a> {
    pub segments: &'a [Segment],
    /// Numbers by which the tile's first row lies behind that of its segments: tiles along a run have their segments in common.
    pub a_first: usize,
    /// Steps of each segment.
    pub length: usize,
    /// Numbers between the factors of neighbouring rows.
    pub a_row: usize,
    /// Numbers between the factors of neighbouring steps.
    pub a_step: usize,
    /// The first number of the output.
    pub c: *mut f32,
    /// Numbers between neighbouring rows of the output.
    pub c_row: usize,
    /// Columns that exist in the output; those of the tile beyond are computed and dropped.
    pub width: usize,
    pub start: Start,
}

/// A tile function. Its caller promises that all that the call names can be read, the output written by it alone, and that
/// the processor has the class that the function was compiled for.
pub(super) type TileFn = for<'a> unsafe fn(&'a Call<'a>);

/// A shape of tiles for one range of columns.
#[derive(Clone, Copy)]
pub(super) struct TileShape {
    /// Columns: the width of packed weights.
    pub columns: usize,
    /// The most rows.
    pub rows: usize,
    /// By rows, less one.
    functions: [Option<TileFn>; MOST_ROWS],
    /// Operations per cycle and row, for choosing: vectors of a row times the cycles of each.
    cycles_per_row: f64,
}

impl TileShape {
    /// A shape of so many columns and the functions for its rows, from one on.
    pub fn new<const ROWS: usize>(columns: usize, functions: [TileFn; ROWS], cycles_per_row: f64) -> Self {
        const { assert!(ROWS <= MOST_ROWS, "room for every function") };
        let functions = std::array::from_fn(|row| functions.get(row).copied());
        Self { columns, rows: ROWS, functions, cycles_per_row }
    }

    /// The function for tiles of so many rows.
    pub fn function(&self, rows: usize) -> TileFn {
        self.functions[rows - 1].expect("a tile has between one row and the most of its shape")
    }

    /// Splits a run of `length` rows evenly into tiles: calls `each(first, rows)`.
    #[inline]
    pub fn split(&self, length: usize, mut each: impl FnMut(usize, usize)) {
        let pieces = length.div_ceil(self.rows);
        for piece in 0..pieces {
            let (first, end) = (length * piece / pieces, length * (piece + 1) / pieces);
            each(first, end - first);
        }
    }

    /// The shape that computes `columns` columns over runs of `run` rows in the fewest cycles.
    pub fn choose(class: Class, columns: usize, run: usize) -> Self {
        let cost = |shape: &TileShape| {
            let pieces = run.div_ceil(shape.rows);
            let rows = run as f64 / pieces as f64;
            let multiply = rows * shape.cycles_per_row;
            // A chain of dependent sums takes four cycles a step, however few there are; two loads fit into a cycle.
            let loads = (rows + (shape.columns as f64 / 16.0).max(1.0)) / 2.0;
            columns.div_ceil(shape.columns) as f64 * pieces as f64 * multiply.max(loads).max(4.0)
        };
        let shapes = Self::of(class);
        *shapes.iter().min_by(|a, b| cost(a).total_cmp(&cost(b))).expect("every class has shapes")
    }

    /// The shape for rows that are neighbouring voxels of one line under a kernel of three: row `m` and tap `t` take the same factor
    /// as row `m + 1` and tap `t − 1`, so that `length` is three times the channels, `a_row` the channels and `a_step` 1.
    ///
    /// With one vector a row, loading factors takes as long as multiplying them: there the tile slides along the line and loads each
    /// once. With AVX2 it does so, too, where half of the last pair of vectors would be empty.
    pub fn along_line(class: Class, columns: usize, run: usize) -> Self {
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

    /// All shapes of a class, the preferred ones first.
    fn of(class: Class) -> Vec<Self> {
        /// The shape of so many vectors a row, with a function for each number of rows.
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

/// The tile itself: `ROWS` × `VECTORS` sums in registers.
struct Tile<const ROWS: usize, const VECTORS: usize>;

impl<const ROWS: usize, const VECTORS: usize> Kernel for Tile<ROWS, VECTORS> {
    type Input<'a> = &'a Call<'a>;

    /// # Safety
    /// As [`TileFn`].
    #[inline(always)]
    unsafe fn run<S: Simd>(call: &Call<'_>) {
        // SAFETY: the caller promises the same.
        unsafe { tile::<S, ROWS, VECTORS>(call) }
    }
}

/// As [`Tile`].
///
/// # Safety
/// As [`TileFn`].
#[inline(always)]
unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(call: &Call<'_>) {
    // SAFETY: every pointer is one of the call's, within the rows, columns and steps that it names.
    unsafe {
        let left = |v: usize| call.width.saturating_sub(v * S::WIDTH).min(S::WIDTH);
        let mut totals = [[S::zero(); VECTORS]; ROWS];
        if let Start::Row(bias) = call.start {
            for row in &mut totals {
                for (v, total) in row.iter_mut().enumerate() {
                    *total = S::load_first(bias.wrapping_add(v * S::WIDTH), left(v));
                }
            }
        }
        for segment in call.segments {
            let (mut a, mut b, mut steps) = (segment.a.wrapping_add(call.a_first), segment.b, call.length);
            while steps > 0 {
                let block = steps.min(BLOCK);
                let mut sums = [[S::zero(); VECTORS]; ROWS];
                for _ in 0..block {
                    let mut columns = [S::zero(); VECTORS];
                    for (v, column) in columns.iter_mut().enumerate() {
                        *column = S::load_at(b.wrapping_add(v * S::WIDTH));
                    }
                    for (m, row) in sums.iter_mut().enumerate() {
                        let factor = S::splat(*a.wrapping_add(m * call.a_row));
                        for (sum, column) in row.iter_mut().zip(&columns) {
                            *sum = S::mul_add(factor, *column, *sum);
                        }
                    }
                    a = a.wrapping_add(call.a_step);
                    b = b.wrapping_add(VECTORS * S::WIDTH);
                }
                for (total, sum) in totals.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
                    *total = S::add(*total, *sum);
                }
                steps -= block;
            }
        }
        for (m, row) in totals.iter().enumerate() {
            let c = call.c.wrapping_add(m * call.c_row);
            for (v, total) in row.iter().enumerate() {
                let (c, left) = (c.wrapping_add(v * S::WIDTH), left(v));
                let total = match call.start {
                    Start::Output => S::add(*total, S::load_first(c, left)),
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
