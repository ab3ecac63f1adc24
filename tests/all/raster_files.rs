//! NRRD and MetaImage files: as scans and labels of a folder, in every encoding, and damaged.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use freetumor::error::{Fault, FaultKind};
use freetumor::ingest::nifti::{self, Datatype, Limits};
use freetumor::ingest::{FolderConfig, FolderSource, Source, volume_file};
use freetumor::volume::{Affine, Grid, Volume};
use proptest::prelude::*;

const SHAPE: [usize; 3] = [4, 3, 2];

/// An oblique grid in DICOM coordinates: the direction of each axis (a rotation with entries of thirds), spacing and origin.
const DIRECTIONS: [[f64; 3]; 3] = [[2.0, 1.0, 2.0], [-2.0, 2.0, 1.0], [-1.0, -2.0, 2.0]];
const SPACING_MM: [f64; 3] = [0.75, 1.5, 3.0];
const ORIGIN_MM: [f64; 3] = [10.0, -20.0, 30.0];

fn text<const N: usize>(numbers: [f64; N], separator: &str) -> String {
    numbers.map(|number| number.to_string()).join(separator)
}

fn unit(axis: usize) -> [f64; 3] {
    DIRECTIONS[axis].map(|part| part / 3.0)
}

/// Returns a header of MetaImage without its last line.
fn metaimage(lines: &str) -> String {
    let matrix = [0, 1, 2].map(|axis| text(unit(axis), " ")).join(" ");
    format!(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nTransformMatrix = {matrix}\nOffset = {}\nElementSpacing = {}\n\
         DimSize = 4 3 2\n{lines}",
        text(ORIGIN_MM, " "),
        text(SPACING_MM, " ")
    )
}

/// Returns a header of NRRD without its empty line.
fn nrrd(lines: &str) -> String {
    let directions =
        [0, 1, 2].map(|axis| format!("({})", text(unit(axis).map(|part| part * SPACING_MM[axis]), ","))).join(" ");
    format!(
        "NRRD0004\ndimension: 3\nsizes: 4 3 2\nspace: left-posterior-superior\nspace directions: {directions}\n\
         space origin: ({})\n{lines}",
        text(ORIGIN_MM, ",")
    )
}

fn hu() -> Vec<i16> {
    (0..24).map(|index| index * 50 - 600).collect()
}

