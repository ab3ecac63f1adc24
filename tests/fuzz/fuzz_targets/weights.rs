//! Checks that any bytes yield tensors (safetensors or a checkpoint) or an error, with memory in the order of their length.
#![no_main]

use candle_core::Device;
use freetumor::nn::weights::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = std::env::temp_dir().join(format!("freetumor-fuzz-{}", std::process::id()));
    std::fs::write(&path, bytes).expect("cannot write the temporary file");
    if let Ok(tensors) = read(&path, &Device::Cpu) {
        // Views may share a storage, so the total size of all tensors may exceed the file.
        assert!(tensors.values().all(|tensor| tensor.elem_count() <= 8 * bytes.len().max(1 << 10)));
    }
});
