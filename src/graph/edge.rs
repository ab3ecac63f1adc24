//! The types of edges, and the roles of stages between them.

use serde::Serialize;

/// What travels along an edge of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Edge {
    /// A decoded scan.
    Scan,
    /// A scan with its organs.
    Masked,
    /// A synthetic tumor that nobody has judged.
    Candidate,
    /// A candidate with scores.
    Scored,
    /// A candidate that passed the quality test.
    Sample,
    /// A candidate that did not.
    Rejection,
}

impl Edge {
    /// The name used in messages and drawings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scan => "Scan",
            Self::Masked => "Masked",
            Self::Candidate => "Candidate",
            Self::Scored => "Scored",
            Self::Sample => "Sample",
            Self::Rejection => "Rejection",
        }
    }
}

impl std::fmt::Display for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Which of a node's outputs an input takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Port {
    /// The output that a bare name stands for.
    Main,
    /// `NAME.rejected`: what a quality test turned down.
    Rejected,
}

/// What a node does: defined by what it takes and gives. A kind may have several roles; the inputs decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Lists and reads scans.
    Source,
    /// Finds organs.
    Mask,
    /// Makes tumors.
    Synthesis,
    /// Judges tumors.
    Score,
    /// Accepts or rejects them.
    Filter,
    /// Writes accepted ones.
    Sink,
}

impl Role {
    /// All roles, in the order of the way.
    pub const ALL: [Self; 6] = [Self::Source, Self::Mask, Self::Synthesis, Self::Score, Self::Filter, Self::Sink];

    /// A noun for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Mask => "mask",
            Self::Synthesis => "synthesis",
            Self::Score => "score",
            Self::Filter => "filter",
            Self::Sink => "sink",
        }
    }

    /// What it takes; every one of them may come in, from any number of inputs.
    pub fn takes(self) -> &'static [Edge] {
        match self {
            Self::Source => &[],
            Self::Mask => &[Edge::Scan],
            Self::Synthesis => &[Edge::Masked],
            Self::Score => &[Edge::Candidate, Edge::Scored],
            Self::Filter => &[Edge::Scored],
            Self::Sink => &[Edge::Sample, Edge::Rejection],
        }
    }

    /// What it gives at a port; `None` where it has no such output.
    pub fn gives(self, port: Port) -> Option<Edge> {
        match (self, port) {
            (Self::Source, Port::Main) => Some(Edge::Scan),
            (Self::Mask, Port::Main) => Some(Edge::Masked),
            (Self::Synthesis, Port::Main) => Some(Edge::Candidate),
            (Self::Score, Port::Main) => Some(Edge::Scored),
            (Self::Filter, Port::Main) => Some(Edge::Sample),
            (Self::Filter, Port::Rejected) => Some(Edge::Rejection),
            _ => None,
        }
    }

    /// The section of the graph file in which nodes of this role stand.
    pub fn section(self) -> &'static str {
        match self {
            Self::Source => "sources",
            Self::Sink => "sinks",
            _ => "stages",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edge_has_a_giver_and_a_taker() {
        for edge in [Edge::Scan, Edge::Masked, Edge::Candidate, Edge::Scored, Edge::Sample, Edge::Rejection] {
            let given = |role: &Role| [Port::Main, Port::Rejected].iter().any(|&port| role.gives(port) == Some(edge));
            assert!(Role::ALL.iter().any(given), "{edge} is given");
            assert!(Role::ALL.iter().any(|role| role.takes().contains(&edge)), "{edge} is taken");
        }
    }
}
