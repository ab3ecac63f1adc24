//! `freetumor run … --sink NAME`: samples for a trainer, through a pipe or a socket, during the run and after it.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::dataflow::Progress;
use crate::error::{Error, Result};
use crate::graph::Plan;
use crate::id::SampleId;
use crate::random::Key;
use crate::record::{FileEntry, Split};
use crate::run::RunFolder;
use crate::sink::pairs::{Pair, index_of};
use crate::sink::stream::{StreamEnd, TarStream, read_split};

/// Maximum time for which a stopped run finishes its work in progress.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Interval at which the run folder is polled for new commits.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The state of the run whose samples are streamed.
#[derive(Default)]
pub struct RunState {
    ended: AtomicBool,
    failed: AtomicBool,
}

impl RunState {
    /// Marks the run as ended.
    pub fn end(&self, failed: bool) {
        self.failed.store(failed, Ordering::Release);
        self.ended.store(true, Ordering::Release);
    }

    fn is_over(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn has_failed(&self) -> bool {
        self.is_over() && self.failed.load(Ordering::Acquire)
    }
}

/// A stream of the samples of a sink.
pub struct Stream {
    /// The run folder.
    folder: PathBuf,
    /// The sink.
    sink: String,
    /// The split of the samples.
    split: Split,
    /// The seed of the order in later passes.
    seed: u64,
    /// Number of passes over all samples; 0 for an endless stream.
    passes: u64,
    /// A Unix socket to listen on; standard output if absent.
    socket: Option<Socket>,
}

impl Stream {
    /// Creates the stream of a sink of the plan, and binds its socket.
    ///
    /// # Errors
    /// If there is no such sink, the sink has another kind, or the socket cannot be bound.
    pub fn new(plan: &Plan, folder: &Path, sink: &str, passes: u64, socket: Option<&Path>) -> Result<Self> {
        let streams = plan.sinks.iter().filter_map(|node| Some((node.name.as_str(), node.output.streamed_split()?)));
        let streams: Vec<(&str, Split)> = streams.collect();
        let Some((_, split)) = streams.iter().find(|(name, _)| *name == sink) else {
            let names: Vec<&str> = streams.iter().map(|(name, _)| *name).collect();
            let error = Error::new(format!("the pipeline has no sink `{sink}` of kind `stream`"));
            return Err(error.with_hint(match names[..] {
                [] => format!("add [sinks.{sink}] with kind = \"stream\" and inputs"),
                _ => format!("use one of its streams: {}", names.join(", ")),
            }));
        };
        let socket = socket.map(Socket::bind).transpose()?;
        Ok(Self { folder: folder.to_owned(), sink: sink.to_owned(), split: *split, seed: plan.seed, passes, socket })
    }

    /// Returns the exit code after a complete stream: readers of a pipe take any code other than 0 for a failure of the stream.
    pub fn exit_code(&self, code: u8) -> u8 {
        if self.socket.is_some() { code } else { 0 }
    }

    /// Streams until the reader closes the stream, all passes are done, the run has failed, or the run ended without a sample. A pipe
    /// has one reader, and the run is stopped when that reader disconnects; a socket has one reader after the other, and each reader gets
    /// all samples from the start.
    ///
    /// # Errors
    /// If the output cannot be opened, or a committed sample cannot be read.
    pub fn serve(&self, run: &RunState, progress: &Progress) -> Result<()> {
        let Some(socket) = &self.socket else {
            let out = stdout()?;
            let exit = self.write_to(&out, || is_closed(&out), run)?;
            if exit == ReaderExit::Closed && !run.is_over() {
                stop_run(run, progress);
            }
            return Ok(());
        };
        self.listen(socket, run)
    }

