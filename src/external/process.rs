//! Runs one program to its end, within limits of time, memory, scratch space and output.
//!
//! All waits are bounded: separate threads serve the program's streams, and after the program, successful or not, its whole process group
//! is ended.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::group::{MARK, ProcessGroup, command};

/// Bytes of standard error that are kept.
const STDERR_BYTES: usize = 8 * 1024;
/// Interval at which memory and scratch space are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Maximum interval at which the program is polled for its end.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Longest time between two polls that counts towards the time limit; a longer one means that this process was suspended.
const LONGEST_GAP: Duration = Duration::from_secs(1);
/// Waits before a program is started again if the machine is short of processes, memory or file descriptors.
const SPAWN_WAITS: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(400), Duration::from_secs(2)];
/// Maximum time until the streams of an ended program close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The limits of one run of a program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Limits {
    pub time: Duration,
    pub memory_bytes: Option<u64>,
    pub scratch_bytes: u64,
}

/// One run of a program.
pub(super) struct ProcessRun<'a> {
    pub program: &'a Path,
    pub arguments: Vec<OsString>,
    /// The working folder, also for temporary files.
    pub folder: &'a Path,
    /// Bytes for standard input; an empty input if absent.
    pub input: Option<Vec<u8>>,
    /// Maximum bytes of standard output; standard output is discarded if absent.
    pub output_bytes: Option<u64>,
    pub limits: Limits,
}

/// The failure of a program.
#[derive(Debug)]
pub(super) enum Failure {
    /// The system could not start or watch the program.
    System(io::Error),
    /// The program ended with an exit code or signal.
    Exit(ExitStatus),
    /// The program exceeded the time limit.
    Time,
    /// The program and its children exceeded the memory limit.
    Memory,
    /// The files of the program exceeded the limit.
    Scratch,
    /// Standard output exceeded the limit.
    Output,
    /// The program or its streams did not end after a kill signal.
    Stuck,
}

/// The result of a run: standard output or the failure, and the end of standard error.
pub(super) struct ProcessExit {
    pub output: Result<Vec<u8>, Failure>,
    pub stderr: Vec<u8>,
}

impl ProcessRun<'_> {
    /// Runs the program to its end.
    pub fn run(self) -> ProcessExit {
        let last = Arc::new(Mutex::new(Vec::new()));
        let output = self.output(&last);
        let stderr = std::mem::take(&mut *last.lock().unwrap_or_else(PoisonError::into_inner));
        ProcessExit { output, stderr }
    }

    fn output(self, last: &Arc<Mutex<Vec<u8>>>) -> Result<Vec<u8>, Failure> {
        let mut command = command(self.program, self.folder, self.limits.memory_bytes);
        command.args(&self.arguments).current_dir(self.folder);
        command.env(MARK, self.folder).env("TMPDIR", self.folder);
        // Do not pass the secret for patient keys to other programs.
        command.env_remove(crate::ingest::PatientSecret::VARIABLE);
        let stdio = |is_piped: bool| if is_piped { Stdio::piped() } else { Stdio::null() };
        command.stdin(stdio(self.input.is_some())).stdout(stdio(self.output_bytes.is_some())).stderr(Stdio::piped());
        let start = Instant::now();
        let mut child = spawn(&mut command).map_err(Failure::System)?;
        let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut group = ProcessGroup::new(child, self.folder);
        let overflow = Arc::new(AtomicBool::new(false));
        let output = match (streams.1, self.output_bytes) {
            (Some(stdout), Some(max_bytes)) => Some(collect(stdout, max_bytes, &overflow)?),
            _ => None,
        };
        let errors = streams.2.map(|stderr| keep_last(stderr, last)).transpose()?;
        if let (Some(stdin), Some(bytes)) = (streams.0, self.input) {
            feed(stdin, bytes)?;
        }
        let stopped = self.limits.watch(start, &mut group, self.folder, &overflow);
        // Remaining processes would keep streams open, and write to output files.
        let status = group.end().map_err(Failure::System)?.ok_or(Failure::Stuck)?;
        let closing = Instant::now();
        let wait = |receiver: &Receiver<Vec<u8>>| match receiver
            .recv_timeout(CLOSE_TIMEOUT.saturating_sub(closing.elapsed()))
        {
            Ok(bytes) => Ok(bytes),
            Err(RecvTimeoutError::Disconnected) => Ok(Vec::new()),
            Err(RecvTimeoutError::Timeout) => Err(Failure::Stuck),
        };
        let bytes = output.as_ref().map_or(Ok(Vec::new()), wait);
        errors.as_ref().map_or(Ok(Vec::new()), wait)?;
        stopped?;
        if overflow.load(Ordering::Acquire) {
            return Err(Failure::Output);
        }
        if !status.success() {
            return Err(Failure::Exit(status));
        }
        bytes
    }
}

