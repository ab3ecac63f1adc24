//! The two purposes for which a file is read.

/// What a file is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Making tumors.
    Run,
    /// Training: there is a section `train`.
    Train,
}

impl Purpose {
    /// The sections that such a file may have.
    pub(super) fn sections(self) -> &'static [&'static str] {
        match self {
            Self::Run => &["pipeline", "sources", "stages", "sinks"],
            Self::Train => &["pipeline", "sources", "stages", "sinks", "train"],
        }
    }

    /// Whether a section holds settings of its own instead of nodes.
    pub(super) fn has_settings(self, section: &str) -> bool {
        section == "pipeline" || self == Self::Train && section == "train"
    }
}
