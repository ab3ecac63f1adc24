//! One integration binary, a room a subject.

mod bad_dicom;
mod bad_input;
mod common;
mod dicom;
mod dicom_files;
mod nifti;
mod run_folder;
mod sinks;
mod synth;
