//! The decoder process, and the protocol between a program and its decoder process.
//!
//! The protocol is a handshake (magic bytes and a number of threads), then batches until the input ends: a number of slices, a
//! request for each, then a response to each. All numbers are little-endian. A request is the code of the transfer syntax, bytes
//! and bits of a pixel, a sign flag, columns, rows, length and the compressed bytes; a response is a status (0 for pixels,
//! otherwise the kind of a fault), a length and the pixels or the message of the fault.

use std::io::{self, Read, Write};

use rayon::prelude::*;

use super::codec;
use super::frame::Frame;
use super::pixels::PixelFormat;
use super::syntax::Syntax;
use crate::error::FaultKind;

/// Maximum number of slices in a batch, and of threads.
const MAX_FRAMES: usize = 255;
/// Address space of one thread: the arena of its allocator (64 MiB in glibc) and the memory of a decoder.
#[cfg(target_os = "linux")]
const ADDRESS_SPACE_PER_THREAD: u64 = 192 << 20;
#[cfg(target_os = "linux")]
const ADDRESS_SPACE_PER_FRAME_BYTE: u64 = 48;

/// Maximum bytes of a message in a response.
pub(super) const MESSAGE_BYTES: usize = 512;

const MAGIC: [u8; 8] = *b"ftdicom1";
/// Kinds of faults that a decoder may report; the status of a response is the index in this list, counted from 1.
const KINDS: [FaultKind; 4] = [FaultKind::Corrupt, FaultKind::Truncated, FaultKind::Unsupported, FaultKind::TooLarge];

/// Returns the kind of fault of a status, or `None` if the status is success or unknown.
pub(super) fn fault_kind(status: u8) -> Option<FaultKind> {
    KINDS.get(usize::from(status).checked_sub(1)?).copied()
}

/// Writes the handshake.
pub(super) fn write_handshake(output: &mut impl Write, threads: usize) -> io::Result<()> {
    output.write_all(&MAGIC)?;
    output.write_all(&(threads as u32).to_le_bytes())
}

/// Writes the requests for a batch of frames.
pub(super) fn write_requests(output: &mut impl Write, frames: &[Frame]) -> io::Result<()> {
    output.write_all(&(frames.len() as u32).to_le_bytes())?;
    for frame in frames {
        let PixelFormat { bytes, bits, signed } = frame.format;
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
/// `decode-dicom`, which [`Decoder::in_child_process`](super::Decoder::in_child_process) runs.
///
/// # Errors
/// Returns an error if a pipe breaks or the input does not follow the protocol.
pub fn serve(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    let mut handshake = [0; 12];
    input.read_exact(&mut handshake)?;
    let [magic @ .., t0, t1, t2, t3] = handshake;
    let threads = u32::from_le_bytes([t0, t1, t2, t3]) as usize;
    if magic != MAGIC || !(1..=MAX_FRAMES).contains(&threads) {
        return Err(invalid_request());
    }
    forbid_core_dumps()?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(io::Error::other)?;
    while let Some(frames) = read_requests(&mut input)? {
        limit_address_space(threads, frames.iter().map(Frame::decoded_bytes).max().unwrap_or(0))?;
        let results: Vec<_> = pool.install(|| frames.par_iter().map(codec::decode).collect());
        for result in results {
            match result {
                Ok(pixels) => write_response(&mut output, 0, &pixels)?,
                Err(fault) => {
                    let status = KINDS.iter().position(|kind| *kind == fault.kind).map_or(1, |at| at as u8 + 1);
                    let message = fault.message.as_bytes();
                    write_response(&mut output, status, &message[..message.len().min(MESSAGE_BYTES)])?;
                }
            }
        }
        output.flush()?;
    }
    Ok(())
}

fn write_response(output: &mut impl Write, status: u8, bytes: &[u8]) -> io::Result<()> {
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
    if count > MAX_FRAMES {
        return Err(invalid_request());
    }
    (0..count).map(|_| read_request(input)).collect::<io::Result<Vec<_>>>().map(Some)
}

fn read_request(input: &mut impl Read) -> io::Result<Frame> {
    let mut head = [0; 20];
    input.read_exact(&mut head)?;
    let [code, bytes, bits, signed, lengths @ ..] = head;
    let number = |at: usize| u32::from_le_bytes([lengths[at], lengths[at + 1], lengths[at + 2], lengths[at + 3]]);
    let length = u64::from(number(8)) | u64::from(number(12)) << 32;
    let syntax = Syntax::from_code(code).ok_or_else(invalid_request)?;
    if ![1, 2].contains(&bytes) || !(1..=8 * bytes).contains(&bits) {
        return Err(invalid_request());
    }
    let mut stream = Vec::new();
    if input.take(length).read_to_end(&mut stream)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Frame {
        syntax,
        shape: [number(0) as usize, number(4) as usize],
        format: PixelFormat { bytes: usize::from(bytes), bits: u32::from(bits), signed: signed != 0 },
        bytes: stream,
    })
}

fn invalid_request() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "expected requests of a freetumor process, got other bytes")
}

/// Forbids core dumps, which would contain an image of a patient.
#[cfg(unix)]
fn forbid_core_dumps() -> io::Result<()> {
    lower_limit(rustix::process::Resource::Core, 0)
}

#[cfg(not(unix))]
fn forbid_core_dumps() -> io::Result<()> {
    Ok(())
}

/// Limits the address space that this process may map in addition to its current mappings.
#[cfg(target_os = "linux")]
fn limit_address_space(threads: usize, frame_bytes: usize) -> io::Result<()> {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    let mapped = pages.unwrap_or(0) * rustix::param::page_size() as u64;
    let additional = threads as u64 * (ADDRESS_SPACE_PER_THREAD + ADDRESS_SPACE_PER_FRAME_BYTE * frame_bytes as u64);
    lower_limit(rustix::process::Resource::As, mapped + additional)
}

#[cfg(not(target_os = "linux"))]
fn limit_address_space(_threads: usize, _frame_bytes: usize) -> io::Result<()> {
    Ok(())
}

/// Lowers the soft limit of a resource.
#[cfg(unix)]
fn lower_limit(resource: rustix::process::Resource, bytes: u64) -> io::Result<()> {
    let mut limit = rustix::process::getrlimit(resource);
    limit.current = Some(limit.maximum.map_or(bytes, |maximum| bytes.min(maximum)));
    Ok(rustix::process::setrlimit(resource, limit)?)
}
