//! The settings that all three roles of a command share, and their checks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::process::Limits;
use super::template::Template;
use crate::error::ConfigError;

/// Maximum time limit: a week.
const MAX_SECONDS: f64 = 7.0 * 24.0 * 3600.0;
/// Maximum number of parallel programs per stage.
const MAX_PARALLEL: usize = 1024;

/// The method by which voxels are passed to a program and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Exchange {
    /// Files in a scratch folder.
    #[default]
    Files,
    /// An uncompressed NIfTI image on standard input, the result on standard output.
    Pipe,
}

/// Declares a struct of settings that includes the common settings of commands.
macro_rules! command_config {
    ($(#[$about:meta])* $name:ident { $($(#[$field_about:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// The program and its arguments, with placeholders such as `{image}` and `{output}`; no shell is involved.
            /// `{{` and `}}` are literal braces. A program without a slash is searched on the PATH; a relative path and `{graph}` refer to
            /// the folder of the graph file.
            pub argv: Vec<String>,
            /// The method by which voxels are passed to the program and back.
            #[serde(default)]
            pub exchange: $crate::external::Exchange,
            /// Time limit of one call, in seconds; then the program and its child processes are ended.
            #[serde(default = "super::config::default_time_limit_s")]
            pub time_limit_s: f64,
            /// Memory limit of the program, in MiB; no limit if absent. The limit applies to the private writable memory of each process,
            /// and on Linux also to the resident memory of all processes together.
            #[serde(default)]
            pub memory_limit_mib: Option<u64>,
            /// Size limit of the scratch folder of one call, in MiB.
            #[serde(default = "super::config::default_scratch_limit_mib")]
            pub scratch_limit_mib: u64,
            /// Maximum number of parallel calls of this stage. Not part of the pipeline's digest.
            #[serde(default = "super::config::default_parallel", skip_serializing)]
            pub parallel: usize,
            /// The folder for scratch folders; the system's default if absent. Not part of the pipeline's digest.
            #[serde(default, skip_serializing)]
            pub scratch: Option<std::path::PathBuf>,
            /// Version of the program and its weights, for tables and the pipeline's digest.
            #[serde(default)]
            pub version: Option<String>,
            /// Files and folders that the program reads for every scan, such as a script or weights, relative to the folder of the graph
            /// file. A run processes every scan again after a change of one of them, by size and modification time. Not part of the
            /// pipeline's digest.
            #[serde(default, skip_serializing)]
            pub reads: Vec<std::path::PathBuf>,
            $($(#[$field_about])* pub $field: $type,)*
        }

        impl $name {
            pub(super) fn common(&self) -> $crate::external::config::CommonSettings<'_> {
                $crate::external::config::CommonSettings {
                    argv: &self.argv,
                    exchange: self.exchange,
                    time_limit_s: self.time_limit_s,
                    memory_limit_mib: self.memory_limit_mib,
                    scratch_limit_mib: self.scratch_limit_mib,
                    parallel: self.parallel,
                    scratch: self.scratch.as_deref(),
                    version: self.version.as_deref(),
                    reads: &self.reads,
                }
            }
        }
    };
}

pub(super) use command_config;

pub(super) fn default_time_limit_s() -> f64 {
    600.0
}

pub(super) fn default_scratch_limit_mib() -> u64 {
    16 * 1024
}

pub(super) fn default_parallel() -> usize {
    1
}

/// The common settings of commands.
pub(super) struct CommonSettings<'a> {
    pub argv: &'a [String],
    pub exchange: Exchange,
    pub time_limit_s: f64,
    pub memory_limit_mib: Option<u64>,
    pub scratch_limit_mib: u64,
    pub parallel: usize,
    pub scratch: Option<&'a Path>,
    pub version: Option<&'a str>,
    pub reads: &'a [PathBuf],
}

/// The placeholders of a role.
pub(super) struct Placeholders {
    /// Valid with every exchange.
    pub always: &'static [&'static str],
    /// Files, which are not valid with a pipe.
    pub files: &'static [&'static str],
    /// The file or folder of the program's output: with files, the arguments contain at least one of these.
    pub outputs: &'static [&'static str],
}

/// The settings of a command after all checks.
pub(super) struct CheckedCommand {
    pub program: PathBuf,
    pub arguments: Vec<Template>,
    pub limits: Limits,
    pub scratch: PathBuf,
    pub reads: Vec<PathBuf>,
}

