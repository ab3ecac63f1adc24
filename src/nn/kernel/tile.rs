//! The inner loop of all convolutions but narrow ones (`slide`): a tile of the output that stays in registers, and the choice of its
//! shape.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};

use super::call::{Call, Start, TileFn};
use super::class::Class;
use super::lanes::{Lanes, Plain};
use super::shape::TileShape;

/// Steps whose products are added up before their sum goes to the total: a chain of `n` sums loses about `√n` roundings, so
/// many short chains lose fewer than a long one, and a sum every so many steps costs next to nothing.
const BLOCK: usize = 64;

impl TileShape {
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
        match class {
            #[cfg(target_arch = "x86_64")]
            Class::Avx512 => {
                vec![wide::shape2(2.0), wide::shape3(3.0), wide::shape4(4.0), wide::shape1(1.0), middle::shape1(0.5)]
            }
            #[cfg(target_arch = "x86_64")]
            Class::Avx2 => vec![middle::shape2(1.0), middle::shape1(0.5)],
            _ => vec![plain::shape1(1.0)],
        }
    }
}

/// The tile itself: `ROWS` × `VECTORS` sums in registers.
///
/// # Safety
/// As [`TileFn`], on a processor that has the instructions of `L`.
#[inline(always)]
unsafe fn tile<L: Lanes, const ROWS: usize, const VECTORS: usize>(call: &Call<'_>) {
    // SAFETY: every pointer is one of the call's, within the rows, columns and steps that it names.
    unsafe {
        let left = |v: usize| call.width.saturating_sub(v * L::WIDTH).min(L::WIDTH);
        let mut totals = [[L::zero(); VECTORS]; ROWS];
        if let Start::Row(bias) = call.start {
            for row in &mut totals {
                for (v, total) in row.iter_mut().enumerate() {
                    *total = L::load_first(bias.wrapping_add(v * L::WIDTH), left(v));
                }
            }
        }
        for segment in call.segments {
            let (mut a, mut b, mut steps) = (segment.a.wrapping_add(call.a_first), segment.b, call.length);
            while steps > 0 {
                let block = steps.min(BLOCK);
                let mut sums = [[L::zero(); VECTORS]; ROWS];
                for _ in 0..block {
                    let mut columns = [L::zero(); VECTORS];
                    for (v, column) in columns.iter_mut().enumerate() {
                        *column = L::load(b.wrapping_add(v * L::WIDTH));
                    }
                    for (m, row) in sums.iter_mut().enumerate() {
                        let factor = L::splat(*a.wrapping_add(m * call.a_row));
                        for (sum, column) in row.iter_mut().zip(&columns) {
                            *sum = factor.mul_add(*column, *sum);
                        }
                    }
                    a = a.wrapping_add(call.a_step);
                    b = b.wrapping_add(VECTORS * L::WIDTH);
                }
                for (total, sum) in totals.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
                    *total = total.add(*sum);
                }
                steps -= block;
            }
        }
        for (m, row) in totals.iter().enumerate() {
            let c = call.c.wrapping_add(m * call.c_row);
            for (v, total) in row.iter().enumerate() {
                let (c, left) = (c.wrapping_add(v * L::WIDTH), left(v));
                let total = match call.start {
                    Start::Output => total.add(L::load_first(c, left)),
                    _ => *total,
                };
                if left == L::WIDTH {
                    total.store(c);
                } else {
                    total.store_first(c, left);
                }
            }
        }
    }
}

/// One module per instruction set, with the tile inlined into functions that may use it, by rows and vectors of a row.
macro_rules! family {
    ($name:ident, $lanes:ty, [$($feature:meta),*], $($shape:ident $vectors:literal [$($rows:literal),*]);*) => {
        mod $name {
            use super::*;

            /// # Safety
            ///
            /// As [`TileFn`], on a processor with the features named.
            $(#[$feature])*
            unsafe fn run<const ROWS: usize, const VECTORS: usize>(call: &Call<'_>) {
                // SAFETY: what the caller promises.
                unsafe { tile::<$lanes, ROWS, VECTORS>(call) }
            }

            $(
                /// Tiles of this many vectors a row.
                pub(super) fn $shape(cycles_per_row: f64) -> TileShape {
                    let columns = $vectors * <$lanes as Lanes>::WIDTH;
                    TileShape::new(columns, [$(run::<$rows, $vectors> as TileFn),*], cycles_per_row)
                }
            )*
        }
    };
}

#[cfg(target_arch = "x86_64")]
family!(wide, __m512, [target_feature(enable = "avx512f")],
    shape1 1 [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]; shape2 2 [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    shape3 3 [1, 2, 3, 4, 5, 6, 7, 8]; shape4 4 [1, 2, 3, 4, 5, 6]);
#[cfg(target_arch = "x86_64")]
family!(middle, __m256, [target_feature(enable = "avx2,fma")],
    shape1 1 [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]; shape2 2 [1, 2, 3, 4, 5, 6]);
family!(plain, Plain, [inline(never)], shape1 1 [1, 2, 3, 4]);
