//! Training, and what decides whether it was worth it.

pub mod metrics;
pub mod turing;
pub mod world;
