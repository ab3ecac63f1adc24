//! Hostile NIfTI files: reading each file is a specific fault, with memory in proportion to its size on disk.

use std::io::Write;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use freetumor::error::FaultKind::{self, *};
use freetumor::ingest::nifti::{self, Datatype, Limits};
use freetumor::volume::{Affine, Grid};

/// Set for the child process in which memory is measured.
const CHILD: &str = "FREETUMOR_TEST_BAD_INPUT_CHILD";
/// Allowed memory of one file in addition to eight times its bytes on disk: buffers, inflater, rounding of the allocator.
const EXTRA_BYTES: u64 = 16 << 20;

/// Returns a small valid file: 6 × 5 × 4 voxels of i16.
fn valid() -> Vec<u8> {
    let grid = Grid { shape: [6, 5, 4], affine: Affine::from_spacing([0.8, 0.8, 5.0]) };
    let mut file = nifti::encode_header(&grid, Datatype::I16, "").unwrap().to_vec();
    file.extend((0..120i16).flat_map(|index| (index * 10 - 600).to_le_bytes()));
    file
}

/// Returns the valid file with some bytes replaced.
fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = valid();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

fn with_dim(dim: &[i16]) -> Vec<u8> {
    with(40, &dim.iter().flat_map(|size| size.to_le_bytes()).collect::<Vec<_>>())
}

fn with_f32(at: usize, value: f32) -> Vec<u8> {
    with(at, &value.to_le_bytes())
}

fn with_type(code: i16) -> Vec<u8> {
    with(70, &code.to_le_bytes())
}

/// Returns a valid file of floats with one voxel replaced.
fn with_voxel(voxel: f32) -> Vec<u8> {
    let mut file = with_type(Datatype::F32.code());
    file.truncate(352);
    file.extend((0..120).flat_map(|index| if index == 77 { voxel } else { index as f32 }.to_le_bytes()));
    file
}

/// Returns the valid file with extensions between header and voxels.
fn with_extensions(extensions: &[u8], voxel_offset: f32) -> Vec<u8> {
    let mut file = with_f32(108, voxel_offset);
    file[348] = 1;
    file.splice(352..352, extensions.iter().copied());
    file
}

fn extension(size: i32, content: usize) -> Vec<u8> {
    let mut bytes = size.to_le_bytes().to_vec();
    bytes.extend(6i32.to_le_bytes());
    bytes.resize(8 + content, b' ');
    bytes
}

