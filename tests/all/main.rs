//! One integration binary, a room a subject.

mod bad_dicom;
mod bad_input;
mod command;
mod common;
mod dataflow;
mod dicom;
mod dicom_files;
mod evaluate;
mod folder;
mod for_loop;
mod graph;
mod infer;
mod mask;
mod network_stages;
mod nifti;
mod nn;
mod patients;
mod phantom;
mod priors;
mod rooms;
mod run_folder;
mod shapes;
mod sinks;
mod synth;
mod train;
mod volume;