    #[cfg(unix)]
    fn listen(&self, socket: &Socket, run: &RunState) -> Result<()> {
        let failed = |cause| Error::io("cannot listen on", &socket.path, cause);
        loop {
            if run.has_failed() {
                return Ok(());
            }
            match socket.listener.accept() {
                Ok((reader, _)) => {
                    reader.set_nonblocking(false).map_err(failed)?;
                    // After a reader that disconnects, accept the next; after a reader that got all passes, stop.
                    match self.write_to(&reader, || is_closed(&reader), run)? {
                        ReaderExit::Closed => {}
                        ReaderExit::All => return Ok(()),
                    }
                }
                Err(cause) if cause.kind() == std::io::ErrorKind::WouldBlock => std::thread::sleep(POLL_INTERVAL),
                Err(cause) => return Err(failed(cause)),
            }
        }
    }

    #[cfg(not(unix))]
    fn listen(&self, _: &Socket, _: &RunState) -> Result<()> {
        Ok(())
    }

    /// Writes the stream; `is_closed` returns whether the reader has disconnected, also while there is nothing to write.
    fn write_to(&self, out: impl Write, is_closed: impl Fn() -> bool, run: &RunState) -> Result<ReaderExit> {
        let mut tar = TarStream::new(BufWriter::with_capacity(1 << 20, out));
        match self.passes_to(&mut tar, &is_closed, run) {
            Ok(()) => Ok(ReaderExit::All),
            Err(StreamEnd::Closed(_)) => Ok(ReaderExit::Closed),
            Err(StreamEnd::Failed(error)) => Err(error),
        }
    }

    fn passes_to<W: Write>(
        &self,
        tar: &mut TarStream<W>,
        is_closed: &dyn Fn() -> bool,
        run: &RunState,
    ) -> Result<(), StreamEnd> {
        let mut samples = self.first_pass(tar, is_closed, run)?;
        let mut pass = 1;
        while !run.has_failed() && !samples.is_empty() && (self.passes == 0 || pass < self.passes) {
            let mut pairs: Vec<Pair> = samples.pairs().cloned().collect();
            shuffle(&mut pairs, Key::root(self.seed).with("stream", &self.sink).number("pass", pass));
            for pair in &pairs {
                tar.write_sample(&**samples.folder.store(), pair, pass)?;
            }
            samples.refresh().map_err(StreamEnd::Failed)?;
            pass += 1;
        }
        tar.finish().map_err(StreamEnd::of_writing)
    }

    /// Writes all samples that are committed until the run ends.
    fn first_pass<W: Write>(
        &self,
        tar: &mut TarStream<W>,
        is_closed: &dyn Fn() -> bool,
        run: &RunState,
    ) -> Result<CurrentSamples, StreamEnd> {
        let wait = || {
            std::thread::sleep(POLL_INTERVAL);
            if is_closed() { Err(StreamEnd::Closed(std::io::ErrorKind::BrokenPipe.into())) } else { Ok(()) }
        };
        let mut samples = loop {
            // A run creates its folder shortly after its start.
            let was_over = run.is_over();
            match CurrentSamples::open(&self.folder, &self.sink, self.split) {
                Ok(samples) => break samples,
                Err(error) if was_over => return Err(StreamEnd::Failed(error)),
                Err(_) => wait()?,
            }
        };
        let mut sent: HashSet<SampleId> = HashSet::new();
        loop {
            let was_over = run.is_over();
            if samples.refresh().map_err(StreamEnd::Failed)? {
                for pair in samples.pairs() {
                    // A commit that removes samples lists the other samples of their epoch again.
                    if sent.insert(pair.sample_id) {
                        tar.write_sample(&**samples.folder.store(), pair, 0)?;
                    }
                }
            }
            if was_over {
                return Ok(samples);
            }
            wait()?;
        }
    }
}

/// The samples of a sink at the last commit, in the order of their epochs.
struct CurrentSamples {
    path: PathBuf,
    folder: RunFolder,
    table: String,
    split: Split,
    /// The samples of each committed list.
    lists: BTreeMap<String, Vec<Pair>>,
    /// The commit whose lists were read.
    head: Option<u64>,
}

impl CurrentSamples {
    fn open(path: &Path, sink: &str, split: Split) -> Result<Self> {
        let folder = RunFolder::open(path)?;
        Ok(Self { path: path.to_owned(), folder, table: index_of(sink), split, lists: BTreeMap::new(), head: None })
    }

