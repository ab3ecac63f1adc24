//! Checkpoints of PyTorch: a zip archive that holds a pickle, and an entry of numbers for each storage it names.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek};

use candle_core::Tensor;

use super::archive::Archive;
use super::budget::Budget;
use super::checkpoint::Checkpoint;
use super::element::{ElementType, StridedView};
use super::names::{list, shown};
use super::pickle::{Id, Pickle, PickleValue};
use crate::error::{Error, Result};

/// How trainers name the weights in a checkpoint, the likeliest first.
const NESTS: [&str; 9] = [
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
/// Where it is damaged, holds no weights, or was made for another purpose.
pub(super) fn read(reader: impl Read + Seek, file_bytes: u64) -> Result<Checkpoint> {
    let mut budget = Budget::of_file(file_bytes);
    let mut archive = Archive::open(reader, file_bytes)?;
    let folder = folder(&archive)?;
    let byte_order = format!("{folder}byteorder");
    if archive.size(&byte_order).is_some_and(|size| size < 64) {
        let order = archive.read(&byte_order, &mut budget)?;
        if order.trim_ascii() != b"little" {
            let order = String::from_utf8_lossy(&order);
            return Err(Error::new(format!("numbers in {} byte order; little is read", shown(order.trim())))
                .with_hint("save it again on a machine with little-endian numbers"));
        }
    }
    let bytes = archive.read(&format!("{folder}data.pkl"), &mut budget)?;
    let pickle = Pickle::read(&bytes)?;
    let mut search = Search { pickle: &pickle, seen: BTreeSet::new() };
    let Some(found) = search.weights(pickle.root, "", 0) else {
        return Err(without_weights(&pickle));
    };
    let mut stored = Vec::new();
    for StateDict { prefix, items, .. } in &found {
        for (name, id) in items {
            let name = format!("{prefix}{name}");
            if let Some(one) = stored_tensor(&pickle, *id).map_err(|error| of_tensor(&name, &error))? {
                budget.spend(name.len() as u64)?;
                stored.push((name, one));
            }
        }
    }
    let mappings = found.iter().map(|found| found.place.clone()).collect();
    Ok(Checkpoint { tensors: load(&mut archive, &folder, stored, &mut budget)?, mappings })
}

fn of_tensor(name: &str, error: &Error) -> Error {
    Error::new(format!("tensor {}: {error}", shown(name)))
}

/// The archive's own folder, with its slash: every entry of a checkpoint lies in it.
fn folder<R: Read + Seek>(archive: &Archive<R>) -> Result<String> {
    let pickle = archive.names().find(|name| {
        name.strip_suffix("data.pkl")
            .is_some_and(|folder| folder.is_empty() || folder.find('/') == Some(folder.len() - 1))
    });
    let Some(folder) = pickle.and_then(|name| name.strip_suffix("data.pkl")) else {
        let names: Vec<_> = archive.names().take(6).collect();
        return Err(Error::new(format!(
            "a zip archive without data.pkl: it holds {}",
            list(&names, archive.names().count())
        ))
        .with_hint("expected what torch.save writes, or safetensors"));
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
    /// Where it lies, such as `state_dict`; empty for the whole.
    place: String,
    /// What goes before the names in it.
    prefix: String,
    items: BTreeMap<&'p str, Id>,
}

struct Search<'s, 'p> {
    pickle: &'s Pickle<'p>,
    /// Mappings that were looked at: none is read twice, whatever names it.
    seen: BTreeSet<Id>,
}

impl<'p> Search<'_, 'p> {
    /// The mapping that holds the weights, or several where each network has its own.
    fn weights(&mut self, id: Id, place: &str, depth: usize) -> Option<Vec<StateDict<'p>>> {
        if depth > 3 || !self.seen.insert(id) {
            return None;
        }
        let items = self.pickle.items(id)?;
        let below = |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
        for nest in NESTS {
            if let Some(found) = items.get(nest).and_then(|id| self.weights(*id, &below(nest), depth + 1)) {
                self.say_others(&items, nest);
                return Some(found);
            }
        }
        if self.holds_tensors(&items) {
            return Some(vec![StateDict { place: place.to_owned(), prefix: String::new(), items }]);
        }
        let mut found = Vec::new();
        for (key, id) in items {
            let Some(items) = self.seen.insert(id).then(|| self.pickle.items(id)).flatten() else { continue };
            if self.holds_tensors(&items) {
                found.push(StateDict { place: below(key), prefix: format!("{key}."), items });
            }
        }
        (!found.is_empty()).then_some(found)
    }

    /// A checkpoint may hold the same network several times, such as the last and the best one: which is taken is said.
    fn say_others(&mut self, items: &BTreeMap<&str, Id>, taken: &str) {
        let mut others = Vec::new();
        for (key, id) in items {
            let items = self.seen.insert(*id).then(|| self.pickle.items(*id)).flatten();
            if items.is_some_and(|items| self.holds_tensors(&items)) {
                others.push(*key);
            }
        }
        if !others.is_empty() {
            let some: Vec<&str> = others.iter().copied().take(6).collect();
            tracing::warn!(
                "weights are taken from {}; tensors are in {}, too",
                shown(taken),
                list(&some, others.len())
            );
        }
    }

    fn holds_tensors(&self, items: &BTreeMap<&str, Id>) -> bool {
        items.values().any(|id| matches!(self.pickle.object(*id), PickleValue::Tensor(_)))
    }
}

