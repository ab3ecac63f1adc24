//! Decoding of compressed pixels, in this process or in a child process whose crash fails one scan only.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rayon::prelude::*;

use super::codec;
use super::frame::Frame;
use super::worker::{self, MESSAGE_BYTES};
use crate::error::{Fault, FaultKind, is_killed};

/// Default limit of threads of one decoder.
pub(super) const DEFAULT_THREADS: usize = 8;

/// Longest wait that counts towards the timeout; a longer one means that this process was suspended.
const LONGEST_GAP: Duration = Duration::from_secs(1);

/// The pixels of each frame, or the first fault.
type DecodedFrames = Result<Vec<Vec<u8>>, Fault>;

/// The decoder of compressed pixels: the process in which it runs, its threads and its timeout.
///
/// Some decoders are translated C code that hostile bytes can crash. [`Decoder::in_child_process`] isolates them from the run:
/// the child process decodes all slices of a series, with limited address space if the platform supports such a limit, and a crash,
/// a timeout or an invalid response is a fault of that scan. [`Decoder::in_process`] catches panics only.
///
/// ```
/// use freetumor::ingest::dicom::Decoder;
/// let decoder = Decoder::in_child_process(std::env::current_exe().unwrap());
/// assert_ne!(decoder, Decoder::in_process());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoder {
    program: Option<(PathBuf, Vec<OsString>)>,
    slice_time: Duration,
    threads: usize,
}

impl Decoder {
    /// Creates a decoder in this process, on the rayon pool.
    pub fn in_process() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { program: None, slice_time: Duration::from_secs(30), threads: cores.min(DEFAULT_THREADS) }
    }

    /// Creates a decoder in child processes: one process `program decode-dicom` for each series, where `program` is the
    /// `freetumor` command or another program that calls [`serve`](super::serve).
    pub fn in_child_process(program: PathBuf) -> Self {
        Self { program: Some((program, vec!["decode-dicom".into()])), ..Self::in_process() }
    }

    /// Sets the timeout of one batch of slices, after which the decoder process is stopped; 30 s by default.
    #[must_use]
    pub fn with_slice_time(self, slice_time: Duration) -> Self {
        Self { slice_time, ..self }
    }

    /// Sets how many slices of a series are decoded at once; by default the number of cores, at most 8. Use fewer threads to
    /// read several series at once. Memory holds this number of slices in addition to the volume.
    #[must_use]
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads: threads.clamp(1, 255), ..self }
    }

    /// Returns the number of slices that are decoded at once.
    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// Returns a decoder for the slices of one series; a child process starts with the first batch.
    pub(super) fn session(&self) -> SeriesDecoder<'_> {
        SeriesDecoder { decoder: self, process: None }
    }
}

/// A decoder of the slices of one series, in one process.
pub(super) struct SeriesDecoder<'a> {
    decoder: &'a Decoder,
    process: Option<DecoderProcess>,
}

impl SeriesDecoder<'_> {
    /// Decodes frames to little-endian pixels; at most as many frames as the decoder has threads.
    pub fn decode(&mut self, frames: Vec<Frame>) -> Result<Vec<Vec<u8>>, Fault> {
        let Some((program, arguments)) = &self.decoder.program else {
            return frames.par_iter().map(codec::decode).collect::<Vec<_>>().into_iter().collect();
        };
        let process = match &mut self.process {
            Some(process) => process,
            None => {
                self.process.insert(DecoderProcess::start(Command::new(program).args(arguments), self.decoder.threads)?)
            }
        };
        process.decode(frames, self.decoder.slice_time)
    }
}

/// A running decoder process, with a thread that exchanges data with the process so that a timeout can be applied.
struct DecoderProcess {
    process: Child,
    frames: Sender<Vec<Frame>>,
    responses: Receiver<io::Result<DecodedFrames>>,
}

impl DecoderProcess {
    fn start(command: &mut Command, threads: usize) -> Result<Self, Fault> {
        let failed = |error: io::Error| {
            Fault::read(FaultKind::Io, format!("cannot start the decoder of compressed slices: {}", error.kind()))
        };
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(failed)?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        let (frames, batches) = bounded(1);
        let (results, responses) = bounded(1);
        std::thread::Builder::new()
            .name("dicom-decoder".into())
            .spawn(move || exchange(input, output, threads, &batches, &results))
            .map_err(failed)?;
        Ok(Self { process, frames, responses })
    }

    fn decode(&mut self, frames: Vec<Frame>, timeout: Duration) -> DecodedFrames {
        // If the thread has ended, its error is among the responses.
        let _ = self.frames.send(frames);
        match self.response(timeout) {
            Ok(Ok(decoded)) => decoded,
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                Err(process_fault(format!("sent an invalid response ({error})")))
            }
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => {
                let (kind, reason) = self.exit_reason();
                Err(Fault { kind, ..process_fault(reason) })
            }
            Err(RecvTimeoutError::Timeout) => {
                Err(process_fault(format!("did not respond within {:.1} s and was stopped", timeout.as_secs_f64())))
            }
        }
    }

    /// Waits for the response to a batch. Only time in which this process ran counts: a suspended machine is no fault of the slices.
    fn response(&self, timeout: Duration) -> Result<io::Result<DecodedFrames>, RecvTimeoutError> {
        let mut waited = Duration::ZERO;
        loop {
            let start = Instant::now();
            match self.responses.recv_timeout(timeout.saturating_sub(waited).min(LONGEST_GAP)) {
                Err(RecvTimeoutError::Timeout) => waited += start.elapsed().min(LONGEST_GAP),
                response => return response,
            }
            if waited >= timeout {
                return Err(RecvTimeoutError::Timeout);
            }
        }
    }

    /// Waits up to a second for a process that closed its pipes, and describes its exit.
    fn exit_reason(&mut self) -> (FaultKind, String) {
        for _ in 0..100 {
            match self.process.try_wait() {
                Ok(Some(status)) if is_killed(status) => return (FaultKind::Interrupted, describe(status)),
                Ok(Some(status)) => return (FaultKind::Panic, describe(status)),
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                Err(_) => break,
            }
        }
        (FaultKind::Panic, "closed its pipes and was stopped".into())
    }
}

