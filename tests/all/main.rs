//! One integration binary, a room a subject.

mod common;
mod dicom;
mod dicom_files;
