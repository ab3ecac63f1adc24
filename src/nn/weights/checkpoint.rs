//! The tensors of a weights file.

use std::collections::BTreeMap;

use candle_core::Tensor;

/// The tensors of a weights file and where in it they were.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Every tensor, under the file's own name for it.
    pub tensors: BTreeMap<String, Tensor>,
    /// The mappings that held them, such as `state_dict`; an empty string is the file's top.
    pub mappings: Vec<String>,
}
