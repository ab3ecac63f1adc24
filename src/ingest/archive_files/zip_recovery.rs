//! The members of a damaged zip archive: without a table of contents, its members are searched from the first, and each is verified.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::Crc;
use flate2::bufread::DeflateDecoder;

use super::contents::{Contents, ListingLimits, Location, Member};
use super::zip_member::LocalHeader;
use crate::error::{Fault, FaultKind};

/// The flag of members whose sizes and checksum follow their content.
const HAS_DESCRIPTOR: u16 = 1 << 3;
const IS_ENCRYPTED: u16 = 1;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
const DESCRIPTOR_MAGIC: &[u8] = b"PK\x07\x08";

/// Lists the complete members at the start of an archive; `reason` is why its table of contents cannot be read.
pub(super) fn list(path: &Path, file_bytes: u64, reason: &str, limits: &ListingLimits) -> Contents {
    let mut contents = Contents::default();
    let end = search(path, file_bytes, &mut contents, limits);
    let damage = match end {
        Err(fault) => fault,
        Ok(at) => {
            let found = contents.members().count();
            let message = format!(
                "damaged zip archive of {file_bytes} bytes: {reason}; {found} complete members were found in the first {at} bytes; copy the archive again"
            );
            Fault::read(FaultKind::Corrupt, message)
        }
    };
    contents.with_damage(Some(damage))
}

/// Adds the members up to the first incomplete one, and returns the offset of the latter.
fn search(path: &Path, file_bytes: u64, contents: &mut Contents, limits: &ListingLimits) -> Result<u64, Fault> {
    let io_fault =
        |error: io::Error| Fault::read(FaultKind::Io, format!("the system cannot read the archive: {}", error.kind()));
    let mut file = BufReader::new(File::open(path).map_err(io_fault)?);
    let mut at = 0;
    while let Ok(Some(header)) = LocalHeader::read(&mut file, at) {
        let is_folder = header.name.ends_with(b"/");
        if !is_folder {
            contents.start_member(&header.name, limits)?;
        }
        let Some((member, next)) = whole_member(&mut file, &header, at, file_bytes, limits) else { return Ok(at) };
        match member {
            Ok(_) if is_folder => {}
            Ok(member) => contents.add(&header.name, member),
            Err(fault) => contents.refuse(&header.name, fault),
        }
        at = next;
    }
    // The table of contents follows the last member.
    let mut magic = [0; 4];
    let is_table = file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut magic)).is_ok();
    if is_table && magic == *b"PK\x01\x02" {
        contents.last_folder = None;
    }
    Ok(at)
}

/// Returns a member and the offset of the next one; `None` if the member is incomplete.
fn whole_member(
    file: &mut BufReader<File>,
    header: &LocalHeader,
    at: u64,
    file_bytes: u64,
    limits: &ListingLimits,
) -> Option<(Result<Member, Fault>, u64)> {
    let has_descriptor = header.flags & HAS_DESCRIPTOR != 0;
    let is_deflated = header.method == DEFLATED;
    let unsupported = |got: &str| {
        Err(Fault::read(FaultKind::Unsupported, format!("expected a stored or deflated member, got {got}")))
    };
    if !has_descriptor && header.start.checked_add(header.packed)? > file_bytes {
        return None;
    }
    if header.flags & IS_ENCRYPTED != 0 || ![STORED, DEFLATED].contains(&header.method) {
        // Without a length, the next member cannot be found.
        let got = if header.flags & IS_ENCRYPTED != 0 { "an encrypted one" } else { "another compression" };
        return (!has_descriptor).then(|| (unsupported(got), header.start + header.packed));
    }
    if has_descriptor && !is_deflated {
        return None;
    }
    file.seek(SeekFrom::Start(header.start)).ok()?;
    let most = if has_descriptor { file_bytes.saturating_sub(header.start) } else { header.packed };
    let (bytes, crc, packed) = match is_deflated {
        true => {
            let mut decoder = DeflateDecoder::new(BufReader::with_capacity(1 << 16, file.by_ref().take(most)));
            let (bytes, crc) = sum(&mut decoder, |bytes| limits.expansion.is_exceeded(most, bytes))?;
            (bytes, crc, decoder.total_in())
        }
        false => {
            let (bytes, crc) = sum(&mut file.by_ref().take(most), |_| false)?;
            (bytes, crc, bytes)
        }
    };
    let mut next = header.start + packed;
    let (stated_bytes, stated_crc, stated_packed) = match has_descriptor {
        false => (header.bytes, header.crc, header.packed),
        true => {
            file.seek(SeekFrom::Start(next)).ok()?;
            let (values, length) = descriptor(file, header.is_zip64)?;
            next += length;
            values
        }
    };
    if (stated_bytes, stated_crc, stated_packed) != (bytes, crc, packed) {
        return None;
    }
    let location = Location::Zip { header: at, packed, is_deflated };
    Some((Ok(Member { bytes, content: u128::from(crc), location }), next))
}

/// Returns the length and checksum of content; `None` if it is damaged or too long.
fn sum(content: &mut impl Read, is_too_long: impl Fn(u64) -> bool) -> Option<(u64, u32)> {
    let mut crc = Crc::new();
    let mut block = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        let count = content.read(&mut block).ok()?;
        if count == 0 {
            return Some((bytes, crc.sum()));
        }
        crc.update(&block[..count]);
        bytes += count as u64;
        if is_too_long(bytes) {
            return None;
        }
    }
}

/// Reads the sizes and checksum that follow content, and returns them with the length of the descriptor.
fn descriptor(file: &mut impl Read, is_zip64: bool) -> Option<((u64, u32, u64), u64)> {
    let size_bytes = if is_zip64 { 8 } else { 4 };
    let mut start = [0; 4];
    file.read_exact(&mut start).ok()?;
    // The magic number is optional.
    let magic_bytes = if start == DESCRIPTOR_MAGIC { 4 } else { 0 };
    if magic_bytes > 0 {
        file.read_exact(&mut start).ok()?;
    }
    let mut sizes = vec![0; 2 * size_bytes];
    file.read_exact(&mut sizes).ok()?;
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let (packed, bytes) = sizes.split_at(size_bytes);
    Some(((number(bytes), u32::from_le_bytes(start), number(packed)), magic_bytes + 4 + 2 * size_bytes as u64))
}
