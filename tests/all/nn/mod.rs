//! Networks: operators, weights, windows.

mod decisions;
mod networks;
mod ops;
mod optimize;
mod weights;
mod windows;
