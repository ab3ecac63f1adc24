//! One archive: its format, and the content of its members.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use sha2::{Digest, Sha256};

use super::contents::{Contents, ListingLimits, Location, Member};
use super::stream::{Compression, Stream};
use super::tar_headers::stream_fault;
use super::tar_listing::content_of;
use super::zip_member::MemberReader;
use super::{tar_listing, zip_listing};
use crate::error::{Fault, FaultKind};
use crate::ingest::format::Format;

/// Bytes at the start of a file that are sufficient to recognize the format of an archive.
const START_BYTES: u64 = 512;
/// Bytes that are copied at once.
const BLOCK_BYTES: usize = 256 << 10;
/// Maximum number of open streams of a compressed tar that are kept for later members.
const MAX_PARKED: usize = 2;

/// The format of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ArchiveFormat {
    Tar(Compression),
    Zip,
}

/// A function that receives each member with a reader of its content.
type Visitor<'a, T> = dyn FnMut(T, &Member, &mut dyn Read) -> Result<(), Fault> + 'a;

/// An archive whose members are read.
pub(super) struct Archive {
    path: PathBuf,
    format: ArchiveFormat,
    limits: ListingLimits,
    /// Open streams of a compressed tar at different positions: a later member is read by the nearest stream before the member.
    parked: Mutex<Vec<Stream>>,
}

impl Archive {
    /// Opens an archive and lists its members. If the file cannot be read or is not an archive, the fault is recorded as damage of the
    /// contents.
    pub fn open(path: &Path, limits: ListingLimits) -> (Self, Contents) {
        let format = format_of(path);
        let contents = match format {
            Ok(ArchiveFormat::Tar(compression)) => tar_listing::list(path, compression, &limits),
            Ok(ArchiveFormat::Zip) => zip_listing::list(path, &limits),
            Err(ref fault) => Contents::default().with_damage(Some(fault.clone())),
        };
        let format = format.unwrap_or(ArchiveFormat::Zip);
        (Self { path: path.to_owned(), format, limits, parked: Mutex::default() }, contents)
    }

    /// Passes the content of each member to `visit`, in the order of the archive. The content is verified when it is read to its end.
    ///
    /// # Errors
    /// The first error of reading or of `visit`.
    pub fn read<T>(&self, mut members: Vec<(T, Member)>, visit: &mut Visitor<'_, T>) -> Result<(), Fault> {
        members.sort_by_key(|(_, member)| member.location.offset());
        let mut stream = None;
        for (name, member) in members {
            match member.location {
                Location::Zip { header, packed, is_deflated } => {
                    let expected = (member.bytes, member.content as u32);
                    let reader = File::open(&self.path)
                        .and_then(|file| MemberReader::open(file, header, packed, is_deflated, expected));
                    visit(name, &member, &mut reader.map_err(|error| member_fault(&error))?)?;
                }
                Location::Tar { offset } => {
                    let tar = match &mut stream {
                        Some(stream) => stream,
                        None => stream.insert(self.stream_before(offset)?),
                    };
                    tar.skip_to(offset).map_err(|error| stream_fault(&error, offset))?;
                    let mut content =
                        TarContent { content: tar.take(member.bytes), hasher: Some(Sha256::new()), member };
                    visit(name, &member, &mut content)?;
                }
            }
        }
        if let Some(stream) = stream.filter(|_| self.format != ArchiveFormat::Tar(Compression::None)) {
            let mut parked = self.parked();
            if parked.len() == MAX_PARKED {
                parked.remove(0);
            }
            parked.push(stream);
        }
        Ok(())
    }

    /// Returns a stream at or before an offset.
    fn stream_before(&self, offset: u64) -> Result<Stream, Fault> {
        let mut parked = self.parked();
        let before = (0..parked.len()).filter(|&index| parked[index].position() <= offset);
        if let Some(index) = before.max_by_key(|&index| parked[index].position()) {
            return Ok(parked.remove(index));
        }
        drop(parked);
        let ArchiveFormat::Tar(compression) = self.format else { return Err(changed()) };
        Stream::open(&self.path, compression, self.limits.expansion).map_err(|error| stream_fault(&error, 0))
    }

