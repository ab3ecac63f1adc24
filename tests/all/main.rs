//! One integration binary, a room a subject.

mod common;
mod volume;
