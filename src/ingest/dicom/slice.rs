//! One file of a series: what its header says about the image in it.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use sha2::{Digest, Sha256};

use super::elements::{Elements, PixelBytes, read_pixels};
use super::frame::Frame;
use super::geometry::SlicePose;
use super::pixels::{Rescale, Stored};
use super::syntax::Syntax;
use crate::error::{Fault, FaultKind};

/// Everything that reading a slice needs. Names, dates and numbers of patients are not among it.
const WANTED: [Tag; 22] = [
    tags::TRANSFER_SYNTAX_UID,
    tags::IMAGE_TYPE,
    tags::SOP_INSTANCE_UID,
    tags::MODALITY,
    tags::SERIES_INSTANCE_UID,
    tags::ACQUISITION_NUMBER,
    tags::TEMPORAL_POSITION_IDENTIFIER,
    tags::IMAGE_POSITION_PATIENT,
    tags::IMAGE_ORIENTATION_PATIENT,
    tags::SAMPLES_PER_PIXEL,
    tags::PHOTOMETRIC_INTERPRETATION,
    tags::NUMBER_OF_FRAMES,
    tags::ROWS,
    tags::COLUMNS,
    tags::PIXEL_SPACING,
    tags::BITS_ALLOCATED,
    tags::BITS_STORED,
    tags::HIGH_BIT,
    tags::PIXEL_REPRESENTATION,
    tags::RESCALE_INTERCEPT,
    tags::RESCALE_SLOPE,
    tags::RESCALE_TYPE,
];

/// What compressed pixels may take beyond four times their decoded size.
const COMPRESSED_EXTRA_BYTES: u64 = 1 << 20;

/// Modalities that a fault may name; the element itself could hold any text.
const MODALITIES: [&str; 14] =
    ["CR", "DX", "MG", "MR", "NM", "OT", "PT", "REG", "RF", "RTDOSE", "SC", "SEG", "US", "XA"];

/// A file that holds a slice, or should.
pub(super) struct Slice {
    pub path: PathBuf,
    pub bytes: u64,
    pub modified_s: i64,
    /// Hash of the series it belongs to.
    pub series: [u8; 32],
    /// Whether it is no CT image by its own word.
    pub other_modality: bool,
    /// Whether the scanner calls it a localizer.
    pub localizer: bool,
    /// What tells acquisitions of one series apart: acquisition number and temporal position.
    pub acquisition: [Option<i64>; 2],
    /// The image, or why there is none.
    pub image: Result<Image, Fault>,
}

/// What a header says about its image.
#[derive(Clone)]
pub(super) struct Image {
    pub place: SlicePose,
    pub stored: Stored,
    pub rescale: Rescale,
    pub syntax: Syntax,
    pub pixels: PixelBytes,
}

impl Slice {
    /// Reads the header of the file at `path`; `None` where it is no DICOM image.
    pub fn open(path: &Path) -> Option<Self> {
        let (bytes, modified_s) = std::fs::metadata(path).map_or((0, 0), |file| {
            let age = file.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            (file.len(), age.map_or(0, |age| age.as_secs() as i64))
        });
        let mut elements = Elements::open(path, &WANTED)?;
        let fault = elements.fault.take();
        let is_image = elements.pixels.is_some() || elements.word(tags::ROWS).is_some();
        // Without an image this is a directory, a report, a structure set, or it only began like a DICOM file; but what
        // cannot be read might have held one.
        let might_be_image = elements.suspect && fault.is_some();
        if !is_image && !might_be_image {
            return None;
        }
        let number = |tag| elements.text(tag).and_then(|text| text.parse().ok());
        Some(Self {
            path: path.to_owned(),
            bytes,
            modified_s,
            series: Sha256::digest(elements.text(tags::SERIES_INSTANCE_UID).unwrap_or_default()).into(),
            other_modality: elements.text(tags::MODALITY).is_some_and(|modality| modality != "CT"),
            localizer: elements.text(tags::IMAGE_TYPE).is_some_and(|kind| kind.contains("LOCALIZER")),
            acquisition: [number(tags::ACQUISITION_NUMBER), number(tags::TEMPORAL_POSITION_IDENTIFIER)],
            image: fault.map_or_else(|| Image::of(&elements), Err),
        })
    }
}

