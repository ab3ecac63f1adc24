//! The tensors of a weights file.

use std::collections::BTreeMap;

use candle_core::Tensor;

/// The tensors of a weights file, and the mappings of the file that held them.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Every tensor, by its name in the file.
    pub tensors: BTreeMap<String, Tensor>,
    /// The paths of the mappings that held the tensors, such as `state_dict`; empty for the top level of the file.
    pub mappings: Vec<String>,
}
