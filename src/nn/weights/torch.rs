//! Checkpoints of PyTorch: a zip archive that holds a pickle, and an entry of numbers for each storage of the pickle.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek};

use candle_core::Tensor;

use super::archive::Archive;
use super::budget::Budget;
use super::checkpoint::Checkpoint;
use super::element::{ElementType, StridedView};
use super::names::{list, quoted};
use super::pickle::{Id, Pickle, PickleValue};
use crate::error::{Error, Result};

/// The keys of the weights in a checkpoint, in order of preference.
const WEIGHTS_KEYS: [&str; 9] = [
    "state_dict",
    "model_state_dict",
    "network_weights",
    "model",
    "net",
    "network",
    "weights",
    "model_weights",
    "module",
];

/// Reads the tensors of a zip checkpoint of `file_bytes`.
///
/// # Errors
/// If the checkpoint is damaged, holds no weights, or is not a checkpoint of weights.
pub(super) fn read(reader: impl Read + Seek, file_bytes: u64) -> Result<Checkpoint> {
    let mut budget = Budget::of_file(file_bytes);
    let mut archive = Archive::open(reader, file_bytes)?;
    let folder = folder(&archive)?;
    let byte_order = format!("{folder}byteorder");
    if archive.size(&byte_order).is_some_and(|size| size < 64) {
        let order = archive.read(&byte_order, &mut budget)?;
        if order.trim_ascii() != b"little" {
            let order = String::from_utf8_lossy(&order);
            return Err(Error::new(format!(
                "expected little-endian numbers, got the byte order {}",
                quoted(order.trim())
            ))
            .with_hint("save the checkpoint again on a little-endian machine"));
        }
    }
    let bytes = archive.read(&format!("{folder}data.pkl"), &mut budget)?;
    let pickle = Pickle::read(&bytes)?;
    let mut search = Search { pickle: &pickle, visited: BTreeSet::new() };
    let Some(state_dicts) = search.weights(pickle.root, "", 0) else {
        return Err(without_weights(&pickle));
    };
    let mut stored = Vec::new();
    for StateDict { prefix, items, .. } in &state_dicts {
        for (name, id) in items {
            let name = format!("{prefix}{name}");
            if let Some(tensor) = stored_tensor(&pickle, *id).map_err(|error| of_tensor(&name, &error))? {
                budget.spend(name.len() as u64)?;
                stored.push((name, tensor));
            }
        }
    }
    let mappings = state_dicts.iter().map(|state_dict| state_dict.path.clone()).collect();
    Ok(Checkpoint { tensors: load(&mut archive, &folder, stored, &mut budget)?, mappings })
}

/// Adds the name of a tensor to an error.
fn of_tensor(name: &str, error: &Error) -> Error {
    let named = Error::new(format!("tensor {}: {error}", quoted(name)));
    error.hint().into_iter().fold(named, Error::with_hint)
}

/// Returns the archive's top-level folder with its slash: it contains every entry of a checkpoint.
fn folder<R: Read + Seek>(archive: &Archive<R>) -> Result<String> {
    let pickle = archive.names().find(|name| {
        name.strip_suffix("data.pkl")
            .is_some_and(|folder| folder.is_empty() || folder.find('/') == Some(folder.len() - 1))
    });
    let Some(folder) = pickle.and_then(|name| name.strip_suffix("data.pkl")) else {
        let names: Vec<_> = archive.names().take(6).collect();
        return Err(Error::new(format!(
            "a zip archive without data.pkl, with the entries {}",
            list(&names, archive.names().count())
        ))
        .with_hint("pass a file of torch.save or a safetensors file"));
    };
    let is_script =
        |name: &str| name.strip_prefix(folder).is_some_and(|rest| rest == "constants.pkl" || rest.starts_with("code/"));
    if archive.names().any(is_script) {
        return Err(Error::new("a TorchScript program, not a checkpoint of weights").with_hint(
            "save its weights: python -c \"import torch; \
             torch.save(torch.jit.load('IN.pt', map_location='cpu').state_dict(), 'OUT.pt')\"",
        ));
    }
    Ok(folder.to_owned())
}

