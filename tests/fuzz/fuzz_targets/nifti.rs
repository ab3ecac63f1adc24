//! Checks that any bytes yield a NIfTI volume, a label map or a fault, and that a volume agrees with its header.
#![no_main]

use freetumor::ingest::nifti::{Limits, read_header_from, read_labels_from, read_volume_from};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { held_bytes: 64 << 20 };
    let header = read_header_from(bytes, bytes.len() as u64);
    let volume = read_volume_from(bytes, bytes.len() as u64, &limits);
    let labels = read_labels_from(bytes, bytes.len() as u64, &limits);
    if let Ok(volume) = volume {
        let header = header.expect("the volume was read, so its header is valid");
        assert_eq!(volume.grid, header.grid);
        assert_eq!(volume.voxels.shape(), volume.grid.shape);
        assert!(volume.voxels.bytes() as u64 <= header.volume_bytes);
        assert!((0..volume.grid.voxels()).all(|index| volume.voxels.hu(index).is_finite()));
    }
    if let Ok(labels) = labels {
        assert_eq!(labels.ids.shape(), labels.grid.shape);
    }
});
