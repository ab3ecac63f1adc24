//! NIfTI files: the real scans, and headers of every kind written and read again.

use freetumor::ingest::nifti;
use freetumor::volume::{Affine, Voxels};

use crate::common;

/// Voxels of each label that `ct/README.md` counts.
fn count(ids: &[u16], label: u16) -> usize {
    ids.iter().filter(|&&id| id == label).count()
}

#[test]
fn abdomen_has_the_shape_place_and_labels_of_its_description() {
    let Some(folder) = common::shared("ct/totalseg_abdomen") else { return };
    let volume = nifti::read_volume(folder.join("ct.nii.gz")).unwrap();
    assert_eq!(volume.grid.shape, [122, 101, 112]);
    assert!(volume.grid.spacing_mm().iter().all(|spacing| (spacing - 3.0).abs() < 1e-4));
    assert!(matches!(volume.voxels, Voxels::I16(_)), "an int32 file of whole HU stays integer");

    let labels = nifti::read_labels(folder.join("labels.nii.gz")).unwrap();
    assert!(labels.grid.agrees_with(&volume.grid));
    let ids = labels.ids.as_slice();
    assert_eq!(
        [1, 2, 3, 5, 7, 52].map(|label| count(ids, label)),
        [9668, 7134, 5090, 41692, 695, 1839],
        "spleen, kidneys, liver, pancreas, aorta"
    );
}

#[test]
fn float_scan_with_an_empty_sform_lies_where_its_qform_says() {
    let Some(folder) = common::shared("ct/sts_002") else { return };
    let volume = nifti::read_volume(folder.join("ct.nii.gz")).unwrap();
    let labels = nifti::read_labels(folder.join("tumor.nii.gz")).unwrap();
    assert!(labels.grid.agrees_with(&volume.grid));
    assert_eq!(count(labels.ids.as_slice(), 1), 17090);
    assert_ne!(volume.grid.affine, Affine::from_spacing(volume.grid.spacing_mm()));
    let spacing = volume.grid.spacing_mm();
    assert!((spacing[0] - 0.977).abs() < 1e-3 && (spacing[2] - 3.27).abs() < 1e-2, "{spacing:?}");
}

#[test]
fn header_alone_bounds_what_reading_holds() {
    let Some(path) = common::shared("ct/lung1_001/ct.nii.gz") else { return };
    let header = nifti::read_header(&path).unwrap();
    let volume = nifti::read_volume(&path).unwrap();
    assert_eq!(header.grid, volume.grid);
    assert!(volume.voxels.bytes() as u64 <= header.volume_bytes && header.volume_bytes <= header.read_bytes);
    let starved = nifti::Limits { held_bytes: header.read_bytes - 1 };
    let fault = nifti::read_volume_within(&path, &starved).unwrap_err();
    assert_eq!(fault.kind, freetumor::error::FaultKind::TooLarge);
    assert!(nifti::read_volume_within(&path, &nifti::Limits { held_bytes: header.read_bytes }).is_ok());
}
