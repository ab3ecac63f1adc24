//! Tests of the sinks: layouts, shards, splits and tables.

mod encode;
pub mod fixture;
mod layouts;
mod shards;
mod splits;
mod tables;
