//! One integration binary, a room a subject.

mod bad_input;
mod common;
mod folder;
mod nifti;
