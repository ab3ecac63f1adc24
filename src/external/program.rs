//! A checked program: calls with scratch folders and permits, and the faults of its failures.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::config::{CheckedCommand, CommonSettings, Exchange, Placeholders};
use super::excerpt::last_lines;
use super::process::{Failure, Limits, ProcessExit, ProcessRun};
use super::semaphore::{Permit, Semaphore};
use super::template::Template;
use crate::error::{ConfigError, Fault, FaultKind, Stage, is_killed};

/// The subfolders of a scratch folder for the input and output of the program.
const INPUTS: &str = "input";
const OUTPUTS: &str = "output";

/// The program of one stage.
pub(super) struct Program {
    stage: Stage,
    exchange: Exchange,
    path: PathBuf,
    arguments: Vec<Template>,
    limits: Limits,
    scratch: PathBuf,
    graph: PathBuf,
    semaphore: Semaphore,
    digest: String,
    reads: Vec<PathBuf>,
}

impl Program {
    /// Checks the settings; `graph` is the folder of the graph file. Returns `None` if it added an error to `errors`.
    pub fn new(
        stage: Stage,
        common: &CommonSettings<'_>,
        graph: &Path,
        placeholders: &Placeholders,
        errors: &mut Vec<ConfigError>,
    ) -> Option<Self> {
        let graph = std::path::absolute(graph).unwrap_or_else(|_| graph.to_owned());
        let CheckedCommand { program, arguments, limits, scratch, reads } =
            common.check(&graph, placeholders, errors)?;
        let fields = common.argv.iter().map(String::as_str).chain(common.version);
        let hash = fields.fold(Sha256::new(), |hash, field| {
            hash.chain_update((field.len() as u64).to_le_bytes()).chain_update(field)
        });
        let digest = hex::encode(&hash.finalize()[..8]);
        let semaphore = Semaphore::new(common.parallel);
        Some(Self {
            stage,
            exchange: common.exchange,
            path: program,
            arguments,
            limits,
            scratch,
            graph,
            semaphore,
            digest,
            reads,
        })
    }

    /// Returns the files and folders that the program reads for every scan.
    pub fn reads(&self) -> &[PathBuf] {
        &self.reads
    }

    /// Returns the method by which voxels are passed to the program.
    pub fn exchange(&self) -> Exchange {
        self.exchange
    }

    /// Returns the digest of arguments and version, 16 hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Creates a fault of the program's stage.
    pub fn fault(&self, kind: FaultKind, message: impl Into<String>) -> Fault {
        Fault::new(self.stage, kind, message)
    }

    /// Converts a fault of reading the program's output to a fault of the program.
    pub fn output_fault(&self, subject: &str, fault: Fault) -> Fault {
        let message = match fault.kind {
            FaultKind::Missing => format!("expected {subject} from the program, got none"),
            _ => format!("{subject} from the program: {}", fault.message),
        };
        self.fault(fault.kind, message)
    }

    /// Waits for a permit and creates the scratch folder of a call.
    pub fn call(&self) -> Result<ProgramCall<'_>, Fault> {
        let permit = self.semaphore.acquire();
        let failed = |error: std::io::Error| {
            self.fault(FaultKind::Io, format!("cannot create a scratch folder: {}", error.kind()))
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix("freetumor-");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
        let folder = builder.tempdir_in(&self.scratch).map_err(failed)?;
        for part in [INPUTS, OUTPUTS] {
            std::fs::create_dir(folder.path().join(part)).map_err(failed)?;
        }
        Ok(ProgramCall { program: self, folder, values: Vec::new(), _permit: permit })
    }
}

/// One call of a program; its folder is removed when dropped.
pub(super) struct ProgramCall<'a> {
    program: &'a Program,
    folder: TempDir,
    values: Vec<(&'static str, OsString)>,
    _permit: Permit<'a>,
}

