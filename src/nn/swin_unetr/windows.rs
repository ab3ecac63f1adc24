//! The partition of a volume of tokens into windows.
//!
//! Padding, shifting and partitioning a volume one after another would copy it three times, and three times more in reverse. Here a
//! single list contains the position of each token; the list is computed once for a volume's sides.

use candle_core::{DType, Device, Result, Tensor};

use crate::nn::ops::RowOrder;

/// The maximum number of tokens along a window's side.
pub(super) const SIDE: usize = 7;

/// The shift of the windows in every second block.
const SHIFT: usize = SIDE / 2;

/// The number of rows of a table of relative positions: one for each difference of two tokens of a window.
pub(super) const RELATIVE_POSITIONS: usize = (2 * SIDE - 1).pow(3);

/// The number that is added to the score of two tokens that share a window only because the shift wraps around.
const FAR: f32 = -100.0;

/// The order in which eight tokens are concatenated when the volume is halved: the order of the first version of Swin UNETR.
const CORNERS: [[usize; 3]; 8] =
    [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]];

/// The windows of a volume, derived from its sides: the partitions for shifted and unshifted windows, and the order of the tokens
/// when the volume is halved.
#[derive(Debug)]
pub(super) struct Windows {
    sides: [usize; 3],
    count: usize,
    tokens: usize,
    unshifted: WindowPartition,
    shifted: Option<WindowPartition>,
    corners: RowOrder,
    /// The row of the table of relative positions for each pair of tokens of a window.
    pub relative_positions: Tensor,
}

/// The position of each token, and the pairs of tokens without attention.
#[derive(Debug)]
pub(super) struct WindowPartition {
    pub to_windows: RowOrder,
    pub to_volume: RowOrder,
    /// `[window, token, token]`.
    pub mask: Option<Tensor>,
}

impl Windows {
    /// Computes the windows of a volume of `sides` tokens. An axis no longer than a window has one window and is not shifted.
    pub fn new(sides: [usize; 3], dtype: DType, device: &Device) -> Result<Self> {
        let window = sides.map(|side| side.min(SIDE));
        let shift = sides.map(|side| if side > SIDE { SHIFT } else { 0 });
        let positions = TokenPositions::new(sides, window);
        let relative_positions = relative_positions(positions.tokens, device)?;
        let unshifted = positions.partition([0; 3], dtype, device)?;
        let shifted = (shift != [0; 3]).then(|| positions.partition(shift, dtype, device)).transpose()?;
        let (count, tokens, corners) = (positions.windows, positions.tokens, corners(sides)?);
        Ok(Self { sides, count, tokens, unshifted, shifted, corners, relative_positions })
    }

    /// Returns the sides of the volume, in tokens.
    pub fn sides(&self) -> [usize; 3] {
        self.sides
    }

    /// Returns the number of windows of one volume.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the number of tokens of a window.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Returns the order of the tokens of each 2³ box one after another; the last plane of an odd side is omitted.
    pub fn corners(&self) -> &RowOrder {
        &self.corners
    }

    /// Returns the partition with shifted or unshifted windows.
    pub fn partition(&self, shifted: bool) -> &WindowPartition {
        self.shifted.as_ref().filter(|_| shifted).unwrap_or(&self.unshifted)
    }
}

/// The positions of the tokens of all windows of a volume.
struct TokenPositions {
    sides: [usize; 3],
    window: [usize; 3],
    padded: [usize; 3],
    windows: usize,
    tokens: usize,
}

impl TokenPositions {
    fn new(sides: [usize; 3], window: [usize; 3]) -> Self {
        let along = |axis: usize| sides[axis].div_ceil(window[axis]);
        let windows = (0..3).map(along).product();
        let padded = std::array::from_fn(|axis| along(axis) * window[axis]);
        Self { sides, window, padded, windows, tokens: window.iter().product() }
    }

    /// Returns the position of each token in the padded and shifted volume: window by window, x slowest, z fastest.
    fn positions(&self) -> impl Iterator<Item = [usize; 3]> {
        let counts: [usize; 3] = std::array::from_fn(|axis| self.padded[axis] / self.window[axis]);
        (0..self.windows).flat_map(move |w| {
            let first = unravel(w, counts);
            (0..self.tokens).map(move |t| {
                let within = unravel(t, self.window);
                std::array::from_fn(|axis| first[axis] * self.window[axis] + within[axis])
            })
        })
    }

    fn partition(&self, shift: [usize; 3], dtype: DType, device: &Device) -> Result<WindowPartition> {
        let source = |position: [usize; 3]| {
            let at: [usize; 3] = std::array::from_fn(|axis| (position[axis] + shift[axis]) % self.padded[axis]);
            let inside = (0..3).all(|axis| at[axis] < self.sides[axis]);
            inside.then(|| (at[0] * self.sides[1] + at[1]) * self.sides[2] + at[2])
        };
        let to_windows = RowOrder::new(self.positions().map(source).collect(), self.sides.iter().product())?;
        let mask = (shift != [0; 3]).then(|| self.mask(shift, dtype, device)).transpose()?;
        Ok(WindowPartition { to_volume: to_windows.inverse(), to_windows, mask })
    }

