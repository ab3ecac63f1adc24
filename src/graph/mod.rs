//! The graph file: the nodes and edges of a pipeline, checked before anything runs.
//!
//! This module owns the format of the file, the kinds of nodes with their settings, and the digests of stages. A file is checked without
//! running anything, and every problem is reported at once, with its location and a hint.
//!
//! A [`GraphFile`] keeps the location of every key and value; [`check`] finds every problem at once and points at each; a [`Plan`]
//! holds the built stages, ready for a dataflow or for a plain loop. The [`Registry`] holds the kinds of stages, including those of
//! the caller.
//!
//! ```text
//! source ──Scan──▶ mask ──Masked──▶ synthesis ──Candidate──▶ score ──Scored──▶ filter ──Sample──▶ sink
//! ```

mod absent_selections;
mod build;
mod calibration;
mod check;
mod consistency;
mod digest;
pub mod draw;
mod edge;
mod expectations;
mod file;
mod known_nodes;
mod label_files;
mod labeled;
mod listing;
mod overrides;
mod pipeline;
mod plan;
mod problem;
mod purpose;
mod recorded;
mod registry;
mod request;
mod scans;
mod schema;
mod schema_check;
mod settings;
mod source_graph;
mod source_scans;
mod spec;
mod split;
mod standard;
mod survey;
mod training;
mod value;
mod version;
mod wiring;

pub use check::{CheckedGraph, check, check_for_calibration};
pub use digest::StageDigests;
pub use edge::{Edge, Port, Role};
pub use file::GraphFile;
pub use labeled::LabeledScans;
pub use listing::check_scans;
pub use pipeline::PipelineConfig;
pub use plan::{
    BranchNode, Feed, MaskNode, Node, NodeInput, Plan, ScanStages, SinkNode, SourceNode, SynthesisNode, TumorIdentity,
};
pub use problem::{Location, Problem, Severity};
pub use registry::{BuildContext, BuiltNode, InputSpec, Kind, NodeConfig, ParsedNode, Registry, Scoring, Synthesis};
pub use request::TumorRequest;
pub use schema::{TrainingKind, pipeline_schema, training_schema};
pub use split::SplitShares;
pub use standard::Resources;
pub use survey::{SourceSurvey, Survey, free_bytes, required_space, survey};
pub use training::{CheckedTraining, check_training, training_keys};