fn little(values: &[i16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn write(path: &Path, parts: &[&[u8]]) {
    fs::write(path, parts.concat()).unwrap();
}

/// Returns the position of a voxel in RAS millimetres, computed from the directions.
fn position(voxel: [f64; 3]) -> [f64; 3] {
    let lps = [0, 1, 2].map(|part| {
        ORIGIN_MM[part] + (0..3).map(|axis| DIRECTIONS[axis][part] / 3.0 * SPACING_MM[axis] * voxel[axis]).sum::<f64>()
    });
    [-lps[0], -lps[1], lps[2]]
}

fn assert_is_scan(volume: &Volume, name: &str) {
    assert_eq!(volume.grid.shape, SHAPE, "{name}");
    for voxel in [[0.0; 3], [3.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]] {
        let found = volume.grid.affine.apply(voxel);
        let distances = [0, 1, 2].map(|axis| (found[axis] - position(voxel)[axis]).abs());
        assert!(distances.iter().all(|distance| *distance < 1e-9), "{name}: {found:?}");
    }
    let found: Vec<f32> = (0..24).map(|index| volume.voxels.hu(index)).collect();
    assert_eq!(found, hu().into_iter().map(f32::from).collect::<Vec<_>>(), "{name}");
}

#[test]
fn every_encoding_decodes_to_same_scan() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let voxels = little(&hu());
    let big: Vec<u8> = hu().iter().flat_map(|value| value.to_be_bytes()).collect();
    let doubles: Vec<u8> = hu().iter().flat_map(|value| f64::from(*value).to_le_bytes()).collect();
    write(&path("voxels.raw"), &[&voxels]);
    write(&path("voxels.zraw"), &[&zlib(&voxels)]);
    write(&path("voxels.raw.gz"), &[&gzip(&voxels)]);
    write(&path("after-header.raw"), &[b"12345", &voxels]);
    write(&path("after-lines.raw"), &[b"one\ntwo\n123", &voxels]);
    let meta = |lines: &str| metaimage(&format!("ElementType = MET_SHORT\n{lines}\n"));
    let mine = |lines: &str| nrrd(&format!("type: short\nendian: little\n{lines}\n"));
    let files: Vec<(&str, String, Vec<u8>)> = vec![
        ("local.mha", meta("ElementDataFile = LOCAL"), voxels.clone()),
        ("zlib.mha", meta("CompressedData = True\nElementDataFile = LOCAL"), zlib(&voxels)),
        (
            "sized.mha",
            meta(&format!(
                "CompressedData = True\nCompressedDataSize = {}\nElementDataFile = LOCAL",
                zlib(&voxels).len()
            )),
            [zlib(&voxels), b"more".to_vec()].concat(),
        ),
        ("big.mha", meta("BinaryDataByteOrderMSB = True\nElementDataFile = LOCAL"), big.clone()),
        ("double.mha", metaimage("ElementType = MET_DOUBLE\nElementDataFile = LOCAL\n"), doubles.clone()),
        ("raw.mhd", meta("ElementDataFile = voxels.raw"), vec![]),
        ("zraw.mhd", meta("CompressedData = True\nElementDataFile = voxels.zraw"), vec![]),
        ("skipped.mhd", meta("HeaderSize = 5\nElementDataFile = after-header.raw"), vec![]),
        ("end.mhd", meta("HeaderSize = -1\nElementDataFile = after-lines.raw"), vec![]),
        ("raw.nrrd", mine("encoding: raw\n"), voxels.clone()),
        ("gzip.nrrd", mine("encoding: gzip\n"), gzip(&voxels)),
        ("skipped-gzip.nrrd", mine("encoding: gzip\nbyte skip: 3\n"), gzip(&[b"123", &voxels[..]].concat())),
        ("big.nrrd", nrrd("type: int16\nendian: big\nencoding: raw\n\n"), big),
        ("double.nrrd", nrrd("type: double\nendian: little\nencoding: raw\n\n"), doubles),
        ("raw.nhdr", mine("encoding: raw\ndata file: voxels.raw"), vec![]),
        ("gzip.nhdr", mine("encoding: gz\ndatafile: ./voxels.raw.gz\n"), vec![]),
        ("skipped.nhdr", mine("encoding: raw\nline skip: 2\nbyte skip: 3\ndata file: after-lines.raw"), vec![]),
        ("end.nhdr", mine("encoding: raw\nbyte skip: -1\ndata file: after-header.raw"), vec![]),
    ];
    for (name, header, voxels) in files {
        write(&path(name), &[header.as_bytes(), &voxels]);
        let volume = volume_file::read_volume(path(name)).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        assert_is_scan(&volume, name);
        let header = volume_file::read_header(path(name)).unwrap();
        assert_eq!(header.grid, volume.grid, "{name}");
        assert!(header.volume_bytes >= volume.voxels.bytes() as u64, "{name}");
    }
}

#[test]
fn folder_reads_scans_and_labels_of_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("archive");
    fs::create_dir_all(root.join("images")).unwrap();
    fs::create_dir(root.join("labels")).unwrap();
    fs::write(folder.path().join("secret"), "a secret for tests only").unwrap();
    let voxels = little(&hu());
    let labels: Vec<u8> = (0..24).collect();
    write(&root.join("images/a.mhd"), &[metaimage("ElementType = MET_SHORT\nElementDataFile = a.raw\n").as_bytes()]);
    write(&root.join("images/a.raw"), &[&voxels]);
    write(
        &root.join("images/B.NRRD"),
        &[nrrd("type: short\nendian: little\nencoding: gzip\n\n").as_bytes(), &gzip(&voxels)],
    );
    write(&root.join("labels/a.nrrd"), &[nrrd("type: uchar\nencoding: raw\n\n").as_bytes(), &labels]);
    write(
        &root.join("labels/B.mha"),
        &[metaimage("ElementType = MET_UCHAR\nElementDataFile = LOCAL\n").as_bytes(), &labels],
    );
    let config = format!("root = {root:?}\ninclude = ['images/*.mhd', 'images/*.NRRD']");
    let config: FolderConfig = toml::from_str(&config).unwrap();
    let source = FolderSource::new("archive", config).unwrap().with_secret_file(Some(folder.path().join("secret")));
    let entries = source.list().unwrap();
    let keys: Vec<_> = entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["images/B.NRRD", "images/a.mhd"]);
    let header_bytes = root.join("images/a.mhd").metadata().unwrap().len();
    assert_eq!(entries[1].bytes, header_bytes + 48, "the data file is a part of the scan");
    let mut digests = Vec::new();
    for (entry, pattern) in entries.iter().zip(["../labels/{stem}.mha", "../labels/{stem}.nrrd"]) {
        let scan = source.read(entry).unwrap();
        assert_is_scan(&scan.volume, &entry.key);
        let found = scan.companions.labels(pattern).unwrap();
        assert!(found.grid.agrees_with(&scan.volume.grid), "{pattern}");
        assert_eq!(found.ids.as_slice(), (0..24).collect::<Vec<u16>>(), "{pattern}");
        digests.push(scan.digest);
    }
    assert_eq!(digests[0], digests[1]);
}

