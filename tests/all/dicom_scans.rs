//! The scans of a DICOM series: phases, reconstructions, patients and copies of slices.

use std::path::Path;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::{tags, uids};
use freetumor::error::Fault;
use freetumor::ingest::dicom::{Decoder, FolderFilter, Limits, Separation, list_folder, list_series, read_series};
use freetumor::volume::Volume;

use crate::dicom_files::{SliceFile, run_lengths, series, stored, write};

fn read(slices: &[SliceFile]) -> Result<Volume, Fault> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), slices);
    let all = list_series(folder.path()).unwrap();
    let [series] = &all[..] else { panic!("expected one series, got {all:?}") };
    read_series(series, &Decoder::in_process(), &Limits::default())
}

#[test]
fn overlapping_acquisitions_and_matrices_are_separated() {
    let folder = tempfile::tempdir().unwrap();
    let late = |z: usize| {
        SliceFile::new(z)
            .text(tags::ACQUISITION_NUMBER, VR::IS, "2")
            .text(tags::SOP_INSTANCE_UID, VR::UI, &format!("2.25.4711.9.{z}"))
            .text(tags::RESCALE_INTERCEPT, VR::DS, "76")
    };
    let mut slices: Vec<_> =
        series(4).into_iter().map(|slice| slice.text(tags::ACQUISITION_NUMBER, VR::IS, "1")).collect();
    slices.extend((0..4).map(late));
    slices.extend(
        (0..3).map(|z| late(z).u16(tags::ROWS, 1).text(tags::SOP_INSTANCE_UID, VR::UI, &format!("2.25.8.{z}"))),
    );
    write(folder.path(), &slices);
    let all = list_series(folder.path()).unwrap();
    let mut volumes: Vec<_> = all
        .iter()
        .map(|series| read_series(series, &Decoder::in_process(), &Limits::default()).unwrap())
        .map(|volume| (volume.grid.shape, volume.voxels.hu(0)))
        .collect();
    volumes.sort_by(|a, b| a.partial_cmp(b).unwrap());
    let first = f32::from(stored(0)[0]);
    assert_eq!(volumes, [([6, 1, 3], first + 76.0), ([6, 5, 4], first - 24.0), ([6, 5, 4], first + 76.0)]);
    // A series with one acquisition number for every slice is one scan.
    let counted: Vec<_> = series(4)
        .into_iter()
        .enumerate()
        .map(|(z, slice)| slice.text(tags::ACQUISITION_NUMBER, VR::IS, &z.to_string()))
        .collect();
    assert_eq!(read(&counted).unwrap().grid.shape, [6, 5, 4]);
}

/// Returns the shapes and first voxels of the scans in a folder with these slices; the message of a fault instead.
pub fn scans_of(slices: &[SliceFile]) -> Vec<Result<([usize; 3], f32), String>> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), slices);
    let all = list_series(folder.path()).unwrap();
    let scans = all.iter().filter(|series| !series.is_localizer()).map(|series| {
        read_series(series, &Decoder::in_process(), &Limits::default())
            .map(|volume| (volume.grid.shape, volume.voxels.hu(0)))
            .map_err(|fault| fault.message)
    });
    let mut scans: Vec<_> = scans.collect();
    scans.sort_by(|a, b| a.partial_cmp(b).unwrap());
    scans
}

/// Returns two acquisitions of six slices, the second `shift_mm` higher and 107 HU brighter, without elements that separate them.
pub fn two_acquisitions(shift_mm: f64) -> Vec<SliceFile> {
    let slice = |z: usize, second: usize| {
        let position = 30.0 + 2.0 * z as f64 + shift_mm * second as f64;
        SliceFile::new(z).at(&format!("-10\\-20\\{position}")).without(tags::INSTANCE_NUMBER).text(
            tags::RESCALE_INTERCEPT,
            VR::DS,
            if second == 0 { "-24" } else { "83" },
        )
    };
    (0..12).map(|index| slice(index % 6, index / 6)).collect()
}

