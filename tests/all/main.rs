//! One integration binary, a room a subject.

mod common;
mod run_folder;
mod sinks;
mod synth;
