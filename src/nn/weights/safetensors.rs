//! The format safetensors: a header in JSON, then the numbers of all tensors, one after the other.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use half::f16;
use safetensors::tensor::TensorInfo;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::budget::Budget;
use super::checkpoint::Checkpoint;
use super::element::{ElementType, StridedView};
use super::names::quoted;
use crate::error::{Error, Result};
use crate::nn::failed;

/// The key of the metadata in the header.
const METADATA: &str = "__metadata__";

/// Reads every tensor of a file of `file_bytes`.
///
/// The crate `safetensors` needs the whole file in memory; this reader allocates memory for each tensor separately.
///
/// # Errors
/// If the header is malformed, or its tensors are not exactly what follows it.
pub(super) fn read(mut reader: impl Read + Seek, file_bytes: u64) -> Result<Checkpoint> {
    let (header, data_bytes) = header_of(&mut reader, file_bytes).map_err(|error| match error {
        HeaderError::Io(error) => unreadable(error),
        HeaderError::Malformed(error) => error,
    })?;
    let mut budget = Budget::of_file(file_bytes);
    let header: Map<String, Value> = serde_json::from_slice(&header).map_err(not_json)?;

    let mut views = Vec::new();
    for (name, value) in header.into_iter().filter(|(name, _)| name != METADATA) {
        let malformed = |reason: &dyn std::fmt::Display| Error::new(format!("tensor {}: {reason}", quoted(&name)));
        let info: TensorInfo = serde_json::from_value(value).map_err(|error| malformed(&error))?;
        let element = ElementType::of_safetensors(info.dtype)
            .ok_or_else(|| malformed(&format!("unsupported element type `{:?}`", info.dtype)))?;
        let view = StridedView::contiguous(element, info.shape.iter().map(|size| *size as u64).collect());
        let [start, end] = [info.data_offsets.0 as u64, info.data_offsets.1 as u64];
        let bytes = view.count().and_then(|count| count.checked_mul(element.bytes()));
        if bytes.is_none() || end.checked_sub(start) != bytes || end > data_bytes {
            let expected = bytes.map_or("fewer than 2^64".to_owned(), |bytes| bytes.to_string());
            return Err(malformed(&format!(
                "expected {expected} bytes for its shape, got bytes {start}..{end} of {data_bytes}"
            )));
        }
        view.check((end - start) / element.bytes(), &mut budget).map_err(|error| malformed(&error))?;
        views.push((start, end, name, view));
    }
    views.sort_by_key(|(start, end, ..)| (*start, *end));
    let mut tensors = BTreeMap::new();
    let mut at = 0;
    for (start, end, name, view) in views {
        if start != at {
            return Err(Error::new(format!("tensor {}: expected the data offset {at}, got {start}", quoted(&name))));
        }
        at = end;
        let mut bytes = vec![0; (end - start) as usize];
        reader.read_exact(&mut bytes).map_err(unreadable)?;
        tensors.insert(name, view.tensor(&bytes)?);
    }
    if at != data_bytes {
        return Err(Error::new(format!(
            "expected the end of the file after the last tensor, got {} more bytes",
            data_bytes - at
        )));
    }
    Ok(Checkpoint { tensors, mappings: vec![String::new()] })
}

/// The reason why a header cannot be read.
enum HeaderError {
    Io(io::Error),
    Malformed(Error),
}

/// Reads the header's JSON; returns it with the number of bytes that follow. The reader is then at the first of those bytes.
fn header_of(mut reader: impl Read + Seek, file_bytes: u64) -> Result<(Vec<u8>, u64), HeaderError> {
    let truncated = |message: String| {
        let hint = "copy or download the file again: the file may be truncated";
        HeaderError::Malformed(Error::new(message).with_hint(hint))
    };
    let Some(rest) = file_bytes.checked_sub(8) else {
        return Err(truncated(format!(
            "expected the length of the header in 8 bytes, got a file of {file_bytes} bytes"
        )));
    };
    let mut length = [0; 8];
    reader.seek(SeekFrom::Start(0)).and_then(|_| reader.read_exact(&mut length)).map_err(HeaderError::Io)?;
    let length = u64::from_le_bytes(length);
    let Some(data_bytes) = rest.checked_sub(length) else {
        return Err(truncated(format!(
            "expected a header within the file of {file_bytes} bytes, got a header of {length} bytes"
        )));
    };
    let mut header = vec![0; length as usize];
    reader.read_exact(&mut header).map_err(HeaderError::Io)?;
    Ok((header, data_bytes))
}

/// Converts an I/O error; the caller adds the path.
fn unreadable(error: io::Error) -> Error {
    Error::new(error.to_string()).with_source(error)
}

fn not_json(error: serde_json::Error) -> Error {
    Error::new(format!("the header is not JSON: {error}"))
}

