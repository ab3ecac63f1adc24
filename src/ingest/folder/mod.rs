//! The source of scans in a folder: NIfTI, NRRD and MetaImage files and DICOM folders, found by patterns.
//!
//! Other sources read files in the same way: [`ScanFolder`] reads the scans below a root, and [`EntryRules`] name their entries.

mod companions;
mod config;
mod entries;
mod remarks;
mod scan_files;
mod scan_folder;
mod source;
mod walk;

pub(super) use self::companions::{FolderCompanions, resolve};
pub use self::config::FolderConfig;
pub(super) use self::config::patterns;
pub(super) use self::entries::{EntryRules, Listing};
pub(super) use self::remarks::{Remarks, log_remarks};
pub(super) use self::scan_files::ScanFiles;
pub(super) use self::scan_folder::{ScanFolder, ScanLocation};
pub use self::source::FolderSource;
pub(super) use self::walk::{MatchedPath, PathKind, find};
