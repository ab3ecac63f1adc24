//! Shapes of tiles: the rows and columns of the output that one inner loop computes.

use super::call::TileFn;

/// The maximum number of rows of a tile.
const MAX_ROWS: usize = 12;

/// A shape of tiles for one range of columns.
#[derive(Clone, Copy)]
pub(super) struct TileShape {
    /// The columns: the width of packed weights.
    pub columns: usize,
    /// The maximum number of rows.
    pub rows: usize,
    /// The function for each number of rows; the first is for one row.
    functions: [Option<TileFn>; MAX_ROWS],
    /// The cycles of one row, for the choice of a shape: the vectors of a row times the cycles of each.
    pub(super) cycles_per_row: f64,
}

impl TileShape {
    /// Creates a shape of `columns` columns with the functions for one row, two rows, and so on.
    pub fn new<const ROWS: usize>(columns: usize, functions: [TileFn; ROWS], cycles_per_row: f64) -> Self {
        const { assert!(ROWS <= MAX_ROWS, "expected room for every function") };
        let functions = std::array::from_fn(|row| functions.get(row).copied());
        Self { columns, rows: ROWS, functions, cycles_per_row }
    }

    /// Returns the function for tiles of `rows` rows.
    pub fn function(&self, rows: usize) -> TileFn {
        self.functions[rows - 1].expect("a tile has between one row and the maximum of its shape")
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
}
