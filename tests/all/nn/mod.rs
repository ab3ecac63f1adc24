//! Networks: operators, weights, windows.
