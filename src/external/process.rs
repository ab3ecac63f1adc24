//! Running one program to its end, within limits of time, memory, scratch space and output.
//!
//! Nothing here waits for the program without a limit: its streams are served by threads of their own, and when it is
//! over, well or not, its whole process group is ended.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{ChildStdin, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::group::{MARK, ProcessGroup, command};

/// What of standard error is kept.
const STDERR_BYTES: usize = 8 * 1024;
/// How often memory and scratch space are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Longest time between two looks at whether the program has ended.
const PAUSE: Duration = Duration::from_millis(10);
/// How long streams may stay open behind a program that has been ended.
const CLOSING: Duration = Duration::from_secs(5);

/// What one run of a program may cost.
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
    /// Where it runs, and where its temporary files go.
    pub folder: &'a Path,
    /// What it finds on standard input; nothing where absent.
    pub input: Option<Vec<u8>>,
    /// Most bytes that it may write to standard output, which is thrown away where absent.
    pub output_bytes: Option<u64>,
    pub limits: Limits,
}

/// Why a program gave no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The system could not start or watch it.
    System(io::Error),
    /// It ended by itself, but not well.
    Exit(ExitStatus),
    /// It took too long.
    Time,
    /// It and its children held too much memory.
    Memory,
    /// Its files grew too large.
    Scratch,
    /// It wrote too much to standard output.
    Output,
    /// It was killed and yet did not end, or its streams did not.
    Stuck,
}

/// What is left of a run: standard output or why there is none, and the end of standard error.
pub(super) struct ProcessExit {
    pub output: Result<Vec<u8>, Failure>,
    pub stderr: Vec<u8>,
}

impl ProcessRun<'_> {
    /// Runs the program to its end.
    pub fn go(self) -> ProcessExit {
        let last = Arc::new(Mutex::new(Vec::new()));
        let output = self.watched(&last);
        let stderr = std::mem::take(&mut *last.lock().unwrap_or_else(PoisonError::into_inner));
        ProcessExit { output, stderr }
    }

    fn watched(self, last: &Arc<Mutex<Vec<u8>>>) -> Result<Vec<u8>, Failure> {
        let mut command = command(self.program, self.folder, self.limits.memory_bytes);
        command.args(&self.arguments).current_dir(self.folder);
        command.env(MARK, self.folder).env("TMPDIR", self.folder);
        // The secret behind patient keys is no business of other programs.
        command.env_remove(crate::ingest::PatientSecret::VARIABLE);
        let piped = |wanted: bool| if wanted { Stdio::piped() } else { Stdio::null() };
        command.stdin(piped(self.input.is_some())).stdout(piped(self.output_bytes.is_some())).stderr(Stdio::piped());
        let begun = Instant::now();
        let mut child = command.spawn().map_err(Failure::System)?;
        let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut group = ProcessGroup::new(child, self.folder);
        let flooded = Arc::new(AtomicBool::new(false));
        let output = match (streams.1, self.output_bytes) {
            (Some(stdout), Some(most)) => Some(collect(stdout, most, &flooded)?),
            _ => None,
        };
        let errors = streams.2.map(|stderr| keep_last(stderr, last)).transpose()?;
        if let (Some(stdin), Some(bytes)) = (streams.0, self.input) {
            feed(stdin, bytes)?;
        }
        let stopped = self.limits.watch(begun, &mut group, self.folder, &flooded);
        // Whoever is left would keep streams open, and write into answers that are being read.
        let status = group.end().map_err(Failure::System)?.ok_or(Failure::Stuck)?;
        let closing = Instant::now();
        let wait = |over: &Receiver<Vec<u8>>| match over.recv_timeout(CLOSING.saturating_sub(closing.elapsed())) {
            Ok(bytes) => Ok(bytes),
            Err(RecvTimeoutError::Disconnected) => Ok(Vec::new()),
            Err(RecvTimeoutError::Timeout) => Err(Failure::Stuck),
        };
        let bytes = output.as_ref().map_or(Ok(Vec::new()), wait);
        errors.as_ref().map_or(Ok(Vec::new()), wait)?;
        stopped?;
        if flooded.load(Ordering::Acquire) {
            return Err(Failure::Output);
        }
        if !status.success() {
            return Err(Failure::Exit(status));
        }
        bytes
    }
}