/// Reads the metadata of a safetensors file: strings by key; empty if the file has no metadata.
///
/// # Errors
/// If the file cannot be read, or its header is malformed.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::fs::File;
/// use candle_core::{Device, Tensor};
/// use freetumor::nn::weights::{Precision, read_metadata, write_safetensors};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("bias.safetensors");
/// let tensors = BTreeMap::from([("bias".to_owned(), Tensor::new(&[0.5f32], &Device::Cpu)?)]);
/// let about = BTreeMap::from([("step".to_owned(), "7".to_owned())]);
/// write_safetensors(&mut File::create(&path)?, &tensors, &about, Precision::Single)?;
/// assert_eq!(read_metadata(&path)?, about);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_metadata(path: &Path) -> Result<BTreeMap<String, String>> {
    let io = |error| Error::io("cannot read", path, error);
    let malformed = |error: Error| {
        let wrapped = Error::new(format!("{} is not a safetensors file: {error}", path.display()));
        error.hint().into_iter().fold(wrapped, Error::with_hint)
    };
    let file = File::open(path).map_err(io)?;
    let file_bytes = file.metadata().map_err(io)?.len();
    let (header, _) = header_of(file, file_bytes).map_err(|error| match error {
        HeaderError::Io(error) => io(error),
        HeaderError::Malformed(error) => malformed(error),
    })?;
    let header: Header = serde_json::from_slice(&header).map_err(not_json).map_err(malformed)?;
    Ok(header.metadata)
}

/// The metadata of a header.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__", default)]
    metadata: BTreeMap<String, String>,
}

/// The precision of written weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits per number, from which a training run can be resumed with the same bits.
    #[default]
    Single,
    /// 16 bits per number: half the size, about three decimal digits.
    Half,
}

/// Writes tensors and metadata as a safetensors file. Equal tensors and metadata produce equal bytes.
///
/// The crate `safetensors` writes metadata in an order that differs between processes.
///
/// # Errors
/// If `out` fails, a tensor is not of a floating-point type, or one of its numbers is too large for [`Precision::Half`].
///
/// ```
/// use std::collections::BTreeMap;
/// use std::fs::File;
/// use candle_core::{Device, Tensor};
/// use freetumor::nn::weights::{Precision, read, write_safetensors};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("bias.safetensors");
/// let bias = Tensor::new(&[0.5f32, -2.0], &Device::Cpu)?;
/// let about = BTreeMap::from([("step".to_owned(), "7".to_owned())]);
/// let tensors = BTreeMap::from([("bias".to_owned(), bias)]);
/// write_safetensors(&mut File::create(&path)?, &tensors, &about, Precision::Single)?;
/// assert_eq!(read(&path, &Device::Cpu)?["bias"].to_vec1::<f32>()?, [0.5, -2.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_safetensors(
    out: &mut dyn Write,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
    precision: Precision,
) -> io::Result<()> {
    out.write_all(&header(tensors, metadata, precision).map_err(io::Error::other)?)?;
    tensors
        .iter()
        .try_for_each(|(name, tensor)| out.write_all(&numbers(name, tensor, precision).map_err(io::Error::other)?))
}

/// Returns the header after its length, padded with spaces so that the numbers are aligned.
fn header(
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
    precision: Precision,
) -> Result<Vec<u8>> {
    let mut entries = Map::new();
    if !metadata.is_empty() {
        entries.insert(METADATA.to_owned(), json!(metadata));
    }
    let (dtype, bytes) = match precision {
        Precision::Single => ("F32", 4),
        Precision::Half => ("F16", 2),
    };
    let mut at = 0;
    for (name, tensor) in tensors {
        let end = at + tensor.elem_count() * bytes;
        entries.insert(name.clone(), json!({ "dtype": dtype, "shape": tensor.dims(), "data_offsets": [at, end] }));
        at = end;
    }
    let mut text =
        serde_json::to_vec(&entries).map_err(|error| Error::new(format!("cannot serialize the header: {error}")))?;
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok([&(text.len() as u64).to_le_bytes()[..], &text].concat())
}

fn numbers(name: &str, tensor: &Tensor, precision: Precision) -> Result<Vec<u8>> {
    if !tensor.dtype().is_float() {
        return Err(Error::new(format!(
            "tensor {}: expected floating-point numbers, got {:?}",
            quoted(name),
            tensor.dtype()
        )));
    }
    let numbers =
        tensor.to_device(&Device::Cpu).and_then(|tensor| tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1());
    let numbers: Vec<f32> = numbers.map_err(failed(&format!("cannot read the tensor {} to write it", quoted(name))))?;
    match precision {
        Precision::Single => Ok(numbers.iter().flat_map(|number| number.to_le_bytes()).collect()),
        Precision::Half => {
            let halves = numbers.iter().map(|number| (f16::from_f32(*number), number.is_finite()));
            let bytes = halves.map(|(half, was_finite)| (half.is_finite() || !was_finite).then(|| half.to_le_bytes()));
            let bytes: Option<Vec<[u8; 2]>> = bytes.collect();
            bytes.map(|bytes| bytes.concat()).ok_or_else(|| {
                Error::new(format!(
                    "tensor {}: expected numbers up to ±65504 for 16 bits, got larger numbers",
                    quoted(name)
                ))
            })
        }
    }
}
