//! Stages that run an external program: TotalSegmentator, nnU-Net, any script.
//!
//! This module owns the exchange with programs: arguments, files and pipes, limits of time and memory, and termination.
//!
//! ```toml
//! [stages.organs]
//! kind = "command"
//! inputs = ["archive"]
//! argv = ["TotalSegmentator", "-i", "{image}", "-o", "{output}", "--ml"]
//! organs = ["liver", "kidney"]
//! time_limit_s = 1800
//! ```
//!
//! The inputs decide the role: on scans it is a mask ([`CommandMask`]), on masked scans a synthesis
//! ([`CommandSynthesis`]), on candidates a score ([`CommandScore`]). Voxels go to the program as NIfTI, through files in a
//! scratch folder or through a pipe; the placeholders of `argv` name the files.
//!
//! Programs are not trusted:
//!
//! - A program runs in its own process group and scratch folder. Its child processes are ended with it, and the folder is removed. Time,
//!   memory, scratch space, output and the number of parallel calls are limited.
//! - A program reads voxels, labels and a JSON request, under fixed names; no path, id or header of a scan, and not the secret for
//!   patient keys. The same attempt passes the same bytes and the same seed.
//! - An exit code other than 0, an exceeded limit, and missing or invalid output or an image of another shape fail that scan, with the last
//!   lines of standard error, without paths. The run continues.
//!
//! The output of a program is part of the result: with a program that is not deterministic, a run cannot be reproduced.

mod config;
mod excerpt;
mod exchange;
mod group;
mod mask;
mod process;
mod program;
mod request;
mod score;
mod semaphore;
mod synthesis;
mod template;

pub use config::Exchange;
pub use mask::{CommandMask, CommandMaskConfig, MaskOutput};
pub use score::{CommandScore, CommandScoreConfig};
pub use synthesis::{CommandSynthesis, CommandSynthesisConfig, OutsideChanges, SynthesisOutput, TumorShape};
