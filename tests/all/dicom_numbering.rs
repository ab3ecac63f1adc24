//! The instance numbers of DICOM slices: scans that are numbered in passes or in either direction.

use dicom_core::VR;
use dicom_dictionary_std::tags;

use crate::dicom_files::{SliceFile, series, stored};
use crate::dicom_scans::{brighter, numbered, only_fault, scans_of, shape, with};

#[test]
fn direction_of_numbers_does_not_assign_slices() {
    let second = |shift_mm: usize| -> Vec<SliceFile> {
        let slices = (0..6).map(|z| brighter(SliceFile::new(z)).at(&format!("-10\\-20\\{}", 30 + 2 * z + shift_mm)));
        with(slices.collect(), tags::INSTANCE_NUMBER, VR::IS, |z| (12 - z).to_string())
    };
    let both = |shift_mm: usize| [numbered(series(6), 1), second(shift_mm)].concat();
    let first = f32::from(stored(0)[0]);
    for shift_mm in [0, 4] {
        let expected = [Ok(([6, 5, 6], first - 24.0)), Ok(([6, 5, 6], first + 83.0))];
        assert_eq!(scans_of(&both(shift_mm)), expected, "{shift_mm} mm");
    }
    only_fault(&both(2), "in 2 ways");
}

/// Numbers slices in two passes: the first, third, fifth … slice, and then the others.
fn numbered_in_two_passes(slices: Vec<SliceFile>) -> Vec<SliceFile> {
    let half = slices.len().div_ceil(2);
    with(slices, tags::INSTANCE_NUMBER, VR::IS, |z| (half * (z % 2) + z / 2 + 1).to_string())
}

#[test]
fn slices_numbered_in_two_passes_are_one_scan_if_neither_elements_nor_pixels_show_two() {
    let slices = numbered_in_two_passes(series(12));
    assert_eq!(shape(&slices), [Ok([6, 5, 12])]);
    // One time per slice, as in a scan without table motion, shows nothing.
    let times = with(slices.clone(), tags::ACQUISITION_TIME, VR::TM, |z| format!("1010{:02}", 6 * (z % 2) + z / 2));
    assert_eq!(shape(&times), [Ok([6, 5, 12])]);
    // Elements with one value in each pass are two scans.
    for (tag, vr, values) in [
        (tags::ACQUISITION_NUMBER, VR::IS, ["1", "2"]),
        (tags::ACQUISITION_TIME, VR::TM, ["101010", "101050"]),
        (tags::CONTENT_TIME, VR::TM, ["101010", "101050"]),
        (tags::X_RAY_TUBE_CURRENT, VR::IS, ["200", "350"]),
        (tags::IMAGE_TYPE, VR::CS, ["ORIGINAL\\PRIMARY\\AXIAL", "DERIVED\\PRIMARY\\AXIAL"]),
    ] {
        let slices = with(slices.clone(), tag, vr, |z| values[z % 2].to_owned());
        assert_eq!(shape(&slices), [Ok([6, 5, 6]), Ok([6, 5, 6])], "{tag}");
    }
    // Values that differ between the passes, but not by one value each: nothing separates the slices.
    let currents = with(slices.clone(), tags::X_RAY_TUBE_CURRENT, VR::IS, |z| {
        if z % 2 == 0 { "200".to_owned() } else { (300 + z / 6).to_string() }
    });
    only_fault(&currents, "if they are one scan, remove InstanceNumber");
    // Every second slice is brighter.
    let bright = slices.iter().cloned().enumerate();
    let bright: Vec<_> = bright.map(|(z, slice)| if z % 2 == 1 { brighter(slice) } else { slice }).collect();
    only_fault(&bright, "put each into a folder of its own");
    // Numbers in order of the position: a second value in every second slice is that of a rotation, unless these slices are brighter.
    for (tag, vr, values) in
        [(tags::ACQUISITION_NUMBER, VR::IS, ["1", "2"]), (tags::CONTENT_TIME, VR::TM, ["101010", "101050"])]
    {
        let counted = with(numbered(series(12), 1), tag, vr, |z| values[z % 2].to_owned());
        assert_eq!(shape(&counted), [Ok([6, 5, 12])], "{tag}");
        let counted = counted.into_iter().enumerate();
        let counted: Vec<_> = counted.map(|(z, slice)| if z % 2 == 1 { brighter(slice) } else { slice }).collect();
        assert_eq!(shape(&counted), [Ok([6, 5, 6]), Ok([6, 5, 6])], "{tag}");
    }
    // Three passes are not compared.
    let thirds = with(series(12), tags::INSTANCE_NUMBER, VR::IS, |z| (4 * (z % 3) + z / 3).to_string());
    only_fault(&thirds, "run 3 times through the slices");
    let without = slices.into_iter().map(|slice| slice.without(tags::INSTANCE_NUMBER)).collect::<Vec<_>>();
    assert_eq!(shape(&without), [Ok([6, 5, 12])]);
}
