//! `freetumor run … --sink NAME`: samples for a trainer, through a pipe or a socket, during the run and after it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::graph::Plan;
use crate::random::Key;
use crate::record::{FileEntry, Split};
use crate::run::RunFolder;
use crate::sink::pairs::{Pair, index_of};
use crate::sink::stream::{StreamEnd, TarStream, read_split};

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
    pub folder: PathBuf,
    /// The sink.
    pub sink: String,
    /// The split of the samples.
    pub split: Split,
    /// The seed of the order in later passes.
    pub seed: u64,
    /// Number of passes over all samples; 0 for an endless stream.
    pub passes: u64,
    /// A Unix socket to listen on; standard output if absent.
    pub socket: Option<PathBuf>,
}

impl Stream {
    /// Creates the stream of a sink of the plan.
    ///
    /// # Errors
    /// If there is no such sink, or the sink has another kind.
    pub fn new(plan: &Plan, folder: &Path, sink: &str, passes: u64, socket: Option<PathBuf>) -> Result<Self> {
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
        Ok(Self { folder: folder.to_owned(), sink: sink.to_owned(), split: *split, seed: plan.seed, passes, socket })
    }

    /// Streams until the reader closes the stream, all passes are done, the run has failed, or the run ended without a sample. A pipe has one
    /// reader; a socket has one reader after the other, and each reader gets all samples from the start.
    ///
    /// # Errors
    /// If the output cannot be opened, or a committed sample cannot be read.
    pub fn serve(&self, run: &RunState) -> Result<()> {
        match &self.socket {
            None => self.write_to(stdout()?, run).map(|_| ()),
            Some(path) => self.listen(path, run),
        }
    }

    #[cfg(unix)]
    fn listen(&self, path: &Path, run: &RunState) -> Result<()> {
        use std::os::unix::fs::FileTypeExt;
        use std::os::unix::net::UnixListener;

        let failed = |cause| Error::io("cannot listen on", path, cause);
        // Remove a stale socket of an earlier process, but neither a socket in use nor another kind of file.
        let is_socket = path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket());
        if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
            let _ = std::fs::remove_file(path);
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let served = loop {
            if run.has_failed() {
                break Ok(());
            }
            match listener.accept() {
                Ok((reader, _)) => {
                    reader.set_nonblocking(false).map_err(failed)?;
                    // After a reader that disconnects, accept the next; after a reader that got all passes, stop.
                    match self.write_to(reader, run) {
                        Ok(ReaderExit::Closed) => {}
                        Ok(ReaderExit::All) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                }
                Err(cause) if cause.kind() == std::io::ErrorKind::WouldBlock => std::thread::sleep(POLL_INTERVAL),
                Err(cause) => break Err(failed(cause)),
            }
        };
        let _ = std::fs::remove_file(path);
        served
    }

    #[cfg(not(unix))]
    fn listen(&self, path: &Path, _: &RunState) -> Result<()> {
        Err(Error::new(format!("cannot listen on {}: this system has no Unix sockets", path.display())))
    }

    fn write_to(&self, out: impl Write, run: &RunState) -> Result<ReaderExit> {
        match self.passes_to(&mut TarStream::new(BufWriter::with_capacity(1 << 20, out)), run) {
            Ok(()) => Ok(ReaderExit::All),
            Err(StreamEnd::Closed(_)) => Ok(ReaderExit::Closed),
            Err(StreamEnd::Failed(error)) => Err(error),
        }
    }

    fn passes_to<W: Write>(&self, tar: &mut TarStream<W>, run: &RunState) -> Result<(), StreamEnd> {
        let (store, mut pairs) = self.first_pass(tar, run)?;
        let mut pass = 1;
        while !run.has_failed() && !pairs.is_empty() && (self.passes == 0 || pass < self.passes) {
            shuffle(&mut pairs, Key::root(self.seed).with("stream", &self.sink).number("pass", pass));
            for pair in &pairs {
                tar.write_sample(&*store, pair, pass)?;
            }
            pass += 1;
        }
        tar.finish().map_err(StreamEnd::of_writing)
    }

    /// Writes all samples that are committed until the run ends.
    fn first_pass<W: Write>(&self, tar: &mut TarStream<W>, run: &RunState) -> Result<StoredPairs, StreamEnd> {
        let (mut pairs, mut next) = (Vec::new(), 0);
        let mut folder = loop {
            // A run creates its folder shortly after its start.
            let was_over = run.is_over();
            match RunFolder::open(&self.folder) {
                Ok(folder) => break folder,
                Err(error) if was_over => return Err(StreamEnd::Failed(error)),
                Err(_) => std::thread::sleep(POLL_INTERVAL),
            }
        };
        let store = folder.store().clone();
        loop {
            let was_over = run.is_over();
            folder.refresh().map_err(StreamEnd::Failed)?;
            while folder.head().is_some_and(|head| next <= head) {
                let (commit, _) = folder.commit(next).map_err(StreamEnd::Failed)?;
                let table = index_of(&self.sink);
                for index in commit.add.iter().filter(|file: &&FileEntry| file.table == table) {
                    for pair in read_split(&*store, index, self.split).map_err(StreamEnd::Failed)? {
                        tar.write_sample(&*store, &pair, 0)?;
                        pairs.push(pair);
                    }
                }
                next += 1;
            }
            if was_over {
                return Ok((store, pairs));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

type StoredPairs = (std::sync::Arc<dyn crate::store::Durable>, Vec<Pair>);

/// The end of a reader's connection.
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
