//! The inner loop of a convolution with few outputs: a tile that slides along a line of voxels.

use super::call::{InitialSum, TileCall, TileFn};
use super::shape::TileShape;
use crate::simd::{Class, Kernel, Simd, kernel_avx2};

/// The number of taps along a line.
const TAPS: usize = 3;

/// The number of channels after which the sums are added to the totals: about as many steps as in any other tile.
const BLOCK: usize = 24;

/// A tile of one vector for each row, whose neighbouring rows share factors: see [`TileShape::choose_for_three_taps`]. For each channel,
/// every factor is loaded once and multiplied by its three taps.
struct SlidingTile<const ROWS: usize>;

impl<const ROWS: usize> Kernel for SlidingTile<ROWS> {
    type Input<'a> = &'a TileCall<'a>;

    /// # Safety
    /// The requirements of [`TileFn`], for a call as described at [`TileShape::choose_for_three_taps`].
    #[inline(always)]
    unsafe fn run<S: Simd>(call: &TileCall<'_>) {
        // SAFETY: the caller guarantees the same.
        unsafe { slide::<S, ROWS>(call) }
    }
}

/// Runs a [`SlidingTile`].
///
/// # Safety
/// The requirements of [`TileFn`], for a call as described at [`TileShape::choose_for_three_taps`].
#[inline(always)]
unsafe fn slide<S: Simd, const ROWS: usize>(call: &TileCall<'_>) {
    debug_assert!(
        call.a_step_stride == 1 && call.steps == TAPS * call.a_row_stride,
        "expected a call with three taps along a line"
    );
    // SAFETY: every pointer is derived from the call, within its rows, columns and steps: in a call along a line, tap t of row m uses
    // the factor at (m + t) · a_row_stride, and the last factor is that of the last row's last tap.
    unsafe {
        let (channels, width) = (call.steps / TAPS, call.output_columns.min(S::WIDTH));
        let mut totals = [S::zero(); ROWS];
        if let InitialSum::Row(bias) = call.initial {
            totals = [S::load_first(bias, width); ROWS];
        }
        for segment in call.segments {
            let (mut a, mut b, mut left) = (segment.a.wrapping_add(call.a_offset), segment.b, channels);
            while left > 0 {
                let block = left.min(BLOCK);
                let mut sums = [S::zero(); ROWS];
                for _ in 0..block {
                    let mut taps = [S::zero(); TAPS];
                    for (t, tap) in taps.iter_mut().enumerate() {
                        *tap = S::load_at(b.wrapping_add(t * channels * S::WIDTH));
                    }
                    let mut voxel = a;
                    for at in 0..ROWS + TAPS - 1 {
                        let factor = S::splat(*voxel);
                        for (t, tap) in taps.iter().enumerate() {
                            if (t..t + ROWS).contains(&at) {
                                sums[at - t] = S::mul_add(factor, *tap, sums[at - t]);
                            }
                        }
                        voxel = voxel.wrapping_add(call.a_row_stride);
                    }
                    a = a.wrapping_add(1);
                    b = b.wrapping_add(S::WIDTH);
                }
                for (total, sum) in totals.iter_mut().zip(&sums) {
                    *total = S::add(*total, *sum);
                }
                left -= block;
            }
        }
        for (m, total) in totals.iter().enumerate() {
            let c = call.c.wrapping_add(m * call.c_row_stride);
            let total = match call.initial {
                InitialSum::Output => S::add(*total, S::load_first(c, width)),
                _ => *total,
            };
            S::store_first(total, c, width);
        }
    }
}

/// Returns the shape of sliding tiles with AVX2: eleven sums, three taps and a factor leave one of sixteen registers free.
pub(super) fn shape() -> TileShape {
    macro_rules! slides {
        ($($rows:literal),*) => { [$(kernel_avx2::<SlidingTile<$rows>> as TileFn),*] };
    }
    TileShape::new(Class::Avx2.lanes(), slides!(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11), 0.5)
}
