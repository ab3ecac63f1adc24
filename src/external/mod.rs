//! Stages that an external program computes: TotalSegmentator, nnU-Net, any script.
//!
//! This room owns the exchange with programs: their arguments, files and pipes, their limits of time and memory, and their end.
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
//! scratch folder or over a pipe; the placeholders of `argv` name the files.
//!
//! A program is taken for what it is, somebody else's:
//!
//! - It runs in a process group and a scratch folder of its own. Whatever it started is ended with it, whatever it left
//!   there is removed. Time, memory, scratch space and output are limited, and so are the calls at once.
//! - It sees voxels, labels and a JSON request, under names that are always the same; no path, id or header of a scan, and
//!   not the secret behind patient keys. The same attempt gives it the same bytes and the same seed.
//! - An exit code other than 0, a limit that it passed, an answer that is missing, of another shape, or makes no sense: each is a
//!   fault of that scan with the last lines of standard error, without paths. The run goes on.
//!
//! What it gives is part of the result: a program that answers differently each time makes a run that cannot be repeated.

mod config;
mod exchange;
mod gate;
mod group;
mod mask;
mod process;
mod program;
mod request;
mod score;
mod synthesis;
mod template;
mod words;

pub use config::Exchange;
pub use mask::{CommandMask, CommandMaskConfig, MaskAnswer};
pub use score::{CommandScore, CommandScoreConfig};
pub use synthesis::{CommandSynthesis, CommandSynthesisConfig, OutsideChanges, SynthesisAnswer, TumorShape};
