//! The inner loop of a convolution with few outputs: a tile that slides along a line of voxels.

use std::arch::x86_64::__m256;

use super::call::{Call, Start, TileFn};
use super::lanes::Lanes;
use super::shape::TileShape;

/// Taps along a line.
const TAPS: usize = 3;

/// Channels after which the sums go to the totals, as those of any tile do after about as many steps.
const BLOCK: usize = 24;

/// A tile of one vector a row, of which neighbouring rows share factors: see [`TileShape::along_line`]. Of each channel every factor
/// is loaded once and multiplied by its three taps.
///
/// # Safety
/// As [`TileFn`], on a processor that has the instructions of `L`, for a call as described there.
#[inline(always)]
unsafe fn slide<L: Lanes, const ROWS: usize>(call: &Call<'_>) {
    debug_assert!(call.a_step == 1 && call.length == TAPS * call.a_row, "a call along a line");
    // SAFETY: every pointer is one of the call's, within the rows, columns and steps that it names: as the call is one along a line, tap t
    // of row m takes the factor (m + t) · a_row on, and the last is that of the last row's last tap.
    unsafe {
        let (channels, width) = (call.length / TAPS, call.width.min(L::WIDTH));
        let mut totals = [L::zero(); ROWS];
        if let Start::Row(bias) = call.start {
            totals = [L::load_first(bias, width); ROWS];
        }
        for segment in call.segments {
            let (mut a, mut b, mut left) = (segment.a.wrapping_add(call.a_first), segment.b, channels);
            while left > 0 {
                let block = left.min(BLOCK);
                let mut sums = [L::zero(); ROWS];
                for _ in 0..block {
                    let mut taps = [L::zero(); TAPS];
                    for (t, tap) in taps.iter_mut().enumerate() {
                        *tap = L::load(b.wrapping_add(t * channels * L::WIDTH));
                    }
                    let mut voxel = a;
                    for at in 0..ROWS + TAPS - 1 {
                        let factor = L::splat(*voxel);
                        for (t, tap) in taps.iter().enumerate() {
                            if (t..t + ROWS).contains(&at) {
                                sums[at - t] = factor.mul_add(*tap, sums[at - t]);
                            }
                        }
                        voxel = voxel.wrapping_add(call.a_row);
                    }
                    a = a.wrapping_add(1);
                    b = b.wrapping_add(L::WIDTH);
                }
                for (total, sum) in totals.iter_mut().zip(&sums) {
                    *total = total.add(*sum);
                }
                left -= block;
            }
        }
        for (m, total) in totals.iter().enumerate() {
            let c = call.c.wrapping_add(m * call.c_row);
            let total = match call.start {
                Start::Output => total.add(L::load_first(c, width)),
                _ => *total,
            };
            total.store_first(c, width);
        }
    }
}

/// # Safety
///
/// As [`slide`], on a processor with the features named.
#[target_feature(enable = "avx2,fma")]
unsafe fn run<const ROWS: usize>(call: &Call<'_>) {
    // SAFETY: what the caller promises.
    unsafe { slide::<__m256, ROWS>(call) }
}

/// The shape of sliding tiles with AVX2: eleven sums, three taps and a factor leave one of its sixteen registers.
pub(super) fn shape() -> TileShape {
    let functions: [TileFn; 11] = [
        run::<1>, run::<2>, run::<3>, run::<4>, run::<5>, run::<6>, run::<7>, run::<8>, run::<9>, run::<10>, run::<11>,
    ];
    TileShape::new(8, functions, 0.5)
}
