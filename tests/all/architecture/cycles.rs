//! Import cycles between the files and folders of a module.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::imports::Import;
use super::source::Module;

/// The file of the module itself.
const OWN_FILE: &str = "mod.rs";

/// Returns every cycle with its imports. Each module is checked separately: its parts are its own file and the files and folders below
/// it, and a folder has the imports of all its files.
pub fn cycles(modules: &BTreeSet<Module>, imports: &[Import]) -> Vec<String> {
    modules.iter().flat_map(|module| cycles_in(module, imports)).collect()
}

fn cycles_in(module: &Module, imports: &[Import]) -> Vec<String> {
    let part = |other: &Module| {
        let below = other.strip_prefix(&module[..])?;
        Some(below.first().map_or(OWN_FILE, String::as_str).to_owned())
    };
    let mut edges: BTreeMap<String, BTreeMap<String, &Import>> = BTreeMap::new();
    for import in imports {
        if let (Some(from), Some(to)) = (part(&import.from), part(&import.to))
            && from != to
            // The root of the crate imports every top-level module.
            && !(module.is_empty() && [&from, &to].contains(&&OWN_FILE.to_owned()))
        {
            edges.entry(from).or_default().entry(to).or_insert(import);
        }
    }
    let mut found = Vec::new();
    let mut visited = BTreeSet::new();
    for start in edges.keys() {
        if visited.contains(start) {
            continue;
        }
        if let Some(cycle) = shortest_cycle(start, &edges) {
            visited.extend(cycle.iter().map(|(from, _)| from.clone()));
            let named = |(from, import): &(String, &Import)| {
                format!("  {from}: src/{} imports {}", import.from.join("/"), import.path)
            };
            let name = if module.is_empty() { "the crate".to_owned() } else { module.join("/") };
            found.push(format!("{name}\n{}", cycle.iter().map(named).collect::<Vec<_>>().join("\n")));
        }
    }
    found
}

/// Returns the shortest cycle from a part to itself: each part with its import of the next part.
fn shortest_cycle<'a>(
    start: &String,
    edges: &BTreeMap<String, BTreeMap<String, &'a Import>>,
) -> Option<Vec<(String, &'a Import)>> {
    let mut before: BTreeMap<&String, (&String, &'a Import)> = BTreeMap::new();
    let mut next = VecDeque::from([start]);
    while let Some(part) = next.pop_front() {
        for (to, import) in edges.get(part).into_iter().flatten() {
            if to == start {
                let mut cycle = vec![(part.clone(), *import)];
                let mut current = part;
                while let Some((from, import)) = before.get(current).filter(|_| current != start) {
                    cycle.push(((*from).clone(), *import));
                    current = from;
                }
                cycle.reverse();
                return Some(cycle);
            }
            if !before.contains_key(to) {
                before.insert(to, (part, import));
                next.push_back(to);
            }
        }
    }
    None
}

#[test]
fn cycles_finds_cycle_of_parent_and_child() {
    use super::imports::{Modules, example};
    let found = |files: &[(&str, &str)]| {
        let sources = example(files);
        let modules = Modules::new(&sources);
        let imports: Vec<Import> =
            sources.iter().flat_map(|(module, source)| modules.imports(module, &source.code)).collect();
        cycles(&sources.keys().cloned().collect(), &imports)
    };
    let child = ("a/b", "use super::Own; pub struct Item;");
    let parent = "mod b; pub struct Own;";
    assert!(found(&[("a/mod", &format!("{parent} pub use b::Item;")), child]).is_empty());
    let cycle = found(&[("a/mod", &format!("{parent} use b::Item;")), child]);
    assert_eq!(cycle, ["a\n  b: src/a/b imports super::Own\n  mod.rs: src/a imports b::Item"]);
    let folders = [
        ("a/mod", "mod b; mod c;"),
        ("a/b/mod", "mod one; mod two;"),
        ("a/b/one", "pub struct One;"),
        ("a/b/two", "use crate::a::c::Three;"),
        ("a/c", "use super::b::one::One; pub struct Three;"),
    ];
    assert_eq!(found(&folders).len(), 1, "a cycle of folders without a cycle of files");
}