impl Limits {
    /// Waits until the program ends or passes a limit.
    fn watch(
        &self,
        begun: Instant,
        group: &mut ProcessGroup,
        folder: &Path,
        flooded: &AtomicBool,
    ) -> Result<(), Failure> {
        let mut pause = Duration::from_millis(1);
        let mut looked = begun;
        loop {
            if group.has_ended().map_err(Failure::System)? {
                return Ok(());
            }
            if flooded.load(Ordering::Acquire) {
                return Err(Failure::Output);
            }
            if begun.elapsed() >= self.time {
                return Err(Failure::Time);
            }
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                let held = self.memory_bytes.and_then(|most| Some(group.resident_bytes()? > most));
                if held == Some(true) {
                    return Err(Failure::Memory);
                }
                if bytes_below(folder) > self.scratch_bytes {
                    return Err(Failure::Scratch);
                }
            }
            std::thread::sleep(pause.min(self.time.saturating_sub(begun.elapsed())));
            pause = (2 * pause).min(PAUSE);
        }
    }
}

/// Bytes of all files below a folder; what goes away meanwhile counts nothing.
fn bytes_below(folder: &Path) -> u64 {
    let entries = walkdir::WalkDir::new(folder).into_iter().flatten().filter(|entry| entry.file_type().is_file());
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    std::thread::Builder::new().name(name.into()).spawn(work).map(drop).map_err(Failure::System)
}

/// Writes to standard input. A program that does not want all of it is told by its answer, not by that.
fn feed(mut stdin: ChildStdin, bytes: Vec<u8>) -> Result<(), Failure> {
    thread("command-stdin", move || drop(stdin.write_all(&bytes)))
}

/// Reads standard output, which comes in one piece when it ends; more than `most` bytes raise `flooded`.
fn collect(
    stdout: impl Read + Send + 'static,
    most: u64,
    flooded: &Arc<AtomicBool>,
) -> Result<Receiver<Vec<u8>>, Failure> {
    let (done, over) = channel();
    let flooded = Arc::clone(flooded);
    thread("command-stdout", move || {
        let mut bytes = Vec::new();
        // A stream that breaks is one that ends early: the answer shows it.
        let _ = stdout.take(most.saturating_add(1)).read_to_end(&mut bytes);
        if bytes.len() as u64 > most {
            flooded.store(true, Ordering::Release);
        }
        let _ = done.send(bytes);
    })?;
    Ok(over)
}

