//! Weights files: safetensors, and the checkpoints that PyTorch's trainers save.
//!
//! [`read`] detects the format by the file's content and returns every tensor by its name in the file; [`fit`] converts
//! those tensors to exactly the parameters that a network declares. Files are untrusted: nothing in them is executed, every
//! size is checked before memory is allocated, and the memory stays proportional to the file's length.
//!
//! # Checkpoints of PyTorch
//!
//! In a `.pt` file, [`read`] searches for the mapping that holds tensors: at the top level, or under a key such as `state_dict`. If
//! several mappings of one level hold tensors (one for each network), all are read, and their keys are prepended to the
//! names, as in `generator.conv.weight`. Floating-point tensors keep their type, integers become i64, bytes and booleans
//! u8. Views that share a storage in the file become separate tensors.

mod archive;
mod budget;
mod checkpoint;
mod element;
mod fit;
mod metadata;
mod names;
mod pickle;
mod safetensors;
mod torch;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use candle_core::{Device, Tensor};

pub use checkpoint::Checkpoint;
pub use fit::{NetworkPart, fit, shape_of};
pub use metadata::{HEADER_KEY, HELD_OUT_KEY, WeightsMetadata, held_out_hash};
pub use safetensors::{Precision, read_metadata, write_safetensors};

use self::names::quoted;
use super::failed;
use crate::error::{Error, Result, file_type_name};

/// Reads the tensors of a weights file, by name.
///
/// # Errors
/// If the file cannot be read, has an unsupported format, is damaged, or holds no tensors.
///
/// ```
/// use candle_core::Device;
/// use freetumor::nn::weights::read;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("weights.pt");
/// std::fs::write(&path, "<!DOCTYPE html>")?;
/// let error = read(&path, &Device::Cpu).unwrap_err();
/// assert!(error.to_string().contains("a web page"), "{error}");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn read(path: &Path, device: &Device) -> Result<BTreeMap<String, Tensor>> {
    read_checkpoint(path, device).map(|checkpoint| checkpoint.tensors)
}

/// Reads the tensors of a weights file like [`read`], together with the paths of the mappings that held them.
///
/// # Errors
/// The errors of [`read`].
pub fn read_checkpoint(path: &Path, device: &Device) -> Result<Checkpoint> {
    let within = |error: Error| {
        let wrapped = Error::new(format!("cannot read weights {}: {error}", path.display()));
        match error.hint() {
            Some(hint) => wrapped.with_hint(hint),
            None => wrapped,
        }
    };
    let mut checkpoint = read_file(path).map_err(within)?;
    if checkpoint.tensors.is_empty() {
        return Err(within(Error::new("the file holds no tensors")));
    }
    tracing::debug!(mappings = ?checkpoint.mappings, tensors = checkpoint.tensors.len(), "weights read");
    for (name, tensor) in &mut checkpoint.tensors {
        let context = format!("cannot copy the tensor {} to the device", quoted(name));
        *tensor = tensor.to_device(device).map_err(failed(&context)).map_err(within)?;
    }
    Ok(checkpoint)
}

fn read_file(path: &Path) -> Result<Checkpoint> {
    let io = |error: std::io::Error| Error::new(error.to_string());
    // Checked before the file is opened: opening a pipe without a writer would block forever.
    let file_type = std::fs::metadata(path).map_err(io)?.file_type();
    if !file_type.is_file() {
        return Err(Error::new(format!("expected a file, got {}", file_type_name(file_type))));
    }
    let file = File::open(path).map_err(io)?;
    let file_bytes = file.metadata().map_err(io)?.len();
    let mut start = Vec::new();
    let mut reader = BufReader::new(file);
    reader.by_ref().take(512).read_to_end(&mut start).map_err(io)?;
    reader.seek(SeekFrom::Start(0)).map_err(io)?;
    match Format::of(&start) {
        Format::Safetensors => safetensors::read(reader, file_bytes),
        Format::Zip => torch::read(reader, file_bytes),
        Format::Unsupported(description, hint) => Err(match hint {
            "" => Error::new(description),
            hint => Error::new(description).with_hint(hint),
        }),
    }
}

/// The format of a file, detected by its first bytes.
enum Format {
    Safetensors,
    Zip,
    /// A description of an unsupported format, and a hint.
    Unsupported(&'static str, &'static str),
}

impl Format {
    fn of(start: &[u8]) -> Self {
        // The pickled number at the start of files of PyTorch before 1.6.
        let legacy = [0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
        let convert = "save the checkpoint again in the current format: python -c \"import torch; \
                            torch.save(torch.load('IN.pt', map_location='cpu'), 'OUT.pt')\"";
        let expected = "pass a safetensors file or a file of torch.save";
        match start {
            [] => Self::Unsupported("the file is empty", ""),
            [b'P', b'K', 3 | 5, 4 | 6, ..] => Self::Zip,
            [0x80, _, rest @ ..] if rest.starts_with(&legacy) => {
                Self::Unsupported("the format of PyTorch before 1.6, which is not supported", convert)
            }
            _ if start.get(257..262) == Some(b"ustar") => {
                Self::Unsupported("the format of PyTorch before 0.4, a tar archive, which is not supported", convert)
            }
            [_, _, _, _, _, _, _, _, b'{', ..] => Self::Safetensors,
            [0x80, 2..=5, ..] => Self::Unsupported("a bare pickle, not a file of torch.save", expected),
            [0x89, b'H', b'D', b'F', ..] => Self::Unsupported("an HDF5 file", expected),
            [0x1f, 0x8b, ..] => Self::Unsupported("a gzip file", "decompress the file first, with gunzip"),
            _ if start.starts_with(b"version https://git-lfs") => {
                Self::Unsupported("a pointer of Git LFS, not the file", "fetch the file: git lfs pull")
            }
            _ if start.trim_ascii_start().first() == Some(&b'<') => Self::Unsupported(
                "a web page, not weights",
                "check the address of the download and whether the download needs a login",
            ),
            _ => Self::Unsupported("an unknown format", expected),
        }
    }
}
