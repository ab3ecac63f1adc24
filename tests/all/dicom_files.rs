//! Small DICOM slices for tests, valid and invalid.

use std::fs;
use std::path::Path;

use dicom_core::value::{DataSetSequence, PixelFragmentSequence};
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

pub const COLUMNS: usize = 6;
pub const ROWS: usize = 5;

/// Personal data that no output of a run may contain.
pub const PERSONAL: [&str; 4] = ["Doe", "PAT-4711", "19700101", "2.25.4711"];

/// One slice: its elements and its transfer syntax.
#[derive(Clone)]
pub struct SliceFile {
    pub object: InMemDicomObject,
    pub syntax: String,
}

/// Returns the stored values of slice `z`, all different.
pub fn stored(z: usize) -> Vec<i16> {
    (0..COLUMNS * ROWS).map(|pixel| (pixel + 100 * z) as i16 - 50).collect()
}

/// Returns a valid uncompressed series of `slices` slices, 2 mm apart.
pub fn series(slices: usize) -> Vec<SliceFile> {
    (0..slices).map(SliceFile::new).collect()
}

/// Writes slices with file names in another order.
pub fn write(folder: &Path, slices: &[SliceFile]) {
    for (number, slice) in slices.iter().enumerate() {
        slice.write(&folder.join(format!("Doe-{:03}", (number * 7 + 3) % 101)));
    }
}

impl SliceFile {
    /// Creates slice `z` of a valid series.
    pub fn new(z: usize) -> Self {
        let object = InMemDicomObject::new_empty();
        let slice = Self { object, syntax: uids::EXPLICIT_VR_LITTLE_ENDIAN.into() };
        let mut slice = slice
            .text(tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\AXIAL")
            .text(tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE)
            .text(tags::SOP_INSTANCE_UID, VR::UI, &format!("2.25.4711.1.{z}"))
            .text(tags::STUDY_DATE, VR::DA, "19700101")
            .text(tags::MODALITY, VR::CS, "CT")
            .text(tags::PATIENT_NAME, VR::PN, "Doe^Jane")
            .text(tags::PATIENT_ID, VR::LO, "PAT-4711")
            .text(tags::SERIES_INSTANCE_UID, VR::UI, "2.25.4711.1")
            .text(tags::INSTANCE_NUMBER, VR::IS, &(1000 - z).to_string())
            .text(tags::IMAGE_POSITION_PATIENT, VR::DS, &format!("-10\\-20\\{}", 30 + 2 * z))
            .text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\1\\0")
            .u16(tags::SAMPLES_PER_PIXEL, 1)
            .text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2")
            .u16(tags::ROWS, ROWS as u16)
            .u16(tags::COLUMNS, COLUMNS as u16)
            .text(tags::PIXEL_SPACING, VR::DS, "0.75\\0.5")
            .u16(tags::BITS_ALLOCATED, 16)
            .u16(tags::BITS_STORED, 16)
            .u16(tags::HIGH_BIT, 15)
            .u16(tags::PIXEL_REPRESENTATION, 1)
            .text(tags::RESCALE_INTERCEPT, VR::DS, "-24")
            .text(tags::RESCALE_SLOPE, VR::DS, "1")
            .pixels(&stored(z).iter().map(|&value| value as u16).collect::<Vec<_>>());
        // Sequences before and between the elements that are read, one of them with an item of undefined length.
        let item = InMemDicomObject::from_element_iter([DataElement::new(
            tags::CODE_VALUE,
            VR::SH,
            PrimitiveValue::from("T-62000"),
        )]);
        let sequence = DataSetSequence::from(vec![item]);
        slice.object.put(DataElement::new(tags::ANATOMIC_REGION_SEQUENCE, VR::SQ, sequence.clone()));
        slice.object.put(DataElement::new(tags::REQUEST_ATTRIBUTES_SEQUENCE, VR::SQ, sequence));
        slice
    }

    pub fn text(mut self, tag: Tag, vr: VR, value: &str) -> Self {
        self.object.put(DataElement::new(tag, vr, PrimitiveValue::from(value)));
        self
    }

    pub fn u16(mut self, tag: Tag, value: u16) -> Self {
        self.object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
        self
    }

    pub fn without(mut self, tag: Tag) -> Self {
        self.object.remove_element(tag);
        self
    }

    pub fn at(self, position: &str) -> Self {
        self.text(tags::IMAGE_POSITION_PATIENT, VR::DS, position)
    }

    pub fn syntax(mut self, uid: &str) -> Self {
        self.syntax = uid.into();
        self
    }

    /// Sets uncompressed pixels.
    pub fn pixels(mut self, values: &[u16]) -> Self {
        self.object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(values.into())));
        self
    }

    /// Sets compressed pixels in one fragment.
    pub fn fragment(mut self, bytes: Vec<u8>) -> Self {
        let fragments = PixelFragmentSequence::new_fragments(vec![bytes]);
        self.object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, fragments));
        self
    }

    pub fn write(&self, path: &Path) {
        fs::write(path, self.bytes()).unwrap();
    }

    /// Returns the bytes of the file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.object.clone().with_meta(self.meta(uids::CT_IMAGE_STORAGE)).unwrap().write_all(&mut bytes).unwrap();
        bytes
    }

    /// Returns the bytes of the file with this class in the file meta information, which may differ from that of the object.
    pub fn bytes_with_meta_class(&self, class: &str) -> Vec<u8> {
        let meta = self.meta(class).build().unwrap();
        let mut bytes = Vec::new();
        self.object.clone().with_exact_meta(meta).write_all(&mut bytes).unwrap();
        bytes
    }

    fn meta(&self, class: &str) -> FileMetaTableBuilder {
        FileMetaTableBuilder::new()
            .media_storage_sop_class_uid(class)
            .media_storage_sop_instance_uid("2.25.4711.1.0")
            .transfer_syntax(&*self.syntax)
    }
}

/// Encodes 16-bit values with RLE: two byte planes of runs.
pub fn run_lengths(values: &[u16]) -> Vec<u8> {
    let planes = [8, 0].map(|shift| {
        let mut plane = Vec::new();
        for chunk in values.iter().map(|value| (value >> shift) as u8).collect::<Vec<_>>().chunk_by(|a, b| a == b) {
            for run in chunk.chunks(128) {
                plane.extend([(1 - run.len() as i16) as u8, run[0]]);
            }
        }
        // A run of length one is encoded as a literal of length one: 0, value.
        plane
    });
    let mut bytes = vec![0; 64];
    bytes[0] = 2;
    bytes[4..8].copy_from_slice(&64u32.to_le_bytes());
    bytes[8..12].copy_from_slice(&(64 + planes[0].len() as u32).to_le_bytes());
    bytes.extend(planes.concat());
    bytes
}
