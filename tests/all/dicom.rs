//! DICOM series: real series, and generated series in every encoding.

use std::io::Read;
use std::path::{Path, PathBuf};

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use freetumor::error::Fault;
use freetumor::ingest::dicom::{
    Decoder, FolderFilter, Limits, Series, list_folder, list_series, patient_id, read_header, read_series,
};
use freetumor::volume::{Affine, Volume, Voxels};
use sha2::{Digest, Sha256};

use crate::common;
use crate::dicom_files::{self, COLUMNS, ROWS, SliceFile, run_lengths, series, stored, write};

fn in_child_process() -> Decoder {
    Decoder::in_child_process(env!("CARGO_BIN_EXE_freetumor").into())
}

fn only_series(folder: &Path) -> Series {
    let mut series = list_series(folder).unwrap();
    assert_eq!(series.len(), 1, "{series:?}");
    series.remove(0)
}

fn read(slices: &[SliceFile]) -> Result<Volume, Fault> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), slices);
    read_series(&only_series(folder.path()), &Decoder::in_process(), &Limits::default())
}

fn integer_hu(volume: &Volume) -> &[i16] {
    match &volume.voxels {
        Voxels::I16(voxels) => voxels.as_slice(),
        Voxels::F32(_) => panic!("expected integer HU"),
    }
}

fn digest(volume: &Volume) -> String {
    let bytes: Vec<u8> = integer_hu(volume).iter().flat_map(|hu| hu.to_le_bytes()).collect();
    hex::encode(Sha256::digest(bytes))
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dicom").join(name)
}

/// Returns shape, affine and bytes of a NIfTI-1 file with an sform.
fn nifti(path: &Path) -> ([usize; 3], Affine, Vec<u8>) {
    let mut bytes = Vec::new();
    flate2::read::MultiGzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    let float = |at: usize| f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let shape = [42, 44, 46].map(|at| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]])));
    let affine = Affine([280, 296, 312].map(|row| [0, 4, 8, 12].map(|column| f64::from(float(row + column)))));
    let start = float(108) as usize;
    (shape, affine, bytes.split_off(start))
}

#[test]
fn compressed_series_equals_reference_nifti() {
    let Some(folder) = common::shared("ct/totalseg_liver_dicom") else { return };
    let (shape, affine, bytes) = nifti(&folder.join("reference.nii.gz"));
    let series = only_series(&folder.join("dicom"));
    let header = read_header(&series).unwrap();
    assert_eq!((header.grid.shape, header.volume_bytes), (shape, bytes.len() as u64));
    for decoder in [in_child_process(), Decoder::in_process(), in_child_process().with_threads(1)] {
        let volume = read_series(&series, &decoder, &Limits::default()).unwrap();
        assert_eq!(volume.grid, header.grid);
        assert_eq!(volume.grid.affine, affine);
        assert!(integer_hu(&volume).iter().flat_map(|hu| hu.to_le_bytes()).eq(bytes.iter().copied()), "{decoder:?}");
    }
}

/// Digest and affine were printed by tests/peers/dicom.py with SimpleITK 2.5.7.
#[test]
fn uncompressed_series_equals_simpleitk() {
    let Some(folder) = common::shared("ct/crlm_1004") else { return };
    let series = only_series(&folder.join("dicom"));
    assert!(!series.is_localizer());
    let volume = read_series(&series, &in_child_process(), &Limits::default()).unwrap();
    assert_eq!(volume.grid.shape, [512, 512, 41]);
    assert_eq!(
        volume.grid.affine,
        Affine([[-0.796875, 0.0, 0.0, 198.199997], [0.0, -0.796875, 0.0, 204.0], [0.0, 0.0, 5.0, -375.0]])
    );
    assert_eq!(digest(&volume), "0d6957114c31e3f577220682fdc9b6d25a34940ef494adacfd2b3b20abe9b87c");
    // Padding outside the field of view keeps its HU.
    assert_eq!(volume.voxels.hu(0), -3024.0);
}

