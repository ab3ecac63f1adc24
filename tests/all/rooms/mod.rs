//! Which room may import which, circles of imports, and the rooms of each engine.

mod circles;
mod imports;
mod source;

use std::collections::BTreeMap;
use std::path::Path;

use self::circles::circles;
use self::imports::{Import, Modules};
use self::source::{Module, Source};

/// The rooms from the bottom to the top: each may import those before it.
const ROOMS: &[&str] = &[
    "error",
    "random",
    "suggest",
    "simd",
    "id",
    "store",
    "volume",
    "chart",
    "nn",
    "inference",
    "ingest",
    "mask",
    "synth",
    "score",
    "filter",
    "external",
    "attempt",
    "record",
    "sink",
    "run",
    "graph",
    "export",
    "dataflow",
    "train",
    "evaluate",
    "cli",
];

/// Rooms that do not import each other, though one is before the other.
const STRANGERS: &[[&str; 2]] =
    &[["volume", "store"], ["nn", "store"], ["nn", "volume"], ["evaluate", "train"], ["train", "dataflow"]];

/// Another crate, and the only places that may name it.
const ENGINES: &[(&str, &[&str])] = &[
    ("timely", &["dataflow"]),
    ("differential_dataflow", &["dataflow"]),
    ("candle_core", &["nn", "train", "inference/networks"]),
    ("candle_nn", &["nn", "train/initial"]),
    ("nifti", &["ingest/nifti"]),
    ("dicom_", &["ingest/dicom"]),
    ("arrow", &["record", "train/history", "evaluate/metrics/tables"]),
    ("parquet", &["record", "train/history"]),
    ("tar", &["sink"]),
    ("png", &["volume/picture"]),
    ("zip", &["nn/weights/archive"]),
    ("flate2", &["ingest", "sink", "external/exchange", "cli/infer"]),
    ("crossbeam", &["dataflow", "ingest", "nn/service"]),
    ("clap", &["cli", "main"]),
    ("plotters", &["chart", "train/curves", "evaluate/metrics/plot"]),
    ("safetensors", &["nn/weights"]),
];

struct Crate {
    sources: BTreeMap<Module, Source>,
    modules: Modules,
}

impl Crate {
    fn read() -> Self {
        let sources = source::read();
        assert!(sources.len() > 100, "the crate was found");
        let modules = Modules::new(&sources);
        Self { sources, modules }
    }

    /// The imports of all files, tests left out.
    fn imports(&self) -> Vec<Import> {
        self.sources.iter().flat_map(|(module, source)| self.modules.imports(module, &source.code)).collect()
    }
}

/// Whether a room may import another one.
fn may_import(room: &str, other: &str) -> bool {
    let level = |name: &str| ROOMS.iter().position(|room| *room == name);
    level(other) < level(room) && !STRANGERS.iter().any(|[one, two]| *one == room && *two == other)
}

#[test]
fn rooms_import_only_rooms_below_them() {
    let mut found = Vec::new();
    for Import { from, to, path } in Crate::read().imports() {
        if let ([room, ..], [other, ..]) = (&from[..], &to[..])
            && !["main", "lib"].contains(&room.as_str())
            && room != other
            && !may_import(room, other)
        {
            found.push(format!("src/{} imports {path}, but {room} may not import {other}", from.join("/")));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_room_has_its_place_in_the_order() {
    let read = Crate::read();
    let lib = &read.sources[&Module::new()].tokens;
    let declared: Vec<&String> = lib.windows(2).filter(|window| window[0] == "mod").map(|window| &window[1]).collect();
    let missing: Vec<_> = declared.iter().filter(|room| !ROOMS.contains(&room.as_str())).collect();
    assert!(missing.is_empty(), "rooms without a place: {missing:?}");
    let gone: Vec<_> = ROOMS.iter().filter(|room| !declared.iter().any(|name| name == *room)).collect();
    assert!(gone.is_empty(), "rooms that do not exist: {gone:?}");
}

#[test]
fn every_room_documents_what_it_owns() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for room in ROOMS {
        let folder = root.join(room).join("mod.rs");
        let path = if folder.exists() { folder } else { root.join(room).with_extension("rs") };
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().take_while(|line| line.starts_with("//!")).filter(|line| line.len() > 3).count();
        assert!(lines >= 3, "{} has {lines} lines of documentation", path.display());
        let page: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        assert!(page.contains("room owns"), "{} does not say what the room owns", path.display());
    }
}

#[test]
fn no_files_or_folders_import_each_other() {
    let read = Crate::read();
    let found = circles(&read.sources.keys().cloned().collect(), &read.imports());
    assert!(found.is_empty(), "{} circles\n{}", found.len(), found.join("\n"));
}

/// The engine that a crate is part of, with its places.
fn engine(name: &str) -> Option<&'static (&'static str, &'static [&'static str])> {
    ENGINES.iter().find(|(engine, _)| name == *engine || (engine.ends_with('_') && name.starts_with(engine)))
}

