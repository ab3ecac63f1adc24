//! Prediction of lossless JPEG samples, line by line (ITU-T T.81, H.1.2 and H.2).

use super::bits::{BitReader, unstuff};
use super::fault::{corrupt, truncated};
use super::huffman::Table;
use super::markers::{RESTARTS, Scan};
use crate::error::{Fault, FaultKind};

/// Decodes all samples of a scan.
pub(super) fn decode(scan: &Scan<'_>) -> Result<Vec<u16>, Fault> {
    let table = Table::new(&scan.table)?;
    let frame = scan.frame;
    let count = frame.columns * frame.rows;
    // Every sample is at least one bit, so that no more memory than this is needed.
    if count.div_ceil(8) > scan.entropy_coded.len() {
        return Err(too_few_samples(count));
    }
    let mut samples = Vec::new();
    samples
        .try_reserve_exact(count)
        .map_err(|_| Fault::read(FaultKind::TooLarge, format!("cannot allocate memory for {count} samples")))?;
    samples.resize(count, 0);
    let interval = match scan.restart_interval {
        0 => count,
        interval if interval >= count || interval.is_multiple_of(frame.columns) => interval,
        interval => {
            return Err(corrupt(format!(
                "expected a JPEG restart interval of whole lines of {} samples, got {interval} samples",
                frame.columns
            )));
        }
    };
    let mut rest = scan.entropy_coded;
    let mut segment = Vec::new();
    for (index, samples) in samples.chunks_mut(interval).enumerate() {
        if index > 0 {
            rest = skip_restart_marker(rest, index - 1)?;
        }
        rest = unstuff(rest, &mut segment);
        let mut bits = BitReader::new(&segment);
        if !decode_interval(&mut bits, &table, scan, samples)? {
            return Err(match rest {
                [_, marker, ..] => {
                    corrupt(format!("expected {count} JPEG samples, got fewer before marker FF{marker:02X}"))
                }
                _ => too_few_samples(count),
            });
        }
        // The last bits of a segment are padded to a byte; DICOM pads a frame without end marker with a zero.
        if bits.rest().iter().any(|byte| *byte != 0) {
            return Err(corrupt(format!("{} byte(s) after the last JPEG sample of an interval", bits.rest().len())));
        }
    }
    for sample in &mut samples {
        *sample <<= scan.point_transform;
    }
    Ok(samples)
}

fn too_few_samples(count: usize) -> Fault {
    truncated(format!("expected {count} JPEG samples, the compressed pixel data ends before the last"))
}

/// Skips the restart marker of an interval; markers count modulo 8.
fn skip_restart_marker(bytes: &[u8], interval: usize) -> Result<&[u8], Fault> {
    let expected = RESTARTS.start() + (interval % 8) as u8;
    match bytes {
        [0xFF, marker, rest @ ..] if *marker == expected => Ok(rest),
        [0xFF, marker, ..] => {
            Err(corrupt(format!("expected JPEG restart marker FF{expected:02X}, got marker FF{marker:02X}")))
        }
        _ => Err(truncated(format!(
            "expected JPEG restart marker FF{expected:02X}, got the end of the compressed pixel data"
        ))),
    }
}

/// Decodes the lines up to the next restart, and returns whether the bits were enough. The first line is predicted from the left, and its
/// first sample from half of the range.
fn decode_interval(
    bits: &mut BitReader<'_>,
    table: &Table,
    scan: &Scan<'_>,
    samples: &mut [u16],
) -> Result<bool, Fault> {
    let bits_of_sample = scan.frame.precision - scan.point_transform;
    let middle = 1u16 << (bits_of_sample - 1);
    let mut above: &mut [u16] = &mut [];
    for line in samples.chunks_mut(scan.frame.columns) {
        let decoded = match above.first() {
            None => decode_first_line(bits, table, middle, line),
            Some(_) => decode_line(bits, table, scan.predictor, above, line),
        };
        // A code that is cut by the end of the segment may not be a code.
        if bits.is_overrun() || (decoded.is_none() && bits.rest().len() < 2) {
            return Ok(false);
        }
        decoded.ok_or_else(|| corrupt("expected a code of the Huffman table in the JPEG scan, got other bits"))?;
        let all = line.iter().fold(0, |all, sample| all | u32::from(*sample));
        if all >> bits_of_sample != 0 {
            return Err(corrupt(format!("expected JPEG samples of {} bits, got a larger one", scan.frame.precision)));
        }
        above = line;
    }
    Ok(true)
}

fn decode_first_line(bits: &mut BitReader<'_>, table: &Table, middle: u16, line: &mut [u16]) -> Option<()> {
    let mut left = middle;
    for sample in line {
        left = left.wrapping_add(table.difference(bits)?);
        *sample = left;
    }
    Some(())
}

/// Decodes a line below another one. Predictions are not reduced to 16 bits before the difference is added (table H.1).
fn decode_line(bits: &mut BitReader<'_>, table: &Table, predictor: u8, above: &[u16], line: &mut [u16]) -> Option<()> {
    match predictor {
        1 => decode_with(bits, table, above, line, |left, _, _| left),
        2 => decode_with(bits, table, above, line, |_, above, _| above),
        3 => decode_with(bits, table, above, line, |_, _, diagonal| diagonal),
        4 => decode_with(bits, table, above, line, |left, above, diagonal| left + above - diagonal),
        5 => decode_with(bits, table, above, line, |left, above, diagonal| left + ((above - diagonal) >> 1)),
        6 => decode_with(bits, table, above, line, |left, above, diagonal| above + ((left - diagonal) >> 1)),
        _ => decode_with(bits, table, above, line, |left, above, _| (left + above) >> 1),
    }
}

#[inline]
fn decode_with(
    bits: &mut BitReader<'_>,
    table: &Table,
    above: &[u16],
    line: &mut [u16],
    predict: impl Fn(i32, i32, i32) -> i32,
) -> Option<()> {
    let (first, others) = line.split_first_mut()?;
    // The first sample of a line is predicted from the one above.
    let mut left = above.first()?.wrapping_add(table.difference(bits)?);
    *first = left;
    for (sample, pair) in others.iter_mut().zip(above.windows(2)) {
        let prediction = predict(i32::from(left), i32::from(pair[1]), i32::from(pair[0]));
        left = (prediction as u16).wrapping_add(table.difference(bits)?);
        *sample = left;
    }
    Some(())
}
