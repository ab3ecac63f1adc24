//! The run folder: what was done, for those who write it and those who read it.

pub mod epoch;
pub mod run;
