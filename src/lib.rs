//! Synthesizes tumors in unlabeled CT archives and writes them as training sets.
//!
//! `freetumor` reads CT scans with organ masks, synthesizes tumors in them, scores every tumor, and keeps those that pass a quality
//! test. The outputs are patches, images and labels for trainers, and tables with a row for every attempt. The crate implements and
//! extends FreeTumor (Wu et al., arXiv 2406.01264).
//!
//! # Data flow
//!
//! ```text
//!  archive ──▶ scan ──▶ organ mask ──▶ candidate tumor ──▶ scores ──▶ verdict ──▶ sample + row ──▶ commit
//!  [ingest]   [volume]    [mask]          [synth]         [score]    [filter]   [record, sink]     [run]
//!                                            ▲                           │
//!                                            └── rejected: next attempt ─┘
//!                                                      [attempt]
//! ```
//!
//! Each stage is a function or a small struct that also works in a plain loop. A graph file names the stages and their inputs
//! ([`graph`]); [`dataflow`] runs them on timely workers and a pool of threads, within a budget of bytes, and commits the results epoch
//! by epoch: exactly once, with the same bytes for any number of workers. Masks, synthesis and scores can also be external programs
//! ([`external`]).
//!
//! # Terms
//!
//! A *scan* is a volume of Hounsfield units on a *grid* (a shape, and an affine map to millimetres). A *candidate* is a box of a scan
//! with a synthetic tumor in it. *Scores* are numbers that describe a candidate, the *quality test* is a list of conditions on
//! them, and its result is the *verdict*. An accepted candidate becomes a *sample*: a scan plus a *patch*, the voxels that changed.
//! Several candidates with disjoint changes may form one sample ([`compose`]). An *epoch* is the content of one commit.
//!
//! The networks of the paper are in [`nn`], which is independent of CT: operators on candle with custom kernels, a 3-D U-Net, Swin UNETR,
//! their weights and sliding windows. [`inference`] applies the networks to scans: the choice of windows, grid and device.
//!
//! [`train`] trains them: a segmentor, a generator with its discriminator, and the final segmentor on real and synthetic tumors.
//! [`evaluate`] measures the result: the quality of segmentations, their differences, and whether synthetic tumors can be separated from
//! real ones.
//!
//! Three outcomes are distinct: an [`error::Error`] stops the run, a [`error::Fault`] fails one scan, and a rejection is normal data.
//!
//! # One tumor, without a dataflow
//!
//! ```
//! use std::sync::Arc;
//!
//! use freetumor::attempt::AttemptLoop;
//! use freetumor::filter::{QualityTest, QualityTestConfig};
//! use freetumor::ingest::Source;
//! use freetumor::ingest::phantom::{PhantomConfig, PhantomSource};
//! use freetumor::mask::{LabelsMask, Mask, MaskedScan};
//! use freetumor::random::Key;
//! use freetumor::score::{Intensity, IntensityConfig, ScoreStage};
//! use freetumor::synth::{Rules, RulesConfig};
//! use freetumor::volume::HuWindow;
//!
//! // A scan and its organs.
//! let phantoms = PhantomConfig { count: 1, shape: [96, 96, 64], spacing_mm: [4.0, 4.0, 4.0], ..PhantomConfig::default() };
//! let phantoms = PhantomSource::new(phantoms, "phantoms").map_err(|errors| errors[0].message.clone())?;
//! let scan = Arc::new(phantoms.read(&phantoms.list()?[0])?);
//! let organs = toml::from_str("organs = [\"liver\"]")?;
//! let mask = LabelsMask::new(organs).map_err(|errors| errors[0].message.clone())?.mask(&scan)?;
//! let masked = MaskedScan { scan, mask };
//! let liver = masked.mask.organs[0].clone();
//!
//! // The synthesis stage, a score stage and the quality test.
//! let rules = RulesConfig { diameter_mm: [15.0, 40.0], ..RulesConfig::default() };
//! let rules = Rules::new(rules, &masked.mask.organs, HuWindow::ABDOMEN).map_err(|errors| errors[0].message.clone())?;
//! let intensity = Intensity::new(IntensityConfig::default(), &masked.mask.organs).map_err(|_| "bad settings")?;
//! let intensity: Arc<dyn ScoreStage> = Arc::new(intensity);
//! let accept = vec!["delta_hu < -10 HU".to_owned(), "invisible_fraction < 0.5".to_owned()];
//! let test = QualityTest::new(QualityTestConfig { accept, ..QualityTestConfig::default() }).map_err(|_| "bad settings")?;
//!
//! // The loop of attempts, which the dataflow and training runs use too.
//! let tumors = AttemptLoop::new(Arc::new(rules), vec![intensity], test);
//! let accepted = tumors.first_accepted(&masked, &liver, Key::root(2024))?.ok_or("no attempt passed")?;
//!
//! // A darker tumor in the liver, and nothing else changed.
//! let voxels = accepted.region.voxels();
//! let changed = (0..voxels).filter(|&i| accepted.after.as_slice()[i] != accepted.before.as_slice()[i]).count();
//! assert!(changed > 0 && accepted.geometry.diameter_mm > 10.0);
//! assert!(accepted.labels.as_slice().contains(&liver.tumor_label));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![warn(missing_docs, clippy::undocumented_unsafe_blocks)]

pub mod attempt;
pub mod calibrate;
mod chart;
pub mod cli;
pub mod compose;
pub mod dataflow;
pub mod error;
pub mod evaluate;
pub mod export;
pub mod external;
pub mod filter;
pub mod graph;
pub mod guide;
pub mod id;
pub mod inference;
pub mod ingest;
pub mod init;
pub mod mask;
pub mod nn;
pub mod random;
pub mod record;
pub mod review;
pub mod run;
pub mod score;
pub mod simd;
pub mod sink;
pub mod statistics;
pub mod store;
pub mod suggest;
pub mod synth;
pub mod time_span;
pub mod train;
pub mod volume;
