//! Circles of imports between the files and folders of a module.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::imports::Import;
use super::source::Module;

/// The module's own file among its parts.
const OWN_FILE: &str = "mod.rs";

/// Every circle, as the imports that form it. Each module is looked at by itself: its parts are its own file and the files and
/// folders below it, and a folder imports what any file in it imports.
pub fn circles(modules: &BTreeSet<Module>, imports: &[Import]) -> Vec<String> {
    modules.iter().flat_map(|module| circles_in(module, imports)).collect()
}

fn circles_in(module: &Module, imports: &[Import]) -> Vec<String> {
    let part = |other: &Module| {
        let below = other.strip_prefix(&module[..])?;
        Some(below.first().map_or(OWN_FILE, String::as_str).to_owned())
    };
    let mut edges: BTreeMap<String, BTreeMap<String, &Import>> = BTreeMap::new();
    for import in imports {
        if let (Some(from), Some(to)) = (part(&import.from), part(&import.to))
            && from != to
            // The root of the crate imports every room.
            && !(module.is_empty() && [&from, &to].contains(&&OWN_FILE.to_owned()))
        {
            edges.entry(from).or_default().entry(to).or_insert(import);
        }
    }
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for start in edges.keys() {
        if seen.contains(start) {
            continue;
        }
        if let Some(circle) = shortest_circle(start, &edges) {
            seen.extend(circle.iter().map(|(from, _)| from.clone()));
            let named = |(from, import): &(String, &Import)| {
                format!("  {from}: src/{} imports {}", import.from.join("/"), import.path)
            };
            let name = if module.is_empty() { "the crate".to_owned() } else { module.join("/") };
            found.push(format!("{name}\n{}", circle.iter().map(named).collect::<Vec<_>>().join("\n")));
        }
    }
    found
}

/// The shortest way from a part back to itself: each part with the import that leads on.
fn shortest_circle<'a>(
    start: &String,
    edges: &BTreeMap<String, BTreeMap<String, &'a Import>>,
) -> Option<Vec<(String, &'a Import)>> {
    let mut before: BTreeMap<&String, (&String, &'a Import)> = BTreeMap::new();
    let mut next = VecDeque::from([start]);
    while let Some(part) = next.pop_front() {
        for (to, import) in edges.get(part).into_iter().flatten() {
            if to == start {
                let mut circle = vec![(part.clone(), *import)];
                let mut at = part;
                while let Some((from, import)) = before.get(at).filter(|_| at != start) {
                    circle.push(((*from).clone(), *import));
                    at = from;
                }
                circle.reverse();
                return Some(circle);
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
fn circle_of_parent_and_child_is_found() {
    use super::imports::{Modules, example};
    let found = |files: &[(&str, &str)]| {
        let sources = example(files);
        let modules = Modules::new(&sources);
        let imports: Vec<Import> =
            sources.iter().flat_map(|(module, source)| modules.imports(module, &source.code)).collect();
        circles(&sources.keys().cloned().collect(), &imports)
    };
    let child = ("a/b", "use super::Own; pub struct Item;");
    let parent = "mod b; pub struct Own;";
    assert!(found(&[("a/mod", &format!("{parent} pub use b::Item;")), child]).is_empty());
    let circle = found(&[("a/mod", &format!("{parent} use b::Item;")), child]);
    assert_eq!(circle, ["a\n  b: src/a/b imports super::Own\n  mod.rs: src/a imports b::Item"]);
    let folders = [
        ("a/mod", "mod b; mod c;"),
        ("a/b/mod", "mod one; mod two;"),
        ("a/b/one", "pub struct One;"),
        ("a/b/two", "use crate::a::c::Three;"),
        ("a/c", "use super::b::one::One; pub struct Three;"),
    ];
    assert_eq!(found(&folders).len(), 1, "no file imports itself, but the folder does");
}
