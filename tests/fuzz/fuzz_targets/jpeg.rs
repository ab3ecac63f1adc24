//! Checks that any bytes yield a lossless JPEG image or a fault, and that an image agrees with itself.
#![no_main]

use freetumor::ingest::dicom::jpeg::decode_lossless;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(image) = decode_lossless(bytes) {
        assert_eq!(image.samples.len(), image.columns * image.rows);
        assert!(image.samples.len() <= 8 * bytes.len());
        assert!(image.samples.iter().all(|sample| u32::from(*sample) >> image.precision == 0));
    }
});
