//! Training: formulas beside the reference's, runs that are stopped and go on, bad input.

mod command;
mod kept;
mod losses;
mod weights;