    /// Computes the mask: a pair of tokens has attention only within one region. Regions end where the shift wraps the volume's end
    /// around to its start, and before the last windows.
    fn mask(&self, shift: [usize; 3], dtype: DType, device: &Device) -> Result<Tensor> {
        let region = |position: [usize; 3]| {
            (0..3).fold(0u8, |region, axis| {
                let before_end = self.padded[axis] - position[axis];
                let part = match shift[axis] {
                    0 => 0,
                    shift if before_end <= shift => 2,
                    _ => u8::from(before_end <= self.window[axis]),
                };
                region * 3 + part
            })
        };
        let regions: Vec<u8> = self.positions().map(region).collect();
        let mut mask = Vec::with_capacity(self.windows * self.tokens * self.tokens);
        for window in regions.chunks_exact(self.tokens) {
            for a in window {
                mask.extend(window.iter().map(|b| if a == b { 0.0 } else { FAR }));
            }
        }
        Tensor::from_vec(mask, (self.windows, self.tokens, self.tokens), device)?.to_dtype(dtype)
    }
}

/// Returns the order of the tokens of each 2³ box one after another.
fn corners(sides: [usize; 3]) -> Result<RowOrder> {
    let half = sides.map(|side| side / 2);
    let token =
        |[x, y, z]: [usize; 3], [i, j, k]: [usize; 3]| ((2 * x + i) * sides[1] + 2 * y + j) * sides[2] + 2 * z + k;
    let boxes = (0..half.iter().product()).map(|at| unravel(at, half));
    let order = boxes.flat_map(|at| CORNERS.map(|corner| Some(token(at, corner))));
    RowOrder::new(order.collect(), sides.iter().product())
}

/// Returns the row of the table of relative positions for each pair of a window's tokens.
///
/// A window with fewer tokens than 7³ uses the first rows and columns of the full window's index, as in MONAI, so that its
/// tokens are numbered as in a full window.
fn relative_positions(tokens: usize, device: &Device) -> Result<Tensor> {
    let positions: Vec<_> = (0..tokens).map(|t| unravel(t, [SIDE; 3])).collect();
    let row = |a: [usize; 3], b: [usize; 3]| {
        (0..3).fold(0, |row, axis| row * (2 * SIDE - 1) + a[axis] + SIDE - 1 - b[axis]) as u32
    };
    let rows: Vec<_> = positions.iter().flat_map(|&a| positions.iter().map(move |&b| row(a, b))).collect();
    Tensor::from_vec(rows, tokens * tokens, device)
}

/// Returns the position of index `i` in a box, the last axis fastest.
fn unravel(i: usize, sides: [usize; 3]) -> [usize; 3] {
    [i / (sides[1] * sides[2]), i / sides[2] % sides[1], i % sides[2]]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pads, rolls and partitions a volume one after another, as in the papers.
    fn plain(sides: [usize; 3], shift: [usize; 3]) -> Vec<Option<usize>> {
        let window = sides.map(|side| side.min(SIDE));
        let padded: [usize; 3] = std::array::from_fn(|a| sides[a].div_ceil(window[a]) * window[a]);
        let mut volume = vec![None; padded.iter().product()];
        for x in 0..sides[0] {
            for y in 0..sides[1] {
                for z in 0..sides[2] {
                    let to: Vec<_> =
                        [x, y, z].iter().enumerate().map(|(a, p)| (p + padded[a] - shift[a]) % padded[a]).collect();
                    volume[(to[0] * padded[1] + to[1]) * padded[2] + to[2]] = Some((x * sides[1] + y) * sides[2] + z);
                }
            }
        }
        let mut cut = vec![];
        for x in (0..padded[0]).step_by(window[0]) {
            for y in (0..padded[1]).step_by(window[1]) {
                for z in (0..padded[2]).step_by(window[2]) {
                    for i in 0..window[0] {
                        for j in 0..window[1] {
                            for k in 0..window[2] {
                                cut.push(volume[((x + i) * padded[1] + y + j) * padded[2] + z + k]);
                            }
                        }
                    }
                }
            }
        }
        cut
    }

    #[test]
    fn partition_equals_padding_rolling_and_cutting() {
        for (sides, shift) in [([9, 8, 4], [3, 3, 0]), ([16, 7, 15], [3, 0, 3]), ([2, 3, 6], [0; 3])] {
            let windows = Windows::new(sides, DType::F32, &Device::Cpu).unwrap();
            for (shifted, shift) in [(false, [0; 3]), (true, shift)] {
                let order = RowOrder::new(plain(sides, shift), sides.iter().product()).unwrap();
                assert_eq!(windows.partition(shifted).to_windows, order, "{sides:?} shifted by {shift:?}");
            }
            assert_eq!(windows.partition(true).mask.is_some(), shift != [0; 3]);
        }
    }

    #[test]
    fn mask_separates_tokens_that_the_shift_wraps_around() {
        let windows = Windows::new([8, 2, 2], DType::F32, &Device::Cpu).unwrap();
        let mask = windows.partition(true).mask.as_ref().unwrap();
        assert_eq!(mask.dims(), [2, 28, 28]);
        let mask = mask.to_vec3::<f32>().unwrap();
        assert!(mask[0].iter().flatten().all(|&m| m == 0.0), "the first window did not wrap");
        // The second window's planes 0..4 are planes 10..14 (padding) of the volume, its planes 4..7 are planes 0..3.
        assert_eq!([mask[1][0][15], mask[1][0][16], mask[1][16][0], mask[1][27][16]], [0.0, FAR, FAR, 0.0]);
    }
}