#[test]
fn liver_mask_has_hu_of_liver() {
    let Some(folder) = common::shared("ct/crlm_1004") else { return };
    let (shape, affine, mask) = nifti(&folder.join("liver.nii.gz"));
    let volume = read_series(&only_series(&folder.join("dicom")), &Decoder::in_process(), &Limits::default()).unwrap();
    let to_volume = volume.grid.affine.inverse().unwrap().after(&affine);
    let [nx, ny, _] = volume.grid.shape;
    let hu: Vec<f64> = mask
        .iter()
        .enumerate()
        .filter(|(_, label)| **label != 0)
        .map(|(at, _)| {
            let voxel = [at % shape[0], at / shape[0] % shape[1], at / shape[0] / shape[1]];
            let [x, y, z] = to_volume.apply(voxel.map(|i| i as f64)).map(|i| i.round() as usize);
            f64::from(volume.voxels.hu(x + nx * (y + ny * z)))
        })
        .collect();
    let mean = hu.iter().sum::<f64>() / hu.len() as f64;
    let deviation = (hu.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / hu.len() as f64).sqrt();
    assert_eq!(hu.len(), 353_154);
    assert!((mean - 118.0).abs() < 1.0 && (deviation - 16.0).abs() < 1.0, "{mean} ± {deviation}");
}

/// The slices were written by tests/peers/dicom_fixtures.py with GDCM and pydicom, each in another transfer syntax.
#[test]
fn all_transfer_syntaxes_decode_to_same_values() {
    let series = only_series(&fixture("syntaxes"));
    let expected: Vec<i16> = (0..9)
        .flat_map(|z| (0..36).flat_map(move |y| (0..40).map(move |x| (x * x * 7 + y * 13 * (z + 1)) % 3000 - 1000)))
        .collect();
    for decoder in [Decoder::in_process(), in_child_process(), in_child_process().with_threads(2)] {
        let volume = read_series(&series, &decoder, &Limits::default()).unwrap();
        assert_eq!(volume.grid.shape, [40, 36, 9]);
        assert_eq!(
            volume.grid.affine,
            Affine([[-0.5, 0.0, 0.0, 10.0], [0.0, -0.75, 0.0, 20.0], [0.0, 0.0, 2.5, 30.0]])
        );
        for (z, (slice, expected)) in integer_hu(&volume).chunks(1440).zip(expected.chunks(1440)).enumerate() {
            assert_eq!(slice, expected, "slice {z} with {decoder:?}");
        }
    }
}

#[test]
fn lossy_jpeg_2000_decodes_within_tolerance() {
    let volume = read_series(&only_series(&fixture("lossy")), &in_child_process(), &Limits::default()).unwrap();
    for z in 0..4 {
        for y in 0..36 {
            for x in 0..40 {
                let expected = (10 * x - 5 * y + 40 * z - 100) as f32;
                let hu = volume.voxels.hu((x + 40 * (y + 36 * z)) as usize);
                assert!((hu - expected).abs() <= 4.0, "expected about {expected} at {x} {y} {z}, got {hu}");
            }
        }
    }
}

#[test]
fn slices_are_ordered_by_position_and_rescaled_individually() {
    let mut slices = series(5);
    slices[3] = slices[3].clone().text(tags::RESCALE_INTERCEPT, VR::DS, "76").text(tags::RESCALE_SLOPE, VR::DS, "2");
    slices.reverse();
    let volume = read(&slices).unwrap();
    assert_eq!(volume.grid.shape, [COLUMNS, ROWS, 5]);
    assert_eq!(volume.grid.affine, Affine([[-0.5, 0.0, 0.0, 10.0], [0.0, -0.75, 0.0, 20.0], [0.0, 0.0, 2.0, 30.0]]));
    let expected: Vec<i16> = (0..5)
        .flat_map(|z| stored(z).into_iter().map(move |value| if z == 3 { 2 * value + 76 } else { value - 24 }))
        .collect();
    assert_eq!(integer_hu(&volume), expected);
}

#[test]
fn coronal_stack_keeps_orientation() {
    // Rows run to the left, columns downwards: the normal points to the patient's back.
    let slices: Vec<_> = series(4)
        .into_iter()
        .enumerate()
        .map(|(z, slice)| {
            slice
                .text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\0\\-1")
                .at(&format!("1\\{}\\3", 7 - 3 * z as i32))
        })
        .collect();
    let volume = read(&slices).unwrap();
    // Ascending along the normal (0, 1, 0) in DICOM coordinates, which is from front to back.
    assert_eq!(volume.grid.affine, Affine([[-0.5, 0.0, 0.0, -1.0], [0.0, 0.0, -3.0, 2.0], [0.0, -0.75, 0.0, 3.0]]));
    assert_eq!(integer_hu(&volume)[0], stored(3)[0] - 24);
}