#[test]
fn acquisitions_never_mix_at_any_shift() {
    let first = f32::from(stored(0)[0]);
    let expected = [Ok(([6, 5, 6], first - 24.0)), Ok(([6, 5, 6], first + 83.0))];
    for shift_mm in [0.0, 0.01, 0.5, 2.0 / 3.0, 1.0, 2.0, 3.0, 10.0] {
        for (tag, vr, values) in [
            (tags::ACQUISITION_NUMBER, VR::IS, ["1", "2"]),
            (tags::ACQUISITION_NUMBER, VR::IS, ["1.0", "2.0"]),
            (tags::ACQUISITION_NUMBER, VR::IS, ["", "2"]),
            (tags::TEMPORAL_POSITION_IDENTIFIER, VR::IS, ["1", "2"]),
            (tags::CONVOLUTION_KERNEL, VR::SH, ["B30f", "B70f"]),
            (tags::ACQUISITION_TIME, VR::TM, ["101500", "101603"]),
            (tags::KVP, VR::DS, ["80", "140"]),
        ] {
            let slices = two_acquisitions(shift_mm).into_iter().enumerate();
            let slices: Vec<_> = slices.map(|(index, slice)| slice.text(tag, vr, values[index / 6])).collect();
            assert_eq!(scans_of(&slices), expected, "{tag} {values:?} at {shift_mm} mm");
        }
        // Numbers that run through one acquisition after the other, upwards or downwards. Half a step apart, they may also be one scan that
        // is numbered in two passes; with one position in common, one scan with a slice that was sent twice.
        for sign in [1, -1] {
            let slices = two_acquisitions(shift_mm).into_iter().enumerate();
            let slices: Vec<_> = slices
                .map(|(index, slice)| {
                    let within = if sign > 0 { index % 6 } else { 5 - index % 6 };
                    slice.text(tags::INSTANCE_NUMBER, VR::IS, &(6 * (index / 6) + within).to_string())
                })
                .collect();
            let scans = scans_of(&slices);
            if [1.0, 10.0].contains(&shift_mm) {
                let [Err(message)] = &scans[..] else { panic!("{scans:?} at {shift_mm} mm") };
                let expected =
                    if shift_mm == 1.0 { "run 2 times through the slices" } else { "expected one acquisition" };
                assert!(message.contains(expected), "{message}");
            } else {
                assert_eq!(scans, expected, "numbers at {shift_mm} mm");
            }
        }
        // The same numbers in both acquisitions: nothing separates them.
        let slices = two_acquisitions(shift_mm).into_iter().enumerate();
        let slices: Vec<_> =
            slices.map(|(index, slice)| slice.text(tags::INSTANCE_NUMBER, VR::IS, &(index % 6).to_string())).collect();
        let scans = scans_of(&slices);
        let [Err(message)] = &scans[..] else { panic!("{scans:?} at {shift_mm} mm") };
        assert!(message.contains("expected one acquisition per series"), "{message}");
    }
}

#[test]
fn acquisitions_that_follow_each_other_are_one_scan() {
    for slices_of_rotation in [1, 3, 4] {
        let slices: Vec<_> = (0..12)
            .map(|z| SliceFile::new(z).text(tags::ACQUISITION_NUMBER, VR::IS, &(z / slices_of_rotation).to_string()))
            .collect();
        assert_eq!(scans_of(&slices).len(), 1, "{slices_of_rotation} slices");
        assert_eq!(scans_of(&slices)[0].as_ref().unwrap().0, [6, 5, 12]);
    }
}

