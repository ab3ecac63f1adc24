//! The members of a zip archive, from its table of contents.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use zip::read::{ArchiveOffset, Config, ZipFileEntry};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::contents::{Contents, ListingLimits, Location, Member};
use super::zip_member::LOCAL_HEADER_BYTES;
use super::zip_recovery;
use crate::error::{Fault, FaultKind};

/// Lists a zip archive. Its damage is part of the contents; without a table of contents, the members are searched from the first.
pub(super) fn list(path: &Path, limits: &ListingLimits) -> Contents {
    let file = match File::open(path).and_then(|file| Ok((file.metadata()?.len(), file))) {
        Ok((bytes, file)) => (bytes, BufReader::new(file)),
        Err(error) => {
            let message = format!("the system cannot read the archive: {}", error.kind());
            return Contents::default().with_damage(Some(Fault::read(FaultKind::Io, message)));
        }
    };
    let (bytes, file) = file;
    match ZipArchive::with_config(Config { archive_offset: ArchiveOffset::Detect }, file) {
        Ok(archive) => {
            let mut contents = Contents::default();
            let listed = list_members(&archive, bytes, &mut contents, limits);
            contents.with_damage(listed.err())
        }
        Err(ZipError::Io(error)) if error.raw_os_error().is_some() => {
            let message = format!("the system cannot read the archive: {}", error.kind());
            Contents::default().with_damage(Some(Fault::read(FaultKind::Io, message)))
        }
        Err(error) => zip_recovery::list(path, bytes, &reason(&error), limits),
    }
}

fn list_members(
    archive: &ZipArchive<BufReader<File>>,
    file_bytes: u64,
    contents: &mut Contents,
    limits: &ListingLimits,
) -> Result<(), Fault> {
    let overlapping = overlapping_members(archive);
    for index in 0..archive.len() {
        let entry = archive.by_index_data(index).map_err(|error| damaged(&reason(&error)))?;
        let name = entry.name_raw();
        if is_folder(&entry) {
            continue;
        }
        contents.start_member(name, limits)?;
        let end = entry.header_start().saturating_add(LOCAL_HEADER_BYTES).saturating_add(entry.compressed_size());
        let refusal = if end > file_bytes || entry.header_start() >= archive.central_directory_start() {
            Some(Fault::read(FaultKind::Truncated, "expected a member within the archive, got a member beyond its end"))
        } else if overlapping.binary_search(&entry.header_start()).is_ok() {
            Some(Fault::read(
                FaultKind::Corrupt,
                "expected members that do not overlap, got two members with common bytes",
            ))
        } else {
            refusal(&entry, limits)
        };
        match refusal {
            Some(fault) => contents.refuse(name, fault),
            None => contents.add(
                name,
                Member {
                    bytes: entry.size(),
                    content: u128::from(entry.crc32()),
                    location: Location::Zip {
                        header: entry.header_start(),
                        packed: entry.compressed_size(),
                        is_deflated: entry.compression() == CompressionMethod::Deflated,
                    },
                },
            ),
        }
    }
    // The table of contents lists every member, so no later member of a folder can be lost.
    contents.last_folder = None;
    if archive.has_duplicate_names() {
        return Err(damaged("a name occurs twice in the table of contents, so that one of two members is not read"));
    }
    Ok(())
}

fn is_folder(entry: &ZipFileEntry<'_>) -> bool {
    entry.is_dir() || entry.unix_mode().is_some_and(|mode| mode & TYPE_MASK == FOLDER)
}

const TYPE_MASK: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;

/// Returns the fault of a member that is refused.
fn refusal(entry: &ZipFileEntry<'_>, limits: &ListingLimits) -> Option<Fault> {
    let unsupported = |message: String| Some(Fault::read(FaultKind::Unsupported, message));
    if entry.is_symlink() {
        return unsupported("expected a file in the archive, got a symbolic link".to_owned());
    }
    if entry.unix_mode().is_some_and(|mode| ![0, REGULAR].contains(&(mode & TYPE_MASK))) {
        return unsupported("expected a file in the archive, got a special file".to_owned());
    }
    if entry.encrypted() {
        return unsupported("expected a member that is not encrypted, got an encrypted one".to_owned());
    }
    if !matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
        return unsupported(format!("expected a stored or deflated member, got one in {}", entry.compression()));
    }
    if entry.compression() == CompressionMethod::Stored && entry.size() != entry.compressed_size() {
        let message = "expected equal compressed and uncompressed lengths of a stored member, got different lengths";
        return Some(Fault::read(FaultKind::Corrupt, message));
    }
    let (bytes, packed) = (entry.size(), entry.compressed_size());
    if limits.expansion.is_exceeded(packed, bytes) {
        return Some(Fault::read(
            FaultKind::TooLarge,
            format!(
                "expected a member that expands to at most {} times its compressed size (`max_ratio`), got {packed} compressed bytes of {bytes}",
                limits.expansion.ratio
            ),
        ));
    }
    None
}

/// Returns the offsets of members that overlap with another one, sorted.
fn overlapping_members(archive: &ZipArchive<BufReader<File>>) -> Vec<u64> {
    let entries = (0..archive.len()).filter_map(|index| archive.by_index_data(index).ok());
    let span = |entry: ZipFileEntry<'_>| {
        let start = entry.header_start();
        (start, start.saturating_add(LOCAL_HEADER_BYTES).saturating_add(entry.compressed_size()))
    };
    let mut spans: Vec<(u64, u64)> = entries.map(span).collect();
    spans.sort_unstable();
    let mut overlapping = Vec::new();
    // The span that reaches furthest so far.
    let mut furthest = (0, 0);
    for &(start, end) in &spans {
        if start < furthest.1 {
            overlapping.extend([furthest.0, start]);
        }
        if end > furthest.1 {
            furthest = (start, end);
        }
    }
    overlapping.sort_unstable();
    overlapping.dedup();
    overlapping
}

pub(super) fn damaged(reason: &str) -> Fault {
    Fault::read(FaultKind::Corrupt, format!("damaged zip archive: {reason}; copy the archive again"))
}

/// Returns the reason of an error, without the prefix that names a zip archive.
fn reason(error: &ZipError) -> String {
    match error {
        ZipError::InvalidArchive(reason) => reason.clone().into_owned(),
        other => other.to_string(),
    }
}