impl CommonSettings<'_> {
    /// Checks the settings; `graph` is the folder of the graph file. Returns `None` if it added an error to `errors`.
    pub fn check(
        &self,
        graph: &Path,
        placeholders: &Placeholders,
        errors: &mut Vec<ConfigError>,
    ) -> Option<CheckedCommand> {
        let before = errors.len();
        if !(self.time_limit_s > 0.0 && self.time_limit_s <= MAX_SECONDS) {
            let message =
                format!("expected more than 0 s, at most {MAX_SECONDS} s (a week), got {}", self.time_limit_s);
            errors.push(ConfigError::new("time_limit_s", message));
        }
        let mib = [("memory_limit_mib", self.memory_limit_mib), ("scratch_limit_mib", Some(self.scratch_limit_mib))];
        let bytes = |mib: u64| mib.checked_mul(1 << 20).filter(|&bytes| bytes > 0 && bytes < 1 << 60);
        for (field, mib) in mib.into_iter().filter_map(|(field, mib)| Some((field, mib?))) {
            if bytes(mib).is_none() {
                let message = format!("expected 1 MiB or more, less than 2⁴⁰, got {mib}");
                errors.push(ConfigError::new(field, message));
            }
        }
        if cfg!(not(unix)) && self.memory_limit_mib.is_some() {
            let message = "expected none: memory limits are not supported on this system";
            errors.push(ConfigError::new("memory_limit_mib", message));
        }
        if !(1..=MAX_PARALLEL).contains(&self.parallel) {
            let message = format!("expected 1 to {MAX_PARALLEL} programs at once, got {}", self.parallel);
            errors.push(ConfigError::new("parallel", message));
        }
        let scratch = self.scratch.map_or_else(std::env::temp_dir, |folder| graph.join(folder));
        if !scratch.is_dir() {
            let error = ConfigError::new("scratch", format!("expected an existing folder, got {}", scratch.display()));
            errors.push(error.with_hint("create the folder, or set another one: scratch = \"/var/tmp\""));
        }
        let reads: Vec<PathBuf> = self.reads.iter().map(|path| graph.join(path)).collect();
        for path in reads.iter().filter(|path| !path.exists()) {
            let error =
                ConfigError::new("reads", format!("expected an existing file or folder, got {}", path.display()));
            errors.push(error.with_hint("write a path relative to the folder of the graph file"));
        }
        let program = self.program(graph).map_err(|error| errors.push(error)).ok();
        let arguments = self.arguments(graph, placeholders, errors);
        let limits = Limits {
            time: Duration::try_from_secs_f64(self.time_limit_s).unwrap_or_default(),
            memory_bytes: self.memory_limit_mib.and_then(bytes),
            scratch_bytes: bytes(self.scratch_limit_mib).unwrap_or_default(),
        };
        let program = program.filter(|_| errors.len() == before)?;
        Some(CheckedCommand { program, arguments, limits, scratch, reads })
    }

    fn arguments(&self, graph: &Path, placeholders: &Placeholders, errors: &mut Vec<ConfigError>) -> Vec<Template> {
        let Placeholders { always, files, outputs } = placeholders;
        let known: Vec<&str> = always.iter().chain(*files).copied().collect();
        let mut arguments = Vec::new();
        let mut is_complete = true;
        for written in self.argv.iter().skip(1) {
            match Template::new(written, &known) {
                Ok(template) => arguments.push(template),
                Err(error) => {
                    is_complete = false;
                    errors.push(error);
                }
            }
        }
        // Files next to the graph file must exist; programs write to the scratch folder.
        for written in self.argv.iter().skip(1) {
            if let Some(path) = written.strip_prefix("{graph}/").filter(|path| !path.contains(['{', '}']))
                && !graph.join(path).exists()
            {
                let error =
                    ConfigError::new("argv", format!("expected an existing file, got {}", graph.join(path).display()));
                errors.push(error.with_hint("write a path below {graph}, the folder of the graph file"));
            }
        }
        if !is_complete {
            return arguments;
        }
        match self.exchange {
            Exchange::Pipe => {
                for name in files.iter().filter(|name| arguments.iter().any(|argument| argument.has_any(&[name]))) {
                    let message = format!("`{{{name}}}` is a file, which exchange = \"pipe\" does not write");
                    errors.push(
                        ConfigError::new("argv", message)
                            .with_hint("remove the placeholder, or set exchange = \"files\""),
                    );
                }
            }
            Exchange::Files if !self.argv.is_empty() && !arguments.iter().any(|argument| argument.has_any(outputs)) => {
                let message = "expected an argument with the path of the program's output, got none";
                let hint = format!("add an argument \"{{{}}}\", or set exchange = \"pipe\"", outputs[0]);
                errors.push(ConfigError::new("argv", message).with_hint(hint));
            }
            Exchange::Files => {}
        }
        arguments
    }

    /// Returns the path of the program.
    fn program(&self, graph: &Path) -> Result<PathBuf, ConfigError> {
        let Some(written) = self.argv.first().filter(|written| !written.is_empty()) else {
            let error = ConfigError::new("argv", "expected a program and its arguments, got nothing");
            return Err(error.with_hint("argv = [\"my-program\", \"{image}\", \"{output}\"]"));
        };
        let written = written.replace("{graph}", &graph.to_string_lossy());
        if written.contains(std::path::MAIN_SEPARATOR) || written.contains('/') {
            let path = graph.join(&written);
            return match is_program(&path) {
                true => Ok(path),
                false if path.is_file() => {
                    let hint = format!("make the file executable: chmod +x {}", path.display());
                    Err(ConfigError::new(
                        "argv",
                        format!("expected an executable program, got `{written}` without the permission to execute it"),
                    )
                    .with_hint(hint))
                }
                false => {
                    let error =
                        ConfigError::new("argv", format!("expected an executable program, got {}", path.display()));
                    Err(error.with_hint("write a path relative to the folder of the graph file"))
                }
            };
        }
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&folders).map(|folder| folder.join(&written)).find(|path| is_program(path));
        let found = found.and_then(|path| std::path::absolute(path).ok());
        found.ok_or_else(|| {
            let error = ConfigError::new("argv", format!("expected a program on the PATH, got `{written}`"));
            error.with_hint(format!("install the program, or write its path: argv = [\"/opt/bin/{written}\", …]"))
        })
    }
}

