//! Networks: operators, weights, windows.

mod ops;