#[test]
fn copy_of_slice_has_same_content_under_any_identifier() {
    let with_extra = |extra: SliceFile| {
        let mut slices = series(4);
        slices.push(extra);
        scans_of(&slices)
    };
    let expected = [Ok(([6, 5, 4], f32::from(stored(0)[0]) - 24.0))];
    assert_eq!(with_extra(SliceFile::new(2)), expected);
    let sent_again = SliceFile::new(2).text(tags::SOP_INSTANCE_UID, VR::UI, "2.25.4711.99");
    assert_eq!(with_extra(sent_again), expected);
    // The same identifier with other pixels, or at another place in the plane, is another slice.
    let mut pixels: Vec<u16> = stored(2).iter().map(|&value| value as u16).collect();
    pixels[7] += 1;
    for other in [SliceFile::new(2).pixels(&pixels), SliceFile::new(2).at("-9\\-20\\34")] {
        let scans = with_extra(other);
        let [Err(message)] = &scans[..] else { panic!("{scans:?}") };
        assert!(message.contains("two different slices at the same position"), "{message}");
    }
}

#[test]
fn slices_with_unique_series_uids_form_one_scan_if_evenly_spaced() {
    let scrambled = |slices: Vec<SliceFile>| -> Vec<_> {
        let slices = slices.into_iter().enumerate();
        slices.map(|(z, slice)| slice.text(tags::SERIES_INSTANCE_UID, VR::UI, &format!("2.25.77.{z}"))).collect()
    };
    assert_eq!(scans_of(&scrambled(series(5))), [Ok(([6, 5, 5], f32::from(stored(0)[0]) - 24.0))]);
    let mut uneven = series(5);
    uneven.remove(2);
    let scans = scans_of(&scrambled(uneven));
    let [Err(message)] = &scans[..] else { panic!("{scans:?}") };
    assert!(message.contains("4 slices have 4 series identifiers"), "{message}");
    // A slice with an identifier of its own one step beyond a scan belongs to it.
    let mut damaged = series(5);
    damaged[4] = damaged[4].clone().text(tags::SERIES_INSTANCE_UID, VR::UI, "2.25.78");
    let scans = scans_of(&damaged);
    let [Err(message)] = &scans[..] else { panic!("{scans:?}") };
    assert!(message.contains("a slice of another series"), "{message}");
    // Beside a scan, other single slices are localizers.
    let beside = scrambled(vec![SliceFile::new(0), SliceFile::new(0), SliceFile::new(3)]);
    assert_eq!(scans_of(&[series(4), beside].concat()).len(), 1);
}

/// Sets an element of each slice to a value by its index.
pub fn with(slices: Vec<SliceFile>, tag: Tag, vr: VR, value: impl Fn(usize) -> String) -> Vec<SliceFile> {
    slices.into_iter().enumerate().map(|(z, slice)| slice.text(tag, vr, &value(z))).collect()
}

/// Returns slices that are numbered from `first` on along the normal.
pub fn numbered(slices: Vec<SliceFile>, first: i64) -> Vec<SliceFile> {
    with(slices, tags::INSTANCE_NUMBER, VR::IS, |z| (first + z as i64).to_string())
}

pub fn only_fault(slices: &[SliceFile], message: &str) {
    let scans = scans_of(slices);
    assert!(!scans.is_empty(), "no scan");
    for scan in &scans {
        assert!(scan.as_ref().is_err_and(|found| found.contains(message)), "{scans:?}");
    }
}

pub fn brighter(slice: SliceFile) -> SliceFile {
    slice.text(tags::RESCALE_INTERCEPT, VR::DS, "83")
}

pub fn shape(slices: &[SliceFile]) -> Vec<Result<[usize; 3], String>> {
    scans_of(slices).into_iter().map(|scan| scan.map(|(shape, _)| shape)).collect()
}

