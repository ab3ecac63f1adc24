//! The acquisition of a scan: settings of the scanner that name no person.

use serde::{Deserialize, Serialize};

/// Maximum length of a text.
const MAX_CHARACTERS: usize = 64;

/// The acquisition of a scan, from an allow-list of DICOM elements; every value is absent for other formats and if the header does not state
/// it. No free text, date, name or identifier is read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Acquisition {
    /// Manufacturer of the scanner (0008,0070).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// Model of the scanner (0008,1090).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scanner_model: Option<String>,
    /// Convolution kernel of the reconstruction (0018,1210).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Tube voltage in kV (0018,0060).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tube_voltage_kv: Option<f64>,
    /// Exposure in mAs (0018,1152).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposure_mas: Option<f64>,
    /// Slice thickness in mm (0018,0050), which may differ from the distance of the slices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice_thickness_mm: Option<f64>,
    /// Whether a contrast agent was given (0018,0010); the agent itself is not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_contrast: Option<bool>,
    /// Position of the patient (0018,5100), such as HFS: head first, supine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient_position: Option<String>,
    /// Year of the acquisition (0008,0022), only if the source asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acquisition_year: Option<u32>,
}

/// Returns a text without characters that no name of a product or kernel has; `None` if nothing is left.
pub(super) fn plain_text(text: &str) -> Option<String> {
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || " .,_+-/()[]:".contains(*c);
    let plain: String = text.chars().filter(is_plain).take(MAX_CHARACTERS).collect();
    let plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    (!plain.is_empty()).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_short_and_plain() {
        assert_eq!(plain_text("  SIEMENS\u{1} "), Some("SIEMENS".to_owned()));
        assert_eq!(plain_text("I31f\\3"), Some("I31f3".to_owned()));
        assert_eq!(plain_text("\u{7}\n"), None);
        assert_eq!(plain_text(&"a".repeat(200)).unwrap().len(), 64);
    }
}
