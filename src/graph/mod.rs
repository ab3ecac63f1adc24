//! The graph file: what a pipeline consists of, checked before anything runs.
//!
//! The way of a graph is text → [`Spec`] → [`check`] → [`Plan`]. [`Spec`] keeps the place of every key and value;
//! [`check`] finds every problem at once and points at each; a [`Plan`] holds the built stages, ready for a dataflow or
//! for a plain loop. [`Registry`] knows the kinds of stages, your own included.
//!
//! ```text
//! source ──Scan──▶ mask ──Masked──▶ synthesis ──Candidate──▶ score ──Scored──▶ filter ──Sample──▶ sink
//! ```

mod edge;
mod plan;
mod registry;
mod split;

pub use edge::{Edge, Port, Role};
pub use plan::{Feed, MaskNode, Node, NodeInput, Plan, ScoreNode, SinkNode, SourceNode, Trial};
pub use registry::{Frame, Kind, Part, Place, Registry, Scoring, Settings, StageConfig, Synthesis};
pub use split::SplitShares;
