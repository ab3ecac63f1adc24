//! dataflow
mod abort;
mod admit;
mod budget;
mod gather;
mod offload;
pub mod pool;

pub use abort::Abort;
pub use budget::{Budget, Lease};

/// The logical time of the dataflow: the number of a commit.
pub type Epoch = u64;