fn fault_of(name: &str, content: &[u8]) -> Fault {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    let fault = volume_file::read_volume(&path).unwrap_err();
    let folder = folder.path().to_str().unwrap();
    assert!(!fault.message.contains(folder), "{fault}");
    fault
}

#[test]
fn damaged_files_are_faults() {
    use FaultKind::{Corrupt, Geometry, Missing, NonFinite, Truncated, Unsupported};
    let voxels = little(&hu());
    let mha = |lines: &str, voxels: &[u8]| [metaimage(lines).as_bytes(), voxels].concat();
    let nrrd = |lines: &str, voxels: &[u8]| [nrrd(lines).as_bytes(), voxels].concat();
    let short = "ElementType = MET_SHORT\nElementDataFile = LOCAL\n";
    let packed = "ElementType = MET_SHORT\nCompressedData = True\nElementDataFile = LOCAL\n";
    let gz = "type: short\nendian: little\nencoding: gzip\n\n";
    let mut bad_checksum = gzip(&voxels);
    let end = bad_checksum.len();
    bad_checksum[end - 6] ^= 1;
    let mut bad_zlib = zlib(&voxels);
    let end = bad_zlib.len();
    bad_zlib[end - 1] ^= 1;
    let nan: Vec<u8> = (0..24).flat_map(|index| if index == 7 { f32::NAN } else { 0.0 }.to_le_bytes()).collect();
    for (name, content, kind) in [
        ("one-byte-less.mha", mha(short, &voxels[1..]), Truncated),
        ("half.mha", mha(packed, &zlib(&voxels)[..20]), Truncated),
        ("no-voxels.mha", mha(packed, &[]), Truncated),
        ("not-zlib.mha", mha(packed, &voxels), Corrupt),
        ("checksum.mha", mha(packed, &bad_zlib), Corrupt),
        ("short-zlib.mha", mha(packed, &zlib(&voxels[2..])), Truncated),
        ("size.mha", mha(&format!("CompressedDataSize = 9999\n{packed}"), &zlib(&voxels)), Truncated),
        (
            "huge.mha",
            String::from_utf8_lossy(&mha(short, &[])).replace("4 3 2", "40000 40000 40000").into_bytes(),
            Truncated,
        ),
        ("nan.mha", mha("ElementType = MET_FLOAT\nElementDataFile = LOCAL\n", &nan), NonFinite),
        ("no-data.mhd", mha("ElementType = MET_SHORT\nElementDataFile = gone.raw\n", &[]), Missing),
        ("outside.mhd", mha("ElementType = MET_SHORT\nElementDataFile = /etc/hostname\n", &[]), Unsupported),
        ("folder.mhd", mha("ElementType = MET_SHORT\nElementDataFile = .\n", &[]), Unsupported),
        ("one-byte-less.nrrd", nrrd("type: short\nendian: little\nencoding: raw\n\n", &voxels[1..]), Truncated),
        ("half.nrrd", nrrd(gz, &gzip(&voxels)[..20]), Truncated),
        ("checksum.nrrd", nrrd(gz, &bad_checksum), Corrupt),
        ("lines.nrrd", nrrd("type: uchar\nencoding: raw\nline skip: 999999999999\n\n", &[7; 24]), Truncated),
        ("skip.nrrd", nrrd("type: uchar\nencoding: raw\nbyte skip: 9223372036854775807\n\n", &[7; 24]), Truncated),
        ("no-end.nrrd", nrrd("type: uchar\nencoding: raw\n", &[]), Truncated),
        (
            "no-space.nrrd",
            b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 1 1 1\nspacings: 1 1 1\nencoding: raw\n\n\0".to_vec(),
            Geometry,
        ),
    ] {
        let fault = fault_of(name, &content);
        assert_eq!(fault.kind, kind, "{name}: {fault}");
    }
}

