//! Recognition of file formats by their first bytes.

use std::io::Read;

use flate2::bufread::GzDecoder;

use super::metaimage::is_metaimage;
use super::nrrd;

/// Bytes from the start of a file that are sufficient to recognize it.
pub(super) const START_BYTES: usize = 512;

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// NIfTI or ANALYZE, compressed or not.
    Nifti,
    Nrrd,
    MetaImage,
    /// A file of DICOM, with its preamble.
    Dicom,
    /// A known format that is not read: its name with an article.
    Other(&'static str),
    /// Text in no known format.
    Text,
    /// Bytes in no known format.
    Unknown,
}

/// Formats that are not read, by their first bytes.
const OTHERS: [(&[u8], &str); 24] = [
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "a ZIP archive"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (such as MINC 2)"),
    (b"CDF\x01", "a NetCDF file (such as MINC 1)"),
    (b"CDF\x02", "a NetCDF file (such as MINC 1)"),
    (b"\x00\x00\x00\x01\x00", "an MGH file of FreeSurfer"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"MATLAB 5.0", "a MATLAB file"),
    (b"!INTERFILE", "an Interfile header"),
    (b"# vtk DataFile", "a VTK file"),
    (b"<VTKFile", "a VTK file"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF document"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"Rar!", "a RAR archive"),
    (b"version https://git-lfs", "a pointer of Git LFS: fetch the file first"),
    (b"/annex/objects/", "a pointer of git-annex: fetch the file first"),
];

impl Format {
    /// Recognizes the format of a file that starts with these bytes.
    pub fn of(start: &[u8]) -> Self {
        if start.starts_with(&[0x1f, 0x8b]) {
            return Self::of_gzip(start);
        }
        Self::of_plain(start)
    }

    fn of_plain(start: &[u8]) -> Self {
        let size = start.first_chunk().map(|size| [i32::from_le_bytes(*size), i32::from_be_bytes(*size)]);
        let other = OTHERS.iter().find(|(magic, _)| start.starts_with(magic));
        match (size, other) {
            (Some([348 | 540, _] | [_, 348 | 540]), _) => Self::Nifti,
            (_, Some((_, name))) => Self::Other(name),
            _ if start.starts_with(nrrd::MAGIC) => Self::Nrrd,
            _ if is_metaimage(start) => Self::MetaImage,
            _ if start.get(128..132) == Some(b"DICM") => Self::Dicom,
            _ if start.get(257..262) == Some(b"ustar") => Self::Other("a tar archive"),
            _ if start.len() > 3 && is_text(start) => Self::Text,
            _ => Self::Unknown,
        }
    }

    /// Recognizes the content of a gzip file; damaged and unknown content is left to the reader of NIfTI, which has its fault.
    fn of_gzip(start: &[u8]) -> Self {
        let mut content = Vec::new();
        // The start of the file ends inside the compressed data, which is an error after the bytes that are decompressed.
        let _ = GzDecoder::new(start).take(START_BYTES as u64).read_to_end(&mut content);
        match Self::of_plain(&content) {
            Self::Nrrd => Self::Other("a gzip file of an NRRD file: decompress it first"),
            Self::MetaImage => Self::Other("a gzip file of a MetaImage file: decompress it first"),
            Self::Dicom => Self::Other("a gzip file of a DICOM slice: decompress it first"),
            Self::Other("an MGH file of FreeSurfer") => Self::Other("an MGZ file of FreeSurfer"),
            Self::Other("a tar archive") => Self::Other("a compressed tar archive"),
            Self::Other(_) | Self::Text => Self::Other("a gzip file of another format"),
            Self::Nifti | Self::Unknown => Self::Nifti,
        }
    }
}

/// Returns whether bytes are text in UTF-8 or a superset of ASCII.
fn is_text(start: &[u8]) -> bool {
    start.iter().all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x80..))
        && start.iter().filter(|byte| byte.is_ascii()).count() * 4 > start.len() * 3
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn formats_are_recognized_by_first_bytes() {
        let dicom = [&[0; 128][..], b"DICM"].concat();
        let tar = [&[b'a'; 257][..], b"ustar\x0000"].concat();
        let nifti = [&348i32.to_be_bytes()[..], &[0; 400]].concat();
        for (start, format) in [
            (&nifti[..], Format::Nifti),
            (&gzip(&nifti), Format::Nifti),
            (b"NRRD0005\ntype: short\n", Format::Nrrd),
            (b"ObjectType = Image\n", Format::MetaImage),
            (&dicom, Format::Dicom),
            (b"PK\x03\x04....", Format::Other("a ZIP archive")),
            (&tar, Format::Other("a tar archive")),
            (&gzip(&tar), Format::Other("a compressed tar archive")),
            (&gzip(b"\x00\x00\x00\x01\x00\x00\x01\x00"), Format::Other("an MGZ file of FreeSurfer")),
            (&gzip(b"NRRD0004\n"), Format::Other("a gzip file of an NRRD file: decompress it first")),
            ("Befund: unauffällig\n".as_bytes(), Format::Text),
            (b"", Format::Unknown),
            (&[7, 200, 3, 150, 99, 255], Format::Unknown),
            (&gzip(&[7, 200, 3, 150, 99, 255]), Format::Nifti),
        ] {
            assert_eq!(Format::of(start), format, "{}", start.escape_ascii());
        }
    }
}
