//! Lossless JPEG images: the sequential lossless process with Huffman codes (ITU-T T.81, Annex H, process 14).
//!
//! DICOM stores CT slices in this process. Supported are one component of 2 to 16 bits, the predictors 1 to 7, any point transform and
//! restart intervals of whole lines. Arithmetic is modulo 2¹⁶, as H.1.2.1 requires. Every other JPEG process, several components and
//! a height after the scan (DNL) are faults that name the feature.
//!
//! No input causes a panic, and memory is bounded by the length of the input: every sample is at least one bit of the stream.

mod bits;
mod fault;
mod huffman;
mod lines;
mod markers;

pub(super) use self::markers::read_frame_header;
use self::markers::read_scan;
use crate::error::Fault;

/// A decoded lossless image of one component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LosslessImage {
    /// Samples of a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
    /// Bits of a sample, from 2 to 16. JPEG samples have no sign: DICOM stores a negative number as two's complement in these bits.
    pub precision: u32,
    /// The samples, line by line from the top.
    pub samples: Vec<u16>,
}

/// Decodes a lossless JPEG stream. Bytes after the last line are ignored, and the end marker may be absent.
///
/// # Shapes
/// `rows` lines of `columns` samples, x fastest.
///
/// # Errors
/// Returns `unsupported` for another JPEG process, several components or a height after the scan; `truncated` if the stream ends before
/// the last sample; `corrupt` for any other violation of the format.
///
/// # Source
/// ITU-T T.81, Annexes B, F.2.2.3, H.2 and C.
///
/// ```
/// use freetumor::ingest::dicom::jpeg::decode_lossless;
/// // Two samples of 8 bits, predictor 1. Both categories, 0 and 2, have codes of one bit: 128 is predicted, 128 + 3 follows.
/// let stream = [
///     &[0xFF, 0xD8][..],                                            // start of image
///     &[0xFF, 0xC3, 0, 11, 8, 0, 1, 0, 2, 1, 1, 0x11, 0],           // 8 bits, 1 line of 2 samples, 1 component
///     &[0xFF, 0xC4, 0, 21, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2], // category 0: code 0, category 2: code 1
///     &[0xFF, 0xDA, 0, 8, 1, 1, 0, 1, 0, 0],                        // predictor 1, no point transform
///     &[0b0111_1111],                                               // 0, then 1 and the difference 3 as 11, then padding
///     &[0xFF, 0xD9],                                                // end of image
/// ]
/// .concat();
/// let image = decode_lossless(&stream)?;
/// assert_eq!((image.columns, image.rows, image.precision), (2, 1, 8));
/// assert_eq!(image.samples, [128, 131]);
/// # Ok::<(), freetumor::error::Fault>(())
/// ```
pub fn decode_lossless(bytes: &[u8]) -> Result<LosslessImage, Fault> {
    let scan = read_scan(bytes)?;
    let frame = scan.frame;
    let samples = lines::decode(&scan)?;
    Ok(LosslessImage { columns: frame.columns, rows: frame.rows, precision: frame.precision, samples })
}
