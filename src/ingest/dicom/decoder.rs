//! Where compressed pixels are decoded: in this process, or in a child whose death costs one scan.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rayon::prelude::*;

use super::codec;
use super::frame::Frame;
use super::worker::{self, ANSWER_TEXT_BYTES};
use crate::error::{Fault, FaultKind};

/// Most threads of one child, unless the caller asks for more.
pub(super) const USUAL_THREADS: usize = 8;

/// The pixels of each frame, or the first fault among them.
type DecodedFrames = Result<Vec<Vec<u8>>, Fault>;

/// The place where compressed pixels are decoded, and how long a slice may take.
///
/// Some decoders are translated C that hostile bytes can crash. [`Decoder::child`] keeps that away from a run:
/// the child decodes all slices of a series, under a limit of address space where the platform has one, and its crash,
/// hang or lie is a fault of that scan. [`Decoder::in_process`] catches panics only.
///
/// ```
/// use freetumor::ingest::dicom::Decoder;
/// let decoder = Decoder::child(std::env::current_exe().unwrap());
/// assert_ne!(decoder, Decoder::in_process());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoder {
    program: Option<(PathBuf, Vec<OsString>)>,
    slice_time: Duration,
    threads: usize,
}

impl Decoder {
    /// Decodes in this process, on rayon's pool.
    pub fn in_process() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { program: None, slice_time: Duration::from_secs(30), threads: cores.min(USUAL_THREADS) }
    }

    /// Decodes in a child process: `program decode-dicom`, one for each series, where `program` is the `freetumor`
    /// command or another that calls [`serve`](super::serve).
    pub fn child(program: PathBuf) -> Self {
        Self { program: Some((program, vec!["decode-dicom".into()])), ..Self::in_process() }
    }

    /// The longest that one slice may take before the child is stopped; 30 s unless set.
    #[must_use]
    pub fn with_slice_time(self, slice_time: Duration) -> Self {
        Self { slice_time, ..self }
    }

    /// How many slices of a series are decoded at once; the number of cores up to 8 unless set. Whoever reads several
    /// series at once wants fewer. Memory holds that many slices beside the volume.
    #[must_use]
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads: threads.clamp(1, 255), ..self }
    }

    /// How many slices are decoded at once.
    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// A conversation for the slices of one series; a child starts with the first of them.
    pub(super) fn session(&self) -> SeriesDecoder<'_> {
        SeriesDecoder { decoder: self, conversation: None }
    }
}

/// Decodes the slices of one series.
pub(super) struct SeriesDecoder<'a> {
    decoder: &'a Decoder,
    conversation: Option<DecoderProcess>,
}

impl SeriesDecoder<'_> {
    /// The pixels of frames, little-endian: of at most as many as the decoder has threads.
    pub fn decode(&mut self, frames: Vec<Frame>) -> Result<Vec<Vec<u8>>, Fault> {
        let Some((program, arguments)) = &self.decoder.program else {
            return frames.par_iter().map(codec::decode).collect::<Vec<_>>().into_iter().collect();
        };
        let conversation = match &mut self.conversation {
            Some(conversation) => conversation,
            None => self
                .conversation
                .insert(DecoderProcess::start(Command::new(program).args(arguments), self.decoder.threads)?),
        };
        conversation.ask(frames, self.decoder.slice_time)
    }
}

/// A running child, with a thread that speaks with it so that nobody else can be kept waiting.
struct DecoderProcess {
    child: Child,
    frames: Sender<Vec<Frame>>,
    answers: Receiver<io::Result<DecodedFrames>>,
}

impl DecoderProcess {
    fn start(command: &mut Command, threads: usize) -> Result<Self, Fault> {
        let failed = |error: io::Error| {
            Fault::read(FaultKind::Io, format!("cannot start the decoder of compressed slices: {}", error.kind()))
        };
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(failed)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        let (frames, to_do) = bounded(1);
        let (done, answers) = bounded(1);
        std::thread::Builder::new()
            .name("dicom-decoder".into())
            .spawn(move || converse(input, output, threads, &to_do, &done))
            .map_err(failed)?;
        Ok(Self { child, frames, answers })
    }

    fn ask(&mut self, frames: Vec<Frame>, patience: Duration) -> DecodedFrames {
        // A thread that ended has left its reason among the answers.
        let _ = self.frames.send(frames);
        match self.answers.recv_timeout(patience) {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                Err(died(format!("gave an answer that makes no sense ({error})")))
            }
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => Err(died(self.fate())),
            Err(RecvTimeoutError::Timeout) => {
                Err(died(format!("did not answer within {:.1} s and was stopped", patience.as_secs_f64())))
            }
        }
    }

    /// How a child ended that closed its pipes; it may need a moment to do so.
    fn fate(&mut self) -> String {
        for _ in 0..100 {
            match self.child.try_wait() {
                Ok(Some(status)) => return describe(status),
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                Err(_) => break,
            }
        }
        "closed its pipes and was stopped".into()
    }
}

