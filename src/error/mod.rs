//! Failures: an [`Error`] stops the run, a [`Fault`] fails one scan.
//!
//! This room owns both types and the closed lists by which callers and analysts decide: [`ErrorKind`], [`Stage`], [`FaultKind`]. A
//! problem of a setting, found before anything runs, is a [`ConfigError`]. [`catch_panic`] turns a panic on one scan into a fault.
//!
//! An error ends the command with exit code 2. A fault is a row of the table `faults`, and the run continues with the other scans. A
//! rejected tumor is neither; it is normal data. The message of a fault never holds a path, nor anything of a header that identifies a
//! person.

mod panic;

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use panic::{catch_panic, exit_on_uncaught_panics};

/// The class of an error, where callers decide by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorKind {
    /// No caller decides by it.
    #[default]
    Other,
    /// Another writer committed first: this one must stop.
    Fenced,
    /// Another process holds the lock.
    Locked,
    /// The run folder belongs to another pipeline.
    OtherPipeline,
    /// Committed files are missing or changed.
    Damaged,
}

/// What stops the run: where, what was expected, what came, and what to do about it.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A result whose failure stops the run.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error that says what was expected and what came.
    pub fn new(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Other, message: message.into(), hint: None, source: None }
    }

    /// An error of the file system: `action` is a verb phrase such as `"cannot create"`.
    pub fn io(action: &str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::new(format!("{action} {}: {source}", path.as_ref().display())).with_source(source)
    }

    /// Sets the class by which callers decide.
    ///
    /// ```
    /// use freetumor::error::{Error, ErrorKind};
    /// let error = Error::new("the run folder is being written").with_kind(ErrorKind::Locked);
    /// assert_eq!(error.kind(), ErrorKind::Locked);
    /// ```
    #[must_use]
    pub fn with_kind(self, kind: ErrorKind) -> Self {
        Self { kind, ..self }
    }

    /// The class by which callers decide.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Adds what the reader may do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the error underneath.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// What the reader may do about it, where something is known.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// The stretch of the way in which a scan was spoiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Opening, decoding and checking the scan.
    Read,
    /// Finding its organs.
    Mask,
    /// Placing tumors into it.
    Synthesize,
    /// Judging those tumors.
    Score,
    /// Writing accepted samples.
    Sink,
}

impl Stage {
    /// The name used in tables and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Mask => "mask",
            Self::Synthesize => "synthesize",
            Self::Score => "score",
            Self::Sink => "sink",
        }
    }
}

/// The class of a fault: a closed list, so that analysts can group by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The operating system refused.
    Io,
    /// A companion file, slice or tag that must be there is not.
    Missing,
    /// The data ends before what its header promises.
    Truncated,
    /// The bytes contradict their own format: wrong magic, checksum, lying header.
    Corrupt,
    /// A format or feature that is well formed but not supported.
    Unsupported,
    /// Shape, spacing or affine cannot be a CT scan, or slices do not form a volume.
    Geometry,
    /// Voxels that are not finite numbers.
    NonFinite,
    /// More memory than the budget allows.
    TooLarge,
    /// Mask and scan do not belong together, or a label is unknown.
    Mismatch,
    /// An external program failed: it could not be started, ended with an exit code, or passed a limit.
    Program,
    /// Our own code panicked on this scan.
    Panic,
    /// A network could not look at it: no finite numbers, or no memory.
    Network,
    /// The device of the networks is gone. It is no fault of the scan: the run stops.
    Device,
}

impl FaultKind {
    /// The name used in tables and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Missing => "missing",
            Self::Truncated => "truncated",
            Self::Corrupt => "corrupt",
            Self::Unsupported => "unsupported",
            Self::Geometry => "geometry",
            Self::NonFinite => "non_finite",
            Self::TooLarge => "too_large",
            Self::Mismatch => "mismatch",
            Self::Program => "program",
            Self::Panic => "panic",
            Self::Network => "network",
            Self::Device => "device",
        }
    }
}

/// What spoils one scan. Its message never holds a path or anything from a header that names a person.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fault {
    /// Where on the way it happened.
    pub stage: Stage,
    /// Its class.
    pub kind: FaultKind,
    /// The node of the graph at which it happened, where that is known.
    #[serde(default)]
    pub node: Option<String>,
    /// What was expected and what came.
    pub message: String,
}

impl Fault {
    /// A fault of the given stage and class.
    pub fn new(stage: Stage, kind: FaultKind, message: impl Into<String>) -> Self {
        Self { stage, kind, node: None, message: message.into() }
    }

    /// A fault while reading, the most common.
    pub fn read(kind: FaultKind, message: impl Into<String>) -> Self {
        Self::new(Stage::Read, kind, message)
    }

    /// A fault while masking.
    pub fn mask(kind: FaultKind, message: impl Into<String>) -> Self {
        Self::new(Stage::Mask, kind, message)
    }

    /// The same fault, reported for another stage (a label file is read during masking).
    #[must_use]
    pub fn at(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }

    /// The same fault, with the node of the graph at which it happened; the first one who says it is believed.
    ///
    /// ```
    /// use freetumor::error::{Fault, FaultKind};
    /// let fault = Fault::read(FaultKind::Truncated, "expected 9 bytes, got 8").of("archive").of("later");
    /// assert_eq!(fault.to_string(), "read `archive` (truncated): expected 9 bytes, got 8");
    /// ```
    #[must_use]
    pub fn of(mut self, node: &str) -> Self {
        self.node.get_or_insert_with(|| node.to_owned());
        self
    }

    /// The same fault, with what was being done.
    #[must_use]
    pub fn during(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.node.iter().map(|node| format!(" `{node}`")).collect::<String>();
        write!(f, "{}{node} ({}): {}", self.stage.name(), self.kind.name(), self.message)
    }
}

impl std::error::Error for Fault {}

/// One thing wrong with a stage's settings: found while checking a graph, before anything runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where in the stage's own table, dotted (`organs.liver.ids`); empty for the table as a whole.
    pub field: String,
    /// What was expected and what came.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl ConfigError {
    /// A complaint about one setting.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
