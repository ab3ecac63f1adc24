//! The source of scans in tar and zip archives, which are read without unpacking them.
//!
//! An archive is listed once for each version of its file. The members of one scan at a time are extracted to a scratch folder of bounded
//! size and read as files: every format of the kind `folder` works, and label files are found by the same patterns.
//!
//! # Hostile archives
//! The number of members and the expansion of compressed data are limited. Absolute names, names with `..`, links and special files are
//! refused: such a member is a scan with a fault, and is never written to disk. A member of a DICOM folder that is refused fails the scans
//! of the folder, which would otherwise look complete.
//!
//! # Damaged archives
//! The members before the damage are read. The archive itself is listed as a scan whose fault describes the damage.
//!
//! # Versions
//! The version of a scan depends on the content of its members only: a new copy of an archive, or a new scan in it, leaves the others as
//! they are. Names are not part of a version, see the module `version`.

mod archive;
mod cache;
mod companions;
mod config;
mod contents;
mod files;
mod listing;
mod names;
mod selection;
mod source;
mod spill;
mod stream;
mod tar_headers;
mod tar_listing;
mod zip_listing;
mod zip_member;
mod zip_recovery;

pub use config::ArchiveConfig;
pub use source::ArchiveSource;