impl Drop for DecoderProcess {
    fn drop(&mut self) {
        // All required responses were received, and a hanging process must not outlive the decoder.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn process_fault(reason: String) -> Fault {
    Fault::read(FaultKind::Panic, format!("the decoder of compressed slices {reason}"))
}

fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        let name = match signal {
            4 => " (illegal instruction)",
            6 => " (abort)",
            7 | 10 => " (bus error)",
            8 => " (arithmetic error)",
            9 => " (SIGKILL)",
            11 => " (segmentation fault)",
            24 => " (CPU time limit exceeded)",
            _ => "",
        };
        return format!("was killed by signal {signal}{name}");
    }
    match status.code() {
        Some(code) => format!("ended early with exit code {code}"),
        None => "ended early".into(),
    }
}

/// Sends batches of frames and receives responses until a channel or a pipe is closed.
fn exchange(
    mut input: ChildStdin,
    mut output: ChildStdout,
    threads: usize,
    batches: &Receiver<Vec<Frame>>,
    results: &Sender<io::Result<DecodedFrames>>,
) {
    let mut handshake_sent = false;
    for frames in batches {
        let mut decode = || {
            if !std::mem::replace(&mut handshake_sent, true) {
                worker::write_handshake(&mut input, threads)?;
            }
            worker::write_requests(&mut input, &frames)?;
            // All responses are read, so that the pipe is empty after a fault.
            let responses: io::Result<Vec<_>> =
                frames.iter().map(|frame| read_response(&mut output, frame.decoded_bytes())).collect();
            Ok(responses?.into_iter().collect::<DecodedFrames>())
        };
        let decoded = decode();
        let failed = decoded.is_err();
        if results.send(decoded).is_err() || failed {
            return;
        }
    }
}

/// Reads the response for one frame; pixels must have the expected size.
fn read_response(output: &mut impl Read, expected: usize) -> io::Result<Result<Vec<u8>, Fault>> {
    let invalid = |message: String| io::Error::new(io::ErrorKind::InvalidData, message);
    let mut head = [0; 9];
    output.read_exact(&mut head)?;
    let [status, length @ ..] = head;
    let length = u64::from_le_bytes(length);
    if status == 0 {
        if length != expected as u64 {
            return Err(invalid(format!("expected {expected} bytes of pixels, got {length}")));
        }
        let mut pixels = vec![0; expected];
        output.read_exact(&mut pixels)?;
        return Ok(Ok(pixels));
    }
    let kind = worker::fault_kind(status).ok_or_else(|| invalid(format!("unknown status {status}")))?;
    if length > MESSAGE_BYTES as u64 {
        return Err(invalid(format!("expected a message of at most {MESSAGE_BYTES} bytes, got {length}")));
    }
    let mut message = vec![0; length as usize];
    output.read_exact(&mut message)?;
    Ok(Err(Fault::read(kind, String::from_utf8_lossy(&message))))
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::pixels::PixelFormat;
    use super::super::syntax::Syntax;
    use super::*;

    fn fault_of(script: &str) -> Fault {
        let decoder = Decoder {
            program: Some(("/bin/sh".into(), vec!["-c".into(), script.into()])),
            ..Decoder::in_process().with_slice_time(Duration::from_millis(500))
        };
        let format = PixelFormat { bytes: 2, bits: 16, signed: false };
        // More than the capacity of a pipe, so that a process that does not read blocks the writer, too.
        let frame = Frame { syntax: Syntax::Rle, shape: [2, 2], format, bytes: vec![0; 1 << 20] };
        decoder.session().decode(vec![frame]).expect_err("the process is not a decoder")
    }

    #[test]
    fn hanging_decoder_process_is_stopped() {
        let started = Instant::now();
        let fault = fault_of("exec sleep 60");
        assert_eq!(fault.kind, FaultKind::Panic);
        assert!(fault.message.ends_with("did not respond within 0.5 s and was stopped"), "{fault}");
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn signal_of_crashed_decoder_process_is_reported() {
        for (signal, message) in
            [("SEGV", "was killed by signal 11 (segmentation fault)"), ("ABRT", "was killed by signal 6 (abort)")]
        {
            let fault = fault_of(&format!("kill -{signal} $$"));
            assert_eq!(fault.kind, FaultKind::Panic);
            assert!(fault.message.ends_with(message), "{fault}");
        }
    }

    #[test]
    fn invalid_response_of_decoder_process_is_fault() {
        let fault = |bytes: &str| fault_of(&format!("printf '{bytes}'; exec cat > /dev/null"));
        // Status 0 with 9 bytes for 2 × 2 pixels of 2 bytes.
        let long = fault(r"\000\011\000\000\000\000\000\000\000");
        assert!(long.message.contains("expected 8 bytes of pixels, got 9"), "{long}");
        let status = fault(r"\144\000\000\000\000\000\000\000\000");
        assert!(status.message.contains("unknown status 100"), "{status}");
        let message = fault(r"\001\000\000\000\000\001\000\000\000");
        assert!(message.message.contains("expected a message of at most 512 bytes, got 4294967296"), "{message}");
        let refusal = fault(r"\003\002\000\000\000\000\000\000\000no");
        assert_eq!(refusal, Fault::read(FaultKind::Unsupported, "no"));
    }
}
