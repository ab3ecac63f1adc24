//! One file of a series: its header and the image that the header describes.

use std::path::{Path, PathBuf};

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use sha2::{Digest, Sha256};

use super::elements::{Elements, read_pixels};
use super::fragments::PixelBytes;
use super::frame::Frame;
use super::geometry::SlicePose;
use super::keys::SliceKeys;
use super::object::{ObjectClass, is_other_file_by_name};
use super::pixels::{PixelFormat, Rescale, swap_pairs};
use super::syntax::Syntax;
use crate::error::{Fault, FaultKind};
use crate::ingest::version::{FileState, modified_s};

/// The elements that reading a slice needs, beside those of its [`SliceKeys`].
const TAGS: [Tag; 22] = [
    tags::TRANSFER_SYNTAX_UID,
    tags::MEDIA_STORAGE_SOP_CLASS_UID,
    tags::IMAGE_TYPE,
    tags::SOP_CLASS_UID,
    tags::MODALITY,
    tags::SERIES_INSTANCE_UID,
    tags::INSTANCE_NUMBER,
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

/// Maximum bytes of compressed pixels beyond four times their decoded size.
const COMPRESSED_EXTRA_BYTES: u64 = 1 << 20;

/// Modalities that a fault may name; the element itself could contain free text.
const MODALITIES: [&str; 14] =
    ["CR", "DX", "MG", "MR", "NM", "OT", "PT", "REG", "RF", "RTDOSE", "SC", "SEG", "US", "XA"];

/// The content of a file in a DICOM folder.
pub(super) enum FileContent {
    /// A slice, or a file that cannot be read and may contain one.
    Slice(Box<Slice>),
    /// An object or file that is not a slice, by its SOP class or its name.
    Other(&'static str),
}

/// A file that contains a slice, or a file that cannot be read and may contain one.
#[derive(Clone)]
pub(super) struct Slice {
    pub path: PathBuf,
    pub bytes: u64,
    pub modified_s: i64,
    pub state: FileState,
    /// Hash of the identifier of the series of the slice; `None` if the file cannot be read up to the identifier.
    pub series: Option<[u8; 32]>,
    /// Whether the header of the slice states a modality other than CT.
    pub other_modality: bool,
    /// Whether the image type in the header is that of a localizer.
    pub localizer: bool,
    /// The elements that separate the scans of one series.
    pub keys: SliceKeys,
    /// Number of the slice in the series (InstanceNumber).
    pub number: Option<i64>,
    /// The image of the slice, or the fault of the header.
    pub image: Result<Image, Fault>,
}

/// The image of a slice, as described by the header.
#[derive(Clone)]
pub(super) struct Image {
    pub pose: SlicePose,
    pub format: PixelFormat,
    pub rescale: Rescale,
    pub syntax: Syntax,
    pub pixels: PixelBytes,
}

impl Slice {
    /// Reads the header of the file at `path`.
    pub fn open(path: &Path) -> FileContent {
        let metadata = std::fs::metadata(path).ok();
        let (bytes, modified_s) = metadata.as_ref().map_or((0, 0), |file| (file.len(), modified_s(file)));
        let mut slice = Self {
            path: path.to_owned(),
            bytes,
            modified_s,
            state: metadata.as_ref().map_or(FileState::Absent, FileState::of_metadata),
            series: None,
            other_modality: false,
            localizer: false,
            keys: SliceKeys::default(),
            number: None,
            image: Err(not_understood()),
        };
        let requested: Vec<Tag> = TAGS.into_iter().chain(SliceKeys::tags()).collect();
        let Some(mut elements) = Elements::open(path, &requested) else {
            return if is_other_file_by_name(path) {
                FileContent::Other(OTHER_FILE)
            } else {
                FileContent::Slice(Box::new(slice))
            };
        };
        let fault = elements.fault.take();
        // The class in the data set is more reliable than its copy in the meta information, which is read from a truncated file.
        let classes =
            [tags::SOP_CLASS_UID, tags::MEDIA_STORAGE_SOP_CLASS_UID].map(|tag| ObjectClass::of(elements.text(tag)));
        let class = classes.into_iter().find(|class| *class != ObjectClass::Unknown).unwrap_or(ObjectClass::Unknown);
        let is_image = elements.pixels.is_some() || elements.bytes(tags::ROWS).is_some_and(|rows| !rows.is_empty());
        let mut fault = fault;
        if let ObjectClass::Other(name) = class {
            let is_placed = is_image && elements.bytes(tags::IMAGE_POSITION_PATIENT).is_some();
            if classes[1] != ObjectClass::Ct || !(is_placed || fault.is_some()) {
                return FileContent::Other(name);
            }
            // A damaged identifier may be that of another class.
            fault.get_or_insert_with(|| contradicting_classes(name));
        }
        if class == ObjectClass::Unknown && !is_image {
            // A file that starts by chance like a DICOM file without preamble.
            if !elements.may_be_dicom && is_other_file_by_name(path) {
                return FileContent::Other(OTHER_FILE);
            }
            if fault.is_none() && elements.text(tags::SOP_CLASS_UID).is_some() {
                return FileContent::Other("object of a vendor");
            }
        }
        let series = elements.bytes(tags::SERIES_INSTANCE_UID).is_some() || fault.is_none();
        let uid = elements.text(tags::SERIES_INSTANCE_UID).unwrap_or_default();
        slice.series = series.then(|| Sha256::digest(uid).into());
        slice.other_modality = elements.text(tags::MODALITY).is_some_and(|modality| modality != "CT");
        slice.localizer = elements.text(tags::IMAGE_TYPE).is_some_and(|kind| kind.contains("LOCALIZER"));
        slice.keys = SliceKeys::of(&elements);
        slice.number = elements.decimals(tags::INSTANCE_NUMBER).and_then(|numbers| integer(&numbers));
        slice.image = match fault {
            // A data set that starts in the middle of a file has no other explanation.
            Some(_) if !elements.may_be_dicom && !is_image => Err(not_understood()),
            Some(fault) => Err(fault),
            None => Image::from_elements(&elements),
        };
        FileContent::Slice(Box::new(slice))
    }
}

/// Returns the only number as an integer.
fn integer(numbers: &[f64]) -> Option<i64> {
    let &[number] = numbers else { return None };
    (number.fract() == 0.0 && number.abs() < 1e15).then_some(number as i64)
}

/// The kind of a file whose name shows that it is not DICOM.
const OTHER_FILE: &str = "other file";

/// Returns the fault of a file that is not DICOM, or is too damaged to tell.
fn not_understood() -> Fault {
    Fault::read(
        FaultKind::Corrupt,
        "expected DICOM files in a DICOM folder, got a file that cannot be understood: restore or remove it, or name it in `exclude`",
    )
}

/// Returns the fault of a file that is a CT image by one of its two SOP classes.
fn contradicting_classes(name: &str) -> Fault {
    Fault::read(
        FaultKind::Corrupt,
        format!(
            "the file is a CT image by MediaStorageSOPClassUID, but another object by SOPClassUID ({name}): restore or remove it, or name it in `exclude`"
        ),
    )
}

impl Image {
    /// Checks every element that a CT slice must have.
    fn from_elements(elements: &Elements) -> Result<Self, Fault> {
        check_kind(elements)?;
        let syntax = elements.text(tags::TRANSFER_SYNTAX_UID).map_or(Ok(elements.bare_syntax()), Syntax::of)?;
        let shape = [required_u16(elements, tags::COLUMNS, "Columns")?, required_u16(elements, tags::ROWS, "Rows")?]
            .map(usize::from);
        if shape.contains(&0) {
            return Err(Fault::read(
                FaultKind::Geometry,
                format!("expected at least one pixel in a slice, got {} × {}", shape[0], shape[1]),
            ));
        }
        let format = pixel_format(elements)?;
        let pixels = pixel_bytes(elements, syntax, shape, format)?;
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
        Ok(Self {
            pose: SlicePose::new(shape, position_mm, cosines, [column_spacing_mm, row_spacing_mm])?,
            format,
            rescale: Rescale::new(slope, intercept)?,
            syntax,
            pixels,
        })
    }

    /// Reads the pixels as stored in the file at `path`, compressed or not.
    pub fn read(&self, path: &Path) -> Result<Vec<u8>, Fault> {
        let decoded = self.frame(Vec::new()).decoded_bytes();
        let swapped = has_swapped_pairs(self.syntax, self.format, &self.pixels);
        let limit = match self.syntax.is_compressed() {
            true => u64::MAX,
            false if swapped => decoded.next_multiple_of(2) as u64,
            false => decoded as u64,
        };
        let mut bytes = read_pixels(path, self.syntax, &self.pixels, limit)?;
        if swapped {
            swap_pairs(&mut bytes);
            bytes.truncate(decoded);
        }
        Ok(bytes)
    }

    /// Returns the compressed frame with these bytes.
    pub fn frame(&self, bytes: Vec<u8>) -> Frame {
        Frame { syntax: self.syntax, shape: self.pose.shape, format: self.format, bytes }
    }
}

fn missing(name: &str) -> Fault {
    Fault::read(FaultKind::Missing, format!("a slice without {name}: expected a CT image with its geometry and units"))
}

fn unsupported(message: String) -> Fault {
    Fault::read(FaultKind::Unsupported, message)
}

fn required_u16(elements: &Elements, tag: Tag, name: &str) -> Result<u16, Fault> {
    elements.u16(tag, name)?.ok_or_else(|| missing(name))
}

/// Returns a fault if the file is not a single-frame grayscale CT image in HU.
fn check_kind(elements: &Elements) -> Result<(), Fault> {
    match elements.text(tags::MODALITY) {
        Some("CT") => {}
        None => return Err(missing("Modality")),
        Some(other) => {
            let name = MODALITIES.into_iter().find(|known| *known == other).unwrap_or("another one");
            return Err(unsupported(format!("expected modality CT, got {name}")));
        }
    }
    let [frames] = elements.numbers(tags::NUMBER_OF_FRAMES, "NumberOfFrames")?.unwrap_or([1.0]);
    // The element has no meaning in a CT image; some writers set it to 0.
    if frames != 1.0 && frames != 0.0 {
        return Err(unsupported(format!("expected one file per slice, got a multi-frame image of {frames} frames")));
    }
    let samples = required_u16(elements, tags::SAMPLES_PER_PIXEL, "SamplesPerPixel")?;
    if samples != 1 {
        return Err(unsupported(format!("expected 1 sample per pixel, got {samples}: a colour image")));
    }
    match elements.text(tags::PHOTOMETRIC_INTERPRETATION) {
        Some("MONOCHROME2") => {}
        None => return Err(missing("PhotometricInterpretation")),
        Some("MONOCHROME1") => {
            return Err(unsupported(
                "expected MONOCHROME2, got MONOCHROME1: programs disagree on whether its values are inverted".into(),
            ));
        }
        Some(_) => return Err(unsupported("expected MONOCHROME2, got a colour image".into())),
    }
    // GDCM writes US (unspecified) if the rescale type was absent; a CT image is in HU in that case.
    match elements.text(tags::RESCALE_TYPE) {
        None => Ok(()),
        Some(unit) if ["HU", "US", "UNSPECIFIED"].iter().any(|known| unit.eq_ignore_ascii_case(known)) => Ok(()),
        Some(_) => Err(unsupported("expected RescaleType HU, got another unit".into())),
    }
}

fn pixel_format(elements: &Elements) -> Result<PixelFormat, Fault> {
    let bits_allocated = required_u16(elements, tags::BITS_ALLOCATED, "BitsAllocated")?;
    let bits_stored = required_u16(elements, tags::BITS_STORED, "BitsStored")?;
    let high_bit = elements.u16(tags::HIGH_BIT, "HighBit")?.unwrap_or(bits_stored.wrapping_sub(1));
    let signed = match required_u16(elements, tags::PIXEL_REPRESENTATION, "PixelRepresentation")? {
        0 => false,
        1 => true,
        other => {
            return Err(Fault::read(FaultKind::Corrupt, format!("expected PixelRepresentation 0 or 1, got {other}")));
        }
    };
    if ![8, 16].contains(&bits_allocated) {
        return Err(unsupported(format!("expected 8 or 16 bits allocated per pixel, got {bits_allocated}")));
    }
    if bits_stored == 0 || bits_stored > bits_allocated {
        return Err(Fault::read(
            FaultKind::Corrupt,
            format!("expected 1 to {bits_allocated} bits stored, got {bits_stored}"),
        ));
    }
    if high_bit != bits_stored - 1 {
        return Err(unsupported(format!(
            "expected high bit {} for {bits_stored} bits stored, got {high_bit}",
            bits_stored - 1
        )));
    }
    Ok(PixelFormat { bytes: usize::from(bits_allocated / 8), bits: u32::from(bits_stored), signed })
}

fn pixel_bytes(
    elements: &Elements,
    syntax: Syntax,
    shape: [usize; 2],
    format: PixelFormat,
) -> Result<PixelBytes, Fault> {
    let pixels = elements.pixels.clone().ok_or_else(|| missing("PixelData"))?;
    if pixels.encapsulated != syntax.is_compressed() {
        return Err(Fault::read(
            FaultKind::Corrupt,
            "the transfer syntax contradicts the pixel data: only one of them is compressed",
        ));
    }
    // Programs disagree on the byte order of other representations.
    let is_ordered =
        pixels.representation == Some(*b"OW") || (format.bytes == 1 && pixels.representation == Some(*b"OB"));
    if syntax.is_big_endian() && !is_ordered {
        return Err(unsupported(
            "expected big-endian PixelData of representation OW, got another one: transcode the series".into(),
        ));
    }
    let stored: u64 = pixels.ranges.iter().map(|(_, length)| length).sum();
    let decoded = (shape[0] * shape[1] * format.bytes) as u64;
    let needed = match syntax.is_compressed() {
        true => 1,
        false if has_swapped_pairs(syntax, format, &pixels) => decoded.next_multiple_of(2),
        false => decoded,
    };
    if stored < needed {
        return Err(Fault::read(
            FaultKind::Truncated,
            format!("expected {needed} bytes of pixel data for {} × {} pixels, got {stored}", shape[0], shape[1]),
        ));
    }
    // With one frame or none in the header, more frames in the pixel data could be any slice.
    let stated = elements.numbers(tags::NUMBER_OF_FRAMES, "NumberOfFrames")?;
    if pixels.frames > 1 || (stated == Some([0.0]) && !syntax.is_compressed() && stored >= 2 * decoded) {
        return Err(Fault::read(FaultKind::Corrupt, "expected pixel data of 1 frame, got more frames"));
    }
    // Compression may enlarge the data, but not by this much; larger data is not read into memory.
    let limit = 4 * decoded + COMPRESSED_EXTRA_BYTES;
    if syntax.is_compressed() && stored > limit {
        return Err(Fault::read(
            FaultKind::Corrupt,
            format!("expected at most {limit} bytes of compressed pixel data, got {stored}"),
        ));
    }
    Ok(pixels)
}

/// Returns whether two pixels of one byte are stored as a big-endian word, the second one first (PS3.5, 7.3).
fn has_swapped_pairs(syntax: Syntax, format: PixelFormat, pixels: &PixelBytes) -> bool {
    syntax.is_big_endian() && format.bytes == 1 && pixels.representation == Some(*b"OW")
}
