//! Small DICOM slices written to order, good and bad, for the rooms that read them.

use std::fs;
use std::path::Path;

use dicom_core::value::{DataSetSequence, PixelFragmentSequence};
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

pub const COLUMNS: usize = 6;
pub const ROWS: usize = 5;

/// What nothing that a run writes or says may ever hold.
pub const PERSONAL: [&str; 4] = ["Doe", "PAT-4711", "19700101", "2.25.4711"];

/// One slice: its elements and how they will be written.
#[derive(Clone)]
pub struct SliceFile {
    pub object: InMemDicomObject,
    pub syntax: String,
}

/// Stored values of slice `z`, all different.
pub fn stored(z: usize) -> Vec<i16> {
    (0..COLUMNS * ROWS).map(|pixel| (pixel + 100 * z) as i16 - 50).collect()
}

/// A sound series of `slices` slices, 2 mm apart, of which nothing is compressed.
pub fn series(slices: usize) -> Vec<SliceFile> {
    (0..slices).map(SliceFile::new).collect()
}

/// Writes slices under names that do not follow their order.
pub fn write(folder: &Path, slices: &[SliceFile]) {
    for (number, slice) in slices.iter().enumerate() {
        slice.write(&folder.join(format!("Doe-{:03}", (number * 7 + 3) % 101)));
    }
}

impl SliceFile {
    /// Slice `z` of a sound series.
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
            .word(tags::SAMPLES_PER_PIXEL, 1)
            .text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2")
            .word(tags::ROWS, ROWS as u16)
            .word(tags::COLUMNS, COLUMNS as u16)
            .text(tags::PIXEL_SPACING, VR::DS, "0.75\\0.5")
            .word(tags::BITS_ALLOCATED, 16)
            .word(tags::BITS_STORED, 16)
            .word(tags::HIGH_BIT, 15)
            .word(tags::PIXEL_REPRESENTATION, 1)
            .text(tags::RESCALE_INTERCEPT, VR::DS, "-24")
            .text(tags::RESCALE_SLOPE, VR::DS, "1")
            .words(&stored(z).iter().map(|&value| value as u16).collect::<Vec<_>>());
        // Sequences lie before and between what is read, one of them holding an item of undefined length.
        let inner = InMemDicomObject::from_element_iter([DataElement::new(
            tags::CODE_VALUE,
            VR::SH,
            PrimitiveValue::from("T-62000"),
        )]);
        let sequence = DataSetSequence::from(vec![inner]);
        slice.object.put(DataElement::new(tags::ANATOMIC_REGION_SEQUENCE, VR::SQ, sequence.clone()));
        slice.object.put(DataElement::new(tags::REQUEST_ATTRIBUTES_SEQUENCE, VR::SQ, sequence));
        slice
    }

    pub fn text(mut self, tag: Tag, vr: VR, value: &str) -> Self {
        self.object.put(DataElement::new(tag, vr, PrimitiveValue::from(value)));
        self
    }

    pub fn word(mut self, tag: Tag, value: u16) -> Self {
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

    /// Uncompressed pixels.
    pub fn words(mut self, values: &[u16]) -> Self {
        self.object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(values.into())));
        self
    }

    /// Compressed pixels in one fragment.
    pub fn fragment(mut self, bytes: Vec<u8>) -> Self {
        let fragments = PixelFragmentSequence::new_fragments(vec![bytes]);
        self.object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, fragments));
        self
    }

    pub fn write(&self, path: &Path) {
        fs::write(path, self.bytes()).unwrap();
    }

    /// The whole file.
    pub fn bytes(&self) -> Vec<u8> {
        let meta = FileMetaTableBuilder::new()
            .media_storage_sop_class_uid(uids::CT_IMAGE_STORAGE)
            .media_storage_sop_instance_uid("2.25.4711.1.0")
            .transfer_syntax(&*self.syntax);
        let mut bytes = Vec::new();
        self.object.clone().with_meta(meta).unwrap().write_all(&mut bytes).unwrap();
        bytes
    }
}

/// The simplest RLE encoding there is: two byte planes, runs where there are any.
pub fn run_lengths(values: &[u16]) -> Vec<u8> {
    let planes = [8, 0].map(|shift| {
        let mut plane = Vec::new();
        for chunk in values.iter().map(|value| (value >> shift) as u8).collect::<Vec<_>>().chunk_by(|a, b| a == b) {
            for run in chunk.chunks(128) {
                plane.extend([(1 - run.len() as i16) as u8, run[0]]);
            }
        }
        // A run of one comes out as a literal of one: 0, value.
        plane
    });
    let mut bytes = vec![0; 64];
    bytes[0] = 2;
    bytes[4..8].copy_from_slice(&64u32.to_le_bytes());
    bytes[8..12].copy_from_slice(&(64 + planes[0].len() as u32).to_le_bytes());
    bytes.extend(planes.concat());
    bytes
}
