//! The source of scans that a manifest names: CSV, JSON lines or Parquet, with a row for each scan.
//!
//! The manifest is read again for each listing, so that rows that are added later are found. A row that cannot be used is a scan with a
//! fault that names the line; the other rows are read.
//!
//! ```toml
//! [sources.registry]
//! kind = "manifest"
//! path = "registry.csv"             # uri,patient,mask
//!
//! [stages.organs]
//! kind = "labels"
//! inputs = ["registry"]
//! pattern = "{mask}"
//! organs = ["liver"]
//! ```

mod config;
mod csv_rows;
mod json_rows;
mod parquet_rows;
mod row;
mod scans;
mod source;
mod uri;

pub use config::ManifestConfig;
pub use source::ManifestSource;
