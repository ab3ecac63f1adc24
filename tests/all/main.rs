//! One integration binary, a room a subject.

mod bad_dicom;
mod bad_input;
mod common;
mod dataflow;
mod dicom;
mod dicom_files;
mod folder;
mod for_loop;
mod graph;
mod infer;
mod mask;
mod nifti;
mod nn;
mod phantom;
mod priors;
mod rooms;
mod run_folder;
mod shapes;
mod sinks;
mod synth;
mod train;
mod volume;
