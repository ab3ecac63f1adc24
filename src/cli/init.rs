//! `freetumor init`: drafts a graph file for a folder of scans.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::print::{ignore_closed_pipe, print_problems};
use crate::error::{Error, Result};
use crate::graph::{GraphFile, Registry, check};
use crate::init::{draft, survey_folder};

/// Write a first graph file for a folder of scans
///
/// Looks for scans, label files and the names of labels, and writes a commented graph file that `freetumor validate` accepts. Volumes of a
/// few scans are read.
#[derive(Args, Clone, Debug)]
pub struct InitArgs {
    /// The folder of scans
    pub folder: PathBuf,
    /// The graph file to write [default: NAME.toml, by the name of the folder]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Writes the graph file and returns the exit code: 0, or 1 if the file has errors that the user must mend.
///
/// # Errors
/// If the folder has no scans, or the file exists or cannot be written.
pub fn init(args: &InitArgs, registry: &Registry, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<u8> {
    let survey = survey_folder(&args.folder)?;
    let name = pipeline_name(&args.folder);
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.toml")));
    let root = root_in_file(&args.folder, &out)?;
    let text = draft(&survey, &name, &root);
    let mut file = std::fs::File::create_new(&out).map_err(|cause| {
        let error = Error::io("cannot create the graph file", &out, cause);
        error.with_hint("choose another file with `--out`: files are not overwritten")
    })?;
    file.write_all(text.as_bytes()).map_err(|cause| Error::io("cannot write the graph file", &out, cause))?;
    let graph = GraphFile::open(&out)?;
    let checked = check(&graph, registry);
    print_problems(&graph, &checked.problems.iter().collect::<Vec<_>>(), stderr)?;
    let mut lines = format!("wrote {}\n", out.display());
    for remark in &survey.remarks {
        lines += &format!("note: {remark}\n");
    }
    lines += &format!("next: freetumor validate {}\n", out.display());
    ignore_closed_pipe(stdout.write_all(lines.as_bytes()))?;
    Ok(u8::from(checked.has_errors()))
}

/// Returns the name of a folder as a name of a pipeline.
fn pipeline_name(folder: &Path) -> String {
    let name = std::path::absolute(folder).ok();
    let name = name.as_deref().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    if plain.is_empty() { "pipeline".to_owned() } else { plain }
}

/// Returns the path of the folder in the graph file: relative, if the file is in a folder above.
fn root_in_file(folder: &Path, out: &Path) -> Result<PathBuf> {
    let absolute = |path: &Path| std::path::absolute(path).map_err(|cause| Error::io("cannot find", path, cause));
    let (folder, out) = (absolute(folder)?, absolute(out)?);
    let relative = out.parent().and_then(|parent| folder.strip_prefix(parent).ok());
    Ok(relative.filter(|path| !path.as_os_str().is_empty()).map_or(folder.clone(), Path::to_owned))
}