#[test]
fn slice_sent_twice_is_a_copy_or_a_fault_and_never_splits_a_scan() {
    let first = f32::from(stored(0)[0]) - 24.0;
    let ascending = || numbered(series(41), 1);
    let sent_again = |slice: SliceFile| [ascending(), vec![slice]].concat();
    let again = || ascending().swap_remove(20);
    let values: Vec<u16> = stored(20).iter().map(|&value| value as u16).collect();
    let mut changed = values.clone();
    changed[7] += 1;
    for copy in [
        again(),
        again().syntax(uids::IMPLICIT_VR_LITTLE_ENDIAN),
        again().syntax(uids::RLE_LOSSLESS).fragment(run_lengths(&values)),
        again().at("-10\\-20\\70.004"),
        again().text(tags::ACQUISITION_TIME, VR::TM, "101500").text(tags::INSTANCE_NUMBER, VR::IS, "42"),
    ] {
        assert_eq!(scans_of(&sent_again(copy)), [Ok(([6, 5, 41], first))]);
    }
    for number in ["21", "42"] {
        let other = again().pixels(&changed).text(tags::INSTANCE_NUMBER, VR::IS, number);
        only_fault(&sent_again(other), "two different slices at the same position");
    }
    // Numbered where it belongs: the numbers run twice to or from this slice.
    let slices = sent_again(again().pixels(&changed));
    let slices = slices.into_iter().enumerate().map(|(z, slice)| {
        let number = if z == 41 { 41 } else { 2 * z };
        slice.text(tags::INSTANCE_NUMBER, VR::IS, &number.to_string())
    });
    only_fault(&slices.collect::<Vec<_>>(), "two different slices at the same position");
}

#[test]
fn patients_studies_and_frames_of_reference_are_separate_scans() {
    let first = f32::from(stored(0)[0]);
    for (tag, vr, values) in [
        (tags::PATIENT_ID, VR::LO, ["PAT-4711", "PAT-4712"]),
        (tags::PATIENT_ID, VR::LO, ["PAT-4711", ""]),
        (tags::STUDY_INSTANCE_UID, VR::UI, ["2.25.1", "2.25.2"]),
        (tags::FRAME_OF_REFERENCE_UID, VR::UI, ["2.25.1", "2.25.2"]),
    ] {
        for shift_mm in [0.0, 0.7, 1.0, 2.0, 12.0, 100.0] {
            let slices = with(two_acquisitions(shift_mm), tag, vr, |z| values[z / 6].to_owned());
            let expected = [Ok(([6, 5, 6], first - 24.0)), Ok(([6, 5, 6], first + 83.0))];
            assert_eq!(scans_of(&slices), expected, "{tag} at {shift_mm} mm");
        }
        // Identifiers are compared, never printed.
        let mut slices = with(series(6), tag, vr, |_| values[0].to_owned());
        slices[5] = slices[5].clone().text(tag, vr, values[1]);
        let scans = scans_of(&slices);
        let faults: Vec<&String> = scans.iter().filter_map(|scan| scan.as_ref().err()).collect();
        if tag == tags::PATIENT_ID {
            assert!(faults.len() == 1 && faults[0].contains("expected one PatientID per series"), "{scans:?}");
            assert!(!faults[0].contains("PAT-"), "{scans:?}");
        } else {
            assert!(!faults.is_empty(), "{scans:?}");
        }
    }
    // Programs that replace identifiers one by one write another one into each slice.
    let scrambled = with(series(6), tags::STUDY_INSTANCE_UID, VR::UI, |z| format!("2.25.1.{z}"));
    let scrambled = with(scrambled, tags::FRAME_OF_REFERENCE_UID, VR::UI, |z| format!("2.25.2.{z}"));
    assert_eq!(shape(&scrambled), [Ok([6, 5, 6])]);
}

