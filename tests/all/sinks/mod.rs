//! The sinks: what trainers and analysts find.

mod encode;
pub mod fixture;
mod layouts;
mod shards;
mod splits;
mod tables;
