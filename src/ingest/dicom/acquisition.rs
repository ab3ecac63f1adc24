//! The acquisition of a series: an allow-list of elements that name no person.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::elements::Elements;
use super::series::Series;
use crate::ingest::acquisition::{Acquisition, plain_text};

/// The elements that are read; the date only on request.
const ELEMENTS: [Tag; 8] = [
    tags::MANUFACTURER,
    tags::MANUFACTURER_MODEL_NAME,
    tags::CONVOLUTION_KERNEL,
    tags::KVP,
    tags::EXPOSURE,
    tags::SLICE_THICKNESS,
    tags::CONTRAST_BOLUS_AGENT,
    tags::PATIENT_POSITION,
];

/// Positions of patients (PS3.3 C.7.3.1.1.2).
const POSITIONS: [&str; 16] = [
    "HFP", "HFS", "HFDR", "HFDL", "FFDR", "FFDL", "FFP", "FFS", "LFP", "LFS", "RFP", "RFS", "AFDR", "AFDL", "PFDR",
    "PFDL",
];

/// Values of the contrast agent of scans without one.
const NO_AGENT: [&str; 5] = ["no", "none", "no contrast", "without", "native"];

/// Reads the acquisition of a series from its first slice; `with_year` also reads the year of the acquisition.
pub fn acquisition(series: &Series, with_year: bool) -> Acquisition {
    let mut requested = ELEMENTS.to_vec();
    if with_year {
        requested.push(tags::ACQUISITION_DATE);
    }
    let elements = series.slices().next().and_then(|slice| Elements::open(&slice.path, &requested));
    elements.map(|elements| of_elements(&elements)).unwrap_or_default()
}

fn of_elements(elements: &Elements) -> Acquisition {
    let text = |tag| elements.text(tag).and_then(plain_text);
    let number = |tag| {
        let values = elements.decimals(tag)?;
        values.first().copied().filter(|value| value.is_finite() && *value > 0.0)
    };
    let position = |text: String| POSITIONS.contains(&text.as_str()).then_some(text);
    // A value that is not ASCII is an agent, too.
    let agent = elements.bytes(tags::CONTRAST_BOLUS_AGENT).map(|bytes| {
        let agent = String::from_utf8_lossy(bytes).trim_matches([' ', '\0']).to_lowercase();
        !agent.is_empty() && !NO_AGENT.contains(&agent.as_str())
    });
    let year = elements.text(tags::ACQUISITION_DATE).and_then(|date| date.get(..4)?.parse().ok());
    Acquisition {
        manufacturer: text(tags::MANUFACTURER),
        scanner_model: text(tags::MANUFACTURER_MODEL_NAME),
        kernel: text(tags::CONVOLUTION_KERNEL),
        tube_voltage_kv: number(tags::KVP),
        exposure_mas: number(tags::EXPOSURE),
        slice_thickness_mm: number(tags::SLICE_THICKNESS),
        has_contrast: agent,
        patient_position: text(tags::PATIENT_POSITION).and_then(position),
        acquisition_year: year.filter(|year| (1970..2200).contains(year)),
    }
}
