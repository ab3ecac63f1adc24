//! Training: losses and schedules compared with the reference, resumed runs, invalid input.

mod command;
mod included_networks;
mod losses;
mod weights;