#[test]
fn overlays_in_unused_bits_are_masked() {
    let slices: Vec<_> = series(3)
        .into_iter()
        .map(|slice| {
            slice
                .u16(tags::BITS_STORED, 12)
                .u16(tags::HIGH_BIT, 11)
                .u16(tags::PIXEL_REPRESENTATION, 0)
                .pixels(&[0xF123; COLUMNS * ROWS])
        })
        .collect();
    assert!(integer_hu(&read(&slices).unwrap()).iter().all(|hu| *hu == 0x123 - 24));
    let signed: Vec<_> =
        slices.into_iter().map(|slice| slice.u16(tags::PIXEL_REPRESENTATION, 1).pixels(&[0x1FFE; 30])).collect();
    assert!(integer_hu(&read(&signed).unwrap()).iter().all(|hu| *hu == -2 - 24));
}

#[test]
fn eight_bit_slices_are_read() {
    let slices: Vec<_> = series(3)
        .into_iter()
        .map(|slice| {
            slice
                .u16(tags::BITS_ALLOCATED, 8)
                .u16(tags::BITS_STORED, 8)
                .u16(tags::HIGH_BIT, 7)
                .u16(tags::PIXEL_REPRESENTATION, 0)
                .pixels(&[0xFF01; COLUMNS * ROWS / 2])
        })
        .collect();
    assert!(integer_hu(&read(&slices).unwrap()).chunks(2).all(|pair| *pair == [1 - 24, 255 - 24]));
}

#[test]
fn values_not_exact_in_i16_are_floats() {
    let mut slices = series(3);
    slices[1] = slices[1].clone().text(tags::RESCALE_SLOPE, VR::DS, "0.5");
    let fractional = read(&slices).unwrap();
    assert!(matches!(fractional.voxels, Voxels::F32(_)));
    assert_eq!(fractional.voxels.hu(31), (f32::from(stored(1)[1]) * 0.5) - 24.0);
    // One value beyond 16 bits: all values before it are exact.
    let mut slices = series(3);
    slices[2] = slices[2].clone().pixels(&[0x8000; COLUMNS * ROWS]);
    let wide = read(&slices).unwrap();
    assert!(matches!(wide.voxels, Voxels::F32(_)));
    assert_eq!((wide.voxels.hu(0), wide.voxels.hu(60)), (f32::from(stored(0)[0]) - 24.0, -32792.0));
}

#[test]
fn rle_is_decoded_in_process_and_in_child_process() {
    let folder = tempfile::tempdir().unwrap();
    let slices: Vec<_> = series(4)
        .into_iter()
        .enumerate()
        .map(|(z, slice)| {
            let values: Vec<u16> = stored(z).into_iter().map(|value| (value / 8) as u16).collect();
            slice.syntax(uids::RLE_LOSSLESS).fragment(run_lengths(&values))
        })
        .collect();
    write(folder.path(), &slices);
    let expected: Vec<i16> = (0..4).flat_map(stored).map(|value| value / 8 - 24).collect();
    for decoder in [Decoder::in_process(), in_child_process()] {
        let volume = read_series(&only_series(folder.path()), &decoder, &Limits::default()).unwrap();
        assert_eq!(integer_hu(&volume), expected);
    }
}

#[test]
fn element_encoding_does_not_change_volume() {
    let expected = read(&series(3)).unwrap();
    for uid in [uids::IMPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.2"] {
        let slices: Vec<_> = series(3).into_iter().map(|slice| slice.syntax(uid)).collect();
        assert_eq!(read(&slices).unwrap(), expected, "{uid}");
    }
    // Without preamble, magic bytes and group 2, as in some old archives.
    for uid in [uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN] {
        let folder = tempfile::tempdir().unwrap();
        for (number, slice) in series(3).into_iter().enumerate() {
            let mut bytes = Vec::new();
            let syntax = dicom_transfer_syntax_registry::TransferSyntaxRegistry;
            let syntax = dicom_encoding::TransferSyntaxIndex::get(&syntax, uid).unwrap();
            slice.object.write_dataset_with_ts(&mut bytes, syntax).unwrap();
            std::fs::write(folder.path().join(number.to_string()), bytes).unwrap();
        }
        let volume = read_series(&only_series(folder.path()), &Decoder::in_process(), &Limits::default()).unwrap();
        assert_eq!(volume, expected, "{uid}");
    }
}

