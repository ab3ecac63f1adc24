//! The settings that all three roles of a command share, and what can be wrong with them before anything runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::process::Limits;
use super::template::Template;
use crate::error::ConfigError;

/// Longest time that a program may be given: a week.
const MOST_SECONDS: f64 = 7.0 * 24.0 * 3600.0;
/// Most programs of one stage at once.
const MOST_PARALLEL: usize = 1024;

/// How voxels go to a program and come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Exchange {
    /// As files in a scratch folder.
    #[default]
    Files,
    /// An uncompressed NIfTI image on standard input, the answer on standard output.
    Pipe,
}

/// Declares a struct of settings with those that every command has.
macro_rules! command_config {
    ($(#[$about:meta])* $name:ident { $($(#[$field_about:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// The program and its arguments, with placeholders such as `{image}` and `{output}`; no shell is involved.
            /// `{{` and `}}` stand for braces. A program without a slash is looked for on the PATH; a relative path, and
            /// `{graph}`, refer to the folder of the graph file.
            pub argv: Vec<String>,
            /// How voxels go to the program and come back.
            #[serde(default)]
            pub exchange: $crate::external::Exchange,
            /// Longest time that one call may take, in seconds; then the program and all that it started are ended.
            #[serde(default = "super::config::default_time_limit_s")]
            pub time_limit_s: f64,
            /// Most memory that the program may hold, in MiB; no limit where absent. No process of it may have more
            /// private writable memory, and on Linux all of them together no more resident memory.
            #[serde(default)]
            pub memory_limit_mib: Option<u64>,
            /// Most bytes that one call may leave in its scratch folder, in MiB.
            #[serde(default = "super::config::default_scratch_limit_mib")]
            pub scratch_limit_mib: u64,
            /// Most calls of this stage at once. No part of the pipeline's digest.
            #[serde(default = "super::config::default_parallel", skip_serializing)]
            pub parallel: usize,
            /// The folder for scratch folders; the system's where absent. No part of the pipeline's digest.
            #[serde(default, skip_serializing)]
            pub scratch: Option<std::path::PathBuf>,
            /// What tells this version of the program and its weights from others, for tables and the pipeline's digest.
            #[serde(default)]
            pub version: Option<String>,
            $($(#[$field_about])* pub $field: $type,)*
        }

        impl $name {
            pub(super) fn shared(&self) -> $crate::external::config::CommonSettings<'_> {
                $crate::external::config::CommonSettings {
                    argv: &self.argv,
                    exchange: self.exchange,
                    time_limit_s: self.time_limit_s,
                    memory_limit_mib: self.memory_limit_mib,
                    scratch_limit_mib: self.scratch_limit_mib,
                    parallel: self.parallel,
                    scratch: self.scratch.as_deref(),
                    version: self.version.as_deref(),
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

/// The settings that every command has.
pub(super) struct CommonSettings<'a> {
    pub argv: &'a [String],
    pub exchange: Exchange,
    pub time_limit_s: f64,
    pub memory_limit_mib: Option<u64>,
    pub scratch_limit_mib: u64,
    pub parallel: usize,
    pub scratch: Option<&'a Path>,
    pub version: Option<&'a str>,
}

/// What an argument may name in a role.
pub(super) struct Placeholders {
    /// Known however voxels are exchanged.
    pub always: &'static [&'static str],
    /// Files, which a pipe does without.
    pub files: &'static [&'static str],
    /// One of these tells where the answer goes.
    pub answers: &'static [&'static str],
}

/// Settings that were checked.
pub(super) struct CheckedCommand {
    pub program: PathBuf,
    pub arguments: Vec<Template>,
    pub limits: Limits,
    pub scratch: PathBuf,
}

impl CommonSettings<'_> {
    /// Checks the settings; `graph` is the folder of the graph file.
    pub fn check(
        &self,
        graph: &Path,
        placeholders: &Placeholders,
        complaints: &mut Vec<ConfigError>,
    ) -> Option<CheckedCommand> {
        let before = complaints.len();
        if !(self.time_limit_s > 0.0 && self.time_limit_s <= MOST_SECONDS) {
            let message =
                format!("expected more than 0 s, at most {MOST_SECONDS} s (a week), got {}", self.time_limit_s);
            complaints.push(ConfigError::new("time_limit_s", message));
        }
        let mib = [("memory_limit_mib", self.memory_limit_mib), ("scratch_limit_mib", Some(self.scratch_limit_mib))];
        let bytes = |mib: u64| mib.checked_mul(1 << 20).filter(|&bytes| bytes > 0 && bytes < 1 << 60);
        for (field, mib) in mib.into_iter().filter_map(|(field, mib)| Some((field, mib?))) {
            if bytes(mib).is_none() {
                let message = format!("expected 1 MiB or more, less than 2⁴⁰, got {mib}");
                complaints.push(ConfigError::new(field, message));
            }
        }
        if cfg!(not(unix)) && self.memory_limit_mib.is_some() {
            let message = "expected none: this system has no way to limit a program's memory";
            complaints.push(ConfigError::new("memory_limit_mib", message));
        }
        if !(1..=MOST_PARALLEL).contains(&self.parallel) {
            let message = format!("expected 1 to {MOST_PARALLEL} programs at once, got {}", self.parallel);
            complaints.push(ConfigError::new("parallel", message));
        }
        let scratch = self.scratch.map_or_else(std::env::temp_dir, |folder| graph.join(folder));
        if !scratch.is_dir() {
            let complaint = ConfigError::new("scratch", format!("there is no folder {}", scratch.display()));
            complaints.push(complaint.with_hint("create it, or name another: scratch = \"/var/tmp\""));
        }
        let program = self.program(graph).map_err(|complaint| complaints.push(complaint)).ok();
        let arguments = self.arguments(graph, placeholders, complaints);
        let limits = Limits {
            time: Duration::try_from_secs_f64(self.time_limit_s).unwrap_or_default(),
            memory_bytes: self.memory_limit_mib.and_then(bytes),
            scratch_bytes: bytes(self.scratch_limit_mib).unwrap_or_default(),
        };
        let program = program.filter(|_| complaints.len() == before)?;
        Some(CheckedCommand { program, arguments, limits, scratch })
    }

    fn arguments(&self, graph: &Path, placeholders: &Placeholders, complaints: &mut Vec<ConfigError>) -> Vec<Template> {
        let Placeholders { always, files, answers } = placeholders;
        let known: Vec<&str> = always.iter().chain(*files).copied().collect();
        let mut arguments = Vec::new();
        let mut whole = true;
        for written in self.argv.iter().skip(1) {
            match Template::new(written, &known) {
                Ok(template) => arguments.push(template),
                Err(complaint) => {
                    whole = false;
                    complaints.push(complaint);
                }
            }
        }
        // What comes with the graph is there before anything runs; what a program makes goes elsewhere.
        for written in self.argv.iter().skip(1) {
            if let Some(beside) = written.strip_prefix("{graph}/").filter(|beside| !beside.contains(['{', '}']))
                && !graph.join(beside).exists()
            {
                let complaint = ConfigError::new("argv", format!("there is no {}", graph.join(beside).display()));
                complaints.push(complaint.with_hint("{graph} is the folder of the graph file"));
            }
        }
        if !whole {
            return arguments;
        }
        match self.exchange {
            Exchange::Pipe => {
                for name in files.iter().filter(|name| arguments.iter().any(|it| it.names_any(&[name]))) {
                    let message = format!("`{{{name}}}` is a file, and with exchange = \"pipe\" there is none");
                    complaints
                        .push(ConfigError::new("argv", message).with_hint("leave it out, or set exchange = \"files\""));
                }
            }
            Exchange::Files if !self.argv.is_empty() && !arguments.iter().any(|it| it.names_any(answers)) => {
                let message = "the program is not told where its answer goes";
                let hint = format!("add an argument \"{{{}}}\", or set exchange = \"pipe\"", answers[0]);
                complaints.push(ConfigError::new("argv", message).with_hint(hint));
            }
            Exchange::Files => {}
        }
        arguments
    }

    /// Where the program lies.
    fn program(&self, graph: &Path) -> Result<PathBuf, ConfigError> {
        let Some(written) = self.argv.first().filter(|written| !written.is_empty()) else {
            let complaint = ConfigError::new("argv", "expected a program and its arguments, got nothing");
            return Err(complaint.with_hint("argv = [\"my-program\", \"{image}\", \"{output}\"]"));
        };
        let written = written.replace("{graph}", &graph.to_string_lossy());
        if written.contains(std::path::MAIN_SEPARATOR) || written.contains('/') {
            let path = graph.join(&written);
            return match is_program(&path) {
                true => Ok(path),
                false if path.is_file() => {
                    let hint = format!("chmod +x {}", path.display());
                    Err(ConfigError::new("argv", format!("`{written}` is no program: it may not be executed"))
                        .with_hint(hint))
                }
                false => {
                    let complaint = ConfigError::new("argv", format!("there is no program {}", path.display()));
                    Err(complaint.with_hint("a relative path begins at the folder of the graph file"))
                }
            };
        }
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&folders).map(|folder| folder.join(&written)).find(|path| is_program(path));
        let found = found.and_then(|path| std::path::absolute(path).ok());
        found.ok_or_else(|| {
            let complaint = ConfigError::new("argv", format!("there is no program `{written}` on the PATH"));
            complaint.with_hint(format!("install it, or write where it lies: argv = [\"/opt/bin/{written}\", …]"))
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
        answers: &["output", "outputs", "folder"],
    };

    fn said(argv: &[&str], change: impl FnOnce(&mut CommonSettings<'_>)) -> Vec<(String, String)> {
        let argv: Vec<String> = argv.iter().map(ToString::to_string).collect();
        let mut shared = CommonSettings {
            argv: &argv,
            exchange: Exchange::Files,
            time_limit_s: 1.0,
            memory_limit_mib: None,
            scratch_limit_mib: 1,
            parallel: 1,
            scratch: None,
            version: None,
        };
        change(&mut shared);
        let mut complaints = Vec::new();
        let checked = shared.check(Path::new("/bin"), &PLACEHOLDERS, &mut complaints);
        assert_eq!(checked.is_some(), complaints.is_empty());
        complaints.into_iter().map(|it| (it.field, it.hint.unwrap_or(it.message))).collect()
    }

    #[test]
    fn programs_are_found_before_anything_runs() {
        for program in ["sh", "/bin/sh", "./sh", "{graph}/sh"] {
            assert_eq!(said(&[program, "{output}"], |_| {}), []);
        }
        let hint = |argv: &[&str]| said(argv, |_| {}).remove(0).1;
        assert!(hint(&["no-such-program", "{output}"]).starts_with("install it"));
        assert!(hint(&["./no-such-program", "{output}"]).starts_with("a relative path"));
        assert_eq!(hint(&["/etc/passwd", "{output}"]), "chmod +x /etc/passwd");
        assert!(hint(&[]).starts_with("argv = "));
    }

    #[test]
    fn arguments_fit_the_way_of_exchange() {
        assert_eq!(said(&["sh", "{imgae}", "{output}"], |_| {})[0].1, "did you mean `image`?");
        assert!(said(&["sh", "{image}"], |_| {})[0].1.starts_with("add an argument \"{output}\""));
        assert_eq!(said(&["sh"], |shared| shared.exchange = Exchange::Pipe), []);
        assert_eq!(said(&["sh", "{graph}/sh", "{output}"], |_| {}), []);
        assert!(said(&["sh", "{graph}/no-such.py", "{output}"], |_| {})[0].1.starts_with("{graph} is the folder"));
        let pipe = said(&["sh", "{output}", "{graph}"], |shared| shared.exchange = Exchange::Pipe);
        assert_eq!(pipe, [("argv".to_owned(), "leave it out, or set exchange = \"files\"".to_owned())]);
    }

    #[test]
    fn limits_are_limits() {
        let all = said(&["sh", "{output}"], |shared| {
            (shared.time_limit_s, shared.memory_limit_mib, shared.scratch_limit_mib) = (f64::NAN, Some(0), u64::MAX);
            (shared.parallel, shared.scratch) = (0, Some(Path::new("no-such-folder")));
        });
        let fields: Vec<_> = all.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(fields, ["time_limit_s", "memory_limit_mib", "scratch_limit_mib", "parallel", "scratch"]);
    }
}
