//! The sinks: what trainers find.

pub mod fixture;
