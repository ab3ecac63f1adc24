//! The elements whose values differ between the scans that one series may contain.
//!
//! Only equality matters: writers put other text than the standard allows into some of them. Values are kept as hashes; the identifier of a
//! patient stays in this module and is compared in memory only.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use sha2::{Digest, Sha256};

use super::elements::Elements;

/// The meaning of different values of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A setting of a whole scan. Slices with different values are different scans, also if they follow each other without a gap.
    Setting,
    /// One value per scan. Different values separate scans whose slices alternate.
    Scan,
    /// May change from slice to slice of one scan. Different values separate slices that contradict each other, and alternating slices that
    /// are not numbered as one scan, or whose pixels are not those of one scan.
    Acquisition,
    /// Changes from slice to slice with the exposure. Different values separate only alternating slices that are not numbered as one scan,
    /// or whose pixels are not those of one scan.
    Exposure,
}

/// An element that may separate the scans of a series.
pub(super) struct SeparatingElement {
    tag: Tag,
    /// Keyword of the standard.
    pub name: &'static str,
    pub meaning: Meaning,
    /// Whether values are compared as numbers: 120 and 120.0 are equal.
    is_number: bool,
}

impl SeparatingElement {
    const fn text(tag: Tag, name: &'static str, meaning: Meaning) -> Self {
        Self { tag, name, meaning, is_number: false }
    }

    const fn number(tag: Tag, name: &'static str, meaning: Meaning) -> Self {
        Self { tag, name, meaning, is_number: true }
    }
}

/// The elements, the most specific first.
pub(super) const ELEMENTS: [SeparatingElement; 22] = [
    SeparatingElement::number(tags::TEMPORAL_POSITION_IDENTIFIER, "TemporalPositionIdentifier", Meaning::Setting),
    SeparatingElement::text(tags::CONVOLUTION_KERNEL, "ConvolutionKernel", Meaning::Setting),
    SeparatingElement::number(tags::KVP, "KVP", Meaning::Setting),
    SeparatingElement::number(tags::SERIES_NUMBER, "SeriesNumber", Meaning::Setting),
    SeparatingElement::text(tags::FILTER_TYPE, "FilterType", Meaning::Scan),
    SeparatingElement::text(tags::CONTRAST_BOLUS_AGENT, "ContrastBolusAgent", Meaning::Scan),
    SeparatingElement::text(tags::SERIES_DESCRIPTION, "SeriesDescription", Meaning::Scan),
    SeparatingElement::number(tags::ACQUISITION_DATE_TIME, "AcquisitionDateTime", Meaning::Scan),
    SeparatingElement::number(tags::ACQUISITION_NUMBER, "AcquisitionNumber", Meaning::Acquisition),
    SeparatingElement::text(tags::IRRADIATION_EVENT_UID, "IrradiationEventUID", Meaning::Acquisition),
    SeparatingElement::number(tags::SLICE_THICKNESS, "SliceThickness", Meaning::Acquisition),
    SeparatingElement::number(tags::TRIGGER_TIME, "TriggerTime", Meaning::Acquisition),
    SeparatingElement::number(tags::ACQUISITION_TIME, "AcquisitionTime", Meaning::Acquisition),
    SeparatingElement::number(tags::ACQUISITION_DATE, "AcquisitionDate", Meaning::Acquisition),
    SeparatingElement::number(tags::SERIES_TIME, "SeriesTime", Meaning::Acquisition),
    SeparatingElement::text(tags::IMAGE_TYPE, "ImageType", Meaning::Acquisition),
    SeparatingElement::number(tags::CONTENT_TIME, "ContentTime", Meaning::Exposure),
    SeparatingElement::number(tags::CONTENT_DATE, "ContentDate", Meaning::Exposure),
    SeparatingElement::number(tags::EXPOSURE, "Exposure", Meaning::Exposure),
    SeparatingElement::number(tags::X_RAY_TUBE_CURRENT, "XRayTubeCurrent", Meaning::Exposure),
    SeparatingElement::number(tags::EXPOSURE_TIME, "ExposureTime", Meaning::Exposure),
    SeparatingElement::number(tags::RECONSTRUCTION_DIAMETER, "ReconstructionDiameter", Meaning::Exposure),
];

/// Identity of a slice: elements that are equal in all slices of a scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    /// Hash of the PatientID.
    pub patient: u64,
    /// Hash of the StudyInstanceUID.
    pub study: u64,
    /// Hash of the FrameOfReferenceUID.
    pub frame: u64,
}

/// Hashes of the elements of a slice that separate scans; 0 for an element that is absent or empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SliceKeys {
    pub elements: [u64; ELEMENTS.len()],
    pub identity: Identity,
}

impl SliceKeys {
    /// Returns the tags of the elements that [`SliceKeys::of`] reads.
    pub fn tags() -> impl Iterator<Item = Tag> {
        let identity = [tags::PATIENT_ID, tags::STUDY_INSTANCE_UID, tags::FRAME_OF_REFERENCE_UID];
        ELEMENTS.iter().map(|element| element.tag).chain(identity)
    }

    pub fn of(elements: &Elements) -> Self {
        let text = |tag| hash(elements.bytes(tag).unwrap_or_default());
        let value = |element: &SeparatingElement| match elements.decimals(element.tag).filter(|_| element.is_number) {
            Some(numbers) => {
                let bytes: Vec<u8> = numbers.iter().flat_map(|number| (number + 0.0).to_le_bytes()).collect();
                first_bytes(&bytes)
            }
            None => text(element.tag),
        };
        Self {
            elements: ELEMENTS.each_ref().map(value),
            identity: Identity {
                patient: text(tags::PATIENT_ID),
                study: text(tags::STUDY_INSTANCE_UID),
                frame: text(tags::FRAME_OF_REFERENCE_UID),
            },
        }
    }

    /// Returns whether both slices state a setting of their scan, and the settings differ.
    pub fn differ_in_setting(&self, other: &Self) -> bool {
        ELEMENTS.iter().zip(self.elements.iter().zip(&other.elements)).any(|(element, (&a, &b))| {
            element.meaning == Meaning::Setting && element.tag != tags::SERIES_NUMBER && a != 0 && b != 0 && a != b
        })
    }

    /// Returns whether both slices state a SeriesNumber, and the numbers differ.
    pub fn differ_in_series_number(&self, other: &Self) -> bool {
        ELEMENTS
            .iter()
            .zip(self.elements.iter().zip(&other.elements))
            .any(|(element, (&a, &b))| element.tag == tags::SERIES_NUMBER && a != 0 && b != 0 && a != b)
    }
}

/// Returns a hash of a value without its padding; 0 for an empty value.
fn hash(value: &[u8]) -> u64 {
    let is_padding = |byte: &u8| [b' ', 0].contains(byte);
    let Some(start) = value.iter().position(|byte| !is_padding(byte)) else { return 0 };
    let end = value.iter().rposition(|byte| !is_padding(byte)).map_or(start, |last| last + 1);
    first_bytes(&value[start..end])
}

fn first_bytes(value: &[u8]) -> u64 {
    let digest = Sha256::digest(value);
    u64::from_le_bytes([digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7]])
}
