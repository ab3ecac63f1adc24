//! The arguments of the inner loops.

/// A part of the sum: `length` steps from `a` and `b` on.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    /// The factor of a run's first row, one number a step.
    pub a: *const f32,
    /// The factors of all columns, a row of packed numbers a step.
    pub b: *const f32,
}

/// What a tile starts from.
#[derive(Clone, Copy)]
pub(super) enum InitialSum {
    /// Zero.
    Zero,
    /// The same numbers in every row: a bias, one number a column.
    Row(*const f32),
    /// Zero; what the output holds is added at the end, so that long sums are made of short ones.
    Output,
}

/// One tile: `c[m][n] = start + Σ over segments and steps k of a[a_first + m·a_row + k·a_step] · b[k·columns + n]`.
///
/// The sum is made in the order of segments and steps (of a sliding tile, `slide`, channel by channel), in blocks of about 64 steps,
/// one rounding a step (fused) or two, so that its bits do not depend on where the tile lies in the output or how many rows it has.
pub(super) struct TileCall<'a> {
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
    pub start: InitialSum,
}

/// A tile function. Its caller promises that all that the call names can be read, the output written by it alone, and that
/// the processor has the class that the function was compiled for.
pub(super) type TileFn = for<'a> unsafe fn(&'a TileCall<'a>);
