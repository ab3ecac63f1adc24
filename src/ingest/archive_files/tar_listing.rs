//! The members of a tar archive. One pass reads and hashes all content.

use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::contents::{Contents, ListingLimits, Location, Member};
use super::stream::{Compression, Stream};
use super::tar_headers::{TarKind, TarMember, next_member, skip_padding, stream_fault, truncated};
use crate::error::{Fault, FaultKind};

/// Bytes that are hashed at once.
const BLOCK_BYTES: usize = 256 << 10;

/// Lists a tar archive. Its damage is part of the contents.
pub(super) fn list(path: &Path, compression: Compression, limits: &ListingLimits) -> Contents {
    let mut contents = Contents::default();
    let listed = Stream::open(path, compression, limits.expansion)
        .map_err(|error| stream_fault(&error, 0))
        .and_then(|mut stream| list_members(&mut stream, &mut contents, limits));
    let Err(fault) = listed else { return contents };
    // A checksum of compressed data is at their end: the damage may be in any member.
    if fault.kind == FaultKind::Corrupt && fault.message.contains("checksum") {
        let message = "expected an archive whose checksum matches its data, got another checksum: any member may be damaged; copy the archive again";
        let fault = Fault::read(FaultKind::Corrupt, message);
        contents.refuse_all(&fault);
        return contents.with_damage(Some(fault));
    }
    contents.with_damage(Some(fault))
}

fn list_members(stream: &mut Stream, contents: &mut Contents, limits: &ListingLimits) -> Result<(), Fault> {
    while let Some(TarMember { name, kind, bytes }) = next_member(stream)? {
        if kind == TarKind::Folder {
            continue;
        }
        contents.start_member(&name, limits)?;
        let offset = stream.position();
        match kind {
            TarKind::Other(got) => {
                skip_content(stream, offset, bytes)?;
                let message = format!("expected a file in the archive, got {got}");
                contents.refuse(&name, Fault::read(FaultKind::Unsupported, message));
            }
            _ => {
                let content = hash_content(stream, bytes)?;
                contents.add(&name, Member { bytes, content, location: Location::Tar { offset } });
            }
        }
        skip_padding(stream)?;
    }
    Ok(())
}

fn skip_content(stream: &mut Stream, offset: u64, bytes: u64) -> Result<(), Fault> {
    let end = offset.checked_add(bytes).ok_or_else(|| truncated(offset, "expected a member"))?;
    stream.skip_to(end).map_err(|error| stream_fault(&error, offset))
}

/// Reads content and returns the first bytes of its SHA-256.
fn hash_content(stream: &mut Stream, bytes: u64) -> Result<u128, Fault> {
    let offset = stream.position();
    let mut hasher = Sha256::new();
    let mut block = vec![0; BLOCK_BYTES.min(usize::try_from(bytes).unwrap_or(BLOCK_BYTES))];
    let mut rest = bytes;
    while rest > 0 {
        let most = block.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        let count = match stream.read(&mut block[..most]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(|error| stream_fault(&error, stream.position()))?,
        };
        if count == 0 {
            let expected = format!("expected {rest} more of {bytes} bytes of a member that starts at byte {offset}");
            return Err(truncated(stream.position(), &expected));
        }
        hasher.update(&block[..count]);
        rest -= count as u64;
    }
    Ok(content_of(hasher))
}