impl Image {
    /// Checks everything a CT slice must say about itself.
    fn of(elements: &Elements) -> Result<Self, Fault> {
        check_kind(elements)?;
        let syntax = elements.text(tags::TRANSFER_SYNTAX_UID).map_or(Ok(elements.bare_syntax()), Syntax::of)?;
        let shape = [word(elements, tags::COLUMNS, "Columns")?, word(elements, tags::ROWS, "Rows")?].map(usize::from);
        if shape.contains(&0) {
            return Err(Fault::read(
                FaultKind::Geometry,
                format!("a slice of {} × {} pixels: expected at least one", shape[0], shape[1]),
            ));
        }
        let stored = stored(elements)?;
        let pixels = pixels(elements, syntax, shape, stored)?;
        let position_mm = elements
            .numbers(tags::IMAGE_POSITION_PATIENT, "ImagePositionPatient")?
            .ok_or_else(|| missing("ImagePositionPatient"))?;
        let cosines = elements
            .numbers(tags::IMAGE_ORIENTATION_PATIENT, "ImageOrientationPatient")?
            .ok_or_else(|| missing("ImageOrientationPatient"))?;
        let [row_spacing_mm, column_spacing_mm] =
            elements.numbers(tags::PIXEL_SPACING, "PixelSpacing")?.ok_or_else(|| missing("PixelSpacing"))?;
        let [slope] = elements.numbers(tags::RESCALE_SLOPE, "RescaleSlope")?.ok_or_else(|| missing("RescaleSlope"))?;
        let [intercept] = elements
            .numbers(tags::RESCALE_INTERCEPT, "RescaleIntercept")?
            .ok_or_else(|| missing("RescaleIntercept"))?;
        let instance = elements.text(tags::SOP_INSTANCE_UID).map(|uid| Sha256::digest(uid).into());
        Ok(Self {
            place: SlicePose::new(shape, position_mm, cosines, [column_spacing_mm, row_spacing_mm], instance)?,
            stored,
            rescale: Rescale::new(slope, intercept)?,
            syntax,
            pixels,
        })
    }

    /// The pixels as stored in the file at `path`, compressed or not.
    pub fn read(&self, path: &Path) -> Result<Vec<u8>, Fault> {
        let most = if self.syntax.is_compressed() { u64::MAX } else { self.frame(Vec::new()).decoded_bytes() as u64 };
        read_pixels(path, self.syntax, &self.pixels, most)
    }

    /// The compressed frame that `bytes` are.
    pub fn frame(&self, bytes: Vec<u8>) -> Frame {
        Frame { syntax: self.syntax, shape: self.place.shape, stored: self.stored, bytes }
    }
}

fn missing(name: &str) -> Fault {
    Fault::read(
        FaultKind::Missing,
        format!("a slice without {name}: expected a CT image with all its geometry and units"),
    )
}

fn unsupported(message: String) -> Fault {
    Fault::read(FaultKind::Unsupported, message)
}

fn word(elements: &Elements, tag: Tag, name: &str) -> Result<u16, Fault> {
    elements.word(tag).ok_or_else(|| missing(name))
}