#[test]
fn faults_name_formats_that_are_not_read() {
    for (content, named) in [
        (&b"PK\x03\x04\x14\x00"[..], "a ZIP archive"),
        (b"\x89HDF\r\n\x1a\n\0\0", "an HDF5 file (such as MINC 2)"),
        (b"\x89PNG\r\n\x1a\n\0\0", "a PNG picture"),
        (b"some text", "a text file"),
    ] {
        let fault = fault_of("ct.nii", content);
        let start = "expected a NIfTI, NRRD or MetaImage file or a DICOM folder, got ";
        assert_eq!(fault.message, format!("{start}{named}"));
    }
    let fault = fault_of("ct.nii.gz", &gzip(b"\0\0\0\x01\0\0\0\x04\0\0\0\x04"));
    assert!(fault.message.ends_with("got an MGZ file of FreeSurfer"), "{fault}");
}

#[test]
fn content_and_not_name_selects_format() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid { shape: [2, 1, 1], affine: Affine::from_spacing([1.0; 3]) };
    let mut file = nifti::encode_header(&grid, Datatype::I16, "").unwrap().to_vec();
    file.extend(little(&[7, 8]));
    let path = folder.path().join("ct.nrrd");
    fs::write(&path, file).unwrap();
    assert_eq!(volume_file::read_volume(&path).unwrap().voxels.hu(1), 8.0);
}

#[test]
fn voxels_beyond_limits_are_too_large() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ct.mha");
    write(&path, &[metaimage("ElementType = MET_SHORT\nElementDataFile = LOCAL\n").as_bytes(), &little(&hu())]);
    let limits = Limits { held_bytes: 1000 };
    assert_eq!(volume_file::read_volume_within(&path, &limits).unwrap_err().kind, FaultKind::TooLarge);
    assert_eq!(volume_file::read_labels_within(&path, &limits).unwrap_err().kind, FaultKind::TooLarge);
}

proptest! {
    /// Reading a file with changed bytes is a scan or a fault, never a panic.
    #[test]
    fn changed_files_are_scans_or_faults(
        is_nrrd in any::<bool>(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut content = match is_nrrd {
            true => [nrrd("type: short\nendian: little\nencoding: gzip\n\n").as_bytes(), &gzip(&little(&hu()))].concat(),
            false => {
                let lines = "ElementType = MET_SHORT\nCompressedData = True\nElementDataFile = LOCAL\n";
                [metaimage(lines).as_bytes(), &zlib(&little(&hu()))].concat()
            }
        };
        for (index, byte) in changes {
            let at = index.index(content.len());
            content[at] = byte;
        }
        content.truncate(content.len() - cut.index(content.len()) / 8);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &content).unwrap();
        let _ = volume_file::read_volume(file.path());
        let _ = volume_file::read_labels(file.path());
        let _ = volume_file::read_header(file.path());
    }
}
