//! Failures: an [`Error`] stops the run, a [`Fault`] fails one scan.
//!
//! This module owns both types and the closed lists that callers and analysts use: [`ErrorKind`], [`Stage`], [`FaultKind`]. An error of a
//! setting, found before anything runs, is a [`ConfigError`]. [`catch_panic`] converts a panic on one scan to a fault.
//!
//! An error ends the command with exit code 2. A fault is a row of the table `faults`, and the run continues with the other scans. A
//! rejected tumor is neither; a rejection is normal data. The message of a fault never contains a path or a header value that identifies
//! a person.

mod file_type;
mod killed;
mod panic;

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use file_type::file_type_name;
pub use killed::is_killed;
pub use panic::{catch_panic, exit_on_uncaught_panics};

/// The kind of an error, for callers that handle some kinds differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorKind {
    /// No special handling.
    #[default]
    Other,
    /// Another writer committed first: this writer must stop.
    Fenced,
    /// Another process holds the lock.
    Locked,
    /// The run folder belongs to another pipeline.
    OtherPipeline,
    /// Committed files are missing or changed.
    Damaged,
    /// The run was stopped on request; committed epochs stay.
    Stopped,
    /// A state of a run folder was removed: open the folder again.
    Purged,
    /// A request was invalid; nothing was changed.
    Refused,
}

/// An error that stops the run: location, expected and actual value, and a hint.
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
    /// Creates an error from a message of the form "expected …, got …".
    pub fn new(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Other, message: message.into(), hint: None, source: None }
    }

    /// Creates an error of the file system: `action` is a verb phrase such as `"cannot create"`.
    pub fn io(action: &str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::new(format!("{action} {}: {source}", path.as_ref().display())).with_source(source)
    }

    /// Sets the kind of the error.
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

    /// Returns the kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Adds a hint for the user: the next step, such as `create the folder first`, or the valid values.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the underlying error.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Returns the hint, or `None` if the error has none.
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

/// The stage of the pipeline in which a scan failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Opening, decoding and checking the scan.
    Read,
    /// Finding the organs of the scan.
    Mask,
    /// Making tumors in the scan.
    Synthesize,
    /// Scoring the tumors.
    Score,
    /// Writing accepted samples.
    Sink,
}

impl Stage {
    /// Returns the name used in tables and logs.
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

/// The kind of a fault: a closed list, by which analysts can group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The operating system reported an error, which may be temporary.
    Io,
    /// A required companion file, slice or tag is missing.
    Missing,
    /// The data ends before the length in its header.
    Truncated,
    /// The bytes violate their own format: wrong magic, checksum or header.
    Corrupt,
    /// A valid format or feature that is not supported.
    Unsupported,
    /// Shape, spacing or affine cannot be a CT scan, or slices do not form a volume.
    Geometry,
    /// Voxels that are not finite numbers.
    NonFinite,
    /// The scan needs more memory than the budget allows.
    TooLarge,
    /// Mask and scan do not match, or a label is unknown.
    Mismatch,
    /// An external program failed: the program could not be started, ended with an exit code, or exceeded a limit.
    Program,
    /// The code of this crate panicked on this scan.
    Panic,
    /// A network failed on this scan: no finite numbers, or no memory.
    Network,
    /// The device of the networks is lost. The run stops, because the scan has no fault.
    Device,
    /// The files of the scan changed while it was processed.
    Changed,
    /// The machine ended a process of the scan or could not start one.
    Interrupted,
    /// The scan has the content of a held-out scan, which must never be in a training set.
    HeldOut,
}

impl FaultKind {
    /// Returns the name used in tables and logs.
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
            Self::Changed => "changed",
            Self::Interrupted => "interrupted",
            Self::HeldOut => "held_out",
        }
    }

    /// Returns whether the cause is the machine or a change of the files, and not the scan: processing the scan again may succeed.
    ///
    /// ```
    /// use freetumor::error::FaultKind;
    /// assert!(FaultKind::Io.is_transient() && !FaultKind::Corrupt.is_transient());
    /// ```
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Io | Self::Changed | Self::Interrupted)
    }
}

/// A failure of one scan. The message never contains a path or a header value that identifies a person.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fault {
    /// The stage of the pipeline.
    pub stage: Stage,
    /// The kind of the fault.
    pub kind: FaultKind,
    /// The node of the graph, if known.
    #[serde(default)]
    pub node: Option<String>,
    /// The message, of the form "expected …, got …".
    pub message: String,
}

impl Fault {
    /// Creates a fault of this stage and kind.
    pub fn new(stage: Stage, kind: FaultKind, message: impl Into<String>) -> Self {
        Self { stage, kind, node: None, message: message.into() }
    }

    /// Creates a fault of reading.
    pub fn read(kind: FaultKind, message: impl Into<String>) -> Self {
        Self::new(Stage::Read, kind, message)
    }

    /// Creates a fault of masking.
    pub fn mask(kind: FaultKind, message: impl Into<String>) -> Self {
        Self::new(Stage::Mask, kind, message)
    }

    /// Sets another stage, for example for a label file that is read during masking.
    #[must_use]
    pub fn at(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }

    /// Sets the node of the graph, unless it is already set.
    ///
    /// ```
    /// use freetumor::error::{Fault, FaultKind};
    /// let fault = Fault::read(FaultKind::Truncated, "expected 9 bytes, got 8").at_node("archive").at_node("later");
    /// assert_eq!(fault.to_string(), "read `archive` (truncated): expected 9 bytes, got 8");
    /// ```
    #[must_use]
    pub fn at_node(mut self, node: &str) -> Self {
        self.node.get_or_insert_with(|| node.to_owned());
        self
    }

    /// Prefixes the message with an activity.
    #[must_use]
    pub fn during(mut self, activity: &str) -> Self {
        self.message = format!("{activity}: {}", self.message);
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

/// An error in the settings of a stage, found before anything runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The dotted path in the stage's table (`organs.liver.ids`); empty for the table as a whole.
    pub field: String,
    /// The message, of the form "expected …, got …".
    pub message: String,
    /// A suggested fix.
    pub hint: Option<String>,
}

impl ConfigError {
    /// Creates an error of one setting.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), hint: None }
    }

    /// Adds a hint for the user: the next step, such as `create the folder first`, or the valid values.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
