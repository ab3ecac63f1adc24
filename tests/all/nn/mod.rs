//! Networks: operators, weights, windows.

mod networks;
mod ops;
mod weights;
mod windows;
