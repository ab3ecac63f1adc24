//! `freetumor tag`: names a state of a run folder.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::print::{ignore_closed_pipe, print_json};
use super::recorded::send_request;
use crate::error::{ErrorKind, Result};
use crate::run::requests::Request;
use crate::run::{RunFolder, Tag, TagName};

/// Name the last state of a run folder, or list its tags
///
/// A state that fails an expectation of its graph gets no tag. A tag never changes. Other commands read the state that it names with `--at
/// NAME`, until it is deleted by `freetumor vacuum`.
#[derive(Args, Clone, Debug)]
pub struct TagArgs {
    /// The run folder
    pub run: PathBuf,
    /// The new name, such as v1 [default: list all tags]
    pub name: Option<TagName>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Creates or lists tags and returns the exit code.
///
/// # Errors
/// If the folder is not a run folder, an expectation fails, or the tag names another state.
pub fn run(args: &TagArgs, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<u8> {
    let folder = RunFolder::open(&args.run)?;
    let tags = match &args.name {
        Some(name) => {
            let created = RunFolder::create_or_resume(&args.run, &folder.current_manifest()?);
            match created.and_then(|writer| writer.tag(name)) {
                Err(error) if error.kind() == ErrorKind::Locked => {
                    let request = Request::Tag { name: name.clone() };
                    print_json(&send_request(&args.run, &request, stderr)?, stdout)?;
                    return Ok(0);
                }
                tag => vec![tag?],
            }
        }
        None => folder.tags()?,
    };
    if args.json {
        print_json(&tags, stdout)?;
        return Ok(0);
    }
    ignore_closed_pipe(tags.iter().try_for_each(|Tag { name, epoch, .. }| writeln!(stdout, "{name}  commit {epoch}")))?;
    Ok(0)
}
