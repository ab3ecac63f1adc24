//! Checks that any bytes after the first line of an NRRD file yield a volume, a label map or a fault, and that a volume agrees with its
//! header.
#![no_main]

use freetumor::ingest::nifti::Limits;
use freetumor::ingest::volume_file::{read_header, read_label_names, read_labels_within, read_volume_within};
use libfuzzer_sys::fuzz_target;

const FIRST_LINE: &[u8] = b"NRRD0004\n";

fuzz_target!(|bytes: &[u8]| {
    let path = std::env::temp_dir().join(format!("freetumor-fuzz-nrrd-{}", std::process::id()));
    std::fs::write(&path, [FIRST_LINE, bytes].concat()).expect("cannot write the temporary file");
    let limits = Limits { held_bytes: 64 << 20 };
    let header = read_header(&path);
    let names = read_label_names(&path);
    if let Ok(volume) = read_volume_within(&path, &limits) {
        let header = header.expect("the volume was read, so its header is valid");
        assert_eq!(volume.grid, header.grid);
        assert_eq!(volume.voxels.shape(), volume.grid.shape);
        assert!(volume.voxels.bytes() as u64 <= header.volume_bytes);
        assert!((0..volume.grid.voxels()).all(|index| volume.voxels.hu(index).is_finite()));
    }
    if let Ok(labels) = read_labels_within(&path, &limits) {
        assert!(names.is_ok());
        assert_eq!(labels.ids.shape(), labels.grid.shape);
    }
});