#[test]
fn files_that_are_not_slices_are_not_read_and_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &series(3));
    let object = |class: &str| SliceFile::new(0).text(tags::SOP_CLASS_UID, VR::UI, class);
    // Reports without an image, a screen capture and a PET image in the same series, and a DICOMDIR.
    let report = |class| object(class).without(tags::PIXEL_DATA).without(tags::ROWS);
    report(uids::X_RAY_RADIATION_DOSE_SR_STORAGE).write(&folder.path().join("report"));
    report(uids::MEDIA_STORAGE_DIRECTORY_STORAGE).write(&folder.path().join("directory"));
    let capture = object(uids::SECONDARY_CAPTURE_IMAGE_STORAGE).without(tags::IMAGE_POSITION_PATIENT);
    capture.write(&folder.path().join("page"));
    capture.u16(tags::SAMPLES_PER_PIXEL, 3).write(&folder.path().join("colour page"));
    object(uids::POSITRON_EMISSION_TOMOGRAPHY_IMAGE_STORAGE).write(&folder.path().join("pet"));
    std::fs::write(folder.path().join("notes.txt"), "Doe, Jane: follow-up in March").unwrap();
    std::fs::write(folder.path().join("DICOMDIR"), "damaged").unwrap();
    std::fs::create_dir(folder.path().join("more")).unwrap();
    let found = list_folder(folder.path(), &FolderFilter::default()).unwrap();
    let expected = [("DICOMDIR", 1), ("PET image", 1), ("dose report", 1), ("other file", 2), ("secondary capture", 2)];
    assert_eq!(found.other_files.into_iter().collect::<Vec<_>>(), expected);
    let [series] = &found.series[..] else { panic!("expected one series, got {:?}", found.series) };
    assert_eq!(series.files(), 3);
    assert!(series.bytes() > 1000 && series.modified_s() > 1_600_000_000);
    assert!(read_series(series, &Decoder::in_process(), &Limits::default()).is_ok());
}

#[test]
fn series_in_one_folder_are_separated() {
    let folder = tempfile::tempdir().unwrap();
    let mut slices = series(4);
    // Another series, a slice of another orientation in the first series, and a slice whose image type is a localizer.
    slices.extend((0..5).map(|z| SliceFile::new(z).text(tags::SERIES_INSTANCE_UID, VR::UI, "2.25.4711.2")));
    slices.push(SliceFile::new(9).text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "0\\1\\0\\0\\0\\-1"));
    slices.push(
        SliceFile::new(8).text(tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\LOCALIZER").without(tags::RESCALE_SLOPE),
    );
    write(folder.path(), &slices);
    let all = list_series(folder.path()).unwrap();
    let mut files: Vec<_> = all.iter().map(|series| (series.files(), series.is_localizer())).collect();
    files.sort();
    assert_eq!(files, [(1, true), (1, true), (4, false), (5, false)]);
    assert!(all.is_sorted_by(|a, b| a.id() < b.id()));
    // Ids do not change when files are added.
    let before: Vec<_> = all.iter().map(|series| series.id().to_owned()).collect();
    SliceFile::new(5).text(tags::SERIES_INSTANCE_UID, VR::UI, "2.25.4711.2").write(&folder.path().join("0"));
    let after: Vec<_> = list_series(folder.path()).unwrap().iter().map(|series| series.id().to_owned()).collect();
    assert_eq!(after, before);
}

#[test]
fn series_and_header_contain_no_personal_values() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &series(3));
    let series = only_series(folder.path());
    assert_eq!(patient_id(&series).unwrap().as_deref(), Some("PAT-4711"));
    let shown = format!("{series:?} {} {:?}", series.id(), read_header(&series).unwrap());
    for value in dicom_files::PERSONAL {
        assert!(!shown.contains(value), "{shown}");
    }
    write(
        folder.path(),
        &dicom_files::series(3).into_iter().map(|slice| slice.without(tags::PATIENT_ID)).collect::<Vec<_>>(),
    );
    assert_eq!(patient_id(&only_series(folder.path())), Ok(None));
}

/// Compares positions with those of the crate dicom-object.
#[test]
fn headers_equal_those_of_dicom_object() {
    for folder in ["ct/crlm_1004/dicom", "ct/totalseg_liver_dicom/dicom"] {
        let Some(folder) = common::shared(folder) else { return };
        let grid = read_header(&only_series(&folder)).unwrap().grid;
        let mut heights: Vec<f64> = Vec::new();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let file = dicom_object::OpenFileOptions::new()
                .read_until(tags::PIXEL_DATA)
                .open_file(entry.unwrap().path())
                .unwrap();
            let position = file.element(tags::IMAGE_POSITION_PATIENT).unwrap().to_multi_float64().unwrap();
            assert_eq!([-position[0], -position[1]], [grid.affine.0[0][3], grid.affine.0[1][3]]);
            heights.push(position[2]);
        }
        heights.sort_by(f64::total_cmp);
        assert_eq!(heights.len(), grid.shape[2]);
        for (z, height) in heights.iter().enumerate() {
            assert!((grid.affine.apply([0.0, 0.0, z as f64])[2] - height).abs() < 1e-9);
        }
    }
}
