//! Imports between modules: paths are resolved through re-exports to the file that defines the item.

use std::collections::{BTreeMap, HashSet};

use super::source::{Module, Source};

/// Maximum number of re-exports in a path.
const MAX_STEPS: usize = 20;

/// The target of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An item that the module defines.
    Item(Module),
    /// The module itself.
    Module,
    /// Another crate.
    External(String),
}

/// A name that a `use` declaration brings into a module.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Use {
    name: String,
    path: Vec<String>,
    is_public: bool,
}

/// An import: a module, the module that defines what it imports, and the path in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    pub from: Module,
    pub to: Module,
    pub path: String,
}

/// All modules with their `use` declarations.
pub struct Modules {
    uses: BTreeMap<Module, Vec<Use>>,
}

impl Modules {
    /// Reads the `use` declarations of all files.
    pub fn new(sources: &BTreeMap<Module, Source>) -> Self {
        Self { uses: sources.iter().map(|(module, source)| (module.clone(), uses(&source.tokens))).collect() }
    }

    /// Returns every import in the given tokens of a module. A public re-export from a module below that the module does not use itself
    /// is not an import.
    pub fn imports(&self, module: &Module, tokens: &[String]) -> Vec<Import> {
        let declared = uses(tokens);
        let rest = without_uses(tokens);
        let names = used_names(&rest);
        let is_used = |name: &String| names.contains(name.as_str());
        let mut found = Vec::new();
        let named = declared.iter().filter(|declared| !declared.is_public || is_used(&declared.name));
        let below = declared.iter().filter(|declared| declared.is_public && !is_used(&declared.name));
        let foreign = below.filter(
            |declared| !matches!(self.resolve(module, &declared.path), Target::Item(to) if to.starts_with(module)),
        );
        let paths = named.chain(foreign).map(|declared| declared.path.clone()).chain(paths(&rest));
        for path in paths {
            if let Target::Item(to) = self.resolve(module, &path)
                && to != *module
            {
                let import = Import { from: module.clone(), to, path: path.join("::") };
                if !found.contains(&import) {
                    found.push(import);
                }
            }
        }
        found
    }

    /// Returns the other crates that a module uses.
    pub fn crates(&self, module: &Module, tokens: &[String]) -> Vec<String> {
        let declared = uses(tokens).into_iter().map(|declared| declared.path);
        let all = declared.chain(paths(&without_uses(tokens)));
        all.filter_map(|path| match self.resolve(module, &path) {
            Target::External(name) => Some(name),
            _ => None,
        })
        .collect()
    }

    /// Resolves a path from a module.
    pub fn resolve(&self, from: &Module, path: &[String]) -> Target {
        self.follow(from, path, MAX_STEPS)
    }

    fn follow(&self, from: &Module, path: &[String], steps: usize) -> Target {
        let first = path[0].as_str();
        let (mut current, mut rest) = match first {
            "crate" => (Module::new(), &path[1..]),
            "self" => (from.clone(), &path[1..]),
            "super" => {
                let above = path.iter().take_while(|name| *name == "super").count();
                (from[..from.len().saturating_sub(above)].to_vec(), &path[above..])
            }
            _ if self.uses.contains_key(&[&from[..], &path[..1]].concat()) => (from.clone(), path),
            _ => {
                let declared = self.uses.get(from).and_then(|uses| uses.iter().find(|declared| declared.name == first));
                return match declared {
                    Some(declared) if steps > 0 && declared.path[0] != first => {
                        self.follow(from, &[&declared.path[..], &path[1..]].concat(), steps - 1)
                    }
                    _ => Target::External(first.to_owned()),
                };
            }
        };
        while let [name, others @ ..] = rest {
            let below = [&current[..], std::slice::from_ref(name)].concat();
            if !self.uses.contains_key(&below) {
                break;
            }
            (current, rest) = (below, others);
        }
        let Some(name) = rest.first() else { return Target::Module };
        let declared = self.uses.get(&current).and_then(|uses| uses.iter().find(|declared| declared.name == *name));
        match declared {
            Some(declared) if steps > 0 => self.follow(&current, &[&declared.path[..], &rest[1..]].concat(), steps - 1),
            _ => Target::Item(current),
        }
    }
}

