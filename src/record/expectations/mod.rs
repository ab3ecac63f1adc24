//! Expectations on the tables of a run: named bounds on numbers of rows, shares and columns.
//!
//! An [`ExpectationConfig`] is a table `[[expectations]]` of a graph file. An [`ExpectationCheck`] validates it against the columns of its
//! table, and measures the rows one by one, so that a table needs not be in memory.

mod check;
mod config;

pub use check::{ExpectationCheck, ExpectationResult, check_config};
pub use config::{Bound, Bounds, Conditions, ExpectationConfig, ExpectationTable, ShareConfig};
