//! Who may know whom: data walks one way through the rooms of the crate, and each engine lives in a room of its own.

use std::path::{Path, PathBuf};

/// A room, and those that it may name beside itself.
const ROOMS: &[(&str, &str)] = &[
    ("error", ""),
    ("random", ""),
    ("suggest", ""),
    ("shield", ""),
    ("simd", "error"),
    ("volume", "error random simd"),
    ("nn", "error suggest shield simd"),
    ("view", "error simd volume nn"),
    ("ingest", "error random suggest volume"),
    ("mask", "error random suggest volume view ingest"),
    ("synth", "error random simd volume view ingest mask"),
    ("score", "error volume view ingest mask synth"),
    ("command", "error random suggest volume ingest mask synth score"),
    ("filter", "error suggest score"),
    ("sink", "error random volume ingest mask synth score filter"),
    ("tables", "error ingest sink"),
    ("train", "error random suggest simd volume nn view ingest mask synth score filter sink tables"),
    ("graph", "error random suggest volume nn view ingest mask synth score command filter sink tables"),
    ("dataflow", "error random shield volume view ingest mask synth score filter sink tables graph"),
    ("cli", "error random suggest shield simd volume nn view ingest mask sink train tables graph dataflow"),
];

/// A crate, and the only places that may name it.
const ENGINES: &[(&str, &[&str])] = &[
    ("timely", &["dataflow"]),
    ("differential_dataflow", &["dataflow"]),
    ("candle_core", &["nn", "train", "view/viewer"]),
    ("candle_nn", &["nn", "train/initial"]),
    ("dicom_core", &["ingest"]),
    ("crossbeam", &["dataflow", "ingest", "nn/service"]),
    ("parquet", &["sink", "train", "tables", "dataflow"]),
    ("safetensors", &["nn/weights"]),
    ("plotters", &["train/chart", "train/curves", "train/metrics"]),
    ("clap", &["cli", "main"]),
    ("std::arch", &["simd"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Each file of the crate, by its path below `src` without the ending, with its lines of code.
fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    assert!(found.len() > 100, "the crate was found");
    let code =
        |text: &str| text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let name = |path: &Path| path.strip_prefix(&root).unwrap().with_extension("").to_str().unwrap().replace('\\', "/");
    found.iter().map(|path| (name(path), code(&std::fs::read_to_string(path).unwrap()))).collect()
}

/// The words that follow `before` in `code`.
fn words_after<'a>(code: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    code.split(before).skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

/// What a file must not name, as sentences.
fn trespasses(file: &str, code: &str) -> Vec<String> {
    let room = file.split('/').next().unwrap();
    let mut found = Vec::new();
    if let Some((_, may)) = ROOMS.iter().find(|(name, _)| *name == room) {
        for word in words_after(code, "crate::") {
            let known = ROOMS.iter().any(|(name, _)| *name == word);
            if known && word != room && !may.split(' ').any(|name| name == word) {
                found.push(format!("src/{file}.rs names crate::{word}, which {room} may not"));
            }
        }
    }
    for (engine, places) in ENGINES {
        let named = [format!("{engine}::"), format!("use {engine};")].iter().any(|text| code.contains(text.as_str()));
        if named && !places.iter().any(|place| file == *place || file.starts_with(&format!("{place}/"))) {
            found.push(format!("src/{file}.rs names {engine}, which belongs to {}", places.join(" and ")));
        }
    }
    found
}

#[test]
fn rooms_know_only_those_before_them() {
    let found: Vec<String> = files().iter().flat_map(|(file, code)| trespasses(file, code)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Parts of a room that may name less than the room may: what measures must not know what it measures.
const APART: &[(&str, &str)] = &[
    ("train/world", "synth score filter nn"),
    ("train/metrics", "synth score filter nn"),
    ("train/turing", "synth score filter nn"),
];

#[test]
fn what_judges_knows_nothing_of_what_is_judged() {
    let files = files();
    for (part, forbidden) in APART {
        let own: Vec<_> = files.iter().filter(|(file, _)| file.starts_with(part)).collect();
        assert!(own.len() > 1, "{part} was found");
        for (file, code) in own {
            for word in words_after(code, "crate::") {
                assert!(!forbidden.split(' ').any(|name| name == word), "src/{file}.rs names crate::{word}");
            }
        }
    }
}

#[test]
fn a_trespass_is_seen() {
    assert_eq!(
        trespasses("volume/grid", "use crate::sink::Sink;"),
        ["src/volume/grid.rs names crate::sink, which volume may not"]
    );
    assert_eq!(trespasses("mask/lung", "let t = candle_core::Tensor::new();").len(), 1);
    assert!(trespasses("nn/ops/conv", "use candle_core::Tensor; use crate::error::Result;").is_empty());
}

#[test]
fn unsafe_code_lives_where_its_reasons_are() {
    const PLACES: &[&str] = &["nn/kernel/", "simd/"];
    for (file, code) in files() {
        let used = code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl");
        assert!(!used || PLACES.iter().any(|place| file.starts_with(place)), "src/{file}.rs holds unsafe code");
    }
}
