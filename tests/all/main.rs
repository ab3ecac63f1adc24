//! One integration binary, a room a subject.

mod common;
mod synth;
