//! Samples of a run folder for people: the history of a sample, and pictures.
//!
//! This module owns the answer to the question why a sample is in a run folder, and how samples are shown. It only reads run folders; the
//! scans of pictures are read again, and refused if their voxels changed.

mod history;
mod picture;
mod replay;
mod sheet;

pub use history::{AttemptHistory, ConditionResult, SampleFileLocations, SampleHistory, TestHistory};
pub use picture::{BoxStatistics, SampleView, window_of};
pub use replay::{Replay, replay};
pub use sheet::{ContactSheet, draw_contact_sheet};