fn is_program(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    }
    #[cfg(not(unix))]
    path.is_file()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const PLACEHOLDERS: Placeholders = Placeholders {
        always: &["graph", "folder"],
        files: &["image", "output", "outputs"],
        outputs: &["output", "outputs", "folder"],
    };

    /// Returns the field, and the hint or message, of every error.
    fn errors_of(argv: &[&str], change: impl FnOnce(&mut CommonSettings<'_>)) -> Vec<(String, String)> {
        let argv: Vec<String> = argv.iter().map(ToString::to_string).collect();
        let mut common = CommonSettings {
            argv: &argv,
            exchange: Exchange::Files,
            time_limit_s: 1.0,
            memory_limit_mib: None,
            scratch_limit_mib: 1,
            parallel: 1,
            scratch: None,
            version: None,
            reads: &[],
        };
        change(&mut common);
        let mut errors = Vec::new();
        let checked = common.check(Path::new("/bin"), &PLACEHOLDERS, &mut errors);
        assert_eq!(checked.is_some(), errors.is_empty());
        errors.into_iter().map(|error| (error.field, error.hint.unwrap_or(error.message))).collect()
    }

    #[test]
    fn check_finds_the_program() {
        for program in ["sh", "/bin/sh", "./sh", "{graph}/sh"] {
            assert_eq!(errors_of(&[program, "{output}"], |_| {}), []);
        }
        let hint = |argv: &[&str]| errors_of(argv, |_| {}).remove(0).1;
        assert!(hint(&["no-such-program", "{output}"]).starts_with("install the program"));
        assert!(hint(&["./no-such-program", "{output}"]).starts_with("write a path relative"));
        assert_eq!(hint(&["/etc/passwd", "{output}"]), "make the file executable: chmod +x /etc/passwd");
        assert!(hint(&[]).starts_with("argv = "));
    }

    #[test]
    fn check_compares_placeholders_with_exchange() {
        assert_eq!(errors_of(&["sh", "{imgae}", "{output}"], |_| {})[0].1, "did you mean `image`?");
        assert!(errors_of(&["sh", "{image}"], |_| {})[0].1.starts_with("add an argument \"{output}\""));
        assert_eq!(errors_of(&["sh"], |common| common.exchange = Exchange::Pipe), []);
        assert_eq!(errors_of(&["sh", "{graph}/sh", "{output}"], |_| {}), []);
        assert!(
            errors_of(&["sh", "{graph}/no-such.py", "{output}"], |_| {})[0].1.starts_with("write a path below {graph}")
        );
        let pipe = errors_of(&["sh", "{output}", "{graph}"], |common| common.exchange = Exchange::Pipe);
        assert_eq!(pipe, [("argv".to_owned(), "remove the placeholder, or set exchange = \"files\"".to_owned())]);
    }

    #[test]
    fn check_rejects_invalid_limits() {
        let all = errors_of(&["sh", "{output}"], |common| {
            (common.time_limit_s, common.memory_limit_mib, common.scratch_limit_mib) = (f64::NAN, Some(0), u64::MAX);
            (common.parallel, common.scratch) = (0, Some(Path::new("no-such-folder")));
            common.reads = Box::leak(Box::new([PathBuf::from("no-such-script.py")]));
        });
        let fields: Vec<_> = all.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, ["time_limit_s", "memory_limit_mib", "scratch_limit_mib", "parallel", "scratch", "reads"]);
    }
}