/// Refuses what is no single-frame grey CT image in HU.
fn check_kind(elements: &Elements) -> Result<(), Fault> {
    match elements.text(tags::MODALITY) {
        Some("CT") => {}
        None => return Err(missing("Modality")),
        Some(other) => {
            let name = MODALITIES.into_iter().find(|known| *known == other).unwrap_or("another");
            return Err(unsupported(format!("modality {name}; expected CT")));
        }
    }
    let [frames] = elements.numbers(tags::NUMBER_OF_FRAMES, "NumberOfFrames")?.unwrap_or([1.0]);
    if frames != 1.0 {
        return Err(unsupported(format!("a multi-frame image of {frames} frames; expected one file per slice")));
    }
    let samples = word(elements, tags::SAMPLES_PER_PIXEL, "SamplesPerPixel")?;
    if samples != 1 {
        return Err(unsupported(format!("{samples} samples per pixel, a colour image; expected 1")));
    }
    match elements.text(tags::PHOTOMETRIC_INTERPRETATION) {
        Some("MONOCHROME2") => {}
        None => return Err(missing("PhotometricInterpretation")),
        Some("MONOCHROME1") => {
            return Err(unsupported(
                "MONOCHROME1; expected MONOCHROME2, because programs disagree on whether its values are inverted"
                    .into(),
            ));
        }
        Some(_) => return Err(unsupported("a colour image; expected MONOCHROME2".into())),
    }
    // GDCM writes US, unspecified, where nothing was said; a CT image is in HU then.
    match elements.text(tags::RESCALE_TYPE) {
        None => Ok(()),
        Some(unit) if ["HU", "US", "UNSPECIFIED"].iter().any(|known| unit.eq_ignore_ascii_case(known)) => Ok(()),
        Some(_) => Err(unsupported("rescaled values in another unit; expected RescaleType HU".into())),
    }
}

fn stored(elements: &Elements) -> Result<Stored, Fault> {
    let bits_allocated = word(elements, tags::BITS_ALLOCATED, "BitsAllocated")?;
    let bits_stored = word(elements, tags::BITS_STORED, "BitsStored")?;
    let high_bit = elements.word(tags::HIGH_BIT).unwrap_or(bits_stored.wrapping_sub(1));
    let signed = match word(elements, tags::PIXEL_REPRESENTATION, "PixelRepresentation")? {
        0 => false,
        1 => true,
        other => {
            return Err(Fault::read(FaultKind::Corrupt, format!("PixelRepresentation {other}; expected 0 or 1")));
        }
    };
    if ![8, 16].contains(&bits_allocated) {
        return Err(unsupported(format!("{bits_allocated} bits allocated per pixel; expected 8 or 16")));
    }
    if bits_stored == 0 || bits_stored > bits_allocated {
        return Err(Fault::read(
            FaultKind::Corrupt,
            format!("{bits_stored} bits stored in {bits_allocated} allocated"),
        ));
    }
    if high_bit != bits_stored - 1 {
        return Err(unsupported(format!(
            "highest bit {high_bit} of {bits_stored}; expected the lowest bits to be used"
        )));
    }
    Ok(Stored { bytes: usize::from(bits_allocated / 8), bits: u32::from(bits_stored), signed })
}

fn pixels(elements: &Elements, syntax: Syntax, shape: [usize; 2], stored: Stored) -> Result<PixelBytes, Fault> {
    let pixels = elements.pixels.clone().ok_or_else(|| missing("PixelData"))?;
    if pixels.encapsulated != syntax.is_compressed() {
        return Err(Fault::read(
            FaultKind::Corrupt,
            "the transfer syntax contradicts the pixel data: one says compressed, the other does not",
        ));
    }
    let held: u64 = pixels.ranges.iter().map(|(_, length)| length).sum();
    let decoded = (shape[0] * shape[1] * stored.bytes) as u64;
    let needed = if syntax.is_compressed() { 1 } else { decoded };
    if held < needed {
        return Err(Fault::read(
            FaultKind::Truncated,
            format!("{held} bytes of pixel data; expected {needed} for {} × {} pixels", shape[0], shape[1]),
        ));
    }
    // Compression may fail to compress, but not by this much; whatever it is, it is not read into memory.
    if syntax.is_compressed() && held > 4 * decoded + COMPRESSED_EXTRA_BYTES {
        return Err(Fault::read(
            FaultKind::Corrupt,
            format!("{held} bytes of compressed pixel data for {decoded} bytes of pixels"),
        ));
    }
    Ok(pixels)
}