impl Drop for DecoderProcess {
    fn drop(&mut self) {
        // Every answer that was wanted is here: nothing is lost with the child, and a hanging one must not stay.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn died(fate: String) -> Fault {
    Fault::read(FaultKind::Panic, format!("the decoder of compressed slices {fate}"))
}

fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        let name = match signal {
            4 => " (illegal instruction)",
            6 => " (abort)",
            7 | 10 => " (bus error)",
            8 => " (arithmetic error)",
            9 => " (killed)",
            11 => " (segmentation fault)",
            24 => " (out of processor time)",
            _ => "",
        };
        return format!("died of signal {signal}{name}");
    }
    match status.code() {
        Some(code) => format!("ended early with exit code {code}"),
        None => "ended early".into(),
    }
}

/// Sends frames and receives answers until a side is gone.
fn converse(
    mut input: ChildStdin,
    mut output: ChildStdout,
    threads: usize,
    batches: &Receiver<Vec<Frame>>,
    answers: &Sender<io::Result<DecodedFrames>>,
) {
    let mut greeted = false;
    for frames in batches {
        let mut exchange = || {
            if !std::mem::replace(&mut greeted, true) {
                worker::write_greeting(&mut input, threads)?;
            }
            worker::write_requests(&mut input, &frames)?;
            // All answers are read, so that a fault leaves nothing in the pipe.
            let answers: io::Result<Vec<_>> =
                frames.iter().map(|frame| read_answer(&mut output, frame.decoded_bytes())).collect();
            Ok(answers?.into_iter().collect::<DecodedFrames>())
        };
        let answer = exchange();
        let over = answer.is_err();
        if answers.send(answer).is_err() || over {
            return;
        }
    }
}

/// Reads an answer of at most the expected size.
fn read_answer(output: &mut impl Read, expected: usize) -> io::Result<Result<Vec<u8>, Fault>> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut head = [0; 9];
    output.read_exact(&mut head)?;
    let [status, length @ ..] = head;
    let length = u64::from_le_bytes(length);
    if status == 0 {
        if length != expected as u64 {
            return Err(invalid(format!("{length} bytes where {expected} were due")));
        }
        let mut pixels = vec![0; expected];
        output.read_exact(&mut pixels)?;
        return Ok(Ok(pixels));
    }
    let kind = worker::kind_of(status).ok_or_else(|| invalid(format!("status {status}")))?;
    if length > ANSWER_TEXT_BYTES as u64 {
        return Err(invalid(format!("a message of {length} bytes")));
    }
    let mut text = vec![0; length as usize];
    output.read_exact(&mut text)?;
    Ok(Err(Fault::read(kind, String::from_utf8_lossy(&text))))
}

#[cfg(all(test, unix))]
mod tests {
    use std::time::Instant;

    use super::super::pixels::Stored;
    use super::super::syntax::Syntax;
    use super::*;

    fn fault_of(script: &str) -> Fault {
        let decoder = Decoder {
            program: Some(("/bin/sh".into(), vec!["-c".into(), script.into()])),
            ..Decoder::in_process().with_slice_time(Duration::from_millis(500))
        };
        let stored = Stored { bytes: 2, bits: 16, signed: false };
        // More than a pipe holds, so that a child that does not listen blocks the writing side too.
        let frame = Frame { syntax: Syntax::Rle, shape: [2, 2], stored, bytes: vec![0; 1 << 20] };
        decoder.session().decode(vec![frame]).expect_err("a child that is no decoder")
    }

    #[test]
    fn a_child_that_hangs_is_stopped() {
        let begun = Instant::now();
        let fault = fault_of("exec sleep 60");
        assert_eq!(fault.kind, FaultKind::Panic);
        assert!(fault.message.ends_with("did not answer within 0.5 s and was stopped"), "{fault}");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_child_that_crashes_is_told_by_its_signal() {
        for (signal, words) in
            [("SEGV", "died of signal 11 (segmentation fault)"), ("ABRT", "died of signal 6 (abort)")]
        {
            let fault = fault_of(&format!("kill -{signal} $$"));
            assert_eq!(fault.kind, FaultKind::Panic);
            assert!(fault.message.ends_with(words), "{fault}");
        }
    }

    #[test]
    fn a_child_that_lies_is_caught() {
        let answer = |bytes: &str| fault_of(&format!("printf '{bytes}'; exec cat > /dev/null"));
        // Status 0 with 9 bytes for 2 × 2 pixels of 2 bytes.
        let long = answer(r"\000\011\000\000\000\000\000\000\000");
        assert!(long.message.contains("9 bytes where 8 were due"), "{long}");
        let status = answer(r"\144\000\000\000\000\000\000\000\000");
        assert!(status.message.contains("status 100"), "{status}");
        let text = answer(r"\001\000\000\000\000\001\000\000\000");
        assert!(text.message.contains("a message of 4294967296 bytes"), "{text}");
        let refusal = answer(r"\003\002\000\000\000\000\000\000\000no");
        assert_eq!(refusal, Fault::read(FaultKind::Unsupported, "no"));
    }
}
