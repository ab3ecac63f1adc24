//! Small scans for the tests of this room.

use std::sync::Arc;

use super::data::Case;
use crate::ingest::Source;
use crate::ingest::phantom::{Body, PhantomConfig, PhantomSource};
use crate::mask::{LabelsConfig, LabelsMask, Mask, MaskedScan, Organ};
use crate::volume::{HuWindow, Preprocess};

/// A phantom abdomen with its liver; one number, one phantom.
pub(crate) fn phantom(number: u32) -> MaskedScan {
    let config = PhantomConfig {
        count: number + 1,
        body: Body::Abdomen,
        shape: [40, 36, 32],
        spacing_mm: [8.0, 8.0, 8.0],
        seed: 11,
        ..PhantomConfig::default()
    };
    let source = PhantomSource::new(config, "phantoms").unwrap();
    let entry = source.list().unwrap().pop().unwrap();
    let scan = Arc::new(source.read(&entry).unwrap());
    let mask: LabelsConfig = toml::from_str("organs = [\"liver\"]").unwrap();
    let mask = LabelsMask::new(mask).unwrap().mask(&scan).unwrap();
    MaskedScan { scan, mask }
}

/// A preprocessing to 8 mm and patches of 16³.
pub(crate) fn small() -> Preprocess {
    Preprocess::new([8.0; 3], HuWindow::ABDOMEN, [16; 3]).unwrap()
}

/// A phantom made ready.
pub(crate) fn case(number: u32) -> Case {
    Case::prepare(&phantom(number), &small()).unwrap()
}

/// The organs of these phantoms.
pub(crate) fn organs() -> Vec<Organ> {
    vec![Organ { name: "liver".into(), label: 1, tumor_label: 2 }]
}