impl Limits {
    /// Waits until the program ends or exceeds a limit.
    fn watch(
        &self,
        start: Instant,
        group: &mut ProcessGroup,
        folder: &Path,
        overflow: &AtomicBool,
    ) -> Result<(), Failure> {
        let mut pause = Duration::from_millis(1);
        let (mut last_check, mut last_loop) = (start, start);
        // The time limit counts only time in which this process ran: a suspended machine or process is no fault of the scan.
        let mut watched = Duration::ZERO;
        loop {
            if group.has_ended().map_err(Failure::System)? {
                return Ok(());
            }
            if overflow.load(Ordering::Acquire) {
                return Err(Failure::Output);
            }
            watched += last_loop.elapsed().min(LONGEST_GAP);
            last_loop = Instant::now();
            if watched >= self.time {
                return Err(Failure::Time);
            }
            if last_check.elapsed() >= CHECK_INTERVAL {
                last_check = Instant::now();
                let held = self.memory_bytes.and_then(|max_bytes| Some(group.resident_bytes()? > max_bytes));
                if held == Some(true) {
                    return Err(Failure::Memory);
                }
                if bytes_below(folder) > self.scratch_bytes {
                    return Err(Failure::Scratch);
                }
            }
            std::thread::sleep(pause.min(self.time.saturating_sub(watched)));
            pause = (2 * pause).min(POLL_INTERVAL);
        }
    }
}

/// Starts a program. A machine that is short of processes, memory or file descriptors for a moment gets some more time.
fn spawn(command: &mut Command) -> io::Result<Child> {
    for wait in SPAWN_WAITS {
        match command.spawn() {
            Err(error) if is_shortage(&error) => std::thread::sleep(wait),
            started => return started,
        }
    }
    command.spawn()
}

#[cfg(unix)]
fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    Errno::from_io_error(error)
        .is_some_and(|errno| [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE].contains(&errno))
}

#[cfg(not(unix))]
fn is_shortage(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::OutOfMemory
}

/// Returns the bytes of all files below a folder; files that disappear meanwhile count as 0.
fn bytes_below(folder: &Path) -> u64 {
    let entries = walkdir::WalkDir::new(folder).into_iter().flatten().filter(|entry| entry.file_type().is_file());
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    std::thread::Builder::new().name(name.into()).spawn(work).map(drop).map_err(Failure::System)
}

/// Writes to standard input. A program may leave input unread; this is not a failure.
fn feed(mut stdin: ChildStdin, bytes: Vec<u8>) -> Result<(), Failure> {
    thread("command-stdin", move || drop(stdin.write_all(&bytes)))
}

/// Reads standard output and sends all its bytes at the end; more than `max_bytes` bytes set `overflow`.
fn collect(
    stdout: impl Read + Send + 'static,
    max_bytes: u64,
    overflow: &Arc<AtomicBool>,
) -> Result<Receiver<Vec<u8>>, Failure> {
    let (sender, receiver) = channel();
    let overflow = Arc::clone(overflow);
    thread("command-stdout", move || {
        let mut bytes = Vec::new();
        // A broken stream is incomplete output, which the parser of the output reports.
        let _ = stdout.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes);
        if bytes.len() as u64 > max_bytes {
            overflow.store(true, Ordering::Release);
        }
        let _ = sender.send(bytes);
    })?;
    Ok(receiver)
}