fn is_at(file: &str, place: &str) -> bool {
    let file = file.strip_suffix("/mod").unwrap_or(file);
    file == place || file.starts_with(&format!("{place}/"))
}

#[test]
fn engines_are_named_in_their_rooms_only() {
    let read = Crate::read();
    let mut found = Vec::new();
    let mut used = Vec::new();
    for (module, source) in &read.sources {
        for name in read.modules.crates(module, &source.tokens) {
            let Some((engine, places)) = engine(&name) else { continue };
            match places.iter().find(|place| is_at(&source.file, place)) {
                Some(place) => used.push((engine, place)),
                None => {
                    found.push(format!("src/{}.rs names {name}, which belongs to [{}]", source.file, places.join(", ")))
                }
            }
        }
    }
    found.dedup();
    assert!(found.is_empty(), "{}", found.join("\n"));
    for (engine, places) in ENGINES {
        for place in *places {
            assert!(used.contains(&(engine, place)), "{place} is a place of {engine} and does not name it");
        }
    }
}

/// Rooms that must not depend on what they measure, and what that is.
const APART: &[(&str, &[&str])] = &[("evaluate", &["synth", "score", "filter", "nn", "inference"])];

#[test]
fn evaluation_depends_on_nothing_that_it_evaluates() {
    let imports = Crate::read().imports();
    for (room, forbidden) in APART {
        let own = imports.iter().filter(|import| import.from[0] == *room);
        assert!(own.clone().count() > 10, "{room} was found");
        for Import { from, to, path } in own {
            let other = to.first().map_or("", String::as_str);
            assert!(!forbidden.contains(&other), "src/{} imports {path}", from.join("/"));
        }
    }
}

/// The patients of the experiment have tumors of a model that shares nothing with what the experiment measures.
#[test]
fn world_of_the_experiment_depends_on_nothing_that_it_tests() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gain/world");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() > 5, "{files:?}");
    for path in files {
        let tokens = source::tokens(&std::fs::read_to_string(&path).unwrap());
        for words in tokens.windows(3).filter(|words| words[0] == "freetumor") {
            let room = words[2].as_str();
            assert!(!["synth", "score", "filter", "nn"].contains(&room), "{} names {room}", path.display());
        }
    }
}

#[test]
fn wrong_imports_are_found() {
    assert!(may_import("sink", "volume") && !may_import("volume", "sink"));
    assert!(!may_import("nn", "volume") && !may_import("evaluate", "train"));
    assert!(engine("dicom_core").is_some() && engine("dicom").is_none() && engine("arrows").is_none());
    assert!(is_at("ingest/dicom/mod", "ingest/dicom") && !is_at("ingest/dicomweb", "ingest/dicom"));
}

#[test]
fn unsafe_code_is_in_its_places_only() {
    const PLACES: &[&str] = &["nn/kernel/", "simd/"];
    for source in Crate::read().sources.values() {
        let is_unsafe = |words: &[String]| words[0] == "unsafe" && ["{", "fn", "impl"].contains(&words[1].as_str());
        let used = source.tokens.windows(2).any(is_unsafe);
        let file = &source.file;
        assert!(!used || PLACES.iter().any(|place| file.starts_with(place)), "src/{file}.rs holds unsafe code");
    }
}
