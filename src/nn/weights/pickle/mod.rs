//! A machine that reads pickles without running anything of them.
//!
//! A pickle is a program that builds objects. This machine knows the instructions of protocols 2 to 5, and of what
//! they may call only what makes mappings and tensors. Everything else that they build is a value without meaning:
//! nothing is imported, nothing is called. Objects lie in one list and name each other by number, so that cycles and
//! deep nesting cost nothing, and each instruction adds one object at most: memory stays within a few times the
//! pickle's own length.

mod machine;
mod object;

use std::collections::BTreeMap;

use self::machine::Unpickler;
pub(super) use self::object::{Id, PickleValue};
use self::object::{LONGEST_NAME, Span, text};
use crate::error::{Error, Result};

/// What a pickle built, and where it begins.
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
    /// Where it is cut off or malformed, or needs an instruction that no checkpoint has.
    pub(super) fn read(bytes: &'p [u8]) -> Result<Self> {
        // Spans and numbers of objects are 32 bits.
        if bytes.len() > i32::MAX as usize {
            return Err(Error::new(format!("a pickle of {} bytes, more than 2 GiB", bytes.len())));
        }
        let (objects, root) =
            Unpickler::run(bytes).map_err(|(at, what)| Error::new(format!("pickle, byte {at}: {what}")))?;
        Ok(Self { bytes, objects, root })
    }

    pub(super) fn object(&self, id: Id) -> &PickleValue {
        &self.objects[id as usize]
    }

    /// A text, unless it is too long for a name.
    pub(super) fn text(&self, span: &Span) -> Option<&'p str> {
        (span.len() <= LONGEST_NAME).then(|| text(self.bytes, span))
    }

    /// The text that an object is, unless it is too long for a name.
    pub(super) fn name(&self, id: Id) -> Option<&'p str> {
        match self.object(id) {
            PickleValue::Text(span) => self.text(span),
            _ => None,
        }
    }

    /// Module and name of a class or function.
    pub(super) fn global(&self, id: Id) -> Option<(&'p str, &'p str)> {
        match self.object(id) {
            PickleValue::Global(module, name) => Some((self.text(module)?, self.text(name)?)),
            _ => None,
        }
    }

    /// A mapping's items under names; what has another key is left out. As in Python, the last of equal names counts.
    pub(super) fn items(&self, id: Id) -> Option<BTreeMap<&'p str, Id>> {
        match self.object(id) {
            PickleValue::Mapping(items) => {
                Some(items.iter().filter_map(|(key, value)| Some((self.name(*key)?, *value))).collect())
            }
            _ => None,
        }
    }

    /// A sequence of sizes, of 16 at most.
    pub(super) fn sizes(&self, id: Id) -> Option<Vec<u64>> {
        let PickleValue::Sequence(items) = self.object(id) else { return None };
        let size = |item: &Id| match self.object(*item) {
            PickleValue::Int(size) => u64::try_from(*size).ok(),
            _ => None,
        };
        if items.len() > 16 { None } else { items.iter().map(size).collect() }
    }
}
