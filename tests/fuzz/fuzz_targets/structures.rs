//! Checks that any bytes yield the structures of an RT Structure Set or a Segmentation, or a fault, and that the voxels of a structure are
//! inside of the scan. The first byte selects the SOP class, so that most inputs are read as one of both.
#![no_main]

use freetumor::ingest::Structures;
use freetumor::ingest::dicom::StructureFile;
use freetumor::volume::{Affine, Grid};
use libfuzzer_sys::fuzz_target;

/// SOP classes of an RT Structure Set and of a Segmentation, padded to an even length.
const CLASSES: [&[u8]; 2] = [b"1.2.840.10008.5.1.4.1.1.481.3\0", b"1.2.840.10008.5.1.4.1.1.66.4"];

fuzz_target!(|bytes: &[u8]| {
    let Some((first, elements)) = bytes.split_first() else { return };
    let class = CLASSES[usize::from(first & 1)];
    let mut file = vec![0; 128];
    file.extend(b"DICM\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0\x08\x00\x16\x00UI");
    file.extend((class.len() as u16).to_le_bytes());
    file.extend(class);
    file.extend(elements);
    let path = std::env::temp_dir().join(format!("freetumor-fuzz-structures-{}", std::process::id()));
    std::fs::write(&path, &file).expect("cannot write the temporary file");
    let Ok(structures) = StructureFile::read(&path, None, 16 << 20) else { return };
    let scan = Grid { shape: [8, 7, 5], affine: Affine::from_spacing([1.0, 1.0, 2.0]) };
    for index in 0..structures.count() {
        let _ = structures.for_each_voxel(index, &scan, &mut |voxel| assert!(voxel < scan.voxels()));
    }
});