/// Reads standard error to its end and keeps the last of it.
fn keep_last(mut stderr: impl Read + Send + 'static, last: &Arc<Mutex<Vec<u8>>>) -> Result<Receiver<Vec<u8>>, Failure> {
    let (done, over) = channel::<Vec<u8>>();
    let last = Arc::clone(last);
    thread("command-stderr", move || {
        let mut block = [0; 4096];
        while let Ok(came @ 1..) = stderr.read(&mut block) {
            let mut kept = last.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(&block[..came]);
            let surplus = kept.len().saturating_sub(STDERR_BYTES);
            kept.drain(..surplus);
        }
        drop(done);
    })?;
    Ok(over)
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
        run.go()
    }

    /// Whether a process is there and no zombie.
    fn lives(id: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"));
        stat.is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with('Z'))
    }

    fn told(ended: &ProcessExit) -> String {
        String::from_utf8_lossy(&ended.stderr).trim().to_owned()
    }

    #[test]
    fn input_goes_in_and_output_comes_back() {
        // More than a pipe holds, both ways at once.
        let bytes: Vec<u8> = (0..500_000u32).flat_map(u32::to_le_bytes).collect();
        let ended = run("cat", |run| (run.input, run.output_bytes) = (Some(bytes.clone()), Some(1 << 22)));
        assert!(ended.output.unwrap() == bytes);
        // A program that does not read its input is none the worse for it.
        assert_eq!(run("echo done", |run| run.input = Some(bytes)).output.unwrap(), b"done\n");
    }

    #[test]
    fn the_place_is_the_scratch_folder() {
        let ended = run(
            "[ \"$(pwd -P)\" = \"$(cd $TMPDIR; pwd -P)\" ] && [ \"$TMPDIR\" = \"$FREETUMOR_FOLDER\" ] && echo yes",
            |_| {},
        );
        assert_eq!(ended.output.unwrap(), b"yes\n");
    }

    #[test]
    fn how_it_ended_is_known() {
        let ended = run("echo no >&2; exit 7", |_| {});
        assert_eq!(told(&ended), "no");
        assert!(matches!(ended.output, Err(Failure::Exit(status)) if status.code() == Some(7)));
        let ended = run("kill -SEGV $$", |_| {});
        assert!(matches!(ended.output, Err(Failure::Exit(status)) if status.code().is_none()));
        let ended = run("", |run| run.program = Path::new("/no/such/program"));
        assert!(matches!(ended.output, Err(Failure::Exit(status)) if status.code() == Some(127)), "{}", told(&ended));
    }

    #[test]
    fn what_passes_a_limit_is_stopped_with_all_that_it_started() {
        let seconds = |seconds: f64| move |run: &mut ProcessRun<'_>| run.limits.time = Duration::from_secs_f64(seconds);
        let begun = Instant::now();
        let ended = run("sleep 60 & echo $! >&2; sleep 60", seconds(0.3));
        assert!(matches!(ended.output, Err(Failure::Time)));
        assert!(!lives(&told(&ended)) && begun.elapsed() < Duration::from_secs(20));
        let ended = run("yes", |run| run.output_bytes = Some(1000));
        assert!(matches!(ended.output, Err(Failure::Output)));
        let ended = run("yes > file", |run| run.limits.scratch_bytes = 1 << 20);
        assert!(matches!(ended.output, Err(Failure::Scratch)));
        let ended = run("yes >&2 & sleep 0.3", |_| {});
        assert!(ended.output.is_ok() && ended.stderr.len() == STDERR_BYTES);
    }

    #[test]
    fn children_do_not_outlive_a_program_that_ends_well() {
        let begun = Instant::now();
        let ended = run("sleep 60 & echo $! >&2; echo fine", |_| {});
        assert_eq!(ended.output.as_deref().unwrap(), b"fine\n");
        assert!(!lives(&told(&ended)) && begun.elapsed() < Duration::from_secs(20));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_daemon_does_not_get_away() {
        let ended = run("setsid sh -c 'echo $$ >&2; exec sleep 60' & sleep 0.3", |_| {});
        assert!(ended.output.is_ok() && !told(&ended).is_empty());
        assert!(!lives(&told(&ended)), "{}", told(&ended));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_limited_for_one_process_and_for_all_together() {
        // A shell's variable that doubles.
        let grow = |limit: u64| {
            run("x=0123456789abcdef; while :; do x=$x$x; done", move |run| run.limits.memory_bytes = Some(limit))
        };
        assert!(matches!(grow(64 << 20).output, Err(Failure::Exit(_) | Failure::Memory)));
        // Each by itself is within the limit, together they are not.
        let hold = "hold() { x=0123456789abcdef; i=0; while [ $i -lt 20 ]; do x=$x$x; i=$((i+1)); done; sleep 60; }; \
                    hold & hold & hold & hold & hold & hold & wait";
        let ended = run(hold, |run| run.limits.memory_bytes = Some(64 << 20));
        assert!(matches!(ended.output, Err(Failure::Memory)), "{}", told(&ended));
    }
}