/// Reads standard error and keeps its last bytes.
fn keep_last(mut stderr: impl Read + Send + 'static, last: &Arc<Mutex<Vec<u8>>>) -> Result<Receiver<Vec<u8>>, Failure> {
    let (sender, receiver) = channel::<Vec<u8>>();
    let last = Arc::clone(last);
    thread("command-stderr", move || {
        let mut block = [0; 4096];
        while let Ok(count @ 1..) = stderr.read(&mut block) {
            let mut kept = last.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(&block[..count]);
            let surplus = kept.len().saturating_sub(STDERR_BYTES);
            kept.drain(..surplus);
        }
        drop(sender);
    })?;
    Ok(receiver)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn run(script: &str, change: impl FnOnce(&mut ProcessRun<'_>)) -> ProcessExit {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits { time: Duration::from_secs(30), memory_bytes: None, scratch_bytes: 1 << 30 };
        let arguments = ["-c", script].map(OsString::from).to_vec();
        let program = Path::new("/bin/sh");
        let mut run =
            ProcessRun { program, arguments, folder: folder.path(), input: None, output_bytes: Some(1 << 20), limits };
        change(&mut run);
        run.run()
    }

    /// Returns whether a process exists and is not a zombie.
    fn is_running(id: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"));
        stat.is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with('Z'))
    }

    fn stderr_of(exit: &ProcessExit) -> String {
        String::from_utf8_lossy(&exit.stderr).trim().to_owned()
    }

    #[test]
    fn run_passes_input_and_returns_output() {
        // More bytes than the buffer of a pipe, in both directions at once.
        let bytes: Vec<u8> = (0..500_000u32).flat_map(u32::to_le_bytes).collect();
        let exit = run("cat", |run| (run.input, run.output_bytes) = (Some(bytes.clone()), Some(1 << 22)));
        assert!(exit.output.unwrap() == bytes);
        // A program need not read its input.
        assert_eq!(run("echo done", |run| run.input = Some(bytes)).output.unwrap(), b"done\n");
    }

    #[test]
    fn run_uses_scratch_folder_as_working_folder() {
        let exit = run(
            "[ \"$(pwd -P)\" = \"$(cd $TMPDIR; pwd -P)\" ] && [ \"$TMPDIR\" = \"$FREETUMOR_FOLDER\" ] && echo yes",
            |_| {},
        );
        assert_eq!(exit.output.unwrap(), b"yes\n");
    }

    #[test]
    fn run_reports_exit_code_and_signal() {
        let exit = run("echo no >&2; exit 7", |_| {});
        assert_eq!(stderr_of(&exit), "no");
        assert!(matches!(exit.output, Err(Failure::Exit(status)) if status.code() == Some(7)));
        let exit = run("kill -SEGV $$", |_| {});
        assert!(matches!(exit.output, Err(Failure::Exit(status)) if status.code().is_none()));
        let exit = run("", |run| run.program = Path::new("/no/such/program"));
        assert!(
            matches!(exit.output, Err(Failure::Exit(status)) if status.code() == Some(127)),
            "{}",
            stderr_of(&exit)
        );
    }

    #[test]
    fn run_ends_program_and_children_at_limits() {
        let seconds = |seconds: f64| move |run: &mut ProcessRun<'_>| run.limits.time = Duration::from_secs_f64(seconds);
        let start = Instant::now();
        let exit = run("sleep 60 & echo $! >&2; sleep 60", seconds(0.3));
        assert!(matches!(exit.output, Err(Failure::Time)));
        assert!(!is_running(&stderr_of(&exit)) && start.elapsed() < Duration::from_secs(20));
        let exit = run("yes", |run| run.output_bytes = Some(1000));
        assert!(matches!(exit.output, Err(Failure::Output)));
        let exit = run("yes > file", |run| run.limits.scratch_bytes = 1 << 20);
        assert!(matches!(exit.output, Err(Failure::Scratch)));
        let exit = run("yes >&2 & sleep 0.3", |_| {});
        assert!(exit.output.is_ok() && exit.stderr.len() == STDERR_BYTES);
    }

    #[test]
    fn run_ends_children_of_successful_program() {
        let start = Instant::now();
        let exit = run("sleep 60 & echo $! >&2; echo fine", |_| {});
        assert_eq!(exit.output.as_deref().unwrap(), b"fine\n");
        assert!(!is_running(&stderr_of(&exit)) && start.elapsed() < Duration::from_secs(20));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn run_ends_daemons() {
        let exit = run("setsid sh -c 'echo $$ >&2; exec sleep 60' & sleep 0.3", |_| {});
        assert!(exit.output.is_ok() && !stderr_of(&exit).is_empty());
        assert!(!is_running(&stderr_of(&exit)), "{}", stderr_of(&exit));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn run_limits_memory_of_one_process_and_of_all() {
        // A shell variable that doubles.
        let grow = |limit: u64| {
            run("x=0123456789abcdef; while :; do x=$x$x; done", move |run| run.limits.memory_bytes = Some(limit))
        };
        assert!(matches!(grow(64 << 20).output, Err(Failure::Exit(_) | Failure::Memory)));
        // Each process is within the limit, all together are not.
        let hold = "hold() { x=0123456789abcdef; i=0; while [ $i -lt 20 ]; do x=$x$x; i=$((i+1)); done; sleep 60; }; \
                    hold & hold & hold & hold & hold & hold & wait";
        let exit = run(hold, |run| run.limits.memory_bytes = Some(64 << 20));
        assert!(matches!(exit.output, Err(Failure::Memory)), "{}", stderr_of(&exit));
    }
}