/// A mapping that holds weights.
struct StateDict<'p> {
    /// The path of keys, such as `state_dict`; empty for the top level.
    path: String,
    /// The prefix of the tensors' names.
    prefix: String,
    items: BTreeMap<&'p str, Id>,
}

struct Search<'s, 'p> {
    pickle: &'s Pickle<'p>,
    /// The mappings that were visited: none is read twice, even if several keys refer to it.
    visited: BTreeSet<Id>,
}

impl<'p> Search<'_, 'p> {
    /// Finds the mapping that holds the weights, or several mappings if each network has a separate one.
    fn weights(&mut self, id: Id, path: &str, depth: usize) -> Option<Vec<StateDict<'p>>> {
        if depth > 3 || !self.visited.insert(id) {
            return None;
        }
        let items = self.pickle.items(id)?;
        let path_of = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        for key in WEIGHTS_KEYS {
            if let Some(state_dicts) = items.get(key).and_then(|id| self.weights(*id, &path_of(key), depth + 1)) {
                self.warn_of_others(&items, key);
                return Some(state_dicts);
            }
        }
        if self.holds_tensors(&items) {
            return Some(vec![StateDict { path: path.to_owned(), prefix: String::new(), items }]);
        }
        let mut state_dicts = Vec::new();
        for (key, id) in items {
            let Some(items) = self.visited.insert(id).then(|| self.pickle.items(id)).flatten() else { continue };
            if self.holds_tensors(&items) {
                state_dicts.push(StateDict { path: path_of(key), prefix: format!("{key}."), items });
            }
        }
        (!state_dicts.is_empty()).then_some(state_dicts)
    }

    /// Logs a warning if further mappings hold tensors: a checkpoint may hold a network several times, such as the last and the best.
    fn warn_of_others(&mut self, items: &BTreeMap<&str, Id>, used: &str) {
        let mut others = Vec::new();
        for (key, id) in items {
            let items = self.visited.insert(*id).then(|| self.pickle.items(*id)).flatten();
            if items.is_some_and(|items| self.holds_tensors(&items)) {
                others.push(*key);
            }
        }
        if !others.is_empty() {
            let some: Vec<&str> = others.iter().copied().take(6).collect();
            tracing::warn!(
                "reading the weights in {}, ignoring the tensors in {}",
                quoted(used),
                list(&some, others.len())
            );
        }
    }

    fn holds_tensors(&self, items: &BTreeMap<&str, Id>) -> bool {
        items.values().any(|id| matches!(self.pickle.object(*id), PickleValue::Tensor(_)))
    }
}

fn without_weights(pickle: &Pickle) -> Error {
    if let PickleValue::Unsupported(callable) = pickle.object(pickle.root)
        && let Some((module, name)) = pickle.global(*callable)
    {
        return Error::new(format!(
            "a pickled object of class {}, not a state_dict",
            quoted(&format!("{module}.{name}"))
        ))
        .with_hint("save its weights with the code of the class: torch.save(model.state_dict(), 'OUT.pt')");
    }
    let message = match pickle.items(pickle.root) {
        Some(items) if !items.is_empty() => {
            let keys: Vec<_> = items.keys().copied().take(8).collect();
            format!("no mapping of names to tensors among its keys {}", list(&keys, items.len()))
        }
        _ => "no mapping of names to tensors".to_owned(),
    };
    Error::new(message).with_hint("pass a state_dict, at the top level or under a key such as state_dict or model")
}

/// A tensor as a view of its storage.
struct TorchTensor {
    /// The storage's name in the archive.
    key: String,
    storage_bytes: u64,
    view: StridedView,
}

