//! Conversion of stored pixels to Hounsfield units.

use super::syntax::Syntax;
use crate::error::{Fault, FaultKind};
use crate::volume::{Array3, Grid, Volume, Voxels};

/// Format of a stored pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PixelFormat {
    /// Bytes of one pixel: 1 or 2.
    pub bytes: usize,
    /// Number of used bits, the lowest ones; the other bits may contain overlays and are ignored.
    pub bits: u32,
    /// Whether the highest used bit is a sign.
    pub signed: bool,
}

/// HU = slope × stored + intercept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rescale {
    slope: f64,
    intercept: f64,
}

impl Rescale {
    /// Creates a rescale from a finite slope and intercept.
    ///
    /// # Errors
    /// A fault of kind `corrupt` if the slope is 0, or a number is too large for HU.
    pub fn new(slope: f64, intercept: f64) -> Result<Self, Fault> {
        if slope == 0.0 || slope.abs() > 1e6 || intercept.abs() > 1e9 {
            return Err(Fault::read(
                FaultKind::Corrupt,
                format!("expected a rescale slope and intercept of Hounsfield units, got {slope} and {intercept}"),
            ));
        }
        Ok(Self { slope, intercept })
    }

    /// Returns slope and intercept if both are integers and so small that no product overflows.
    fn integer_coefficients(self) -> Option<(i32, i32)> {
        let integer = |value: f64| (value.fract() == 0.0 && value.abs() < 16384.0).then_some(value as i32);
        Some((integer(self.slope)?, integer(self.intercept)?))
    }

    /// Returns whether every stored value is rescaled to an integer HU.
    pub fn maps_to_integer_hu(self) -> bool {
        self.integer_coefficients().is_some()
    }
}

impl PixelFormat {
    /// Returns whether every value that the format can store is rescaled to an integer HU in the range of i16.
    pub fn fits_i16(self, rescale: Rescale) -> bool {
        rescale.integer_coefficients().is_some_and(|(slope, intercept)| {
            self.range().iter().all(|v| i16::try_from(v * i64::from(slope) + i64::from(intercept)).is_ok())
        })
    }

    /// Returns the lowest and the highest value that the format can store.
    pub fn range(self) -> [i64; 2] {
        if self.signed {
            [-(1i64 << (self.bits - 1)), (1i64 << (self.bits - 1)) - 1]
        } else {
            [0, (1i64 << self.bits) - 1]
        }
    }

    /// Returns the stored values of a frame.
    fn values(self, frame: &[u8], big_endian: bool) -> impl Iterator<Item = i32> + '_ {
        let unused = 32 - self.bits;
        let value = move |bits: u32| {
            let high = bits << unused;
            if self.signed { (high as i32) >> unused } else { (high >> unused) as i32 }
        };
        frame.chunks_exact(self.bytes).map(move |pixel| match *pixel {
            [byte] => value(u32::from(byte)),
            [a, b] if big_endian => value(u32::from(u16::from_be_bytes([a, b]))),
            [a, b] => value(u32::from(u16::from_le_bytes([a, b]))),
            _ => unreachable!("pixels have one or two bytes"),
        })
    }
}

/// Swaps the bytes of each 16-bit word.
pub(super) fn swap_pairs(bytes: &mut [u8]) {
    for pair in bytes.chunks_exact_mut(2) {
        pair.swap(0, 1);
    }
}

/// Assembles the voxels of a volume slice by slice: i16 until a slice does not fit.
pub(super) struct VoxelAssembly(VoxelBuffer);

enum VoxelBuffer {
    I16(Vec<i16>),
    F32(Vec<f32>),
}

impl VoxelAssembly {
    /// Reserves memory for `voxels`, as i16 if `integer_hu`, otherwise as f32.
    pub fn new(voxels: usize, integer_hu: bool) -> Result<Self, Fault> {
        Ok(Self(if integer_hu {
            VoxelBuffer::I16(with_capacity(voxels)?)
        } else {
            VoxelBuffer::F32(with_capacity(voxels)?)
        }))
    }

    /// Appends the pixels of one slice.
    pub fn push(&mut self, frame: &[u8], format: PixelFormat, syntax: Syntax, rescale: Rescale) -> Result<(), Fault> {
        let values = format.values(frame, syntax.is_big_endian());
        if let VoxelBuffer::I16(voxels) = &mut self.0 {
            if let Some((slope, intercept)) = rescale.integer_coefficients() {
                let start = voxels.len();
                let (mut low, mut high) = (i32::MAX, i32::MIN);
                voxels.extend(values.map(|value| {
                    let hu = value * slope + intercept;
                    (low, high) = (low.min(hu), high.max(hu));
                    hu as i16
                }));
                if low >= i32::from(i16::MIN) && high <= i32::from(i16::MAX) {
                    return Ok(());
                }
                voxels.truncate(start);
            }
            let mut floats = with_capacity(voxels.capacity())?;
            floats.extend(voxels.iter().map(|&hu| f32::from(hu)));
            self.0 = VoxelBuffer::F32(floats);
        }
        if let VoxelBuffer::F32(voxels) = &mut self.0 {
            let values = format.values(frame, syntax.is_big_endian());
            voxels.extend(values.map(|value| (f64::from(value) * rescale.slope + rescale.intercept) as f32));
        }
        Ok(())
    }

    /// Returns the volume on `grid`. Every slice must have been pushed.
    pub fn finish(self, grid: Grid) -> Volume {
        let voxels = match self.0 {
            VoxelBuffer::I16(voxels) => Voxels::I16(Array3::from_vec(grid.shape, voxels)),
            VoxelBuffer::F32(voxels) => Voxels::F32(Array3::from_vec(grid.shape, voxels)),
        };
        Volume { grid, voxels }
    }
}

fn with_capacity<T>(voxels: usize) -> Result<Vec<T>, Fault> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(voxels)
        .map_err(|_| Fault::read(FaultKind::TooLarge, format!("cannot allocate memory for {voxels} voxels")))?;
    Ok(vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_bits_are_ignored_and_sign_is_extended() {
        let values = |bits, signed, bytes: &[u8], big| -> Vec<i32> {
            PixelFormat { bytes: 2, bits, signed }.values(bytes, big).collect()
        };
        assert_eq!(values(12, false, &[0xFF, 0xFF, 0x00, 0xF8], false), [0x0FFF, 0x0800]);
        assert_eq!(values(12, true, &[0xFF, 0x0F, 0x00, 0xF8, 0xFF, 0x07], false), [-1, -2048, 2047]);
        assert_eq!(values(16, true, &[0x80, 0x00, 0x00, 0x01], true), [-32768, 1]);
        let byte = PixelFormat { bytes: 1, bits: 8, signed: true };
        assert_eq!(byte.values(&[0xFF, 0x7F], false).collect::<Vec<_>>(), [-1, 127]);
    }

    #[test]
    fn fits_i16_requires_integer_hu_in_range_of_i16() {
        let fits = |bits, signed, slope, intercept| {
            PixelFormat { bytes: 2, bits, signed }.fits_i16(Rescale::new(slope, intercept).unwrap())
        };
        assert!(fits(12, false, 1.0, -1024.0) && fits(16, true, 1.0, 0.0) && fits(15, false, 1.0, 0.0));
        assert!(!fits(16, true, 1.0, -1024.0) && !fits(16, false, 1.0, 0.0) && !fits(12, false, 0.5, 0.0));
        assert!(fits(12, false, -8.0, 0.0) && !fits(12, false, -9.0, 0.0));
    }
}