fn without_weights(pickle: &Pickle) -> Error {
    if let PickleValue::Made(callable) = pickle.object(pickle.root)
        && let Some((module, name)) = pickle.global(*callable)
    {
        return Error::new(format!(
            "a pickled object of class {}, not a state_dict",
            shown(&format!("{module}.{name}"))
        ))
        .with_hint("where its code is at hand, save its weights: torch.save(model.state_dict(), 'OUT.pt')");
    }
    let message = match pickle.items(pickle.root) {
        Some(items) if !items.is_empty() => {
            let keys: Vec<_> = items.keys().copied().take(8).collect();
            format!("no mapping of names to tensors among its keys {}", list(&keys, items.len()))
        }
        _ => "no mapping of names to tensors".to_owned(),
    };
    Error::new(message).with_hint("expected a state_dict, at the top or under a key such as state_dict or model")
}

/// A tensor and the storage that it looks into.
struct TorchTensor {
    /// The storage's name in the archive.
    key: String,
    storage_bytes: u64,
    view: StridedView,
}

/// What a value of a state_dict is, if it is a tensor.
fn stored_tensor(pickle: &Pickle, id: Id) -> Result<Option<TorchTensor>> {
    let tensor = match pickle.object(id) {
        PickleValue::Tensor(tensor) => tensor,
        // A sparse or quantised tensor is a weight, too, and must not be lost in silence.
        PickleValue::Made(callable) => {
            return match pickle.global(*callable) {
                Some((module, name)) if module.starts_with("torch.") && name.starts_with("_rebuild_") => {
                    Err(Error::new(format!("made by {}; expected a plain tensor", shown(&format!("{module}.{name}")))))
                }
                _ => Ok(None),
            };
        }
        _ => return Ok(None),
    };
    let PickleValue::Storage(storage) = pickle.object(tensor.storage) else {
        return Err(Error::new("it has no storage"));
    };
    let element = match tensor.dtype {
        None => storage.element,
        Some(dtype) => {
            let named = pickle.global(dtype).filter(|(module, _)| *module == "torch");
            named.and_then(|(_, name)| ElementType::of_dtype(name))
        }
    };
    let element = element.ok_or_else(|| Error::new("an element type that is not read here"))?;
    let (Some(shape), Some(strides)) = (pickle.sizes(tensor.shape), pickle.sizes(tensor.strides)) else {
        return Err(Error::new("shape or strides are not 16 numbers at most, none below zero"));
    };
    let numbers = storage.element.map_or(1, ElementType::bytes);
    let storage_bytes = storage.count.checked_mul(numbers);
    let (Some(key), Some(storage_bytes)) = (pickle.text(&storage.key), storage_bytes) else {
        return Err(Error::new(format!("a storage of {} numbers", storage.count)));
    };
    let view = StridedView { element, offset: tensor.offset, shape, strides };
    Ok(Some(TorchTensor { key: key.to_owned(), storage_bytes, view }))
}

/// Reads each storage once and cuts its tensors out of it.
fn load<R: Read + Seek>(
    archive: &mut Archive<R>,
    folder: &str,
    stored: Vec<(String, TorchTensor)>,
    budget: &mut Budget,
) -> Result<BTreeMap<String, Tensor>> {
    let mut storages: BTreeMap<String, Vec<(String, TorchTensor)>> = BTreeMap::new();
    for (name, one) in stored {
        storages.entry(one.key.clone()).or_default().push((name, one));
    }
    let mut tensors = BTreeMap::new();
    for (key, views) in storages {
        let entry = format!("{folder}data/{key}");
        // Everything is checked before anything is allocated.
        let size = archive.size(&entry);
        for (name, TorchTensor { storage_bytes, view, .. }) in &views {
            let checked = match size {
                Some(size) if size == *storage_bytes => view.check(size / view.element.bytes(), budget),
                Some(size) => {
                    Err(Error::new(format!("its storage {} has {size} bytes; expected {storage_bytes}", shown(&entry))))
                }
                None => Err(Error::new(format!("its storage {} is not in the archive", shown(&entry)))),
            };
            checked.map_err(|error| of_tensor(name, &error))?;
        }
        let bytes = archive.read(&entry, budget)?;
        for (name, TorchTensor { view, .. }) in views {
            let tensor = view.tensor(&bytes).map_err(|error| of_tensor(&name, &error))?;
            if tensors.insert(name.clone(), tensor).is_some() {
                return Err(of_tensor(&name, &Error::new("two mappings hold it")));
            }
        }
    }
    Ok(tensors)
}
