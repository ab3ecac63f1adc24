//! The arguments of the inner loops.

/// A part of the sum: `length` steps from `a` and `b` on.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    /// The factors of a run's first row, one number for each step.
    pub a: *const f32,
    /// The factors of all columns, a row of packed numbers for each step.
    pub b: *const f32,
}

/// The initial value of a tile's sums.
#[derive(Clone, Copy)]
pub(super) enum InitialSum {
    /// Zero.
    Zero,
    /// The same numbers in every row: a bias, one number for each column.
    Row(*const f32),
    /// Zero; the content of the output is added at the end, so that long sums are composed of short sums.
    Output,
}

/// One tile: `c[m][n] = start + Σ over segments and steps k of a[a_first + m·a_row + k·a_step] · b[k·columns + n]`.
///
/// The sum is computed in the order of segments and steps (of a sliding tile, `slide`, channel by channel), in blocks of about 64 steps,
/// with one rounding for each step (fused) or two, so that its bits do not depend on the position of the tile or the number of its rows.
pub(super) struct TileCall<'a> {
    pub segments: &'a [Segment],
    /// The offset of the tile's first row from the first row of its segments, in numbers: tiles along a run share their segments.
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
    /// Columns that exist in the output; further columns of the tile are computed and dropped.
    pub width: usize,
    pub start: InitialSum,
}

/// A tile function. The caller guarantees that all memory of the call is readable, that no other task writes the output, and that
/// the processor has the class for which the function was compiled.
pub(super) type TileFn = for<'a> unsafe fn(&'a TileCall<'a>);