    fn parked(&self) -> std::sync::MutexGuard<'_, Vec<Stream>> {
        self.parked.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A reader of the content of a tar member. Reading fails at the end if the content has changed since the archive was listed.
struct TarContent<R> {
    content: R,
    hasher: Option<Sha256>,
    member: Member,
}

impl<R: Read> Read for TarContent<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        if count == 0
            && !buffer.is_empty()
            && self.hasher.take().is_some_and(|hasher| content_of(hasher) != self.member.content)
        {
            return Err(io::Error::other(ChangedError));
        }
        Ok(count)
    }
}

/// The error if the content of a member has changed since the archive was listed.
#[derive(Debug)]
struct ChangedError;

impl std::fmt::Display for ChangedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the content changed since the archive was listed")
    }
}

impl std::error::Error for ChangedError {}

fn changed() -> Fault {
    Fault::read(FaultKind::Changed, "the archive changed while it was read")
}

/// Returns the fault of an error of reading the content of a member.
fn member_fault(error: &io::Error) -> Fault {
    if error.get_ref().is_some_and(|inner| inner.is::<ChangedError>()) {
        return changed();
    }
    if error.raw_os_error().is_some() {
        return Fault::read(FaultKind::Io, format!("the system cannot read the archive: {}", error.kind()));
    }
    Fault::read(FaultKind::Corrupt, format!("damaged member of an archive: {error}; copy the archive again"))
}

/// Copies the content of a member to a file; with `limit`, only the first bytes, at most this number.
///
/// # Errors
/// The fault of reading the member, and `io` if the file cannot be written.
pub(super) fn copy(content: &mut dyn Read, path: &Path, limit: Option<u64>) -> Result<(), Fault> {
    let cannot_write = |error: io::Error| {
        let message = format!(
            "cannot write to the scratch folder: {}; free its disk, or set another folder with `scratch`",
            error.kind()
        );
        Fault::read(FaultKind::Io, message)
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(cannot_write)?;
    }
    let mut file = File::create(path).map_err(cannot_write)?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut rest = limit.unwrap_or(u64::MAX);
    while rest > 0 {
        let most = block.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        let count = match content.read(&mut block[..most]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(|error| member_fault(&error))?,
        };
        if count == 0 {
            break;
        }
        io::Write::write_all(&mut file, &block[..count]).map_err(cannot_write)?;
        rest -= count as u64;
    }
    Ok(())
}

/// Recognizes the format of an archive by its first bytes.
fn format_of(path: &Path) -> Result<ArchiveFormat, Fault> {
    let (file, bytes) = crate::ingest::file::open_regular(path)?;
    let mut start = Vec::new();
    file.take(START_BYTES)
        .read_to_end(&mut start)
        .map_err(|error| Fault::read(FaultKind::Io, format!("the system cannot read the archive: {}", error.kind())))?;
    let is_zip_name = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("zip"));
    let expected = "expected a tar (also compressed by gzip or zstd) or zip archive";
    match &start[..] {
        [] => Err(Fault::read(FaultKind::Truncated, format!("{expected}, got an empty file"))),
        [0x1f, 0x8b, ..] => Ok(ArchiveFormat::Tar(Compression::Gzip)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(ArchiveFormat::Tar(Compression::Zstd)),
        // A zip archive may start with an executable (self-extracting) or a marker of split archives.
        [b'P', b'K', 1..=8, 2..=8, ..] => Ok(ArchiveFormat::Zip),
        _ if is_zip_name => Ok(ArchiveFormat::Zip),
        _ if start.get(257..262) == Some(b"ustar") => Ok(ArchiveFormat::Tar(Compression::None)),
        _ => match Format::of(&start) {
            Format::Other(name) => Err(Fault::read(FaultKind::Unsupported, format!("{expected}, got {name}"))),
            Format::Nifti | Format::Nrrd | Format::MetaImage | Format::Dicom => {
                let message = format!("{expected}, got a scan: use a source of kind \"folder\" for files");
                Err(Fault::read(FaultKind::Unsupported, message))
            }
            // Tars before POSIX have no magic bytes: the checksum of the first header decides.
            _ if bytes % START_BYTES == 0 || is_tar_name(path) => Ok(ArchiveFormat::Tar(Compression::None)),
            _ => Err(Fault::read(FaultKind::Corrupt, format!("{expected}, got other bytes"))),
        },
    }
}

