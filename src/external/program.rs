//! A checked program, ready to be called: its scratch folder, its place in the line, and what its failures say.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::config::{CheckedCommand, CommonSettings, Exchange, Placeholders};
use super::gate::Semaphore;
use super::process::{Failure, Limits, ProcessExit, ProcessRun};
use super::template::Template;
use super::words::last_words;
use crate::error::{ConfigError, Fault, FaultKind, Stage};

/// The folders of a scratch folder: what the program is given, and where its answers go.
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
    gate: Semaphore,
    digest: String,
}

impl Program {
    /// Checks the settings; `graph` is the folder of the graph file.
    pub fn new(
        stage: Stage,
        shared: &CommonSettings<'_>,
        graph: &Path,
        placeholders: &Placeholders,
        complaints: &mut Vec<ConfigError>,
    ) -> Option<Self> {
        let graph = std::path::absolute(graph).unwrap_or_else(|_| graph.to_owned());
        let CheckedCommand { program, arguments, limits, scratch } = shared.check(&graph, placeholders, complaints)?;
        let words = shared.argv.iter().map(String::as_str).chain(shared.version);
        let hash = words
            .fold(Sha256::new(), |hash, word| hash.chain_update((word.len() as u64).to_le_bytes()).chain_update(word));
        let digest = hex::encode(&hash.finalize()[..8]);
        let gate = Semaphore::new(shared.parallel);
        Some(Self { stage, exchange: shared.exchange, path: program, arguments, limits, scratch, graph, gate, digest })
    }

    /// How voxels go to the program.
    pub fn exchange(&self) -> Exchange {
        self.exchange
    }

    /// 16 hexadecimal digits over arguments and version.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// A fault of the program's stage.
    pub fn fault(&self, kind: FaultKind, message: impl Into<String>) -> Fault {
        Fault::new(self.stage, kind, message)
    }

    /// A fault that was found in what the program gave, named as such.
    pub fn in_answer(&self, what: &str, fault: Fault) -> Fault {
        let message = match fault.kind {
            FaultKind::Missing => format!("expected {what} of the program, it gave none"),
            _ => format!("{what} of the program: {}", fault.message),
        };
        self.fault(fault.kind, message)
    }

    /// Waits until another call may be made, and makes a folder for it.
    pub fn call(&self) -> Result<ProgramCall<'_>, Fault> {
        let place = self.gate.enter();
        let failed = |error: std::io::Error| {
            self.fault(FaultKind::Io, format!("the system gives no scratch folder: {}", error.kind()))
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix("freetumor-");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
        let folder = builder.tempdir_in(&self.scratch).map_err(failed)?;
        for part in [INPUTS, OUTPUTS] {
            std::fs::create_dir(folder.path().join(part)).map_err(failed)?;
        }
        Ok(ProgramCall { program: self, folder, values: Vec::new(), _place: place })
    }
}

/// One call of a program; its folder is gone when it is dropped.
pub(super) struct ProgramCall<'a> {
    program: &'a Program,
    folder: TempDir,
    values: Vec<(&'static str, OsString)>,
    _place: super::gate::Permit<'a>,
}

impl ProgramCall<'_> {
    /// The path of a file that the program is given, under the placeholder `name`.
    pub fn input(&mut self, name: &'static str, file: &str) -> PathBuf {
        self.path(name, INPUTS, file)
    }

    /// The path where the program puts an answer, under the placeholder `name`.
    pub fn output(&mut self, name: &'static str, file: &str) -> PathBuf {
        self.path(name, OUTPUTS, file)
    }

    fn path(&mut self, name: &'static str, part: &str, file: &str) -> PathBuf {
        let path = self.folder.path().join(part).join(file);
        self.set(name, path.as_os_str());
        path
    }

    /// Gives a placeholder its value.
    pub fn set(&mut self, name: &'static str, value: impl AsRef<OsStr>) {
        self.values.push((name, value.as_ref().to_owned()));
    }

    /// Where the program puts its answers.
    pub fn outputs(&self) -> PathBuf {
        self.folder.path().join(OUTPUTS)
    }

    /// Runs the program: on a pipe with `input`, giving at most `output_bytes` of its standard output; else with files
    /// alone.
    ///
    /// # Errors
    /// A fault that says how it ended, with its last words.
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
        let ProcessExit { output, stderr } = run.go();
        output.map_err(|failure| self.failed(&failure, output_bytes, &stderr))
    }

    fn failed(&self, failure: &Failure, output_bytes: u64, stderr: &[u8]) -> Fault {
        let Limits { time, memory_bytes, scratch_bytes } = self.program.limits;
        let mib = |bytes: u64| bytes >> 20;
        let (kind, fate) = match failure {
            Failure::System(error) => (FaultKind::Program, format!("could not be run: {}", error.kind())),
            Failure::Exit(status) => (FaultKind::Program, describe(*status)),
            Failure::Time => (FaultKind::Program, format!("took longer than {} s and was stopped", time.as_secs_f64())),
            Failure::Memory => {
                let most = mib(memory_bytes.unwrap_or_default());
                (FaultKind::TooLarge, format!("held more than {most} MiB of memory and was stopped"))
            }
            Failure::Scratch => {
                let most = mib(scratch_bytes);
                (FaultKind::TooLarge, format!("left more than {most} MiB in its scratch folder and was stopped"))
            }
            Failure::Output => (
                FaultKind::TooLarge,
                format!("wrote more than the {output_bytes} bytes that its answer can have, and was stopped"),
            ),
            Failure::Stuck => (FaultKind::Program, "was stopped and yet does not end".to_owned()),
        };
        let words = last_words(stderr, self.folder.path());
        let words = if words.is_empty() { "it said nothing".to_owned() } else { format!("it said: {words}") };
        self.program.fault(kind, format!("the program {fate}; {words}"))
    }
}

fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("died of signal {signal}");
    }
    match status.code() {
        Some(code) => format!("ended with exit code {code}"),
        None => "ended early".into(),
    }
}