/// Returns the tensor of a value of a state_dict; `None` if the value is not a tensor.
fn stored_tensor(pickle: &Pickle, id: Id) -> Result<Option<TorchTensor>> {
    let tensor = match pickle.object(id) {
        PickleValue::Tensor(tensor) => tensor,
        // A sparse or quantized tensor is a weight, too, and must not be ignored silently.
        PickleValue::Unsupported(callable) => {
            return match pickle.global(*callable) {
                Some((module, name)) if module.starts_with("torch.") && name.starts_with("_rebuild_") => {
                    Err(Error::new(format!(
                        "expected a dense, unquantized tensor, got a tensor that {} rebuilds",
                        quoted(&format!("{module}.{name}"))
                    ))
                    .with_hint("convert it first: tensor.to_dense(), or tensor.dequantize()"))
                }
                _ => Ok(None),
            };
        }
        _ => return Ok(None),
    };
    let PickleValue::Storage(storage) = pickle.object(tensor.storage) else {
        return Err(Error::new("expected a tensor with a storage in the same file, got none"));
    };
    let element = match tensor.dtype {
        None => storage.element,
        Some(dtype) => {
            let named = pickle.global(dtype).filter(|(module, _)| *module == "torch");
            named.and_then(|(_, name)| ElementType::of_dtype(name))
        }
    };
    let element = element.ok_or_else(|| Error::new("unsupported element type"))?;
    let (Some(shape), Some(strides)) = (pickle.sizes(tensor.shape), pickle.sizes(tensor.strides)) else {
        return Err(Error::new("expected a shape and strides of at most 16 numbers, none below zero"));
    };
    let numbers = storage.element.map_or(1, ElementType::bytes);
    let Some(storage_bytes) = storage.count.checked_mul(numbers) else {
        let count = storage.count;
        return Err(Error::new(format!("expected a storage of fewer than 2^64 bytes, got {count} numbers")));
    };
    let Some(key) = pickle.text(&storage.key) else {
        let bytes = storage.key.len();
        return Err(Error::new(format!("expected a storage with a shorter name, got a name of {bytes} bytes")));
    };
    let view = StridedView { element, offset: tensor.offset, shape, strides };
    Ok(Some(TorchTensor { key: key.to_owned(), storage_bytes, view }))
}

/// Reads each storage once, and copies its tensors.
fn load<R: Read + Seek>(
    archive: &mut Archive<R>,
    folder: &str,
    stored: Vec<(String, TorchTensor)>,
    budget: &mut Budget,
) -> Result<BTreeMap<String, Tensor>> {
    let mut storages: BTreeMap<String, Vec<(String, TorchTensor)>> = BTreeMap::new();
    for (name, tensor) in stored {
        storages.entry(tensor.key.clone()).or_default().push((name, tensor));
    }
    let mut tensors = BTreeMap::new();
    for (key, views) in storages {
        let entry = format!("{folder}data/{key}");
        // All views are checked before memory is allocated.
        let size = archive.size(&entry);
        for (name, TorchTensor { storage_bytes, view, .. }) in &views {
            let checked = match size {
                Some(size) if size == *storage_bytes => view.check(size / view.element.bytes(), budget),
                Some(size) => {
                    Err(Error::new(format!("storage {}: expected {storage_bytes} bytes, got {size}", quoted(&entry))))
                }
                None => Err(Error::new(format!("storage {} is not in the archive", quoted(&entry)))),
            };
            checked.map_err(|error| of_tensor(name, &error))?;
        }
        let bytes = archive.read(&entry, budget)?;
        for (name, TorchTensor { view, .. }) in views {
            let tensor = view.tensor(&bytes).map_err(|error| of_tensor(&name, &error))?;
            if tensors.insert(name.clone(), tensor).is_some() {
                return Err(of_tensor(&name, &Error::new("expected the tensor in one mapping, got two")));
            }
        }
    }
    Ok(tensors)
}
