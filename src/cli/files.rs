//! `freetumor files`: paths of committed files, for DuckDB, Polars or other tools.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::print::{ignore_closed_pipe, print_json};
use crate::error::Result;
use crate::run::{Revision, RunFolder};

/// Print the committed files of a table
///
/// One path per line, oldest first: samples, scans, faults, pairs (images and labels), or the name of a sink. Files in the folder that are
/// not printed are not committed.
#[derive(Args, Clone, Debug)]
pub struct FilesArgs {
    /// The run folder
    pub run: PathBuf,
    /// The table or sink
    pub table: String,
    /// State after this commit, or that a tag names [default: the last one]
    #[arg(long, value_name = "COMMIT|TAG")]
    pub at: Option<Revision>,
    /// Print JSON with lengths, digests and rows
    #[arg(long)]
    pub json: bool,
}

/// Prints the files of `args.table` and returns the exit code.
///
/// # Errors
/// If the folder is not a run folder, or has no such table or commit.
pub fn files(args: &FilesArgs, stdout: &mut dyn Write) -> Result<u8> {
    let folder = RunFolder::open(&args.run)?;
    let at = args.at.as_ref().map(|at| folder.epoch_at(at)).transpose()?;
    let files = folder.files(&args.table, at)?;
    files.iter().try_for_each(|file| folder.check_length(file))?;
    if args.json {
        let list: Vec<_> = files
            .iter()
            .map(|file| {
                let path = args.run.join(&file.path);
                json!({ "path": path.to_string_lossy(), "bytes": file.bytes, "sha256": file.sha256, "rows": file.rows })
            })
            .collect();
        let epoch = at.or(folder.head());
        print_json(&json!({ "table": args.table, "epoch": epoch, "files": list }), stdout)?;
    } else {
        ignore_closed_pipe(files.iter().try_for_each(|file| write_path(&args.run.join(&file.path), stdout)))?;
    }
    Ok(0)
}

/// Writes a path with its own bytes, so that other programs can open it, and a line break.
fn write_path(path: &Path, out: &mut dyn Write) -> std::io::Result<()> {
    #[cfg(unix)]
    out.write_all(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))?;
    #[cfg(not(unix))]
    write!(out, "{}", path.display())?;
    out.write_all(b"\n")
}