#[test]
fn interleaved_phases_are_separated_by_any_differing_acquisition_element() {
    let first = f32::from(stored(0)[0]);
    for (tag, vr, values) in [
        (tags::SERIES_NUMBER, VR::IS, ["2", "3"]),
        (tags::ACQUISITION_DATE_TIME, VR::DT, ["20200101101000", "20200101101010"]),
        (tags::CONTRAST_BOLUS_AGENT, VR::LO, ["", "agent"]),
        (tags::CONVOLUTION_KERNEL, VR::SH, ["B30", "B70"]),
        (tags::SERIES_DESCRIPTION, VR::LO, ["early", "late"]),
    ] {
        // Also if the numbers alternate between the phases.
        let slices = with(two_acquisitions(1.0), tag, vr, |z| values[z / 6].to_owned());
        let slices = with(slices, tags::INSTANCE_NUMBER, VR::IS, |z| (2 * (z % 6) + z / 6).to_string());
        let expected = [Ok(([6, 5, 6], first - 24.0)), Ok(([6, 5, 6], first + 83.0))];
        assert_eq!(scans_of(&slices), expected, "{tag}");
    }
    for (tag, vr, values) in [(tags::CONVOLUTION_KERNEL, VR::SH, ["B30", "B70"]), (tags::KVP, VR::DS, ["80", "140"])] {
        let slices = with(numbered(series(12), 1), tag, vr, |z| values[z / 6].to_owned());
        assert_eq!(shape(&slices), [Ok([6, 5, 6]), Ok([6, 5, 6])], "{tag}");
    }
}

