//! Decoding of one compressed frame, in this process or in a child process.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use dicom_encoding::TransferSyntaxIndex;
use dicom_encoding::adapters::{PixelDataObject, RawPixelData};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use super::codestream;
use super::frame::Frame;
use crate::error::{Fault, FaultKind};

/// Decodes a frame to little-endian pixels.
pub(super) fn decode(frame: &Frame) -> Result<Vec<u8>, Fault> {
    codestream::check(frame)?;
    let syntax = TransferSyntaxRegistry.get(frame.syntax.uid());
    let Some(reader) = syntax.and_then(|syntax| syntax.pixel_data_reader()) else {
        return Err(Fault::read(FaultKind::Unsupported, "this build has no decoder for the transfer syntax"));
    };
    let mut pixels = Vec::new();
    // The decoders panic with an out-of-bounds index on some corrupt streams, which must fail this scan only.
    let outcome = catch_unwind(AssertUnwindSafe(|| reader.decode_frame(frame, 0, &mut pixels)));
    match outcome {
        Ok(Ok(())) if pixels.len() == frame.decoded_bytes() => Ok(pixels),
        Ok(Ok(())) => Err(Fault::read(
            FaultKind::Corrupt,
            format!("expected {} bytes of decoded pixels, got {}", frame.decoded_bytes(), pixels.len()),
        )),
        Ok(Err(error)) => Err(Fault::read(FaultKind::Corrupt, format!("cannot decode compressed pixels: {error}"))),
        Err(_) => Err(Fault::read(FaultKind::Corrupt, "cannot decode compressed pixels: the decoder panicked")),
    }
}

impl PixelDataObject for Frame {
    fn transfer_syntax_uid(&self) -> &str {
        self.syntax.uid()
    }

    fn rows(&self) -> Option<u16> {
        self.shape[1].try_into().ok()
    }

    fn cols(&self) -> Option<u16> {
        self.shape[0].try_into().ok()
    }

    fn samples_per_pixel(&self) -> Option<u16> {
        Some(1)
    }

    fn bits_allocated(&self) -> Option<u16> {
        (8 * self.format.bytes).try_into().ok()
    }

    fn bits_stored(&self) -> Option<u16> {
        self.format.bits.try_into().ok()
    }

    fn photometric_interpretation(&self) -> Option<&str> {
        Some("MONOCHROME2")
    }

    fn number_of_frames(&self) -> Option<u32> {
        Some(1)
    }

    fn number_of_fragments(&self) -> Option<u32> {
        Some(1)
    }

    fn fragment(&self, fragment: usize) -> Option<Cow<'_, [u8]>> {
        (fragment == 0).then_some(Cow::Borrowed(self.bytes.as_slice()))
    }

    fn offset_table(&self) -> Option<Cow<'_, [u32]>> {
        Some(Cow::Borrowed(&[]))
    }

    fn raw_pixel_data(&self) -> Option<RawPixelData> {
        Some(RawPixelData {
            fragments: [self.bytes.clone()].into_iter().collect(),
            offset_table: [].into_iter().collect(),
        })
    }
}