    /// Reads the lists of new commits; returns whether there are any.
    fn refresh(&mut self) -> Result<bool> {
        self.folder.refresh()?;
        if self.folder.head() == self.head {
            return Ok(false);
        }
        // Opened again, because earlier commits may have been deleted.
        self.folder = RunFolder::open(&self.path)?;
        let mut current: BTreeMap<String, FileEntry> = BTreeMap::new();
        self.folder.for_each_file(None, &mut |file| {
            if file.table == self.table {
                current.insert(file.path.clone(), file);
            }
            Ok(())
        })?;
        self.lists.retain(|path, _| current.contains_key(path));
        for (path, file) in current {
            if !self.lists.contains_key(&path) {
                let pairs = read_split(&**self.folder.store(), &file, self.split)?;
                self.lists.insert(path, pairs);
            }
        }
        self.head = self.folder.head();
        Ok(true)
    }

    fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.lists.values().flatten()
    }

    fn is_empty(&self) -> bool {
        self.lists.values().all(Vec::is_empty)
    }
}

/// Stops a run whose reader has disconnected. Committed epochs are kept. Work in progress may take long, for example in an external
/// program: after a timeout the process exits, and a later run repeats the work.
fn stop_run(run: &RunState, progress: &Progress) {
    tracing::warn!("the reader closed the stream: the run stops; the same command resumes it");
    progress.request_stop();
    let start = Instant::now();
    while !run.is_over() {
        if start.elapsed() > STOP_TIMEOUT {
            std::process::exit(0);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// A bound Unix socket, whose file is removed on drop.
struct Socket {
    path: PathBuf,
    #[cfg(unix)]
    listener: std::os::unix::net::UnixListener,
}

impl Socket {
    #[cfg(unix)]
    fn bind(path: &Path) -> Result<Self> {
        use std::os::unix::fs::FileTypeExt;
        use std::os::unix::net::{UnixListener, UnixStream};

        let failed = |cause| {
            Error::io("cannot listen on", path, cause).with_hint(
                "pass the path of an unused name in an existing folder, of at most about 100 bytes, with `--socket`",
            )
        };
        // Remove a stale socket of an earlier process, but neither a socket in use nor another kind of file.
        let is_socket = path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket());
        if is_socket && UnixStream::connect(path).is_err() {
            let _ = std::fs::remove_file(path);
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let socket = Self { path: path.to_owned(), listener };
        socket.listener.set_nonblocking(true).map_err(failed)?;
        Ok(socket)
    }

    #[cfg(not(unix))]
    fn bind(path: &Path) -> Result<Self> {
        Err(Error::new(format!("cannot listen on {}: this system has no Unix sockets", path.display())))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Returns whether the reader of a pipe or socket has disconnected.
#[cfg(unix)]
fn is_closed(out: impl std::os::fd::AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};

    let mut polled = [PollFd::new(&out, PollFlags::empty())];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

#[cfg(not(unix))]
fn is_closed<T>(_out: &T) -> bool {
    false
}

/// The end of a reader's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReaderExit {
    /// The reader got all passes.
    All,
    /// The reader closed the connection.
    Closed,
}

/// Returns a duplicate of standard output: the command holds the lock of the original.
#[cfg(unix)]
fn stdout() -> Result<File> {
    use std::os::fd::AsFd;

    let own = std::io::stdout().as_fd().try_clone_to_owned();
    own.map(File::from).map_err(|cause| Error::io("cannot write to", "standard output", cause))
}

#[cfg(not(unix))]
fn stdout() -> Result<std::io::Stdout> {
    Ok(std::io::stdout())
}

/// Shuffles pairs by the method of Fisher and Yates.
fn shuffle(pairs: &mut [Pair], key: Key) {
    let mut random = key.stream("order");
    for last in (1..pairs.len()).rev() {
        pairs.swap(last, random.index(last + 1));
    }
}