/// Returns the first bytes of a SHA-256 as a number.
pub(super) fn content_of(hasher: Sha256) -> u128 {
    hasher.finalize().iter().take(16).fold(0, |content, byte| content << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::stream::Expansion;
    use super::*;

    const LIMITS: ListingLimits =
        ListingLimits { members: 50, expansion: Expansion { ratio: 100, free_bytes: 1 << 20 } };

    fn list_bytes(bytes: &[u8], compression: Compression) -> Contents {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        list(file.path(), compression, &LIMITS)
    }

    fn header(name: &str, bytes: u64, kind: u8) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_cksum();
        header
    }

    fn member(name: &str, content: &[u8]) -> Vec<u8> {
        let mut bytes = header(name, content.len() as u64, b'0').as_bytes().to_vec();
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn names(contents: &Contents) -> Vec<String> {
        contents.members().map(|(path, member)| format!("{} {}", path.display(), member.bytes)).collect()
    }

    #[test]
    fn long_names_and_large_sizes_are_read() {
        let long = format!("{}/{}/ct.nii", "a".repeat(120), "b".repeat(120));
        let mut builder = tar::Builder::new(Vec::new());
        let mut of_size = tar::Header::new_gnu();
        of_size.set_size(3);
        builder.append_data(&mut of_size, &long, &b"gnu"[..]).unwrap();
        let size: &[u8] = b"3";
        let pax_name = format!("é/{}", "p".repeat(200));
        builder.append_pax_extensions([("path", pax_name.as_bytes()), ("size", size)]).unwrap();
        let mut wrong = header("short", 0, b'0');
        wrong.set_size(0);
        wrong.set_cksum();
        builder.get_mut().extend(wrong.as_bytes());
        builder.get_mut().extend([&b"pax"[..], &[0; 509]].concat());
        let bytes = builder.into_inner().unwrap();
        let contents = list_bytes(&bytes, Compression::None);
        assert_eq!(contents.damage, None);
        let mut expected = [format!("{long} 3"), format!("{pax_name} 3")];
        expected.sort();
        assert_eq!(names(&contents), expected);
    }

    #[test]
    fn concatenated_archives_are_read_to_the_end() {
        let end = [0; 1024];
        let bytes = [&member("a", b"1")[..], &end, &end, &member("b", b"2"), &end].concat();
        let contents = list_bytes(&bytes, Compression::None);
        assert_eq!((names(&contents), contents.damage), (vec!["a 1".to_owned(), "b 1".to_owned()], None));
        let mut gzip = Vec::new();
        for part in [&bytes[..700], &bytes[700..]] {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(part).unwrap();
            gzip.extend(encoder.finish().unwrap());
        }
        assert_eq!(names(&list_bytes(&gzip, Compression::Gzip)).len(), 2);
    }

    #[test]
    fn links_devices_and_escaping_names_are_refused() {
        let mut bytes = member("a", b"1");
        for (name, kind) in [("l", b'2'), ("h", b'1'), ("p", b'6'), ("d", b'3'), ("s", b'S')] {
            bytes.extend(header(name, 0, kind).as_bytes());
        }
        for name in ["../up", "/root"] {
            bytes.extend(member(name, b"x"));
        }
        bytes.extend([0; 1024]);
        let contents = list_bytes(&bytes, Compression::None);
        assert_eq!((names(&contents), &contents.damage), (vec!["a 1".to_owned()], &None));
        let refused: Vec<&str> = contents.refused.keys().map(String::as_str).collect();
        assert_eq!(refused, ["../up", "/root", "d", "h", "l", "p", "s"]);
        assert!(contents.refused["h"].fault.message.ends_with("got a hard link"));
    }

    #[test]
    fn damage_keeps_members_before_it() {
        let whole = [member("a", &[7; 600]), member("b", &[8; 600]), vec![0; 1024]].concat();
        for length in [100, 512, 1000, 1600, 2100, 3000] {
            let contents = list_bytes(&whole[..length], Compression::None);
            let fault = contents.damage.clone().unwrap();
            assert_eq!(fault.kind, FaultKind::Truncated, "{length}: {fault}");
            assert_eq!(names(&contents).len(), usize::from(length >= 1200) + usize::from(length >= 2700), "{length}");
        }
        let mut flipped = whole.clone();
        flipped[1536 + 3] ^= 1;
        let contents = list_bytes(&flipped, Compression::None);
        assert_eq!(names(&contents), ["a 600"]);
        let message = contents.damage.unwrap().message;
        assert!(message.contains("expected a header at byte 1536"), "{message}");
        let zstd = zstd::encode_all(&whole[..], 0).unwrap();
        let fault = list_bytes(&zstd[..zstd.len() / 2], Compression::Zstd).damage.unwrap();
        assert_eq!(fault.kind, FaultKind::Truncated, "{fault}");
    }

    #[test]
    fn wrong_checksum_of_compressed_data_refuses_every_member() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&[member("a", b"1"), vec![0; 1024]].concat()).unwrap();
        let mut bytes = encoder.finish().unwrap();
        let at = bytes.len() - 6;
        bytes[at] ^= 1;
        let contents = list_bytes(&bytes, Compression::Gzip);
        assert!(names(&contents).is_empty() && contents.refused.contains_key("a"), "{contents:?}");
        assert!(contents.damage.unwrap().message.contains("any member may be damaged"));
    }

    #[test]
    fn hostile_sizes_and_counts_are_limited() {
        let mut lying = header("a", 0, b'0');
        lying.set_size(u64::MAX >> 2);
        lying.set_cksum();
        let fault = list_bytes(lying.as_bytes(), Compression::None).damage.unwrap();
        assert_eq!(fault.kind, FaultKind::Truncated);
        let mut long = header("a", 0, b'L');
        long.set_size(1 << 40);
        long.set_cksum();
        assert!(list_bytes(long.as_bytes(), Compression::None).damage.unwrap().message.contains("bytes of names"));
        let many: Vec<u8> = (0..51).flat_map(|number| member(&format!("m{number}"), b"")).collect();
        let contents = list_bytes(&many, Compression::None);
        assert_eq!(names(&contents).len(), 50);
        assert!(contents.damage.unwrap().message.contains("at most 50 members"));
        let bomb = [member("z", &vec![0; 8 << 20]), vec![0; 1024]].concat();
        let fault = list_bytes(&zstd::encode_all(&bomb[..], 3).unwrap(), Compression::Zstd).damage.unwrap();
        assert_eq!(fault.kind, FaultKind::TooLarge, "{fault}");
    }
}
