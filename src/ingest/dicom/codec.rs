//! Decoding of one compressed frame, in this process or in a child process.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::codestream;
use super::frame::Frame;
use super::jpeg;
use super::rle;
use super::samples;
use super::syntax::Syntax;
use crate::error::{Fault, FaultKind};

/// Decodes a frame to little-endian pixels.
pub(super) fn decode(frame: &Frame) -> Result<Vec<u8>, Fault> {
    // A decoder that panics on a corrupt stream must fail this scan only.
    let decoded = catch_unwind(AssertUnwindSafe(|| match frame.syntax {
        Syntax::Rle => rle::decode(frame),
        Syntax::JpegLossless | Syntax::JpegLosslessFirstOrder => decode_jpeg(frame),
        Syntax::Jpeg2000
        | Syntax::Jpeg2000Lossless
        | Syntax::HighThroughputLossless
        | Syntax::HighThroughputLosslessRpcl
        | Syntax::HighThroughput => decode_jpeg_2000(frame),
        Syntax::ImplicitLittle | Syntax::ExplicitLittle | Syntax::ExplicitBig | Syntax::Deflated => {
            Err(corrupt("expected a compressed frame, got an uncompressed one"))
        }
    }));
    let pixels = decoded.unwrap_or_else(|_| Err(corrupt("cannot decode compressed pixels: the decoder panicked")))?;
    if pixels.len() != frame.decoded_bytes() {
        return Err(corrupt(format!(
            "expected {} bytes of decoded pixels, got {}",
            frame.decoded_bytes(),
            pixels.len()
        )));
    }
    Ok(pixels)
}

fn decode_jpeg(frame: &Frame) -> Result<Vec<u8>, Fault> {
    codestream::check_jpeg(frame)?;
    let image = jpeg::decode_lossless(&frame.bytes)?;
    samples::stored(image.samples.into_iter().map(i32::from), image.precision, frame.format)
}

fn decode_jpeg_2000(frame: &Frame) -> Result<Vec<u8>, Fault> {
    let stream = codestream::check_jpeg_2000(frame)?;
    let image = jpeg2k::Image::from_bytes(&frame.bytes)
        .map_err(|error| corrupt(format!("cannot decode compressed pixels: {error}")))?;
    let [component] = image.components() else {
        return Err(corrupt(format!("expected 1 component in a JPEG 2000 image, got {}", image.components().len())));
    };
    if [component.width(), component.height()].map(|length| length as usize) != frame.shape
        || (component.precision(), component.is_signed()) != (stream.precision, stream.signed)
    {
        return Err(corrupt("a JPEG 2000 image contradicts its header"));
    }
    samples::stored(component.data().iter().copied(), stream.precision, frame.format)
}

fn corrupt(message: impl Into<String>) -> Fault {
    Fault::read(FaultKind::Corrupt, message)
}
