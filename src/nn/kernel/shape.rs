//! Shapes of tiles: how many rows and columns of the output one inner loop computes.

use super::call::TileFn;

/// Rows of the widest tile.
const MOST_ROWS: usize = 12;

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
    pub(super) cycles_per_row: f64,
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
}