/// Returns the valid file with the rows of the sform replaced.
fn with_sform(rows: [[f32; 4]; 3]) -> Vec<u8> {
    with(280, &rows.iter().flatten().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
}

/// Returns the valid file with a qform of this quaternion instead of the sform.
fn with_quaternion(parts: [f32; 3]) -> Vec<u8> {
    let mut file = with(252, &[1, 0, 0, 0]);
    for (part, value) in parts.iter().enumerate() {
        file[256 + 4 * part..260 + 4 * part].copy_from_slice(&value.to_le_bytes());
    }
    file
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gzip_with(change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut file = gzip(&valid());
    change(&mut file);
    file
}

/// Returns a NIfTI-2 file with these dimensions and no voxels.
fn nifti2(dim: [i64; 8]) -> Vec<u8> {
    let mut file = vec![0; 544];
    file[..4].copy_from_slice(&540i32.to_le_bytes());
    file[4..12].copy_from_slice(b"n+2\0\r\n\x1a\n");
    file[12..14].copy_from_slice(&Datatype::U8.code().to_le_bytes());
    for (n, size) in dim.into_iter().enumerate() {
        file[16 + 8 * n..24 + 8 * n].copy_from_slice(&size.to_le_bytes());
        file[104 + 8 * n..112 + 8 * n].copy_from_slice(&1f64.to_le_bytes());
    }
    file[168..176].copy_from_slice(&544i64.to_le_bytes());
    // The qform without rotation.
    file[344..348].copy_from_slice(&1i32.to_le_bytes());
    file
}

/// Returns noise that gzip cannot compress, so that the size of the file alone does not reveal a false header.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// Returns every hostile file with its name and the fault of reading it as a scan.
fn hostile_files() -> Vec<(&'static str, Vec<u8>, FaultKind)> {
    let huge = with_dim(&[3, 32767, 32767, 32767]);
    vec![
        ("empty", vec![], Truncated),
        ("three bytes", valid()[..3].to_vec(), Truncated),
        ("half a header", valid()[..200].to_vec(), Truncated),
        ("a header without its flag of extensions", valid()[..348].to_vec(), Truncated),
        ("a header without voxels", valid()[..352].to_vec(), Truncated),
        ("one byte too few", valid()[..valid().len() - 1].to_vec(), Truncated),
        ("text", b"# not a scan\nbut a string of some length, as in README files\n".to_vec(), Corrupt),
        ("a PNG", [b"\x89PNG\r\n\x1a\n".to_vec(), vec![0; 400]].concat(), Corrupt),
        ("noise", noise(5000), Corrupt),
        ("a wrong magic", with(344, b"n+7\0"), Corrupt),
        ("header and image in two files", with(344, b"ni1\0"), Unsupported),
        ("ANALYZE 7.5", with(344, &[0; 4]), Unsupported),
        ("no dimensions", with_dim(&[0]), Geometry),
        ("nine dimensions", with_dim(&[9]), Geometry),
        ("one image", with_dim(&[2, 6, 20]), Geometry),
        ("a dimension of zero", with_dim(&[3, 6, 0, 4]), Geometry),
        ("a negative dimension", with_dim(&[3, 6, -5, 4]), Geometry),
        ("a series of volumes", with_dim(&[4, 6, 5, 2, 2]), Unsupported),
        ("vectors", with_dim(&[5, 6, 5, 2, 1, 2]), Unsupported),
        ("huge dimensions", huge.clone(), Truncated),
        ("huge dimensions in gzip", gzip(&huge), Truncated),
        ("NIfTI-2 whose size overflows", nifti2([3, i64::MAX, i64::MAX, i64::MAX, 1, 1, 1, 1]), Geometry),
        ("NIfTI-2 of many petabytes", nifti2([3, 1 << 20, 1 << 20, 1 << 16, 1, 1, 1, 1]), Truncated),
        ("NIfTI-2 with a negative dimension", nifti2([3, 5, i64::MIN, 5, 1, 1, 1, 1]), Geometry),
        ("an unknown type", with_type(3), Corrupt),
        ("no type", with_type(0), Corrupt),
        ("bits", with_type(1), Unsupported),
        ("complex numbers", with_type(32), Unsupported),
        ("colours", with_type(128), Unsupported),
        ("colours with alpha", with_type(2304), Unsupported),
        ("floats of 128 bits", with_type(1536), Unsupported),
        ("complex numbers of 256 bits", with_type(2048), Unsupported),
        ("voxels inside the header", with_f32(108, 100.0), Corrupt),
        ("voxels before the file", with_f32(108, -352.0), Corrupt),
        ("voxels at half a byte", with_f32(108, 352.5), Corrupt),
        ("voxels at NaN", with_f32(108, f32::NAN), Corrupt),
        ("voxels at infinity", with_f32(108, f32::INFINITY), Corrupt),
        ("voxels far beyond the end", with_f32(108, 1e15), Truncated),
        ("voxels slightly beyond the end", with_f32(108, 368.0), Truncated),
        ("an extension longer than its space", with_extensions(&extension(i32::MAX, 8), 368.0), Corrupt),
        ("an extension of negative size", with_extensions(&extension(-16, 8), 368.0), Corrupt),
        ("an extension shorter than its head", with_extensions(&extension(4, 8), 368.0), Corrupt),
        (
            "an intercept that is not a number",
            {
                let mut file = with_f32(112, 2.0);
                file[116..120].copy_from_slice(&f32::NAN.to_le_bytes());
                file
            },
            Corrupt,
        ),
        ("a singular affine", with_sform([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]), Geometry),
        (
            "an affine with NaN",
            with_sform([[1.0, 0.0, 0.0, f32::NAN], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]),
            Geometry,
        ),
        (
            "an infinite affine",
            with_sform([[f32::INFINITY, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]),
            Geometry,
        ),
        (
            "an affine with a shear of 20 degrees",
            with_sform([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.363_97, 0.0], [0.0, 0.0, 1.0, 0.0]]),
            Geometry,
        ),
        (
            "voxels of kilometres",
            with_sform([[1e6, 0.0, 0.0, 0.0], [0.0, 1e6, 0.0, 0.0], [0.0, 0.0, 1e6, 0.0]]),
            Geometry,
        ),
        (
            "an origin at 3.8e11 mm",
            with_sform([[1.0, 0.0, 0.0, 3.8e11], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]),
            Geometry,
        ),
        ("a quaternion longer than one", with_quaternion([0.9, 0.9, 0.0]), Geometry),
        ("a quaternion with NaN", with_quaternion([f32::NAN, 0.0, 0.0]), Geometry),
        (
            "no spacing and no affine",
            {
                let mut file = with(252, &[0; 4]);
                file[80..92].fill(0);
                file
            },
            Geometry,
        ),
        ("a voxel that is not a number", with_voxel(f32::NAN), NonFinite),
        ("an infinite voxel", with_voxel(f32::NEG_INFINITY), NonFinite),
        (
            "a finite voxel made infinite by its slope",
            {
                let mut file = with_voxel(3e38);
                file[112..116].copy_from_slice(&100f32.to_le_bytes());
                file
            },
            NonFinite,
        ),
        ("two bytes of gzip", vec![0x1f, 0x8b], Truncated),
        ("half a gzip stream", gzip_with(|file| file.truncate(file.len() / 2)), Truncated),
        ("gzip without its trailer", gzip_with(|file| file.truncate(file.len() - 8)), Truncated),
        ("gzip with half a trailer", gzip_with(|file| file.truncate(file.len() - 3)), Truncated),
        (
            "gzip with a wrong checksum",
            gzip_with(|file| {
                let at = file.len() - 6;
                file[at] ^= 1;
            }),
            Corrupt,
        ),
        (
            "gzip with a wrong length",
            gzip_with(|file| {
                let at = file.len() - 2;
                file[at] ^= 1;
            }),
            Corrupt,
        ),
        ("gzip of an unknown method", gzip_with(|file| file[2] = 7), Corrupt),
        ("gzip with an invalid block", gzip_with(|file| file[10] = 0xff), Corrupt),
        ("an empty gzip stream", gzip(&[]), Truncated),
        ("gzip in gzip", gzip(&gzip(&valid())), Corrupt),
        (
            "a header of more voxels than its gzip contains",
            {
                let mut file = with_dim(&[3, 1000, 1000, 250]);
                file.extend(noise(1 << 20));
                gzip(&file)
            },
            Truncated,
        ),
    ]
}

#[test]
fn each_hostile_file_has_the_expected_fault() {
    for (name, file, expected) in hostile_files() {
        let fault = match nifti::read_volume_from(&file[..], file.len() as u64, &Limits::default()) {
            Ok(volume) => panic!("{name}: expected a fault, got {:?}", volume.grid),
            Err(fault) => fault,
        };
        assert_eq!(fault.kind, expected, "{name}: {fault}");
        assert!(fault.message.len() > 20, "{name}: {fault}");
    }
    assert!(nifti::read_volume_from(&valid()[..], 592, &Limits::default()).is_ok());
}

#[test]
fn labels_must_be_integers_of_16_bits() {
    let limits = Limits::default();
    let read = |file: &[u8]| nifti::read_labels_from(file, file.len() as u64, &limits);
    assert_eq!(read(&with_voxel(65535.0)).unwrap().ids.as_slice()[77], 65535);
    for (voxel, expected) in [
        (0.5, Unsupported),
        (-1.0, Unsupported),
        (65536.0, Unsupported),
        (f32::NAN, NonFinite),
        (f32::INFINITY, NonFinite),
    ] {
        let fault = read(&with_voxel(voxel)).unwrap_err();
        assert_eq!(fault.kind, expected, "{voxel}");
        assert!(fault.message.contains("voxel 77"), "{fault}");
    }
    assert_eq!(read(&valid()).unwrap_err().kind, Unsupported, "HU are not labels");
}

#[test]
fn limit_is_checked_before_allocation() {
    let file = valid();
    let fault = nifti::read_volume_from(&file[..], file.len() as u64, &Limits { held_bytes: 100 }).unwrap_err();
    assert_eq!(fault.kind, TooLarge);
    let fault = nifti::read_labels_from(&file[..], file.len() as u64, &Limits { held_bytes: 100 }).unwrap_err();
    assert_eq!(fault.kind, TooLarge);
}

/// Returns the peak address space of this process.
#[cfg(target_os = "linux")]
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmPeak:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Measures address space, not resident memory, because a false header may reserve memory that is never touched. A separate
/// process excludes the reservations of other tests.
#[cfg(target_os = "linux")]
#[test]
fn memory_is_independent_of_false_header() {
    if std::env::var_os(CHILD).is_some() {
        let files = hostile_files();
        let mut before = peak_bytes();
        for (name, file, _) in files {
            let _ = nifti::read_volume_from(&file[..], file.len() as u64, &Limits::default());
            let _ = nifti::read_labels_from(&file[..], file.len() as u64, &Limits::default());
            let after = peak_bytes();
            let allowed = EXTRA_BYTES + 8 * file.len() as u64;
            assert!(after - before <= allowed, "{name}: expected at most {allowed} bytes, got {}", after - before);
            before = after;
        }
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "bad_input::memory_is_independent_of_false_header", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn irregular_file_is_rejected_before_opening() {
    let folder = tempfile::tempdir().unwrap();
    let kind = |path: &std::path::Path| nifti::read_volume(path).unwrap_err().kind;
    assert_eq!(kind(folder.path()), Unsupported);
    assert_eq!(kind(&folder.path().join("gone.nii.gz")), Missing);
    #[cfg(unix)]
    {
        assert_eq!(kind(std::path::Path::new("/dev/zero")), Unsupported);
        let pipe = folder.path().join("pipe.nii");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(kind(&pipe), Unsupported, "opening a pipe without a writer would block");
    }
}

proptest::proptest! {
    /// Changes some bytes of a valid file and truncates the file: the result is a volume or a fault, never a panic.
    #[test]
    fn damaged_file_never_panics(
        changes in proptest::collection::vec((0usize..600, proptest::num::u8::ANY), 0..12),
        length in 0usize..=592,
        packed in proptest::bool::ANY,
    ) {
        let mut file = if packed { gzip(&valid()) } else { valid() };
        for (at, byte) in changes {
            let at = at % file.len();
            file[at] = byte;
        }
        file.truncate(length);
        let limits = Limits { held_bytes: 64 << 20 };
        if let Ok(volume) = nifti::read_volume_from(&file[..], file.len() as u64, &limits) {
            proptest::prop_assert!((0..volume.grid.voxels()).all(|index| volume.voxels.hu(index).is_finite()));
        }
        let _ = nifti::read_labels_from(&file[..], file.len() as u64, &limits);
    }

    /// Reads any bytes after a valid start.
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..700), start in 0usize..4) {
        let starts: [&[u8]; 4] = [&[], &[0x5c, 1, 0, 0], &[0, 0, 2, 0x1c], &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0]];
        let file = [starts[start], &bytes].concat();
        let _ = nifti::read_volume_from(&file[..], file.len() as u64, &Limits { held_bytes: 64 << 20 });
    }
}
