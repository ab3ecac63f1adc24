//! dataflow
mod abort;
mod admit;
mod budget;
mod gather;
mod offload;
pub mod pool;
mod quality;

pub use abort::Abort;
pub use quality::{QualityChange, QualityGroup};
pub use budget::{Budget, Lease};

/// The logical time of the dataflow: the number of a commit.
pub type Epoch = u64;
