//! The child's side of decoding, and the words that both sides exchange.
//!
//! A greeting (a magic word and a limit of address space), then for each slice a request and an answer, until the input
//! ends. All numbers are little-endian. A request is a code of the transfer syntax, bytes and bits of a pixel, a sign
//! flag, columns, rows, length and the compressed bytes; an answer is a status (0 for pixels, otherwise the class of a
//! fault), a length and the pixels or the fault's message.

use std::io::{self, Read, Write};

use super::codec;
use super::decoder::Frame;
use super::pixels::Stored;
use super::syntax::Syntax;
use crate::error::FaultKind;

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
pub(super) fn write_greeting(output: &mut impl Write, address_space_bytes: u64) -> io::Result<()> {
    output.write_all(&MAGIC)?;
    output.write_all(&address_space_bytes.to_le_bytes())
}

/// Asks for the pixels of a frame.
pub(super) fn write_request(output: &mut impl Write, frame: &Frame) -> io::Result<()> {
    let Stored { bytes, bits, signed } = frame.stored;
    output.write_all(&[frame.syntax.code(), bytes as u8, bits as u8, u8::from(signed)])?;
    for length in frame.shape {
        output.write_all(&(length as u32).to_le_bytes())?;
    }
    output.write_all(&(frame.bytes.len() as u64).to_le_bytes())?;
    output.write_all(&frame.bytes)
}

/// Decodes compressed slices from `input` to `output` until `input` ends: the body of the hidden subcommand
/// `decode-dicom`, which [`Decoder::child`](super::Decoder::child) runs.
///
/// # Errors
/// Where a pipe breaks or the input is not such a conversation.
pub fn serve(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    let mut greeting = [0; 16];
    input.read_exact(&mut greeting)?;
    let Some((&MAGIC, limit)) = greeting.split_first_chunk::<8>() else { return Err(nonsense()) };
    let limit = limit.first_chunk::<8>().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
    limit_resources(limit)?;
    while let Some(frame) = read_request(&mut input)? {
        match codec::decode(&frame) {
            Ok(pixels) => write_answer(&mut output, 0, &pixels)?,
            Err(fault) => {
                let status = KINDS.iter().position(|kind| *kind == fault.kind).map_or(1, |at| at as u8 + 1);
                let text = fault.message.as_bytes();
                write_answer(&mut output, status, &text[..text.len().min(ANSWER_TEXT_BYTES)])?;
            }
        }
    }
    Ok(())
}

fn write_answer(output: &mut impl Write, status: u8, bytes: &[u8]) -> io::Result<()> {
    output.write_all(&[status])?;
    output.write_all(&(bytes.len() as u64).to_le_bytes())?;
    output.write_all(bytes)?;
    output.flush()
}

fn read_request(input: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut head = [0; 20];
    if input.read(&mut head[..1])? == 0 {
        return Ok(None);
    }
    input.read_exact(&mut head[1..])?;
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
    Ok(Some(Frame {
        syntax,
        shape: [number(0) as usize, number(4) as usize],
        stored: Stored { bytes: usize::from(bytes), bits: u32::from(bits), signed: signed != 0 },
        bytes: stream,
    }))
}

fn nonsense() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "expected the requests of a freetumor process")
}

/// Bounds the memory of this process, and leaves no picture of it behind when it crashes.
#[cfg(unix)]
fn limit_resources(address_space_bytes: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let lower = |resource, bytes: u64| {
        let now = getrlimit(resource);
        let bytes = now.current.map_or(bytes, |current| bytes.min(current));
        setrlimit(resource, Rlimit { current: Some(bytes), maximum: now.maximum })
    };
    lower(Resource::Core, 0)?;
    #[cfg(target_os = "linux")]
    lower(Resource::As, address_space_bytes.saturating_add(mapped_bytes()))?;
    #[cfg(not(target_os = "linux"))]
    let _ = address_space_bytes;
    Ok(())
}

#[cfg(not(unix))]
fn limit_resources(_address_space_bytes: u64) -> io::Result<()> {
    Ok(())
}

/// What the program itself has mapped before it decodes anything.
#[cfg(target_os = "linux")]
fn mapped_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}
