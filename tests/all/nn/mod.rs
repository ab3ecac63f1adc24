//! Networks: operators, weights, windows.

mod networks;
