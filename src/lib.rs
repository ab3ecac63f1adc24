//! From unlabeled CT archives to training sets of synthetic tumors.
//!
//! `freetumor` takes CT scans with organ masks, places synthetic tumors in them, judges every tumor, and keeps those that pass: as
//! images and labels for trainers, and as tables with a row for every attempt. It implements and goes beyond FreeTumor
//! (Wu et al., arXiv 2406.01264).
//!
//! # The way of the data
//!
//! ```text
//!  archive ──▶ scan ──▶ organ mask ──▶ candidate tumor ──▶ scores ──▶ verdict ──▶ sample + row ──▶ commit
//!  [ingest]   [volume]    [mask]          [synth]         [score]    [filter]      [sink]      [dataflow]
//!                                            ▲                           │
//!                                            └──── rejected: try again ──┘
//! ```
//!
//! Each stage is a plain function or a small struct that works in a loop. A graph file names the stages and how they are joined
//! ([`graph`]); [`dataflow`] runs them on timely workers and a pool of threads, within a budget of bytes, and commits
//! what comes out epoch by epoch: exactly once, with the same bytes whatever the number of workers. Masks, synthesis and scores can be
//! left to an external program, too ([`external`]).
//!
//! # Words
//!
//! A *scan* is a volume of Hounsfield units on a *grid* (a shape, and an affine map to millimetres). A *candidate* is a scan's box with a
//! synthetic tumor in it. *Scores* are numbers that describe a candidate, the *quality test* is a list of conditions on
//! them, and its answer is the *verdict*. An accepted candidate becomes a *sample*. An *epoch* is what one commit holds.
//!
//! The networks of the paper live in [`nn`], which knows nothing of CT: operators on candle with kernels of our own, a 3-D U-Net,
//! Swin UNETR, their weights and sliding windows. [`inference`] is how they look at scans: which windows, on which grid, by which device.
//!
//! [`train`] trains them: a segmentor, a generator with its discriminator, and the final segmentor on real and synthetic tumors.
//! [`evaluate`] measures the result: how good a segmentation is, whether one is better than another, and whether synthetic tumors can be
//! separated from real ones.
//!
//! Three outcomes are never mixed: an [`error::Error`] stops the run, a [`error::Fault`] spoils one scan, and a rejection is normal data.
//!
//! # One tumor, without a dataflow
//!
//! ```
//! use freetumor::filter::{QualityTest, QualityTestConfig, Verdict};
//! use freetumor::score::{Score, Scores};
//!
//! let accept = vec!["delta_hu < -10".to_owned()];
//! let test = QualityTest::new(QualityTestConfig { accept, ..QualityTestConfig::default() }).unwrap();
//! let mut scores = Scores::default();
//! scores.set(Score::DeltaHu, -42.0);
//! assert_eq!(test.verdict(&scores), Verdict::Accepted);
//! ```
#![warn(missing_docs, clippy::undocumented_unsafe_blocks)]

pub mod attempt;
pub mod cli;
pub mod dataflow;
pub mod error;
pub mod evaluate;
pub mod external;
pub mod filter;
pub mod graph;
pub mod id;
pub mod inference;
pub mod ingest;
pub mod mask;
pub mod nn;
pub mod random;
pub mod record;
pub mod run;
pub mod score;
pub mod sink;
pub mod store;
pub mod suggest;
pub mod synth;
pub mod train;
pub mod volume;
