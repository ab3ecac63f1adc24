//! The arguments of the inner loops.

/// A part of the sum: [`TileCall::steps`] steps from `a` and `b` on.
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

/// The arguments of one tile, a product of two matrices: for row m and column n of the tile,
/// `c[m·c_row_stride + n] = initial + Σ a[a_offset + m·a_row_stride + k·a_step_stride] · b[k·columns + n]`, summed over all segments and
/// their steps k, where `columns` is the number of columns of the [`TileShape`](super::shape::TileShape). Offsets and strides are counted
/// in numbers, not in bytes.
///
/// The sum is computed in the order of segments and steps (of a sliding tile, `slide`, channel by channel), in blocks of about 64 steps,
/// with one rounding for each step (fused) or two, so that its bits do not depend on the position of the tile or the number of its rows.
pub(super) struct TileCall<'a> {
    /// The parts of the sum.
    pub segments: &'a [Segment],
    /// The offset of the tile's first row from the first row of its segments: tiles along a run share their segments.
    pub a_offset: usize,
    /// The number of steps of each segment.
    pub steps: usize,
    /// The distance of the factors of neighbouring rows.
    pub a_row_stride: usize,
    /// The distance of the factors of neighbouring steps.
    pub a_step_stride: usize,
    /// The first number of the output.
    pub c: *mut f32,
    /// The distance of neighbouring rows of the output.
    pub c_row_stride: usize,
    /// The number of columns that are written; further columns of the tile are computed and dropped.
    pub output_columns: usize,
    /// The initial value of the sums.
    pub initial: InitialSum,
}

/// A tile function. The caller guarantees that all memory of the call is readable, that no other task writes the output, and that
/// the processor has the class for which the function was compiled.
pub(super) type TileFn = for<'a> unsafe fn(&'a TileCall<'a>);