impl ProgramCall<'_> {
    /// Returns the path of an input file, and assigns it to the placeholder `name`.
    pub fn input(&mut self, name: &'static str, file: &str) -> PathBuf {
        self.path(name, INPUTS, file)
    }

    /// Returns the path of an output file, and assigns it to the placeholder `name`.
    pub fn output(&mut self, name: &'static str, file: &str) -> PathBuf {
        self.path(name, OUTPUTS, file)
    }

    fn path(&mut self, name: &'static str, part: &str, file: &str) -> PathBuf {
        let path = self.folder.path().join(part).join(file);
        self.set(name, path.as_os_str());
        path
    }

    /// Assigns a value to a placeholder.
    pub fn set(&mut self, name: &'static str, value: impl AsRef<OsStr>) {
        self.values.push((name, value.as_ref().to_owned()));
    }

    /// Returns the folder of the output files.
    pub fn outputs(&self) -> PathBuf {
        self.folder.path().join(OUTPUTS)
    }

    /// Runs the program: with a pipe, passes `input` and returns at most `output_bytes` of standard output; else uses files alone.
    ///
    /// # Errors
    /// Returns a fault with the exit code or exceeded limit, and the last lines of standard error.
    pub fn run(&mut self, input: Option<Vec<u8>>, output_bytes: u64) -> Result<Vec<u8>, Fault> {
        let program = self.program;
        let folder = self.folder.path();
        let fixed = [
            ("folder", folder.as_os_str().to_owned()),
            ("input", folder.join(INPUTS).into_os_string()),
            ("outputs", folder.join(OUTPUTS).into_os_string()),
            ("graph", program.graph.clone().into_os_string()),
        ];
        let values: Vec<(&str, &OsStr)> =
            self.values.iter().chain(&fixed).map(|(name, value)| (*name, value.as_os_str())).collect();
        let run = ProcessRun {
            program: &program.path,
            arguments: program.arguments.iter().map(|argument| argument.fill(&values)).collect(),
            folder,
            input,
            output_bytes: (program.exchange == Exchange::Pipe).then_some(output_bytes),
            limits: program.limits,
        };
        let ProcessExit { output, stderr } = run.run();
        output.map_err(|failure| self.failed(&failure, output_bytes, &stderr))
    }

    fn failed(&self, failure: &Failure, output_bytes: u64, stderr: &[u8]) -> Fault {
        let Limits { time, memory_bytes, scratch_bytes } = self.program.limits;
        let mib = |bytes: u64| bytes >> 20;
        let (kind, outcome) = match failure {
            Failure::System(error) => (FaultKind::Interrupted, format!("could not be run: {}", error.kind())),
            Failure::Exit(status) if is_killed(*status) => (FaultKind::Interrupted, describe(*status)),
            Failure::Exit(status) => (FaultKind::Program, describe(*status)),
            Failure::Time => (FaultKind::Program, format!("exceeded {} s and was stopped", time.as_secs_f64())),
            Failure::Memory => {
                let most = mib(memory_bytes.unwrap_or_default());
                (FaultKind::TooLarge, format!("exceeded {most} MiB of memory and was stopped"))
            }
            Failure::Scratch => {
                let most = mib(scratch_bytes);
                (FaultKind::TooLarge, format!("exceeded {most} MiB in its scratch folder and was stopped"))
            }
            Failure::Output => {
                (FaultKind::TooLarge, format!("exceeded {output_bytes} bytes of output and was stopped"))
            }
            Failure::Stuck => (FaultKind::Program, "was stopped but did not end".to_owned()),
        };
        let excerpt = last_lines(stderr, self.folder.path());
        let excerpt = if excerpt.is_empty() { "empty".to_owned() } else { excerpt };
        self.program.fault(kind, format!("the program {outcome}; standard error: {excerpt}"))
    }
}

fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("was ended by signal {signal}");
    }
    match status.code() {
        Some(code) => format!("ended with exit code {code}"),
        None => "ended early".into(),
    }
}
