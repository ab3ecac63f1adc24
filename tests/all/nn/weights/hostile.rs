//! Hostile and damaged checkpoints: an error that names the problem, never a panic, and memory within the limit of the file's size.

use std::process::Command;

use candle_core::Device;
use freetumor::nn::weights::read;

use super::builder::{Entry, Pickle, checkpoint, entries, floats, zip};

/// The environment variable of the child process in which memory is measured.
const CHILD: &str = "FREETUMOR_TEST_WEIGHTS_CHILD";
/// The maximum number of bytes of memory for a file in addition to sixteen times its size: rounding by the allocator, the archive's table.
const MAX_BYTES: u64 = 4 << 20;

/// The start of the error of an archive that cannot be read.
const DAMAGED: &str = "a damaged zip archive";

const NUMBERS: [f32; 6] = [0.5, -1.0, 2.0, 3.5, 4.0, -8.25];

fn error_of(file: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.pt");
    std::fs::write(&path, file).unwrap();
    match read(&path, &Device::Cpu) {
        Ok(tensors) => format!("read: {tensors:?}"),
        Err(error) => format!("{error} | {}", error.hint().unwrap_or("")),
    }
}

fn valid_checkpoint() -> Vec<u8> {
    checkpoint(&Pickle::dict().vector("bias", 6).end(), &[("0", &floats(&NUMBERS))])
}

fn of_tensor(count: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let pickle = Pickle::dict().tensor("bias", ("FloatStorage", "0", count), offset, shape, strides).end();
    checkpoint(&pickle, &[("0", &floats(&NUMBERS))])
}

fn of_pickle(pickle: Pickle) -> Vec<u8> {
    checkpoint(&pickle, &[])
}

fn changed(change: impl Fn(&mut Vec<Entry>)) -> Vec<u8> {
    let mut entries = entries(&Pickle::dict().vector("bias", 6).end(), &[("0", &floats(&NUMBERS))]);
    change(&mut entries);
    zip(&entries)
}

/// Returns a valid file with the end record of a 64-bit archive that claims other numbers.
fn with_64_bit_end(count: u64, bytes: u64, start: u64) -> Vec<u8> {
    let mut file = valid_checkpoint();
    let mut end = file.split_off(file.len() - 22);
    // These 32-bit numbers refer readers to the 64-bit numbers.
    end[8..20].fill(0xff);
    let at = file.len() as u64;
    file.extend(b"PK\x06\x06");
    file.extend(44u64.to_le_bytes());
    file.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    [count, count, bytes, start].iter().for_each(|number| file.extend(number.to_le_bytes()));
    file.extend(b"PK\x06\x07\0\0\0\0");
    file.extend(at.to_le_bytes());
    file.extend([1, 0, 0, 0]);
    file.extend(end);
    file
}

/// Returns a file with a table of contents of one entry after 64 KiB of zeros, and an end record that claims the most entries that
/// 32 bits allow.
fn claims_many_entries() -> Vec<u8> {
    let mut file = vec![0; 1 << 16];
    file[..4].copy_from_slice(b"PK\x03\x04");
    let start = file.len() as u32;
    file.extend(b"PK\x01\x02\x14\0\x14\0\0\0\0\0");
    file.extend([0; 34]);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([65_534u16.to_le_bytes(); 2].concat());
    file.extend((u32::MAX - 1).to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0, 0]);
    file
}

