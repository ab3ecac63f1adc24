//! The child's side of decoding, and the words that both sides exchange.
//!
//! A greeting (a magic word and a number of threads), then batches until the input ends: a number of slices, a request
//! for each, then an answer to each. All numbers are little-endian. A request is a code of the transfer syntax, bytes
//! and bits of a pixel, a sign flag, columns, rows, length and the compressed bytes; an answer is a status (0 for pixels,
//! otherwise the class of a fault), a length and the pixels or the fault's message.

use std::io::{self, Read, Write};

use rayon::prelude::*;

use super::codec;
use super::frame::Frame;
use super::pixels::Stored;
use super::syntax::Syntax;
use crate::error::FaultKind;

/// Most slices of a batch, and most threads.
const MOST_FRAMES: usize = 255;
/// What an allocator may set aside for a thread (glibc's arenas take 64 MiB each), and what decoding takes.
#[cfg(target_os = "linux")]
const ADDRESS_SPACE_PER_THREAD: u64 = 192 << 20;
#[cfg(target_os = "linux")]
const ADDRESS_SPACE_PER_FRAME_BYTE: u64 = 48;

/// Longest message of an answer.
pub(super) const ANSWER_TEXT_BYTES: usize = 512;

const MAGIC: [u8; 8] = *b"ftdicom1";
/// Faults that a decoder may report; an answer's status is the place in this list, counted from 1.
const KINDS: [FaultKind; 4] = [FaultKind::Corrupt, FaultKind::Truncated, FaultKind::Unsupported, FaultKind::TooLarge];

/// The class of a fault in an answer.
pub(super) fn kind_of(status: u8) -> Option<FaultKind> {
    KINDS.get(usize::from(status).checked_sub(1)?).copied()
}

/// Begins a conversation.
pub(super) fn write_greeting(output: &mut impl Write, threads: usize) -> io::Result<()> {
    output.write_all(&MAGIC)?;
    output.write_all(&(threads as u32).to_le_bytes())
}

/// Asks for the pixels of frames.
pub(super) fn write_requests(output: &mut impl Write, frames: &[Frame]) -> io::Result<()> {
    output.write_all(&(frames.len() as u32).to_le_bytes())?;
    for frame in frames {
        let Stored { bytes, bits, signed } = frame.stored;
        output.write_all(&[frame.syntax.code(), bytes as u8, bits as u8, u8::from(signed)])?;
        for length in frame.shape {
            output.write_all(&(length as u32).to_le_bytes())?;
        }
        output.write_all(&(frame.bytes.len() as u64).to_le_bytes())?;
        output.write_all(&frame.bytes)?;
    }
    output.flush()
}

/// Decodes compressed slices from `input` to `output` until `input` ends: the body of the hidden subcommand
/// `decode-dicom`, which [`Decoder::child`](super::Decoder::child) runs.
///
/// # Errors
/// Where a pipe breaks or the input is not such a conversation.
pub fn serve(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    let mut greeting = [0; 12];
    input.read_exact(&mut greeting)?;
    let [magic @ .., t0, t1, t2, t3] = greeting;
    let threads = u32::from_le_bytes([t0, t1, t2, t3]) as usize;
    if magic != MAGIC || !(1..=MOST_FRAMES).contains(&threads) {
        return Err(nonsense());
    }
    forbid_core_dumps()?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(io::Error::other)?;
    while let Some(frames) = read_requests(&mut input)? {
        limit_address_space(threads, frames.iter().map(Frame::decoded_bytes).max().unwrap_or(0))?;
        let answers: Vec<_> = pool.install(|| frames.par_iter().map(codec::decode).collect());
        for answer in answers {
            match answer {
                Ok(pixels) => write_answer(&mut output, 0, &pixels)?,
                Err(fault) => {
                    let status = KINDS.iter().position(|kind| *kind == fault.kind).map_or(1, |at| at as u8 + 1);
                    let text = fault.message.as_bytes();
                    write_answer(&mut output, status, &text[..text.len().min(ANSWER_TEXT_BYTES)])?;
                }
            }
        }
        output.flush()?;
    }
    Ok(())
}

fn write_answer(output: &mut impl Write, status: u8, bytes: &[u8]) -> io::Result<()> {
    output.write_all(&[status])?;
    output.write_all(&(bytes.len() as u64).to_le_bytes())?;
    output.write_all(bytes)
}

fn read_requests(input: &mut impl Read) -> io::Result<Option<Vec<Frame>>> {
    let mut count = [0; 4];
    if input.read(&mut count[..1])? == 0 {
        return Ok(None);
    }
    input.read_exact(&mut count[1..])?;
    let count = u32::from_le_bytes(count) as usize;
    if count > MOST_FRAMES {
        return Err(nonsense());
    }
    (0..count).map(|_| read_request(input)).collect::<io::Result<Vec<_>>>().map(Some)
}

fn read_request(input: &mut impl Read) -> io::Result<Frame> {
    let mut head = [0; 20];
    input.read_exact(&mut head)?;
    let [code, bytes, bits, signed, lengths @ ..] = head;
    let number = |at: usize| u32::from_le_bytes([lengths[at], lengths[at + 1], lengths[at + 2], lengths[at + 3]]);
    let length = u64::from(number(8)) | u64::from(number(12)) << 32;
    let syntax = Syntax::from_code(code).ok_or_else(nonsense)?;
    if ![1, 2].contains(&bytes) || !(1..=8 * bytes).contains(&bits) {
        return Err(nonsense());
    }
    let mut stream = Vec::new();
    if input.take(length).read_to_end(&mut stream)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Frame {
        syntax,
        shape: [number(0) as usize, number(4) as usize],
        stored: Stored { bytes: usize::from(bytes), bits: u32::from(bits), signed: signed != 0 },
        bytes: stream,
    })
}

fn nonsense() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "expected the requests of a freetumor process")
}

/// A crash must not leave a picture of a patient behind.
#[cfg(unix)]
fn forbid_core_dumps() -> io::Result<()> {
    lower(rustix::process::Resource::Core, 0)
}

#[cfg(not(unix))]
fn forbid_core_dumps() -> io::Result<()> {
    Ok(())
}

/// Bounds what this process may map beyond what it has mapped already.
#[cfg(target_os = "linux")]
fn limit_address_space(threads: usize, frame_bytes: usize) -> io::Result<()> {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    let mapped = pages.unwrap_or(0) * rustix::param::page_size() as u64;
    let wanted = threads as u64 * (ADDRESS_SPACE_PER_THREAD + ADDRESS_SPACE_PER_FRAME_BYTE * frame_bytes as u64);
    lower(rustix::process::Resource::As, mapped + wanted)
}

#[cfg(not(target_os = "linux"))]
fn limit_address_space(_threads: usize, _frame_bytes: usize) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn lower(resource: rustix::process::Resource, bytes: u64) -> io::Result<()> {
    let mut limit = rustix::process::getrlimit(resource);
    limit.current = Some(limit.maximum.map_or(bytes, |most| bytes.min(most)));
    Ok(rustix::process::setrlimit(resource, limit)?)
}
