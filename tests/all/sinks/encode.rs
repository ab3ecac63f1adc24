//! Tests of image and label files: the unchanged scan with the tumor's box.

use std::io::Read;
use std::sync::Arc;

use flate2::read::GzDecoder;
use freetumor::error::{FaultKind, Stage};
use freetumor::ingest::nifti;
use freetumor::mask::MaskedScan;
use freetumor::random::Key;
use freetumor::sink::volume_files::Encoder;
use freetumor::synth::Candidate;
use freetumor::volume::Voxels;

use super::fixture;
use crate::common;

/// A shape with several slabs per file, the last one smaller.
const SHAPE: [usize; 3] = [301, 211, 43];

fn inflate(bytes: &[u8]) -> Vec<u8> {
    let mut inflated = Vec::new();
    let mut decoder = GzDecoder::new(bytes);
    decoder.read_to_end(&mut inflated).unwrap();
    assert!(decoder.into_inner().is_empty(), "one gzip member without trailing bytes");
    inflated
}

fn image(encoder: &Encoder<'_>, candidate: &Candidate) -> Vec<u8> {
    encoder.check(&[candidate.into()]).unwrap();
    let mut bytes = Vec::new();
    encoder.write_image(&[candidate.into()], &mut bytes).unwrap();
    bytes
}

fn label(encoder: &Encoder<'_>, candidate: &Candidate) -> Vec<u8> {
    let mut bytes = Vec::new();
    encoder.write_label(&[candidate.into()], &mut bytes).unwrap();
    bytes
}

/// Returns the expected voxels: a copy of the volume with the box pasted.
fn expected_image(masked: &MaskedScan, candidate: &Candidate) -> Vec<u8> {
    match masked.scan.volume.voxels.clone() {
        Voxels::I16(mut array) => {
            array.paste(candidate.region.start, &candidate.after.map(|hu| *hu as i16));
            array.as_slice().iter().flat_map(|hu| hu.to_le_bytes()).collect()
        }
        Voxels::F32(mut array) => {
            array.paste(candidate.region.start, &candidate.after);
            array.as_slice().iter().flat_map(|hu| hu.to_le_bytes()).collect()
        }
    }
}

fn with_floats(masked: &MaskedScan) -> MaskedScan {
    let mut scan = (*masked.scan).clone();
    if let Voxels::I16(array) = &scan.volume.voxels {
        scan.volume.voxels = Voxels::F32(array.map(|hu| f32::from(*hu) + 0.25));
    }
    MaskedScan { scan: Arc::new(scan), mask: masked.mask.clone() }
}

#[test]
fn files_contain_scan_with_pasted_box() {
    let whole = fixture::masked(&fixture::entry(1), SHAPE);
    for masked in [with_floats(&whole), whole] {
        let encoder = Encoder::new(&masked, 2).unwrap();
        for attempt in 0..3 {
            let candidate = fixture::candidate(&masked, Key::root(attempt));
            assert!(candidate.tumor.as_slice().contains(&1) || attempt > 0);
            let image = image(&encoder, &candidate);
            let inflated = inflate(&image);
            assert_eq!(&inflated[344..348], b"n+1\0");
            assert!(inflated[352..] == expected_image(&masked, &candidate)[..], "image {attempt}");
            let mut labels = masked.mask.labels.clone();
            labels.paste(candidate.region.start, &candidate.labels);
            let label = label(&encoder, &candidate);
            assert!(inflate(&label)[352..] == labels.as_slice()[..], "label {attempt}");
            // Cached slabs of earlier samples do not change the bytes.
            let fresh = Encoder::new(&masked, 2).unwrap();
            assert!(image == self::image(&fresh, &candidate) && label == self::label(&fresh, &candidate));
        }
    }
}

#[test]
fn check_fails_on_box_that_cannot_be_encoded_exactly() {
    let masked = fixture::masked(&fixture::entry(1), [20, 20, 10]);
    let encoder = Encoder::new(&masked, 2).unwrap();
    let good = fixture::candidate(&masked, Key::root(1));
    encoder.check(&[(&good).into()]).unwrap();
    let mut fraction = good.clone();
    fraction.after.as_mut_slice()[3] = 40.5;
    let mut beyond = good.clone();
    beyond.after.as_mut_slice()[0] = 40_000.0;
    let mut not_finite = good.clone();
    not_finite.after.as_mut_slice()[0] = f32::NAN;
    let mut outside = good.clone();
    outside.region.start[2] = usize::MAX;
    for (name, candidate) in
        [("fraction", fraction), ("beyond i16", beyond), ("not finite", not_finite), ("outside", outside)]
    {
        let fault = encoder.check(&[(&candidate).into()]).expect_err(name);
        assert_eq!((fault.stage, fault.kind), (Stage::Sink, FaultKind::Mismatch), "{name}");
    }
    let mut mismatched = masked.clone();
    mismatched.mask.labels = freetumor::volume::Array3::filled([20, 20, 9], 0);
    assert!(Encoder::new(&mismatched, 2).is_err());
}

#[test]
fn float_scan_accepts_fractional_hu() {
    let masked = with_floats(&fixture::masked(&fixture::entry(1), [20, 20, 10]));
    let mut candidate = fixture::candidate(&masked, Key::root(1));
    candidate.after.as_mut_slice()[0] = 12.375;
    let encoder = Encoder::new(&masked, 2).unwrap();
    assert!(inflate(&image(&encoder, &candidate))[352..] == expected_image(&masked, &candidate)[..]);
}

#[test]
fn real_scans_round_trip_bit_for_bit_outside_tumor() {
    for (scan, organ) in [("ct/totalseg_upper_abdomen", 5), ("ct/totalseg_abdomen", 5), ("ct/lung1_001", 1)] {
        let Some(folder) = common::shared(scan) else { return };
        let mut masked = fixture::masked(&fixture::entry(0), [1, 1, 1]);
        let volume = nifti::read_volume(folder.join("ct.nii.gz")).unwrap();
        let labels = nifti::read_labels(folder.join("labels.nii.gz")).unwrap();
        masked.mask.labels = labels.ids.map(|&id| u8::from(id == organ));
        let mut with_volume = (*masked.scan).clone();
        with_volume.volume = volume.clone();
        masked.scan = Arc::new(with_volume);
        let candidate = fixture::candidate(&masked, Key::root(3));
        let encoder = Encoder::new(&masked, 2).unwrap();
        let (image, label) = (image(&encoder, &candidate), label(&encoder, &candidate));
        let limits = nifti::Limits::default();
        let read = nifti::read_volume_from(&image[..], image.len() as u64, &limits).unwrap();
        let read_labels = nifti::read_labels_from(&label[..], label.len() as u64, &limits).unwrap();
        assert!(read.grid == volume.grid && read_labels.grid == volume.grid, "{scan}");
        let mut changed = 0;
        for index in 0..volume.grid.voxels() {
            let (before, after) = (volume.voxels.hu(index), read.voxels.hu(index));
            let tumor = read_labels.ids.as_slice()[index] == 2;
            assert_eq!(after.to_bits(), (if tumor { before - 40.0 } else { before }).to_bits(), "{scan} {index}");
            assert!(tumor || read_labels.ids.as_slice()[index] == u16::from(masked.mask.labels.as_slice()[index]));
            changed += usize::from(tumor);
        }
        assert_eq!(changed, candidate.tumor.as_slice().iter().filter(|tumor| **tumor == 1).count());
        assert!(changed > 0, "{scan}: {changed} voxels");
    }
}
