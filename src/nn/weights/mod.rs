//! Weights files: safetensors, and the checkpoints that PyTorch's trainers save.
//!
//! [`read`] tells the format by the file's content and gives every tensor under the name that the file has for it;
//! [`fit`] turns those into exactly the parameters that a network declares. Files may come from anywhere: nothing in
//! them is run, every size is checked before memory is taken, and what is taken stays in the order of the file's
//! length.
//!
//! # What is read
//!
//! Of a `.pt` file, the mapping that holds tensors is sought: at the top, or under a key such as `state_dict`; where
//! several mappings beside each other hold tensors (one for each network), all are taken, and their keys go before the
//! names, as `generator.conv.weight`. Floating-point tensors keep their type, integers become i64, bytes and booleans
//! u8. Views share a storage in the file and are tensors of their own here.

mod archive;
mod budget;
mod checkpoint;
mod element;
mod fit;
mod names;
mod pickle;
mod safetensors;
mod stated;
mod torch;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use candle_core::{Device, Tensor};

pub use checkpoint::Checkpoint;
pub use fit::{NetworkPart, fit, shape_of};
pub use safetensors::{Precision, read_metadata, write_safetensors};
pub use stated::{STANDING, WeightsMetadata};

use super::failed;
use crate::error::{Error, Result};

/// The tensors of a weights file, by name.
///
/// # Errors
/// Where the file cannot be read, is of another format, is damaged, or holds no tensors; with what to do about it.
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

/// As [`read`], and says which mappings of the file were taken.
///
/// # Errors
/// As those of [`read`].
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
        return Err(within(Error::new("it holds no tensors")));
    }
    tracing::debug!(mappings = ?checkpoint.mappings, tensors = checkpoint.tensors.len(), "weights read");
    for tensor in checkpoint.tensors.values_mut() {
        *tensor = tensor.to_device(device).map_err(failed("cannot move a tensor")).map_err(within)?;
    }
    Ok(checkpoint)
}

fn read_file(path: &Path) -> Result<Checkpoint> {
    let io = |error: std::io::Error| Error::new(error.to_string());
    // Asked before it is opened: a pipe without a writer would wait for ever.
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(Error::new("expected a file; it is something else"));
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
        Format::Other(what, hint) => Err(match hint {
            "" => Error::new(what),
            hint => Error::new(what).with_hint(hint),
        }),
    }
}

/// What a file is, by its first bytes.
enum Format {
    Safetensors,
    Zip,
    /// What it is instead, and what to do.
    Other(&'static str, &'static str),
}

impl Format {
    fn of(start: &[u8]) -> Self {
        // The pickled number with which files of PyTorch before 1.6 begin.
        let legacy = [0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
        let saving_again = "save it again in today's format: python -c \"import torch; \
                            torch.save(torch.load('IN.pt', map_location='cpu'), 'OUT.pt')\"";
        let expected = "expected safetensors or what torch.save writes";
        match start {
            [] => Self::Other("the file is empty", ""),
            [b'P', b'K', 3 | 5, 4 | 6, ..] => Self::Zip,
            [0x80, _, rest @ ..] if rest.starts_with(&legacy) => {
                Self::Other("the format of PyTorch before 1.6, which is not read", saving_again)
            }
            _ if start.get(257..262) == Some(b"ustar") => {
                Self::Other("the format of PyTorch before 0.4, a tar archive, which is not read", saving_again)
            }
            [_, _, _, _, _, _, _, _, b'{', ..] => Self::Safetensors,
            [0x80, 2..=5, ..] => Self::Other("a bare pickle, not what torch.save writes", expected),
            [0x89, b'H', b'D', b'F', ..] => Self::Other("an HDF5 file", expected),
            [0x1f, 0x8b, ..] => Self::Other("a gzip file", "inflate it first, with gunzip"),
            _ if start.starts_with(b"version https://git-lfs") => {
                Self::Other("a pointer of Git LFS, not the file itself", "fetch it: git lfs pull")
            }
            _ if start.trim_ascii_start().first() == Some(&b'<') => {
                Self::Other("a web page, not weights", "the download may need a login or another address")
            }
            _ => Self::Other("a format that is not known", expected),
        }
    }
}
