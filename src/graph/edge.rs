//! The types of edges, and the roles of stages between them.

use serde::Serialize;

/// The type of the items that an edge of the graph carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Edge {
    /// A decoded scan.
    Scan,
    /// A scan with its organs.
    Masked,
    /// A synthetic tumor without scores.
    Candidate,
    /// A candidate with scores.
    Scored,
    /// A candidate that passed the quality test.
    Sample,
    /// A candidate that failed the quality test.
    Rejection,
}

impl Edge {
    /// Returns the name used in messages and drawings.
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

impl Edge {
    /// Returns a noun in plural for the items of the edge.
    pub fn description(self) -> &'static str {
        match self {
            Self::Scan => "scans",
            Self::Masked => "scans with organs",
            Self::Candidate => "tumors without scores",
            Self::Scored => "tumors with scores",
            Self::Sample => "accepted tumors",
            Self::Rejection => "rejected tumors",
        }
    }

    /// Returns the role of the nodes that produce this edge.
    pub fn producer(self) -> Role {
        match self {
            Self::Scan => Role::Source,
            Self::Masked => Role::Mask,
            Self::Candidate => Role::Synthesis,
            Self::Scored => Role::Score,
            Self::Sample | Self::Rejection => Role::Filter,
        }
    }
}

impl std::fmt::Display for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The output of a node that an input reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Port {
    /// The output that a name without suffix refers to.
    Main,
    /// `NAME.rejected`: candidates that a quality test rejected.
    Rejected,
}

/// The role of a node, defined by the edges it takes and produces. A kind may have several roles; the inputs decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Lists and reads scans.
    Source,
    /// Finds organs.
    Mask,
    /// Makes tumors.
    Synthesis,
    /// Scores tumors.
    Score,
    /// Accepts or rejects scored tumors.
    Filter,
    /// Writes accepted tumors.
    Sink,
}

impl Role {
    /// All roles, from source to sink.
    pub const ALL: [Self; 6] = [Self::Source, Self::Mask, Self::Synthesis, Self::Score, Self::Filter, Self::Sink];

    /// Returns a noun for messages.
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

    /// Returns the edges that a node of this role takes, each from any number of inputs.
    pub fn input_edges(self) -> &'static [Edge] {
        match self {
            Self::Source => &[],
            Self::Mask => &[Edge::Scan],
            Self::Synthesis => &[Edge::Masked],
            Self::Score => &[Edge::Candidate, Edge::Scored],
            Self::Filter => &[Edge::Scored],
            Self::Sink => &[Edge::Sample, Edge::Rejection],
        }
    }

    /// Returns the edge that a node of this role produces at a port; `None` if the role has no such output.
    pub fn output_edge(self, port: Port) -> Option<Edge> {
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

    /// Returns the section of the graph file for nodes of this role.
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
    fn every_edge_is_produced_and_consumed() {
        for edge in [Edge::Scan, Edge::Masked, Edge::Candidate, Edge::Scored, Edge::Sample, Edge::Rejection] {
            let produces =
                |role: &Role| [Port::Main, Port::Rejected].iter().any(|&port| role.output_edge(port) == Some(edge));
            assert!(Role::ALL.iter().any(produces) && produces(&edge.producer()), "{edge} is produced");
            assert!(Role::ALL.iter().any(|role| role.input_edges().contains(&edge)), "{edge} is consumed");
        }
    }
}
