//! The child process that decodes compressed DICOM: its failures are faults of a scan, and its memory is limited.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dicom_dictionary_std::uids;
use freetumor::error::FaultKind;
use freetumor::ingest::dicom::{Decoder, list_series};

use crate::dicom_faults::{read, with_all};
use crate::dicom_files::{COLUMNS, ROWS, run_lengths, write};

#[test]
fn failed_decoder_process_fails_its_scan_only() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        &with_all(|slice| slice.syntax(uids::RLE_LOSSLESS).fragment(run_lengths(&[7; COLUMNS * ROWS]))),
    );
    let series = list_series(folder.path()).unwrap().remove(0);
    let fault = |program: &str| {
        read(&series, &Decoder::in_child_process(program.into()).with_slice_time(Duration::from_millis(300)))
            .unwrap_err()
    };
    let gone = fault("/missing/freetumor");
    assert_eq!(gone.kind, FaultKind::Io);
    assert!(gone.message.contains("cannot start the decoder") && !gone.message.contains("missing"), "{gone}");
    let early = fault("/bin/false");
    assert_eq!(
        (early.kind, early.message.contains("ended early with exit code 1")),
        (FaultKind::Panic, true),
        "{early}"
    );
    // `yes` writes other bytes than a response without end.
    let started = Instant::now();
    let invalid = fault("/usr/bin/yes");
    assert_eq!(
        (invalid.kind, invalid.message.contains("sent an invalid response")),
        (FaultKind::Panic, true),
        "{invalid}"
    );
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// Uses the protocol of the decoder process: the process limits its memory before it decodes, and ends after an invalid request.
#[test]
#[cfg(target_os = "linux")]
fn decoder_process_limits_its_memory() {
    let decoder_process = || {
        Command::new(env!("CARGO_BIN_EXE_freetumor"))
            .arg("decode-dicom")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut valid = decoder_process();
    let mut input = valid.stdin.take().unwrap();
    let frame = run_lengths(&[7; COLUMNS * ROWS]);
    let mut request = b"ftdicom1".to_vec();
    request.extend([1, 1].map(u32::to_le_bytes).concat());
    request.extend([4, 2, 16, 1]);
    request.extend([COLUMNS as u32, ROWS as u32, frame.len() as u32, 0].map(u32::to_le_bytes).concat());
    input.write_all(&request).unwrap();
    input.write_all(&frame).unwrap();
    let mut response = [0; 9 + 2 * COLUMNS * ROWS];
    valid.stdout.as_mut().unwrap().read_exact(&mut response).unwrap();
    assert_eq!(response[..9], [0, 60, 0, 0, 0, 0, 0, 0, 0]);
    assert!(response[9..].chunks(2).all(|pixel| pixel == [7, 0]));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", valid.id())).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(limit("Max core file size"), "0");
    assert!(limit("Max address space").parse::<u64>().unwrap() < 4 << 30, "{limits}");
    drop(input);
    assert!(valid.wait().unwrap().success());

    let mut other = decoder_process();
    other.stdin.take().unwrap().write_all(b"GET / HTTP/1.1").unwrap();
    assert_eq!(other.wait().unwrap().code(), Some(2));
}