fn is_tar_name(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("tar"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::stream::Expansion;
    use super::*;

    const LIMITS: ListingLimits =
        ListingLimits { members: 1000, expansion: Expansion { ratio: 100, free_bytes: 1 << 20 } };

    fn members() -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("a/1.nii", vec![1; 70_000]),
            ("b/2.nii", (0..200_000u32).map(|index| index as u8).collect()),
            ("3", vec![]),
        ]
    }

    fn tar_bytes() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in members() {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            builder.append_data(&mut header, name, &content[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn zip_bytes(is_large: bool) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, content) in members() {
            writer.start_file(name, zip::write::SimpleFileOptions::default().large_file(is_large)).unwrap();
            writer.write_all(&content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read_all(archive: &Archive, contents: &Contents) -> Result<Vec<(PathBuf, Vec<u8>)>, Fault> {
        let members = contents.members().map(|(path, member)| (path.to_owned(), *member)).collect();
        let mut found = Vec::new();
        archive.read(members, &mut |path, _, content| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).map_err(|error| member_fault(&error))?;
            found.push((path, bytes));
            Ok(())
        })?;
        found.sort();
        Ok(found)
    }

    #[test]
    fn content_of_members_is_read_in_every_format() {
        let mut expected: Vec<_> = members().into_iter().map(|(name, bytes)| (PathBuf::from(name), bytes)).collect();
        expected.sort();
        let file = tempfile::NamedTempFile::new().unwrap();
        for bytes in [
            tar_bytes(),
            gzip(&tar_bytes()),
            zstd::encode_all(&tar_bytes()[..], 0).unwrap(),
            zip_bytes(false),
            zip_bytes(true),
            [b"#!/bin/program\n".to_vec(), zip_bytes(false)].concat(),
        ] {
            // A self-extracting zip archive is recognized by the extension of its name.
            let path = file.path().with_extension("zip");
            let path = if bytes.starts_with(b"#!") { &path } else { file.path() };
            std::fs::write(path, &bytes).unwrap();
            let (archive, contents) = Archive::open(path, LIMITS);
            assert_eq!(contents.damage, None);
            for _ in 0..2 {
                assert!(read_all(&archive, &contents).unwrap() == expected, "{:?}", archive.format);
            }
        }
        std::fs::remove_file(file.path().with_extension("zip")).unwrap();
    }

    #[test]
    fn content_changed_since_listing_is_a_fault() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = tar_bytes();
        std::fs::write(file.path(), &bytes).unwrap();
        let (archive, contents) = Archive::open(file.path(), LIMITS);
        bytes[1000] ^= 1;
        std::fs::write(file.path(), &bytes).unwrap();
        assert_eq!(read_all(&archive, &contents).unwrap_err().kind, FaultKind::Changed);
        let mut bytes = zip_bytes(false);
        bytes[50] ^= 1;
        std::fs::write(file.path(), &bytes).unwrap();
        let (archive, contents) = Archive::open(file.path(), LIMITS);
        assert_eq!(read_all(&archive, &contents).unwrap_err().kind, FaultKind::Corrupt);
    }

    #[test]
    fn zip_archive_without_table_of_contents_keeps_whole_members() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes = zip_bytes(false);
        let contents_at = |length: usize| {
            std::fs::write(file.path(), &bytes[..length]).unwrap();
            let (archive, contents) = Archive::open(file.path(), LIMITS);
            let read = read_all(&archive, &contents).unwrap();
            (read.len(), contents.damage.unwrap())
        };
        let (count, fault) = contents_at(bytes.len() - 30);
        assert_eq!((count, fault.kind), (3, FaultKind::Corrupt), "{fault}");
        let (count, fault) = contents_at(bytes.len() / 2);
        assert!(count < 3 && fault.message.contains("complete members were found in the first"), "{count} {fault}");
    }

    #[test]
    fn files_that_are_no_archive_are_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (bytes, expected) in [
            (&b""[..], "got an empty file"),
            (b"BZh91AY&SY", "got a bzip2 archive"),
            (b"NRRD0004\n", "got a scan: use a source of kind \"folder\""),
            (b"hello world", "got other bytes"),
        ] {
            std::fs::write(file.path(), bytes).unwrap();
            let fault = Archive::open(file.path(), LIMITS).1.damage.unwrap();
            assert!(fault.message.contains(expected), "{fault}");
        }
    }
}
