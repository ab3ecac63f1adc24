//! freetumor
#![warn(missing_docs)]

pub mod cli;
pub mod dataflow;
pub mod error;
pub mod filter;
pub mod graph;
pub mod ingest;
pub mod mask;
pub mod random;
pub mod score;
pub mod sink;
pub mod synth;
pub mod tables;
pub mod volume;
