//! One integration binary, a room a subject.

mod common;
mod nifti;
mod volume;
