//! A reader of pickles that executes none of their calls.
//!
//! A pickle is a program that builds objects. This interpreter supports the instructions of protocols 2 to 5, and emulates only
//! the calls that create mappings and tensors. The result of any other call is an opaque value: nothing is imported, nothing is
//! called. Objects are in one list and refer to each other by index, so that cycles and deep nesting cost nothing, and each
//! instruction adds at most one object: memory stays within a few times the pickle's length.

mod unpickler;
mod value;

use std::collections::BTreeMap;

use self::unpickler::Unpickler;
pub(super) use self::value::{Id, PickleValue};
use self::value::{MAX_NAME_LEN, Span, text};
use crate::error::{Error, Result};

/// The objects of a pickle, and the id of its result.
#[derive(Debug)]
pub(super) struct Pickle<'p> {
    bytes: &'p [u8],
    objects: Vec<PickleValue>,
    pub(super) root: Id,
}

impl<'p> Pickle<'p> {
    /// Reads a pickle.
    ///
    /// # Errors
    /// If the pickle is truncated or malformed, or contains an unsupported instruction.
    pub(super) fn read(bytes: &'p [u8]) -> Result<Self> {
        // Spans and ids of objects are 32 bits.
        if bytes.len() > i32::MAX as usize {
            return Err(Error::new(format!("expected a pickle of at most 2 GiB, got {} bytes", bytes.len())));
        }
        let (objects, root) = Unpickler::run(bytes).map_err(|(at, error)| {
            Error::new(format!("pickle, byte {at}: {error}")).with_hint(
                "copy or download the file again, or save it again with torch.save(model.state_dict(), 'OUT.pt')",
            )
        })?;
        Ok(Self { bytes, objects, root })
    }

    pub(super) fn object(&self, id: Id) -> &PickleValue {
        &self.objects[id as usize]
    }

    /// Returns the string at a span, or `None` if the string is too long for a name.
    pub(super) fn text(&self, span: &Span) -> Option<&'p str> {
        (span.len() <= MAX_NAME_LEN).then(|| text(self.bytes, span))
    }

    /// Returns the string of an object, or `None` if the object is not a string or the string is too long for a name.
    pub(super) fn name(&self, id: Id) -> Option<&'p str> {
        match self.object(id) {
            PickleValue::Text(span) => self.text(span),
            _ => None,
        }
    }

    /// Returns the module and the name of a class or function, or `None` if the object is neither, or a name is too long.
    pub(super) fn global(&self, id: Id) -> Option<(&'p str, &'p str)> {
        match self.object(id) {
            PickleValue::Global(module, name) => Some((self.text(module)?, self.text(name)?)),
            _ => None,
        }
    }

    /// Returns a mapping's items by name, or `None` if the object is not a mapping. Items with keys of another type are ignored. As in
    /// Python, the last of equal names wins.
    pub(super) fn items(&self, id: Id) -> Option<BTreeMap<&'p str, Id>> {
        match self.object(id) {
            PickleValue::Mapping(items) => {
                Some(items.iter().filter_map(|(key, value)| Some((self.name(*key)?, *value))).collect())
            }
            _ => None,
        }
    }

    /// Returns a sequence of at most 16 sizes, or `None` if the object is not such a sequence.
    pub(super) fn sizes(&self, id: Id) -> Option<Vec<u64>> {
        let PickleValue::Sequence(items) = self.object(id) else { return None };
        let size = |item: &Id| match self.object(*item) {
            PickleValue::Int(size) => u64::try_from(*size).ok(),
            _ => None,
        };
        if items.len() > 16 { None } else { items.iter().map(size).collect() }
    }
}