/// Returns the name and content of every hostile file, and a part of its error.
fn hostile_files() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let cut = |at: usize| valid_checkpoint()[..at].to_vec();
    let whole = valid_checkpoint().len();
    let bomb = |bytes: usize, pickle: Pickle| {
        let mut entries = entries(&pickle, &[("0", &vec![0; bytes])]);
        entries.last_mut().unwrap().deflated = true;
        zip(&entries)
    };
    let million = 1 << 20;
    let mut files = vec![
        ("empty", vec![], "empty"),
        ("zeros", vec![0; 1000], "unknown format"),
        ("cut in the end", cut(whole - 1), DAMAGED),
        ("cut in the table", cut(whole - 60), DAMAGED),
        ("cut in a storage", cut(300), DAMAGED),
        ("cut at the start", cut(4), DAMAGED),
        ("only an end", b"PK\x05\x06".iter().copied().chain([0; 18]).collect(), "without data.pkl"),
        ("no pickle", zip(&[Entry::new("weights.npy", *b"abc")]), "without data.pkl, with the entries `weights.npy`"),
        ("script", changed(|entries| entries.push(Entry::new("archive/constants.pkl", *b"."))), "TorchScript"),
        ("big endian", changed(|entries| entries[1].content = b"big".to_vec()), "the byte order `big`"),
        ("twice", changed(|entries| entries.push(entries[2].clone())), "an entry name occurs twice"),
        ("storage absent", changed(|entries| drop(entries.pop())), "not in the archive"),
        ("storage short", changed(|entries| entries[2].content.truncate(20)), "expected 24 bytes, got 20"),
        ("storage long", changed(|entries| entries[2].content.push(0)), "expected 24 bytes, got 25"),
        (
            "entry claims 4 GiB",
            changed(|entries| entries[2].claimed_bytes = Some(u32::MAX - 1)),
            "reaches beyond the file",
        ),
        (
            "entry claims more",
            changed(|entries| (entries[2].deflated, entries[2].claimed_bytes) = (true, Some(200))),
            "expected 24 bytes, got 200",
        ),
        (
            "entry claims less",
            changed(|entries| (entries[0].deflated, entries[0].claimed_bytes) = (true, Some(20))),
            "20 bytes",
        ),
        ("2^60 entries", with_64_bit_end(1 << 60, 10, 10), DAMAGED),
        ("table of 2^60 bytes", with_64_bit_end(3, 1 << 60, 10), DAMAGED),
        ("table at 2^64", with_64_bit_end(3, 10, u64::MAX - 3), DAMAGED),
        (
            "another checksum",
            {
                let mut file = valid_checkpoint();
                let at = file.windows(4).position(|four| four == (-8.25f32).to_le_bytes()).unwrap();
                file[at] ^= 1;
                file
            },
            "checksum",
        ),
        ("bomb of a storage", bomb(64 * million, Pickle::dict().vector("bias", 16 * million as i64).end()), "memory"),
        (
            "bomb of a pickle",
            {
                let mut entry = Entry::new("archive/data.pkl", vec![b'N'; 64 * million]);
                entry.deflated = true;
                zip(&[entry])
            },
            "memory",
        ),
        ("shape beyond the storage", of_tensor(6, 0, &[7], &[1]), "reach beyond the storage of 6"),
        ("offset beyond the storage", of_tensor(6, 1, &[6], &[1]), "reach beyond"),
        ("strides beyond the storage", of_tensor(6, 0, &[2, 3], &[4, 1]), "reach beyond"),
        ("count beyond the storage", of_tensor(7, 0, &[7], &[1]), "expected 28 bytes, got 24"),
        ("shape beyond 64 bits", of_tensor(6, 0, &[1 << 40, 1 << 40], &[0, 0]), "reach beyond"),
        ("shape times stride beyond 64 bits", of_tensor(6, 0, &[1 << 40, 2], &[1 << 40, 1]), "reach beyond"),
        ("one number as a tebi", of_tensor(6, 0, &[1 << 40], &[0]), "memory"),
        ("count beyond 64 bits", of_tensor(i64::MAX, 0, &[1], &[1]), "expected a storage of fewer than 2^64 bytes"),
        ("negative count", of_tensor(-1, 0, &[1], &[1]), "expected a storage as the persistent object"),
        ("negative offset", of_tensor(6, -1, &[1], &[1]), "expected a storage and an offset of a tensor"),
        ("negative size", of_tensor(6, 0, &[-6], &[1]), "none below zero"),
        ("fewer strides", of_tensor(6, 0, &[2, 3], &[1]), "reach beyond"),
        ("100 axes", of_tensor(6, 0, &[1; 100], &[1; 100]), "at most 16 numbers"),
        (
            "complex",
            changed(|entries| {
                let complex = ("ComplexFloatStorage", "0", 6);
                entries[0].content = Pickle::dict().tensor("bias", complex, 0, &[6], &[1]).end().finish();
            }),
            "element type",
        ),
        (
            "sparse",
            changed(|entries| {
                let sparse =
                    Pickle::dict().vector("bias", 6).text("w").global("torch._utils", "_rebuild_sparse_tensor");
                entries[0].content = sparse.raw(b")R").end().finish();
            }),
            "`w`: expected a dense, unquantized tensor, got a tensor that `torch._utils._rebuild_sparse_tensor` rebuilds",
        ),
        ("number for a dict", of_pickle(Pickle::new().int(3)), "no mapping of names to tensors"),
        ("no tensors", of_pickle(Pickle::dict().text("epoch").int(3).end()), "among its keys `epoch`"),
        (
            "a whole module",
            of_pickle(Pickle::new().global("models.unet", "UNet").raw(b")R")),
            "class `models.unet.UNet`",
        ),
        (
            "os.system",
            of_pickle(Pickle::new().global("os", "system").text("touch /tmp/x").raw(b"\x85R")),
            "`os.system`",
        ),
        (
            "tensor of nothing",
            of_pickle(Pickle::new().global("torch._utils", "_rebuild_tensor_v2").raw(b")R")),
            "arguments of a tensor, got 0",
        ),
        ("storage of nothing", of_pickle(Pickle::new().raw(b")Q")), "expected a storage as the persistent object"),
        ("cut pickle", of_pickle(Pickle::new().raw(b"X\xff\xff\xff\xff")), "expected 4294967295 more bytes"),
        ("bytes of 2^64", of_pickle(Pickle::new().raw(b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff")), "more bytes"),
        ("number of 2^31 bytes", of_pickle(Pickle::new().raw(b"\x8b\xff\xff\xff\x7f")), "more bytes"),
        ("line without end", of_pickle(Pickle::new().raw(b"cabc")), "expected a line that ends with a newline"),
        ("not UTF-8", of_pickle(Pickle::new().raw(b"X\x01\0\0\0\xff")), "expected a string in UTF-8"),
        ("empty stack", of_pickle(Pickle::new().raw(b"0")), "expected an object or a mark on the stack"),
        ("no mark", of_pickle(Pickle::new().raw(b"t")), "expected a mark on the stack"),
        ("below the mark", of_pickle(Pickle::new().raw(b"N(0a")), "expected an object on the stack"),
        ("key alone", of_pickle(Pickle::dict().text("a").end()), "got a key without one"),
        ("empty memo", of_pickle(Pickle::new().raw(b"j\xff\xff\xff\xff")), "expected an object in memo 4294967295"),
        ("unknown instruction", of_pickle(Pickle::new().raw(b"\xf0")), "instruction 0xf0"),
        ("dict in itself", of_pickle(Pickle::new().raw(b"}q\0X\x0a\0\0\0state_dicth\0s")), "no mapping"),
        ("list in itself", of_pickle(Pickle::new().raw(b"]q\0h\0a")), "no mapping"),
        (
            "tensor of itself",
            of_pickle(Pickle::new().global("torch._utils", "_rebuild_tensor_v2").raw(b"]q\0(h\0h\0h\0h\0h\0eR")),
            "a storage",
        ),
        (
            "from a type of itself",
            of_pickle(Pickle::new().global("torch._tensor", "_rebuild_from_type_v2").raw(b"q\x01]q\0(h\x01h\0h\0eR")),
            "class `torch._tensor._rebuild_from_type_v2`",
        ),
    ];
    let entries: Vec<Entry> = (0..60_000).map(|name| Entry::new(&name.to_string(), [])).collect();
    files.push(("60,000 entries", zip(&entries), "without data.pkl"));
    let deep = b"]".repeat(million).into_iter().chain(b"a".repeat(million - 1)).collect::<Vec<_>>();
    files.push(("deep nesting", of_pickle(Pickle::new().raw(&deep)), "no mapping"));
    files.push((
        "a million marks",
        of_pickle(Pickle::new().raw(&b"(".repeat(million))),
        "expected an object on the stack",
    ));
    // One list of pairs, converted to a dict many times.
    let mut pairs = Pickle::new().global("collections", "OrderedDict").raw(b"q\0](");
    for _ in 0..10_000 {
        pairs = pairs.raw(b"K\x01K\x01\x86");
    }
    let again = b"h\0h\x01R".repeat(10_000);
    files.push(("a list copied many times", of_pickle(pairs.raw(b"e\x85q\x01").raw(&again)), "items, got more"));
    // Many keys of one mapping, and one long name for all tensors.
    let mut many = Pickle::dict().text("first").raw(b"}(").vector("bias", 6).raw(b"uq\x07");
    for key in 0..10_000 {
        many = many.text(&key.to_string()).raw(b"h\x07");
    }
    files.push(("one mapping under many keys", of_pickle(many.end()), "not in the archive"));
    files.push(("a name of a mebibyte", of_pickle(Pickle::dict().vector(&"n".repeat(million), 6).end()), "no mapping"));
    files
}

#[test]
fn read_fails_on_hostile_file_with_its_problem() {
    let more = [("claims 65,534 entries", claims_many_entries(), DAMAGED)];
    for (name, file, expected) in hostile_files().into_iter().chain(more) {
        let error = error_of(&file);
        assert!(error.contains(expected), "{name}: expected {expected:?} in\n{error}");
        assert!(!error.contains("read: "), "{name} was read");
        assert!(error.len() < 2000, "{name}: an error of {} bytes", error.len());
    }
}

/// The test measures address space instead of resident memory, to include memory that is reserved for a false claim and never used. The
/// test runs in a separate process, in which no other test reserves memory.
#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_depend_on_false_claims_of_a_file() {
    let peak_bytes = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    };
    if std::env::var_os(CHILD).is_some() {
        let files = hostile_files();
        let mut before = peak_bytes();
        for (name, file, _) in files {
            error_of(&file);
            let after = peak_bytes();
            let allowed = MAX_BYTES + 16 * file.len() as u64;
            assert!(after - before <= allowed, "{name}: {} bytes, the limit is {allowed}", after - before);
            before = after;
        }
        // Claimed entries take memory before the reader detects that they are absent: up to this bound, independent of the claim.
        error_of(&claims_many_entries());
        assert!(peak_bytes() - before <= 16 << 20, "{} bytes", peak_bytes() - before);
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "nn::weights::hostile::memory_does_not_depend_on_false_claims_of_a_file",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && text.contains("1 passed"), "{text}");
}

