//! The check that a folder belongs to the requested training run.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::RunPlan;
use crate::error::{Error, Result};
use crate::store::canonical;

/// Compares the settings of the folder with the requested settings. If the folder has no settings file, the digest in the checkpoint
/// still shows a difference.
///
/// # Errors
/// Returns an error that names the settings that differ.
pub(super) fn check(plan: &RunPlan) -> Result<()> {
    let path = plan.out.join("settings.json");
    let Ok(text) = std::fs::read(&path) else { return Ok(()) };
    let settings: Json = canonical::parse(&text, &path.display().to_string())?;
    let (mut written, mut requested) = (BTreeMap::new(), BTreeMap::new());
    leaves(&settings, String::new(), &mut written);
    leaves(&plan.settings, String::new(), &mut requested);
    let names: BTreeSet<&String> = written.keys().chain(requested.keys()).collect();
    let differ: Vec<&String> = names.into_iter().filter(|name| written.get(*name) != requested.get(*name)).collect();
    if differ.is_empty() {
        return Ok(());
    }
    let display = |value: Option<&String>| value.map_or("not set", String::as_str).to_owned();
    let differences = differ.iter().take(3).map(|name| {
        let (expected, got) = (display(written.get(*name)), display(requested.get(*name)));
        format!("expected `{name}` to be {expected}, got {got}")
    });
    let differences = differences.collect::<Vec<_>>().join("; ");
    let more = if differ.len() > 3 { format!("; and {} more", differ.len() - 3) } else { String::new() };
    Err(Error::new(format!("{} belongs to another training run: {differences}{more}", plan.out.display()))
        .with_hint("write to another folder with `--out`, or restore the previous configuration"))
}

/// Collects every leaf of a value by its dotted path.
fn leaves(value: &Json, path: String, found: &mut BTreeMap<String, String>) {
    let child = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Json::Object(table) if !table.is_empty() => {
            table.iter().for_each(|(name, value)| leaves(value, child(name), found));
        }
        Json::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(index, value)| leaves(value, child(&index.to_string()), found));
        }
        leaf => {
            found.insert(path, leaf.to_string());
        }
    }
}
