//! Networks: operators, weights, windows.

mod networks;
mod ops;
mod optimise;
mod weights;
mod windows;
mod zz;
