//! One plain language: words that have confused readers are rejected, and the message names the word to use.
//!
//! Checked are identifiers, comments, documentation, messages and names of tests, in the sources, tests, examples, pipelines, the guide
//! and the README.

use std::path::{Path, PathBuf};

/// A word or phrase that is rejected, and what to write in its place.
const REJECTED: &[(&str, &str)] = &[
    ("said", "reported, stated"),
    ("says", "states, contains, reports"),
    ("tells", "states, shows"),
    ("told", "reported"),
    ("gives", "returns, produces"),
    ("gave", "returned"),
    ("giver", "producer"),
    ("lies", "is, is located"),
    ("seen", "known, read, visible"),
    ("stretch", "span, branch"),
    ("stretches", "spans"),
    ("spoil", "fail"),
    ("spoils", "fails"),
    ("spoiled", "failed"),
    ("judge", "scorer, quality segmentor"),
    ("judges", "scores, decides"),
    ("judged", "scored, decided"),
    ("begun", "started"),
    ("anew", "again, from scratch"),
    ("customary", "default"),
    ("nobody", "no user, no process"),
    ("somebody", "another user"),
    ("whoever", "the user or process that"),
    ("wherever", "everywhere, in any"),
    ("whatever", "any"),
    ("nowhere", "not in any"),
    ("complaint", "error"),
    ("complaints", "errors"),
    ("complains", "reports an error"),
    ("intake", "ingest"),
    ("shield", "catch_panic"),
    ("settle", "deduplicate, sync"),
    ("settled", "deduplicated, synced"),
    ("upon", "on"),
    ("viewer", "inference"),
    ("by lot", "at random"),
    ("in vain", "without effect"),
    ("let go", "release"),
    ("lets go", "releases"),
    ("goes on", "resumes, continues"),
    ("go on", "resume, continue"),
    ("went on", "resumed, continued"),
    ("dead core", "necrotic core"),
    ("dead cores", "necrotic cores"),
    ("looks at", "infers on, reads"),
    ("look at all", "infer on all"),
    ("take in", "ingest"),
    ("takes in", "ingests"),
    ("taken in", "ingested"),
    ("on its way", "in progress"),
    ("sees to it", "ensures"),
    ("made of", "made from, consists of"),
    ("came of it", "resulted"),
];

/// Words that settings and stored files contain, and where they may be used.
const KEPT: &[(&str, &str)] = &[
    ("gives", "src/external/score.rs"),
    ("gives", "tests/all/command/"),
    ("gives", "examples/command/"),
    ("judge", "examples/gain/"),
    ("judges", "examples/gain/"),
];

fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md"), root.join("Cargo.toml")];
    for folder in ["src", "tests", "examples", "pipelines", ".github"] {
        let entries = walkdir::WalkDir::new(root.join(folder)).into_iter().map(Result::unwrap);
        files.extend(entries.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path));
    }
    let is_text = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("rs" | "md" | "toml" | "py" | "sh" | "snap" | "yml"))
    };
    let is_left_out =
        |path: &PathBuf| path.ends_with("tests/all/words.rs") || path.to_string_lossy().contains("/results");
    files.retain(|path| is_text(path) && !is_left_out(path));
    files
}

/// Returns the words of a line in lower case: identifiers are split at `_` and at capital letters.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut previous = ' ';
    for letter in line.chars() {
        let is_boundary = !letter.is_alphabetic() || (letter.is_uppercase() && previous.is_lowercase());
        if is_boundary && words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        if letter.is_alphabetic()
            && let Some(word) = words.last_mut()
        {
            word.extend(letter.to_lowercase());
        }
        previous = letter;
    }
    words.retain(|word| !word.is_empty());
    words
}

fn rejected(line: &str) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    let text = format!(" {} ", words(line).join(" "));
    REJECTED.iter().filter(move |(phrase, _)| text.contains(&format!(" {phrase} ")))
}

#[test]
fn words_of_the_project_are_plain() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for path in files() {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        for (number, line) in text.lines().enumerate() {
            for (phrase, instead) in rejected(line) {
                if !KEPT.iter().any(|(word, place)| word == phrase && name.starts_with(place)) {
                    found.push(format!("{name}:{}: `{phrase}`, write: {instead}", number + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{} rejected words\n{}", found.len(), found.join("\n"));
}

#[test]
fn closures_name_their_arguments() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for path in files().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in
            text.lines().enumerate().filter(|(_, line)| line.contains("|it|") || line.contains("|&it|"))
        {
            found.push(format!("{}:{}: {}", path.strip_prefix(root).unwrap().display(), number + 1, line.trim()));
        }
    }
    assert!(found.is_empty(), "arguments named `it`\n{}", found.join("\n"));
}

#[test]
fn rejected_words_are_found_in_identifiers_and_phrases() {
    let phrases = |line: &str| rejected(line).map(|(phrase, _)| *phrase).collect::<Vec<_>>();
    assert_eq!(phrases("fn what_is_said() {}"), ["said"]);
    assert_eq!(phrases("struct SpoiledScan;"), ["spoiled"]);
    assert_eq!(phrases("/// The run goes on."), ["goes on"]);
    assert_eq!(phrases("let lays = essay;"), Vec::<&str>::new());
}
