//! The purposes of a graph file.

/// The purpose of a graph file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A run that makes tumors.
    Run,
    /// The calibration of quality tests, whose references need not exist.
    Calibrate,
    /// A training run, with a section `train`.
    Train,
}

impl Purpose {
    /// Returns the sections that a file for this purpose may have.
    pub(super) fn sections(self) -> &'static [&'static str] {
        match self {
            Self::Run | Self::Calibrate => &["pipeline", "sources", "stages", "sinks", "expectations"],
            Self::Train => &["pipeline", "sources", "stages", "sinks", "train"],
        }
    }

    /// Returns whether a file for this purpose may have expectations on the tables of its run.
    pub(super) fn has_expectations(self) -> bool {
        self != Self::Train
    }

    /// Returns whether a section contains settings instead of nodes.
    pub(super) fn has_settings(self, section: &str) -> bool {
        section == "pipeline" || self == Self::Train && section == "train"
    }
}
