//! Reading and writing of safetensors.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use freetumor::nn::weights::{Precision, read, write_safetensors};

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn error_of(file: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    std::fs::write(&path, file).unwrap();
    read(&path, &Device::Cpu).unwrap_err().to_string()
}

#[test]
fn read_fails_on_contradictory_header() {
    let entry = |dtype: &str, shape: &str, start: u64, end: u64| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    let one = |entry: String| format!(r#"{{"a":{entry}}}"#);
    let two = |a: String, b: String| format!(r#"{{"a":{a},"b":{b}}}"#);
    for (header, bytes, expected) in [
        (one(entry("F32", "[2]", 0, 8)), 4, "bytes 0..8 of 4"),
        (one(entry("F32", "[2]", 0, 8)), 12, "after the last tensor, got 4 more bytes"),
        (one(entry("F32", "[2]", 8, 0)), 8, "bytes 8..0"),
        (one(entry("F32", "[3]", 0, 8)), 8, "expected 12 bytes for its shape, got bytes 0..8 of 8"),
        (one(entry("F32", "[4294967296,4294967296,4]", 0, 8)), 8, "expected fewer than 2^64 bytes for its shape"),
        (one(entry("F32", "[-1]", 0, 8)), 8, "tensor `a`"),
        (one(entry("F8_E4M3", "[8]", 0, 8)), 8, "element type `F8_E4M3`"),
        (two(entry("F32", "[2]", 0, 8), entry("F32", "[2]", 0, 8)), 8, "tensor `b`: expected the data offset 8, got 0"),
        (two(entry("F32", "[1]", 0, 4), entry("F32", "[1]", 8, 12)), 12, "expected the data offset 4, got 8"),
        (r#"{"a":3}"#.to_owned(), 0, "tensor `a`"),
        ("{".to_owned(), 0, "not JSON"),
        ("{}".to_owned(), 0, "no tensors"),
        (format!("{{\"a\":{}", "[".repeat(10_000)), 0, "not JSON"),
    ] {
        let error = error_of(&file(&header, &vec![0; bytes]));
        assert!(error.contains(expected), "{header}: {error}");
    }
    let long = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
    assert!(error_of(&long).contains("file of 10 bytes, got a header of 18446744073709551615 bytes"));
    assert!(error_of(&[&100u64.to_le_bytes()[..], b"{\"a\":"].concat()).contains("a header of 100 bytes"));
}

#[test]
fn written_tensors_are_read_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.safetensors");
    let cpu = &Device::Cpu;
    let written = |tensors: &BTreeMap<String, Tensor>, about: &BTreeMap<String, String>, precision| {
        let mut file = Vec::new();
        write_safetensors(&mut file, tensors, about, precision).unwrap();
        file
    };
    let weight = Tensor::arange(0f32, 24.0, cpu).unwrap().reshape((2, 3, 4)).unwrap().transpose(0, 2).unwrap();
    let tensors = BTreeMap::from([
        ("b.weight".to_owned(), weight.clone()),
        ("a".to_owned(), Tensor::new(0.1f64, cpu).unwrap()),
        ("none".to_owned(), Tensor::zeros((0, 3), DType::F32, cpu).unwrap()),
    ]);
    let about = BTreeMap::from([("epoch".to_owned(), "3".to_owned()), ("model".to_owned(), "unet3d".to_owned())]);
    let first = written(&tensors, &about, Precision::Single);
    assert_eq!(written(&tensors, &about, Precision::Single), first);
    std::fs::write(&path, &first).unwrap();

    let tensors_read = read(&path, cpu).unwrap();
    assert_eq!(tensors_read.keys().collect::<Vec<_>>(), ["a", "b.weight", "none"]);
    assert_eq!(tensors_read["b.weight"].to_vec3::<f32>().unwrap(), weight.to_vec3::<f32>().unwrap());
    assert_eq!(tensors_read["a"].to_scalar::<f32>().unwrap(), 0.1);
    assert_eq!(tensors_read["none"].dims(), [0, 3]);
    // The crate `safetensors` reads the same.
    let other = safetensors::SafeTensors::deserialize(&first).unwrap();
    assert_eq!(other.tensor("b.weight").unwrap().shape(), [4, 3, 2]);
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&first).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap()["model"], "unet3d");
    assert_eq!(first.len() % 8, 4, "expected an aligned header before 100 bytes of numbers");

    std::fs::write(&path, written(&tensors, &about, Precision::Half)).unwrap();
    let half = read(&path, cpu).unwrap();
    assert_eq!(half["b.weight"].dtype(), DType::F16);
    assert_eq!(
        half["b.weight"].to_dtype(DType::F32).unwrap().to_vec3::<f32>().unwrap(),
        weight.to_vec3::<f32>().unwrap()
    );
}

#[test]
fn write_safetensors_fails_on_large_numbers_and_integers() {
    let error_of = |tensor: Tensor, precision| {
        let tensors = BTreeMap::from([("w".to_owned(), tensor)]);
        write_safetensors(&mut Vec::new(), &tensors, &BTreeMap::new(), precision).unwrap_err().to_string()
    };
    let error = error_of(Tensor::new(&[70_000f32], &Device::Cpu).unwrap(), Precision::Half);
    assert!(error.contains("`w`: expected numbers up to ±65504"), "{error}");
    let error = error_of(Tensor::new(&[7i64], &Device::Cpu).unwrap(), Precision::Single);
    assert!(error.contains("expected floating-point numbers"), "{error}");
}
