//! The header of a compressed frame, compared with its DICOM header before a decoder allocates memory.

use super::frame::Frame;
use super::syntax::Syntax;
use crate::error::{Fault, FaultKind};

/// Checks that the compressed frame contains the image that its DICOM header describes.
pub(super) fn check(frame: &Frame) -> Result<(), Fault> {
    match frame.syntax {
        Syntax::Rle => check_rle(frame),
        Syntax::JpegLossless | Syntax::JpegLosslessFirstOrder => check_jpeg(frame),
        Syntax::Jpeg2000 | Syntax::Jpeg2000Lossless => check_jpeg_2000(frame),
        _ => Err(corrupt("expected a compressed frame, got an uncompressed one")),
    }
}

fn corrupt(message: impl Into<String>) -> Fault {
    Fault::read(FaultKind::Corrupt, message)
}

fn truncated() -> Fault {
    Fault::read(FaultKind::Truncated, "compressed pixel data ends inside its header")
}

/// Checks that a run-length frame has one segment for each byte of a pixel.
fn check_rle(frame: &Frame) -> Result<(), Fault> {
    let header = frame.bytes.first_chunk::<64>().ok_or_else(truncated)?;
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
    let segments = number(0);
    if segments != frame.format.bytes {
        return Err(corrupt(format!("expected {} RLE segments, got {segments}", frame.format.bytes)));
    }
    let mut last = 64;
    for segment in 1..=segments {
        let offset = number(4 * segment);
        if offset < last || offset > frame.bytes.len() {
            return Err(corrupt("an RLE segment is outside its frame"));
        }
        last = offset;
    }
    Ok(())
}

/// Finds the frame header among the marker segments.
fn check_jpeg(frame: &Frame) -> Result<(), Fault> {
    let bytes = &frame.bytes;
    if !bytes.starts_with(&[0xFF, 0xD8]) {
        return Err(corrupt("expected a JPEG stream as compressed pixel data"));
    }
    let mut at = 2;
    loop {
        let &[0xFF, marker, l0, l1] = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or_else(truncated)?
        else {
            return Err(corrupt("expected a marker in the JPEG stream, got other bytes"));
        };
        match marker {
            // A fill byte.
            0xFF => at += 1,
            0xC3 => break,
            0xC0..=0xC2 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                return Err(Fault::read(
                    FaultKind::Unsupported,
                    format!("expected a lossless JPEG with frame marker FFC3, got FF{marker:02X}"),
                ));
            }
            0xD9 | 0xDA => return Err(corrupt("expected a frame header in the JPEG stream, got none")),
            _ => at += 2 + usize::from(u16::from_be_bytes([l0, l1])).max(2),
        }
    }
    let &[precision, r0, r1, c0, c1, components] =
        bytes.get(at + 4..).and_then(|rest| rest.first_chunk::<6>()).ok_or_else(truncated)?;
    let shape = [[c0, c1], [r0, r1]].map(|pair| u32::from(u16::from_be_bytes(pair)));
    check_image(frame, shape, usize::from(components), u32::from(precision))?;
    if u32::from(precision).div_ceil(8) as usize != frame.format.bytes {
        return Err(corrupt(format!("JPEG pixels of {precision} bits in {} byte(s) each", frame.format.bytes)));
    }
    Ok(())
}

/// Finds the image size segment, which comes first in a codestream.
fn check_jpeg_2000(frame: &Frame) -> Result<(), Fault> {
    // Some writers wrap the codestream in the boxes of the JP2 file format.
    let start = frame
        .bytes
        .windows(4)
        .take(4096)
        .position(|window| window == [0xFF, 0x4F, 0xFF, 0x51])
        .ok_or_else(|| corrupt("expected a JPEG 2000 codestream as compressed pixel data"))?;
    let size = frame.bytes.get(start + 4..).and_then(|rest| rest.first_chunk::<39>()).ok_or_else(truncated)?;
    let number = |at: usize| u32::from_be_bytes([size[at], size[at + 1], size[at + 2], size[at + 3]]);
    let [right, bottom, left, top, tile_columns, tile_rows] = [4, 8, 12, 16, 20, 24].map(number);
    let components = usize::from(u16::from_be_bytes([size[36], size[37]]));
    let precision = u32::from(size[38] & 0x7F) + 1;
    let shape = [right.wrapping_sub(left), bottom.wrapping_sub(top)];
    check_image(frame, shape, components, precision)?;
    let steps = frame.bytes.get(start + 4 + 39..).and_then(|rest| rest.first_chunk::<2>()).ok_or_else(truncated)?;
    if *steps != [1, 1] || tile_columns == 0 || tile_rows == 0 {
        return Err(corrupt("unsupported JPEG 2000 image: subsampled pixels or empty tiles"));
    }
    if size[38] & 0x80 != 0 && !frame.format.signed {
        return Err(corrupt("expected unsigned JPEG 2000 pixels by PixelRepresentation, got signed ones"));
    }
    Ok(())
}

/// Compares shape, components and precision of a compressed image with the DICOM header.
fn check_image(frame: &Frame, shape: [u32; 2], components: usize, precision: u32) -> Result<(), Fault> {
    let [columns, rows] = frame.shape;
    if shape.map(|length| length as usize) != frame.shape || components != 1 {
        return Err(corrupt(format!(
            "expected a compressed image of {columns} × {rows} pixels and 1 component, got {} × {} pixels and {components} component(s)",
            shape[0], shape[1]
        )));
    }
    if precision > 8 * frame.format.bytes as u32 {
        return Err(corrupt(format!("compressed pixels of {precision} bits in {} byte(s) each", frame.format.bytes)));
    }
    Ok(())
}
