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
    ("law", "distribution, rule"),
    ("wanted", "requested"),
    ("tried", "attempted, examined, run"),
    ("alike", "equal, with the same"),
    ("along line", "for three taps"),
];

/// Words of settings, stored files and scientific terms, and the paths in which they may be used.
const KEPT: &[(&str, &str)] = &[
    ("law", "src/ingest/phantom/vessels.rs"),
    ("gives", "src/external/score.rs"),
    ("gives", "tests/all/command/"),
    ("gives", "examples/command/"),
    ("judge", "examples/gain/"),
    ("judges", "examples/gain/"),
    // A key of systemd.
    ("wanted", "src/guide/operating.md"),
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
    let is_excluded =
        |path: &PathBuf| path.ends_with("tests/all/words.rs") || path.to_string_lossy().contains("/results");
    files.retain(|path| is_text(path) && !is_excluded(path));
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

/// Returns the sources, tests and examples, each with its path relative to the root of the crate.
fn rust_files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let paths = files().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        (name, std::fs::read_to_string(&path).unwrap())
    };
    paths.map(read).collect()
}

/// Returns the lines of documentation that start a sentence with a clause in place of a noun: "What is measured".
fn clauses_as_subjects(text: &str) -> Vec<(usize, &str)> {
    let is_clause = |line: &str| {
        let doc = line.trim_start().strip_prefix("//").and_then(|doc| doc.strip_prefix(['/', '!']));
        let first = doc.and_then(|doc| doc.split_whitespace().next());
        first.is_some_and(|word| ["What", "Where", "How", "Why", "Who", "Which"].contains(&word))
    };
    text.lines().enumerate().filter(|(_, line)| is_clause(line)).map(|(at, line)| (at + 1, line.trim())).collect()
}

/// Returns the public functions that return an option and whose documentation does not state when the result is `None`.
fn undocumented_options(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let line = line.trim_start();
        let Some(item) = line.strip_prefix("pub").filter(|item| item.starts_with([' ', '('])) else { continue };
        if !item.split_whitespace().any(|word| word == "fn") || item.contains(" struct ") {
            continue;
        }
        let mut signature = String::new();
        for line in &lines[at..] {
            signature.push_str(line.trim());
            if line.ends_with(['{', ';', '}']) {
                break;
            }
        }
        let result = signature.rsplit("->").next().unwrap_or_default().trim();
        let is_option = signature.contains("->")
            && (result.starts_with("Option<") || result.starts_with("Result<Option<"))
            && signature.matches("->").count() == 1;
        let above = lines[..at].iter().rev().map(|line| line.trim_start());
        let docs: Vec<&str> = above
            .take_while(|line| line.starts_with("///") || line.starts_with("#["))
            .filter(|line| line.starts_with("///"))
            .collect();
        if is_option && !docs.is_empty() && !docs.iter().any(|doc| doc.contains("None")) {
            found.push((at + 1, line.to_owned()));
        }
    }
    found
}

#[test]
fn documentation_starts_with_nouns_or_verbs() {
    let found: Vec<String> = rust_files()
        .iter()
        .flat_map(|(name, text)| {
            clauses_as_subjects(text).into_iter().map(move |(line, doc)| format!("{name}:{line}: {doc}"))
        })
        .collect();
    assert!(found.is_empty(), "documentation that starts with a clause\n{}", found.join("\n"));
    assert_eq!(clauses_as_subjects("/// What is measured.\n/// The volume.\n//! How it works.\n").len(), 2);
}

#[test]
fn documentation_of_options_states_when_they_are_none() {
    let found: Vec<String> = rust_files()
        .iter()
        .filter(|(name, _)| name.starts_with("src/"))
        .flat_map(|(name, text)| {
            undocumented_options(text).into_iter().map(move |(line, item)| format!("{name}:{line}: {item}"))
        })
        .collect();
    assert!(found.is_empty(), "options without `None` in their documentation\n{}", found.join("\n"));
    let text = "/// Returns the middle.\npub fn middle(&self) -> Option<usize> {\n";
    assert_eq!(undocumented_options(text).len(), 1);
    assert_eq!(undocumented_options(&text.replace("middle.", "middle, or `None` without voxels.")).len(), 0);
}

#[test]
fn closures_name_their_arguments() {
    let mut found = Vec::new();
    for (name, text) in rust_files() {
        for (number, line) in
            text.lines().enumerate().filter(|(_, line)| line.contains("|it|") || line.contains("|&it|"))
        {
            found.push(format!("{name}:{}: {}", number + 1, line.trim()));
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
