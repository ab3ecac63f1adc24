//! The guide: how to use `freetumor`, one page for each subject.
//!
//! This module owns the documentation that is not about a single item. Rust examples on its pages are compiled, graph files are checked,
//! and commands are run by the tests.

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("pipelines.md")]
pub mod pipelines {}

#[doc = include_str!("sources_and_masks.md")]
pub mod sources_and_masks {}

#[doc = include_str!("synthesis_and_quality.md")]
pub mod synthesis_and_quality {}

#[doc = include_str!("calibration.md")]
pub mod calibration {}

#[doc = include_str!("networks.md")]
pub mod networks {}

#[doc = include_str!("training.md")]
pub mod training {}

#[doc = include_str!("evaluation.md")]
pub mod evaluation {}

#[doc = include_str!("run_folder.md")]
pub mod run_folder {}

#[doc = include_str!("privacy.md")]
pub mod privacy {}

#[doc = include_str!("operating.md")]
pub mod operating {}

#[doc = include_str!("measured.md")]
pub mod measured {}

#[doc = include_str!("limits.md")]
pub mod limits {}

#[doc = include_str!("changelog.md")]
pub mod changelog {}
