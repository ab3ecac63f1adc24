//! The source files of the crate as tokens, without comments, strings and optionally tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The path of a module from the root of the crate; the root is empty.
pub type Module = Vec<String>;

/// A source file.
pub struct Source {
    /// The path relative to `src`, without the extension: `volume/grid`, `volume/mod`.
    pub file: String,
    /// All tokens.
    pub tokens: Vec<String>,
    /// The tokens without items that are compiled only for tests.
    pub code: Vec<String>,
}

/// Reads the files of the crate by module. Modules that are compiled only for tests have no `code`.
pub fn read() -> BTreeMap<Module, Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut test_modules = BTreeSet::new();
    let mut paths = Vec::new();
    rust_files(&root, &mut paths);
    for path in paths {
        let file = path.strip_prefix(&root).unwrap().with_extension("").to_str().unwrap().replace('\\', "/");
        let module = module_of(&file);
        let tokens = tokens(&std::fs::read_to_string(&path).unwrap());
        let tokens = with_inline_modules(tokens);
        let (code, tests) = without_tests(&tokens);
        test_modules.extend(tests.into_iter().map(|name| [&module[..], &[name]].concat()));
        found.insert(module, Source { file, tokens, code });
    }
    for (module, source) in &mut found {
        if test_modules.iter().any(|tests| module.starts_with(tests)) {
            source.code.clear();
        }
    }
    found
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Returns the module of a file: `volume/grid` is `[volume, grid]`, `volume/mod` is `[volume]`, `lib` is the root, `main` is `[main]`.
pub fn module_of(file: &str) -> Module {
    if file == "lib" {
        return Module::new();
    }
    file.split('/').filter(|name| *name != "mod").map(str::to_owned).collect()
}

/// Splits source text into identifiers, `::` and single characters.
pub fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut found: Vec<String> = Vec::new();
    let mut at = 0;
    let is_identifier = |c: char| c.is_alphanumeric() || c == '_';
    while at < chars.len() {
        let rest = &chars[at..];
        match rest {
            ['/', '/', ..] => at += rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => at += block_comment(rest),
            ['"', ..] => at += string(rest),
            ['\'', c, quote, ..] if is_identifier(*c) && *quote != '\'' => {
                // A lifetime.
                at += 1 + rest[1..].iter().take_while(|c| is_identifier(**c)).count();
            }
            ['\'', ..] => at += character(rest),
            ['r' | 'b' | 'c', ..] if raw_string(rest).is_some() => at += raw_string(rest).unwrap(),
            [':', ':', ..] => {
                found.push("::".to_owned());
                at += 2;
            }
            [c, ..] if is_identifier(*c) => {
                let identifier: String = rest.iter().take_while(|c| is_identifier(**c)).collect();
                at += identifier.chars().count();
                found.push(identifier);
            }
            [c, ..] => {
                if !c.is_whitespace() {
                    found.push(c.to_string());
                }
                at += 1;
            }
            [] => unreachable!("a token has a character"),
        }
    }
    found
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            [] => return at,
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
}

fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn character(rest: &[char]) -> usize {
    let mut at = if rest.get(1) == Some(&'\\') { 3 } else { 2 };
    while at < rest.len() && rest[at] != '\'' {
        at += 1;
    }
    at + 1
}

/// Returns the length of a string or character with a prefix, such as `r#"…"#` or `b'x'`.
fn raw_string(rest: &[char]) -> Option<usize> {
    let prefix = rest.iter().take_while(|c| "rbc".contains(**c)).count();
    let is_raw = rest[..prefix].contains(&'r');
    let hashes = if is_raw { rest[prefix..].iter().take_while(|c| **c == '#').count() } else { 0 };
    let start = prefix + hashes;
    match rest.get(start)? {
        '"' if is_raw => {
            let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            let inside = rest[start + 1..].windows(end.len()).position(|window| window == end)?;
            Some(start + 1 + inside + end.len())
        }
        '"' if prefix == 1 => Some(start + string(&rest[start..])),
        '\'' if rest[..prefix] == ['b'] => Some(start + character(&rest[start..])),
        _ => None,
    }
}

/// Returns the tokens without items under `#[cfg(test)]` or `#[cfg(all(test, …))]`, and the names of the modules among these items.
fn without_tests(tokens: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut code, mut modules) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        let Some(length) = test_attribute(&tokens[at..]) else {
            code.push(tokens[at].clone());
            at += 1;
            continue;
        };
        at += length;
        let item = &tokens[at..];
        if let Some(name) = item.iter().position(|token| token == "mod")
            && item[..name].iter().all(|token| ["pub", "(", "crate", "super", ")"].contains(&token.as_str()))
        {
            modules.extend(item.get(name + 1).cloned());
        }
        at += item_length(item);
    }
    (code, modules)
}

/// Returns the length of an attribute that compiles an item only for tests.
fn test_attribute(tokens: &[String]) -> Option<usize> {
    let starts =
        |with: &[&str]| tokens.iter().zip(with).filter(|(token, expected)| token == expected).count() == with.len();
    let is_test =
        starts(&["#", "[", "cfg", "(", "test", ")"]) || starts(&["#", "[", "cfg", "(", "all", "(", "test", ","]);
    is_test.then(|| tokens.iter().position(|token| token == "]").map_or(tokens.len(), |end| end + 1))
}

/// Replaces `super` by `self` in inline modules, so that their imports are those of the file.
fn with_inline_modules(mut tokens: Vec<String>) -> Vec<String> {
    for at in 0..tokens.len() {
        let Some(start) = tokens[at..].iter().take(4).position(|token| token == "{").filter(|_| tokens[at] == "mod")
        else {
            continue;
        };
        let end = at + item_length(&tokens[at..]);
        for inside in at + start..end {
            if tokens[inside] == "super" && tokens[inside - 1] != "::" {
                tokens[inside] = "self".to_owned();
            }
        }
    }
    tokens
}

/// Returns the number of tokens of an item: up to a `;` or the end of a block outside of all brackets.
fn item_length(item: &[String]) -> usize {
    let mut depth = 0usize;
    for (at, token) in item.iter().enumerate() {
        match token.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}

#[test]
fn tokens_exclude_comments_strings_and_tests() {
    let text = r###"
        //! use crate::a;
        /* use crate::b; /* nested */ */
        use crate::c; // use crate::d;
        const TEXT: &'static str = "use crate::e;"; const RAW: &str = r#"crate::"f""#; const QUOTE: char = '"';
        #[cfg(test)] const ALL: [u8; 2] = [1, 2];
        #[cfg(test)] pub(crate) mod testing;
        #[cfg(test)] mod tests { use super::*; fn g() { crate::h(); } }
        fn last<'a>(b: &'a [u8]) { crate::i(b"crate::j", b'k', '\'') }
    "###;
    let (code, modules) = without_tests(&tokens(text));
    let paths: Vec<&String> = code.windows(3).filter(|window| window[0] == "crate").map(|window| &window[2]).collect();
    assert_eq!(paths, ["c", "i"]);
    assert_eq!(modules, ["testing", "tests"]);
}
