//! Tests of the architecture: the order of the top-level modules, import cycles, and the modules that may use an external crate.

mod cycles;
mod imports;
mod source;

use std::collections::BTreeMap;
use std::path::Path;

use self::cycles::cycles;
use self::imports::{Import, Modules};
use self::source::{Module, Source};

/// The top-level modules from bottom to top: each may import the modules before it.
const TOP_MODULES: &[&str] = &[
    "error",
    "random",
    "statistics",
    "suggest",
    "time_span",
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
    "compose",
    "score",
    "filter",
    "external",
    "attempt",
    "record",
    "sink",
    "run",
    "graph",
    "calibrate",
    "init",
    "export",
    "review",
    "dataflow",
    "train",
    "evaluate",
    "cli",
    "guide",
];

/// Pairs of a module and a module before it that the first may not import.
const FORBIDDEN: &[[&str; 2]] =
    &[["volume", "store"], ["nn", "store"], ["nn", "volume"], ["evaluate", "train"], ["train", "dataflow"]];

/// External crates, each with the only modules that may use it.
const RESTRICTED_CRATES: &[(&str, &[&str])] = &[
    ("timely", &["dataflow"]),
    ("differential_dataflow", &["dataflow"]),
    ("candle_core", &["nn", "train", "inference/networks"]),
    ("candle_nn", &["nn", "train/initial"]),
    ("nifti", &["ingest/nifti"]),
    ("dicom_", &["ingest/dicom"]),
    ("jpeg2k", &["ingest/dicom"]),
    ("arrow", &["record", "train/history", "train/used_samples", "evaluate/metrics/tables"]),
    ("csv", &["ingest/manifest/csv_rows"]),
    ("parquet", &["record", "train/used_samples", "train/history", "ingest/manifest/parquet_rows"]),
    ("tar", &["sink", "ingest/archive_files"]),
    ("png", &["volume/picture"]),
    ("zip", &["nn/weights/archive", "ingest/archive_files"]),
    ("zstd", &["ingest/archive_files"]),
    ("flate2", &["ingest", "sink", "external/exchange", "cli/infer"]),
    ("crossbeam", &["dataflow", "ingest", "nn/service"]),
    ("clap", &["cli"]),
    ("plotters", &["chart", "train/curves", "evaluate/metrics/plot"]),
    ("safetensors", &["nn/weights"]),
    ("notify", &["dataflow/watch"]),
    ("ctrlc", &["cli/signals"]),
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

/// Returns whether a top-level module may import another one.
fn may_import(module: &str, other: &str) -> bool {
    let level = |name: &str| TOP_MODULES.iter().position(|module| *module == name);
    level(other) < level(module) && !FORBIDDEN.iter().any(|[one, two]| *one == module && *two == other)
}

#[test]
fn modules_import_only_modules_below_them() {
    let mut found = Vec::new();
    for Import { from, to, path } in Crate::read().imports() {
        if let ([module, ..], [other, ..]) = (&from[..], &to[..])
            && !["main", "lib"].contains(&module.as_str())
            && module != other
            && !may_import(module, other)
        {
            found.push(format!("src/{} imports {path}, but {module} may not import {other}", from.join("/")));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_top_module_is_in_order_of_modules() {
    let read = Crate::read();
    let lib = &read.sources[&Module::new()].tokens;
    let declared: Vec<&String> = lib.windows(2).filter(|window| window[0] == "mod").map(|window| &window[1]).collect();
    let missing: Vec<_> = declared.iter().filter(|module| !TOP_MODULES.contains(&module.as_str())).collect();
    assert!(missing.is_empty(), "modules that are not in the order: {missing:?}");
    let unknown: Vec<_> = TOP_MODULES.iter().filter(|module| !declared.iter().any(|name| name == *module)).collect();
    assert!(unknown.is_empty(), "modules that do not exist: {unknown:?}");
}

#[test]
fn every_top_module_documents_its_responsibility() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for module in TOP_MODULES {
        let folder = root.join(module).join("mod.rs");
        let path = if folder.exists() { folder } else { root.join(module).with_extension("rs") };
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().take_while(|line| line.starts_with("//!")).filter(|line| line.len() > 3).count();
        assert!(lines >= 3, "{} has {lines} lines of documentation", path.display());
        let page: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        assert!(page.contains("module owns"), "{} does not document what the module owns", path.display());
    }
}

#[test]
fn modules_have_no_import_cycles() {
    let read = Crate::read();
    let found = cycles(&read.sources.keys().cloned().collect(), &read.imports());
    assert!(found.is_empty(), "{} cycles\n{}", found.len(), found.join("\n"));
}

/// Returns the entry of a crate in [`RESTRICTED_CRATES`].
fn restricted_crate(name: &str) -> Option<&'static (&'static str, &'static [&'static str])> {
    RESTRICTED_CRATES.iter().find(|(known, _)| name == *known || (known.ends_with('_') && name.starts_with(known)))
}

fn is_in(file: &str, module: &str) -> bool {
    let file = file.strip_suffix("/mod").unwrap_or(file);
    file == module || file.starts_with(&format!("{module}/"))
}

#[test]
fn restricted_crates_are_used_only_in_allowed_modules() {
    let read = Crate::read();
    let mut found = Vec::new();
    let mut used = Vec::new();
    for (module, source) in &read.sources {
        for name in read.modules.crates(module, &source.tokens) {
            let Some((restricted, modules)) = restricted_crate(&name) else { continue };
            match modules.iter().find(|module| is_in(&source.file, module)) {
                Some(module) => used.push((restricted, module)),
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
    for (restricted, modules) in RESTRICTED_CRATES {
        for module in *modules {
            assert!(used.contains(&(restricted, module)), "{module} may use {restricted} but does not");
        }
    }
}

/// Modules that must not depend on the modules that they evaluate.
const INDEPENDENT: &[(&str, &[&str])] = &[("evaluate", &["synth", "score", "filter", "nn", "inference"])];

#[test]
fn evaluation_does_not_import_evaluated_modules() {
    let imports = Crate::read().imports();
    for (module, forbidden) in INDEPENDENT {
        let own = imports.iter().filter(|import| import.from[0] == *module);
        assert!(own.clone().count() > 10, "{module} was found");
        for Import { from, to, path } in own {
            let other = to.first().map_or("", String::as_str);
            assert!(!forbidden.contains(&other), "src/{} imports {path}", from.join("/"));
        }
    }
}

/// The tumor model of the experiment's patients is independent of the modules that the experiment evaluates.
#[test]
fn population_of_experiment_does_not_import_evaluated_modules() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gain/population");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() > 5, "{files:?}");
    for path in files {
        let tokens = source::tokens(&std::fs::read_to_string(&path).unwrap());
        for window in tokens.windows(3).filter(|window| window[0] == "freetumor") {
            let module = window[2].as_str();
            assert!(!["synth", "score", "filter", "nn"].contains(&module), "{} imports {module}", path.display());
        }
    }
}

#[test]
fn forbidden_imports_are_detected() {
    assert!(may_import("sink", "volume") && !may_import("volume", "sink"));
    assert!(!may_import("nn", "volume") && !may_import("evaluate", "train"));
    assert!(
        restricted_crate("dicom_core").is_some()
            && restricted_crate("dicom").is_none()
            && restricted_crate("arrows").is_none()
    );
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
