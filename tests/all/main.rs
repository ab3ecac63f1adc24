//! One integration binary, a room a subject.

mod common;
mod nifti;
mod run_folder;
mod sinks;
