//! Whether a folder belongs to the run that is asked for.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::RunPlan;
use crate::error::{Error, Result};
use crate::store::canonical;

/// Names what differs between the settings of the folder and those asked for; where that cannot be told, the digest in the
/// checkpoint still tells that something does.
///
/// # Errors
/// Where something differs.
pub(super) fn check(plan: &RunPlan) -> Result<()> {
    let place = plan.out.join("settings.json");
    let Ok(text) = std::fs::read(&place) else { return Ok(()) };
    let there: Json = canonical::parse(&text, &place.display().to_string())?;
    let (mut own, mut asked) = (BTreeMap::new(), BTreeMap::new());
    leaves(&there, String::new(), &mut own);
    leaves(&plan.settings, String::new(), &mut asked);
    let names: BTreeSet<&String> = own.keys().chain(asked.keys()).collect();
    let differ: Vec<&String> = names.into_iter().filter(|name| own.get(*name) != asked.get(*name)).collect();
    if differ.is_empty() {
        return Ok(());
    }
    let show = |value: Option<&String>| value.map_or("not set", String::as_str).to_owned();
    let said = differ
        .iter()
        .take(3)
        .map(|name| format!("`{name}` is {} there and {} here", show(own.get(*name)), show(asked.get(*name))));
    let said = said.collect::<Vec<_>>().join("; ");
    let more = if differ.len() > 3 { format!("; and {} more", differ.len() - 3) } else { String::new() };
    Err(Error::new(format!("{} belongs to another run: {said}{more}", plan.out.display()))
        .with_hint("a run keeps to one configuration: write elsewhere with `--out`, or restore what differs"))
}

/// Every leaf of a value by its dotted path.
fn leaves(value: &Json, path: String, found: &mut BTreeMap<String, String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Json::Object(table) if !table.is_empty() => {
            table.iter().for_each(|(name, value)| leaves(value, below(name), found));
        }
        Json::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(index, value)| leaves(value, below(&index.to_string()), found));
        }
        leaf => {
            found.insert(path, leaf.to_string());
        }
    }
}
