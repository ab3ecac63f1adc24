//! Decoded samples as stored pixels: the precision and sign of a compressed stream, compared with those of the DICOM header.

use super::pixels::PixelFormat;
use crate::error::{Fault, FaultKind};

/// Returns samples as little-endian pixels of the format.
///
/// A sample of `precision` bits without a sign is two's complement if the header states signed pixels: its highest bit is the sign, also
/// if BitsStored is larger. A stream may have more bits than BitsStored, if all its samples fit.
///
/// # Errors
/// Returns `corrupt` if a sample does not fit into BitsStored.
pub(super) fn stored(
    samples: impl Iterator<Item = i32>,
    precision: u32,
    format: PixelFormat,
) -> Result<Vec<u8>, Fault> {
    let unused = 32u32.saturating_sub(precision);
    let (mut low, mut high) = (0, 0);
    let values = samples.map(|sample| {
        let value = if format.signed { sample << unused >> unused } else { sample };
        (low, high) = (low.min(value), high.max(value));
        value as u16
    });
    let pixels: Vec<u8> = match format.bytes {
        1 => values.map(|value| value as u8).collect(),
        _ => values.flat_map(u16::to_le_bytes).collect(),
    };
    let [lowest, highest] = format.range();
    if i64::from(low) < lowest || i64::from(high) > highest {
        return Err(Fault::read(
            FaultKind::Corrupt,
            format!(
                "expected {} pixels of {} bits according to BitsStored, got larger ones in a compressed image of {precision} bits: correct BitsStored, \
                 HighBit and PixelRepresentation",
                if format.signed { "signed" } else { "unsigned" },
                format.bits
            ),
        ));
    }
    Ok(pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(samples: &[i32], precision: u32, bits: u32, signed: bool) -> Result<Vec<i16>, Fault> {
        let bytes = stored(samples.iter().copied(), precision, PixelFormat { bytes: 2, bits, signed })?;
        Ok(bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect())
    }

    #[test]
    fn sign_bit_follows_precision_of_stream() {
        for bits in 13..=16 {
            assert_eq!(values(&[0, 4095, 4096, 8191], 13, bits, true).unwrap(), [0, 4095, -4096, -1], "{bits}");
            assert_eq!(values(&[0, 4095, 4096, 8191], 13, bits, false).unwrap(), [0, 4095, 4096, 8191], "{bits}");
        }
        // Samples with a sign are not changed.
        assert_eq!(values(&[-4096, -1, 4095], 13, 16, true).unwrap(), [-4096, -1, 4095]);
        assert_eq!(values(&[0x80, 0x7F], 8, 16, true).unwrap(), [-128, 127]);
        let byte = PixelFormat { bytes: 1, bits: 8, signed: true };
        assert_eq!(stored([0x40, 0x3F].into_iter(), 7, byte).unwrap(), [0xC0, 0x3F]);
    }

    #[test]
    fn samples_beyond_bits_stored_are_corrupt() {
        assert_eq!(values(&[0, 4095], 16, 12, false).unwrap(), [0, 4095]);
        assert_eq!(values(&[0xF800, 0x07FF], 16, 12, true).unwrap(), [-2048, 2047]);
        for (sample, signed) in [(4096, false), (2048, true), (0xF7FF, true)] {
            let fault = values(&[sample], 16, 12, signed).unwrap_err();
            assert_eq!(fault.kind, FaultKind::Corrupt);
            assert!(fault.message.contains("12 bits") && fault.message.contains("16 bits"), "{fault}");
        }
    }
}