/// Returns the `use` declarations in tokens, one per name.
fn uses(tokens: &[String]) -> Vec<Use> {
    let mut found = Vec::new();
    for at in starts_of_uses(tokens) {
        let end = at + tokens[at..].iter().position(|token| token == ";").unwrap_or(tokens.len() - at);
        let is_public = at > 0 && (tokens[at - 1] == "pub" || tokens[at - 1] == ")");
        tree(&tokens[at + 1..end], &[], &mut |name, path| {
            found.push(Use { name: name.to_owned(), path: path.to_vec(), is_public });
        });
    }
    found
}

fn starts_of_uses(tokens: &[String]) -> Vec<usize> {
    let is_use = |at: &usize| tokens[*at] == "use" && tokens.get(at + 1).is_some_and(|next| next != "<");
    (0..tokens.len()).filter(is_use).collect()
}

/// Returns the tokens outside of `use` declarations.
fn without_uses(tokens: &[String]) -> Vec<String> {
    let mut rest = tokens.to_vec();
    for at in starts_of_uses(tokens) {
        for token in rest[at..].iter_mut().take_while(|token| *token != ";") {
            *token = String::new();
        }
    }
    rest.retain(|token| !token.is_empty());
    rest
}

/// Returns the names in tokens, without those of declared modules.
fn used_names(tokens: &[String]) -> HashSet<&str> {
    let is_declared = |at: usize| at > 0 && tokens[at - 1] == "mod";
    (0..tokens.len()).filter(|at| !is_declared(*at)).map(|at| tokens[at].as_str()).collect()
}

/// Visits each name of a tree such as `a::{self, b as c, d::*}` with its path.
fn tree(tokens: &[String], prefix: &[String], visit: &mut dyn FnMut(&str, &[String])) {
    let mut path = prefix.to_vec();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "::" => {}
            "{" => {
                let inside = &tokens[at + 1..tokens.len() - 1];
                return parts(inside).into_iter().for_each(|part| tree(part, &path, visit));
            }
            "as" => return visit(&tokens[at + 1], &path),
            "self" if at + 1 == tokens.len() && !path.is_empty() => {}
            name => path.push(name.to_owned()),
        }
        at += 1;
    }
    if let Some(name) = path.last() {
        visit(name, &path);
    }
}

/// Splits tokens at the commas outside of braces.
fn parts(tokens: &[String]) -> Vec<&[String]> {
    let (mut found, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 0 => {
                found.push(&tokens[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if start < tokens.len() {
        found.push(&tokens[start..]);
    }
    found
}

/// Returns the paths of two names or more.
fn paths(tokens: &[String]) -> Vec<Vec<String>> {
    let is_name = |token: &String| token.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_start = is_name(&tokens[at]) && (at == 0 || tokens[at - 1] != "::");
        let mut path = vec![tokens[at].clone()];
        at += 1;
        while is_start && at + 1 < tokens.len() && tokens[at] == "::" && is_name(&tokens[at + 1]) {
            path.push(tokens[at + 1].clone());
            at += 2;
        }
        if path.len() > 1 {
            found.push(path);
        }
    }
    found
}

/// Builds modules from file names and texts.
#[cfg(test)]
pub fn example(files: &[(&str, &str)]) -> BTreeMap<Module, Source> {
    use super::source::{module_of, tokens};
    let source = |(file, text): &(&str, &str)| {
        let tokens = tokens(text);
        (module_of(file), Source { file: (*file).to_owned(), code: tokens.clone(), tokens })
    };
    files.iter().map(source).collect()
}

#[test]
fn imports_resolve_re_exports() {
    let sources = example(&[
        ("lib", "pub mod a; pub mod b;"),
        ("a/mod", "mod inner; pub use inner::{Item, Used as Renamed}; pub struct Own; fn f(x: Renamed) {}"),
        ("a/inner", "use super::Own; pub struct Item; pub struct Used;"),
        (
            "b",
            "use crate::a::{self, Item}; use candle_core::Tensor; fn g() { a::Own; super::a::Renamed::new(); png::h() }",
        ),
    ]);
    let modules = Modules::new(&sources);
    let imports = |file: &str| {
        let module = super::source::module_of(file);
        let found = modules.imports(&module, &sources[&module].code);
        found.into_iter().map(|import| import.to.join("/")).collect::<Vec<_>>()
    };
    assert_eq!(imports("a/mod"), ["a/inner"], "a re-export with a use in the module");
    assert_eq!(imports("a/inner"), ["a"]);
    assert_eq!(imports("b"), ["a/inner", "a", "a/inner"]);
    assert_eq!(modules.crates(&vec!["b".to_owned()], &sources[&vec!["b".to_owned()]].code), ["candle_core", "png"]);
}