#[cfg(unix)]
#[test]
fn read_fails_on_pipe_folder_and_device_without_opening_them() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.pt");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [&pipe, folder.path(), std::path::Path::new("/dev/zero")] {
        assert!(read(path, &Device::Cpu).unwrap_err().to_string().contains("expected a file"), "{path:?}");
    }
    let error = read(&folder.path().join("missing.pt"), &Device::Cpu).unwrap_err();
    assert!(error.to_string().contains("missing.pt: No such file"), "{error}");
}

#[test]
fn read_error_names_the_format_of_another_file() {
    for (start, expected) in [
        (&b"version https://git-lfs.github.com/spec/v1\noid"[..], "git lfs pull"),
        (b"\n<html>", "a web page"),
        (b"\x1f\x8b\x08", "gunzip"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x80\x04}.", "a bare pickle"),
    ] {
        let error = error_of(start);
        assert!(error.contains(expected), "{error}");
    }
}

proptest::proptest! {
    /// Some bytes of a valid checkpoint change, or the file is truncated.
    #[test]
    fn read_of_damaged_checkpoint_never_panics(
        changes in proptest::collection::vec((0usize..1 << 16, 0u8..=255), 0..8),
        end in 0usize..1 << 16,
    ) {
        let mut file = valid_checkpoint();
        for (at, byte) in changes {
            let at = at % file.len();
            file[at] = byte;
        }
        if end % 3 == 0 {
            file.truncate(end % (file.len() + 1));
        }
        error_of(&file);
    }

    /// Random instructions on random objects.
    #[test]
    fn read_of_random_pickle_never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), known in proptest::bool::ANY) {
        let instructions = b"(012NJKMGX]})ltaeusdcRQbhjqriou\x80\x81\x85\x86\x87\x88\x8a\x8c\x8e\x8f\x90\x91\x92\x93\x94\x95";
        let bytes: Vec<u8> = if known {
            bytes.iter().map(|byte| instructions[usize::from(*byte) % instructions.len()]).collect()
        } else {
            bytes
        };
        error_of(&of_pickle(Pickle::dict().vector("bias", 6).raw(&bytes)));
    }

    /// Random bytes, with and without the start of a known format.
    #[test]
    fn read_of_random_bytes_never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), start in 0usize..4) {
        let start: &[u8] = [&b""[..], b"PK\x03\x04", b"\x20\0\0\0\0\0\0\0{", b"PK\x05\x06"][start];
        error_of(&[start, &bytes].concat());
    }
}