#[test]
fn evenly_spaced_slices_are_one_scan() {
    let alternating =
        |tag, vr, values: [&'static str; 2]| with(numbered(series(12), 1), tag, vr, move |z| values[z % 2].to_owned());
    for (tag, vr, values) in [
        (tags::KVP, VR::DS, ["120", "120.0"]),
        (tags::SLICE_THICKNESS, VR::DS, ["2", "2.0"]),
        (tags::IMAGE_TYPE, VR::CS, ["ORIGINAL\\PRIMARY\\AXIAL", "ORIGINAL\\PRIMARY\\AXIAL\\CT_SOM5 SEQ"]),
        (tags::ACQUISITION_NUMBER, VR::IS, ["1", "2"]),
        (tags::ACQUISITION_TIME, VR::TM, ["101010", "101011"]),
    ] {
        assert_eq!(shape(&alternating(tag, vr, values)), [Ok([6, 5, 12])], "{tag}");
    }
    let late = with(numbered(series(12), 1), tags::ACQUISITION_TIME, VR::TM, |z| {
        if z < 9 { "101010" } else { "101010.0" }.to_owned()
    });
    assert_eq!(shape(&late), [Ok([6, 5, 12])]);
    let blocks = [1, 2, 3, 4, 9, 10, 11, 12, 5, 6, 7, 8];
    let slices = with(series(12), tags::INSTANCE_NUMBER, VR::IS, |z| blocks[z].to_string());
    assert_eq!(shape(&slices), [Ok([6, 5, 12])]);
}

#[test]
fn missing_slice_of_one_phase_does_not_fail_the_other() {
    let mut slices = with(two_acquisitions(2.0), tags::ACQUISITION_NUMBER, VR::IS, |z| (z / 6).to_string());
    slices.remove(9);
    let scans = scans_of(&slices);
    assert!(
        matches!(&scans[..], [Ok(([6, 5, 6], _)), Err(message)] if message.contains("1 slice(s) missing")),
        "{scans:?}"
    );
    // A rotation of its own number does not hide a missing slice.
    let mut slices = with(series(12), tags::ACQUISITION_NUMBER, VR::IS, |z| (z / 4).to_string());
    slices.remove(4);
    only_fault(&slices, "1 slice(s) missing");
}

#[test]
fn identical_slices_of_two_phases_stay_in_both() {
    let air = |slice: SliceFile| slice.pixels(&[0; 30]).text(tags::RESCALE_INTERCEPT, VR::DS, "-1024");
    for z in [2, 5] {
        let mut slices = two_acquisitions(0.0);
        slices[z] = air(slices[z].clone());
        slices[z + 6] = air(slices[z + 6].clone());
        let by_element = with(slices.clone(), tags::ACQUISITION_NUMBER, VR::IS, |z| (z / 6).to_string());
        assert_eq!(shape(&by_element), [Ok([6, 5, 6]), Ok([6, 5, 6])]);
        assert_eq!(shape(&numbered(slices, 1)), [Ok([6, 5, 6]), Ok([6, 5, 6])]);
    }
}

#[test]
fn slices_that_continue_a_scan_are_a_fault() {
    let last = |count: usize, change: &dyn Fn(SliceFile) -> SliceFile| -> Vec<SliceFile> {
        let slices = numbered(series(12), 1).into_iter().enumerate();
        slices.map(|(z, slice)| if z + count >= 12 { change(slice) } else { slice }).collect()
    };
    for count in [1, 3] {
        let flipped = last(count, &|slice| slice.text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\-1\\0"));
        only_fault_of_scan(&flipped, "one step beyond the last slice");
        let localizer = last(count, &|slice| slice.text(tags::IMAGE_TYPE, VR::CS, "DERIVED\\SECONDARY\\LOCALIZER"));
        only_fault_of_scan(&localizer, "one step beyond the last slice");
        let other = last(count, &|slice| slice.text(tags::SERIES_INSTANCE_UID, VR::UI, "2.25.4712"));
        only_fault_of_scan(&other, "of another series");
    }
    let matrix = last(3, &|slice| slice.u16(tags::ROWS, 3).text(tags::PIXEL_SPACING, VR::DS, "1.25\\0.5"));
    only_fault_of_scan(&matrix, "one step beyond the last slice");
    let thirds = with(series(12), tags::SERIES_INSTANCE_UID, VR::UI, |z| format!("2.25.4711.{}", z / 3));
    only_fault(&thirds, "of another series");
    // Another patient or another kernel is another scan.
    for (tag, vr) in [(tags::PATIENT_ID, VR::LO), (tags::CONVOLUTION_KERNEL, VR::SH)] {
        let series_of = |z: usize| (z / 6).to_string();
        let slices = with(with(series(12), tag, vr, series_of), tags::SERIES_INSTANCE_UID, VR::UI, |z| {
            format!("2.25.{}", z / 6)
        });
        assert_eq!(shape(&slices), [Ok([6, 5, 6]), Ok([6, 5, 6])], "{tag}");
    }
}

/// Asserts that the largest scan of these slices has a fault.
fn only_fault_of_scan(slices: &[SliceFile], message: &str) {
    let scans = scans_of(slices);
    assert!(!scans.iter().any(|scan| scan.as_ref().is_ok_and(|(shape, _)| shape[2] > 3)), "{scans:?}");
    assert!(scans.iter().any(|scan| scan.as_ref().is_err_and(|found| found.contains(message))), "{scans:?}");
}

fn listed(folder: &Path, slices: &[SliceFile]) -> (Vec<Separation>, Vec<(&'static str, usize)>) {
    write(folder, slices);
    let found = list_folder(folder, &FolderFilter::default()).unwrap();
    (found.separations.clone(), found.unread_files().into_iter().collect())
}

#[test]
fn separations_and_slices_outside_of_scans_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let slices = with(two_acquisitions(0.0), tags::ACQUISITION_NUMBER, VR::IS, |z| (z / 6).to_string());
    let (separations, unread) = listed(folder.path(), &slices);
    assert_eq!(separations, [Separation { scans: 2, elements: vec!["AcquisitionNumber"] }]);
    assert_eq!(separations[0].to_string(), "a series was separated into 2 scans by AcquisitionNumber");
    assert_eq!(unread, []);
    // Slices with identifiers of their own, one of them missing, beside a scan.
    let folder = tempfile::tempdir().unwrap();
    let mut scrambled = with(series(6), tags::SERIES_INSTANCE_UID, VR::UI, |z| format!("2.25.77.{z}"));
    scrambled.remove(3);
    let beside: Vec<_> = (0..4).map(|z| SliceFile::new(z).at(&format!("-10\\-20\\{}", 500 + 2 * z))).collect();
    let (separations, unread) = listed(folder.path(), &[scrambled, beside].concat());
    assert_eq!((separations, unread), (vec![], vec![("slice outside of a stack", 5)]));
}
