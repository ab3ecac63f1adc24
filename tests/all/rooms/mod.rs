//! Tests of the architecture: imports between rooms, import cycles, and the rooms of each engine.

mod cycles;
mod imports;
mod source;

use std::collections::BTreeMap;
use std::path::Path;

use self::cycles::cycles;
use self::imports::{Import, Modules};
use self::source::{Module, Source};

/// The rooms from bottom to top: each may import the rooms before it.
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
    "guide",
];

/// Pairs of a room and a room before it that it may not import.
const FORBIDDEN: &[[&str; 2]] =
    &[["volume", "store"], ["nn", "store"], ["nn", "volume"], ["evaluate", "train"], ["train", "dataflow"]];

/// External crates, each with the only modules that may use it.
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
    ("clap", &["cli"]),
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

    /// Returns the imports of all files, without tests.
    fn imports(&self) -> Vec<Import> {
        self.sources.iter().flat_map(|(module, source)| self.modules.imports(module, &source.code)).collect()
    }
}

/// Returns whether a room may import another room.
fn may_import(room: &str, other: &str) -> bool {
    let level = |name: &str| ROOMS.iter().position(|room| *room == name);
    level(other) < level(room) && !FORBIDDEN.iter().any(|[one, two]| *one == room && *two == other)
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
fn every_room_is_in_order_of_rooms() {
    let read = Crate::read();
    let lib = &read.sources[&Module::new()].tokens;
    let declared: Vec<&String> = lib.windows(2).filter(|window| window[0] == "mod").map(|window| &window[1]).collect();
    let missing: Vec<_> = declared.iter().filter(|room| !ROOMS.contains(&room.as_str())).collect();
    assert!(missing.is_empty(), "rooms that are not in the order: {missing:?}");
    let unknown: Vec<_> = ROOMS.iter().filter(|room| !declared.iter().any(|name| name == *room)).collect();
    assert!(unknown.is_empty(), "rooms that do not exist: {unknown:?}");
}

#[test]
fn every_room_documents_its_responsibility() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for room in ROOMS {
        let folder = root.join(room).join("mod.rs");
        let path = if folder.exists() { folder } else { root.join(room).with_extension("rs") };
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().take_while(|line| line.starts_with("//!")).filter(|line| line.len() > 3).count();
        assert!(lines >= 3, "{} has {lines} lines of documentation", path.display());
        let page: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        assert!(page.contains("module owns"), "{} does not document what the room owns", path.display());
    }
}

#[test]
fn modules_have_no_import_cycles() {
    let read = Crate::read();
    let found = cycles(&read.sources.keys().cloned().collect(), &read.imports());
    assert!(found.is_empty(), "{} cycles\n{}", found.len(), found.join("\n"));
}

/// Returns the engine of a crate, with the modules that may use it.
fn engine(name: &str) -> Option<&'static (&'static str, &'static [&'static str])> {
    ENGINES.iter().find(|(engine, _)| name == *engine || (engine.ends_with('_') && name.starts_with(engine)))
}

fn is_in(file: &str, module: &str) -> bool {
    let file = file.strip_suffix("/mod").unwrap_or(file);
    file == module || file.starts_with(&format!("{module}/"))
}

#[test]
fn engines_are_used_only_in_their_rooms() {
    let read = Crate::read();
    let mut found = Vec::new();
    let mut used = Vec::new();
    for (module, source) in &read.sources {
        for name in read.modules.crates(module, &source.tokens) {
            let Some((engine, modules)) = engine(&name) else { continue };
            match modules.iter().find(|module| is_in(&source.file, module)) {
                Some(module) => used.push((engine, module)),
                None => found.push(format!(
                    "src/{}.rs uses {name}, which is allowed only in [{}]",
                    source.file,
                    modules.join(", ")
                )),
            }
        }
    }
    found.dedup();
    assert!(found.is_empty(), "{}", found.join("\n"));
    for (engine, modules) in ENGINES {
        for module in *modules {
            assert!(used.contains(&(engine, module)), "{module} may use {engine} but does not");
        }
    }
}

/// Rooms that must not depend on the rooms that they evaluate.
const INDEPENDENT: &[(&str, &[&str])] = &[("evaluate", &["synth", "score", "filter", "nn", "inference"])];

#[test]
fn evaluation_does_not_import_evaluated_rooms() {
    let imports = Crate::read().imports();
    for (room, forbidden) in INDEPENDENT {
        let own = imports.iter().filter(|import| import.from[0] == *room);
        assert!(own.clone().count() > 10, "{room} was found");
        for Import { from, to, path } in own {
            let other = to.first().map_or("", String::as_str);
            assert!(!forbidden.contains(&other), "src/{} imports {path}", from.join("/"));
        }
    }
}

/// The tumor model of the experiment's patients is independent of the rooms that the experiment evaluates.
#[test]
fn world_of_experiment_does_not_import_evaluated_rooms() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gain/world");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() > 5, "{files:?}");
    for path in files {
        let tokens = source::tokens(&std::fs::read_to_string(&path).unwrap());
        for window in tokens.windows(3).filter(|window| window[0] == "freetumor") {
            let room = window[2].as_str();
            assert!(!["synth", "score", "filter", "nn"].contains(&room), "{} imports {room}", path.display());
        }
    }
}

#[test]
fn checks_detect_forbidden_imports() {
    assert!(may_import("sink", "volume") && !may_import("volume", "sink"));
    assert!(!may_import("nn", "volume") && !may_import("evaluate", "train"));
    assert!(engine("dicom_core").is_some() && engine("dicom").is_none() && engine("arrows").is_none());
    assert!(is_in("ingest/dicom/mod", "ingest/dicom") && !is_in("ingest/dicomweb", "ingest/dicom"));
}

#[test]
fn unsafe_code_is_only_in_allowed_modules() {
    const ALLOWED: &[&str] = &["nn/kernel/", "simd/"];
    for source in Crate::read().sources.values() {
        let is_unsafe = |pair: &[String]| pair[0] == "unsafe" && ["{", "fn", "impl"].contains(&pair[1].as_str());
        let used = source.tokens.windows(2).any(is_unsafe);
        let file = &source.file;
        assert!(!used || ALLOWED.iter().any(|module| file.starts_with(module)), "src/{file}.rs contains unsafe code");
    }
}
