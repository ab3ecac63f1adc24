//! The objects that a pickle builds.

use std::ops::Range;

use crate::nn::weights::element::ElementType;

/// The number of an object.
pub(in crate::nn::weights) type Id = u32;
/// The place of a string in the pickle.
pub(super) type Span = Range<u32>;
/// Longer strings name nothing: comparing them again and again could cost a hostile file's reader hours.
pub(super) const LONGEST_NAME: usize = 1024;

/// What a pickle built.
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
    /// What a callable that is not known here would have made.
    Made(Id),
}

/// A run of numbers in an entry of the archive.
#[derive(Clone, Debug)]
pub(in crate::nn::weights) struct Storage {
    /// `None` where its class is not known.
    pub(in crate::nn::weights) element: Option<ElementType>,
    /// The name of the entry.
    pub(in crate::nn::weights) key: Span,
    /// Numbers in it.
    pub(in crate::nn::weights) count: u64,
}

/// A view of a storage; shape and strides are sequences of integers.
#[derive(Clone, Copy, Debug)]
pub(in crate::nn::weights) struct StoredTensor {
    pub(in crate::nn::weights) storage: Id,
    pub(in crate::nn::weights) offset: u64,
    pub(in crate::nn::weights) shape: Id,
    pub(in crate::nn::weights) strides: Id,
    /// Where the element is not the storage's own.
    pub(in crate::nn::weights) dtype: Option<Id>,
}

/// The string at a place in the pickle.
pub(super) fn text<'p>(bytes: &'p [u8], span: &Span) -> &'p str {
    // Spans are made of checked text only.
    std::str::from_utf8(&bytes[span.start as usize..span.end as usize]).unwrap_or_default()
}
