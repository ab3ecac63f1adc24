//! The values that a pickle builds.

use std::ops::Range;

use crate::nn::weights::element::ElementType;

/// The index of an object.
pub(in crate::nn::weights) type Id = u32;
/// The range of a string in the pickle.
pub(super) type Span = Range<u32>;
/// The maximum length of a name in bytes: comparing longer strings many times, as in a hostile file, could take hours.
pub(super) const MAX_NAME_LEN: usize = 1024;

/// A value that a pickle built.
#[derive(Clone, Debug)]
pub(in crate::nn::weights) enum PickleValue {
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
    /// The result of an unsupported call, with the id of its callable.
    Unsupported(Id),
}

/// The storage of tensors: consecutive numbers in an entry of the archive.
#[derive(Clone, Debug)]
pub(in crate::nn::weights) struct Storage {
    /// The element type; `None` if the storage class is unknown.
    pub(in crate::nn::weights) element: Option<ElementType>,
    /// The name of the archive's entry.
    pub(in crate::nn::weights) key: Span,
    /// The numbers in the storage.
    pub(in crate::nn::weights) count: u64,
}

/// A view of a storage; shape and strides are sequences of integers.
#[derive(Clone, Copy, Debug)]
pub(in crate::nn::weights) struct StoredTensor {
    pub(in crate::nn::weights) storage: Id,
    pub(in crate::nn::weights) offset: u64,
    pub(in crate::nn::weights) shape: Id,
    pub(in crate::nn::weights) strides: Id,
    /// The element type, if it differs from the storage's.
    pub(in crate::nn::weights) dtype: Option<Id>,
}

/// Returns the string at a span of the pickle.
pub(super) fn text<'p>(bytes: &'p [u8], span: &Span) -> &'p str {
    // The interpreter checks that every span is valid UTF-8.
    std::str::from_utf8(&bytes[span.start as usize..span.end as usize]).unwrap_or_default()
}
