//! Networks: operators, weights, windows.

mod decisions;
mod networks;
mod ops;
mod optimise;
mod weights;
mod windows;
