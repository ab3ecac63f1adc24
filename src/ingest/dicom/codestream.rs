//! The header of a compressed frame, compared with its DICOM header before a decoder allocates memory.

use super::frame::Frame;
use super::jpeg;
use crate::error::{Fault, FaultKind};

/// Precision and sign of the samples of a compressed image.
pub(super) struct SampleFormat {
    pub precision: u32,
    pub signed: bool,
}

/// Checks the frame header of a JPEG stream.
pub(super) fn check_jpeg(frame: &Frame) -> Result<(), Fault> {
    let header = jpeg::read_frame_header(&frame.bytes)?;
    check_image(frame, [header.columns, header.rows], header.components, header.precision)
}

/// Checks the image size segment, which comes first in a JPEG 2000 codestream.
pub(super) fn check_jpeg_2000(frame: &Frame) -> Result<SampleFormat, Fault> {
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
    let format = SampleFormat { precision: u32::from(size[38] & 0x7F) + 1, signed: size[38] & 0x80 != 0 };
    let shape = [right.wrapping_sub(left), bottom.wrapping_sub(top)].map(|length| length as usize);
    check_image(frame, shape, components, format.precision)?;
    let steps = frame.bytes.get(start + 4 + 39..).and_then(|rest| rest.first_chunk::<2>()).ok_or_else(truncated)?;
    if *steps != [1, 1] || tile_columns == 0 || tile_rows == 0 {
        return Err(corrupt("unsupported JPEG 2000 image: subsampled pixels or empty tiles"));
    }
    if format.signed && !frame.format.signed {
        return Err(corrupt("expected unsigned JPEG 2000 pixels according to PixelRepresentation, got signed ones"));
    }
    Ok(format)
}

/// Compares shape, components and precision of a compressed image with the DICOM header.
fn check_image(frame: &Frame, shape: [usize; 2], components: usize, precision: u32) -> Result<(), Fault> {
    let [columns, rows] = frame.shape;
    if shape != frame.shape || components != 1 {
        return Err(corrupt(format!(
            "expected a compressed image of {columns} × {rows} pixels and 1 component, got {} × {} pixels and {components} component(s)",
            shape[0], shape[1]
        )));
    }
    if precision > 8 * frame.format.bytes as u32 {
        return Err(corrupt(format!(
            "expected compressed pixels of at most {} bits according to BitsAllocated, got {precision} bits",
            8 * frame.format.bytes
        )));
    }
    Ok(())
}

fn corrupt(message: impl Into<String>) -> Fault {
    Fault::read(FaultKind::Corrupt, message)
}

fn truncated() -> Fault {
    Fault::read(FaultKind::Truncated, "compressed pixel data ends inside its header")
}
