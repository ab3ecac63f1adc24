//! A machine that reads pickles without running anything of them.
//!
//! A pickle is a program that builds objects. This machine knows the instructions of protocols 2 to 5, and of what
//! they may call only what makes mappings and tensors. Everything else that they build is a value without meaning:
//! nothing is imported, nothing is called. Objects lie in one list and name each other by number, so that cycles and
//! deep nesting cost nothing, and each instruction adds one object at most: memory stays within a few times the
//! pickle's own length.

mod machine;

use std::collections::BTreeMap;
use std::ops::Range;

use self::machine::Machine;
use super::element::Element;
use crate::error::{Error, Result};

/// The number of an object.
pub(super) type Id = u32;
/// Where a text lies in the pickle.
type Span = Range<u32>;
/// Longer texts name nothing: comparing them again and again could cost a hostile file's reader hours.
const LONGEST_NAME: usize = 1024;

/// What a pickle built.
#[derive(Clone, Debug)]
pub(super) enum Object {
    /// A value that no tensor needs: a float, bytes, `None`.
    Plain,
    Int(i64),
    Text(Span),
    /// A class or function, by module and name.
    Global(Span, Span),
    /// A tuple or list.
    Sequence(Vec<Id>),
    /// A dict, in the order in which it was filled.
    Mapping(Vec<(Id, Id)>),
    Storage(Storage),
    Tensor(StoredTensor),
    /// What a callable that is not known here would have made.
    Made(Id),
}

/// A run of numbers in an entry of the archive.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    /// `None` where its class is not known.
    pub(super) element: Option<Element>,
    /// The name of the entry.
    pub(super) key: Span,
    /// Numbers in it.
    pub(super) count: u64,
}

/// A view of a storage; shape and strides are sequences of integers.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredTensor {
    pub(super) storage: Id,
    pub(super) offset: u64,
    pub(super) shape: Id,
    pub(super) strides: Id,
    /// Where the element is not the storage's own.
    pub(super) dtype: Option<Id>,
}

/// What a pickle built, and where it begins.
#[derive(Debug)]
pub(super) struct Pickle<'p> {
    bytes: &'p [u8],
    objects: Vec<Object>,
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
            Machine::run(bytes).map_err(|(at, what)| Error::new(format!("pickle, byte {at}: {what}")))?;
        Ok(Self { bytes, objects, root })
    }

    pub(super) fn object(&self, id: Id) -> &Object {
        &self.objects[id as usize]
    }

    /// A text, unless it is too long for a name.
    pub(super) fn text(&self, span: &Span) -> Option<&'p str> {
        (span.len() <= LONGEST_NAME).then(|| text(self.bytes, span))
    }

    /// The text that an object is, unless it is too long for a name.
    pub(super) fn name(&self, id: Id) -> Option<&'p str> {
        match self.object(id) {
            Object::Text(span) => self.text(span),
            _ => None,
        }
    }

    /// Module and name of a class or function.
    pub(super) fn global(&self, id: Id) -> Option<(&'p str, &'p str)> {
        match self.object(id) {
            Object::Global(module, name) => Some((self.text(module)?, self.text(name)?)),
            _ => None,
        }
    }

    /// A mapping's items under names; what has another key is left out. As in Python, the last of equal names counts.
    pub(super) fn items(&self, id: Id) -> Option<BTreeMap<&'p str, Id>> {
        match self.object(id) {
            Object::Mapping(items) => {
                Some(items.iter().filter_map(|(key, value)| Some((self.name(*key)?, *value))).collect())
            }
            _ => None,
        }
    }

    /// A sequence of sizes, of 16 at most.
    pub(super) fn sizes(&self, id: Id) -> Option<Vec<u64>> {
        let Object::Sequence(items) = self.object(id) else { return None };
        let size = |item: &Id| match self.object(*item) {
            Object::Int(size) => u64::try_from(*size).ok(),
            _ => None,
        };
        if items.len() > 16 { None } else { items.iter().map(size).collect() }
    }
}

fn text<'p>(bytes: &'p [u8], span: &Span) -> &'p str {
    // Spans are made of checked text only.
    std::str::from_utf8(&bytes[span.start as usize..span.end as usize]).unwrap_or_default()
}
