//! The lists of mask stages that a section `[train]` has.

use std::sync::Arc;

use crate::error::ConfigError;
use crate::graph::Plan;
use crate::mask::Organ;
use crate::suggest::did_you_mean;

/// Problems with the names of mask stages in a list.
pub(super) fn unknown_names(field: &str, names: &[String], plan: &Plan) -> Vec<ConfigError> {
    let known = || plan.masks.iter().map(|mask| mask.name.as_str());
    let mut problems = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let place = format!("{field}.{index}");
        if names[..index].contains(name) {
            problems.push(ConfigError::new(place, format!("`{name}` is named twice")));
        } else if !known().any(|known| known == name) {
            let problem = ConfigError::new(place, format!("there is no mask stage named `{name}`"));
            let all = || format!("mask stages of the file are {}", known().collect::<Vec<_>>().join(", "));
            problems.push(problem.with_hint(did_you_mean(name, known()).unwrap_or_else(all)));
        }
    }
    problems
}

/// The organs of the named mask stages, which all have to give the same.
///
/// # Errors
/// The first stage that gives others.
pub(super) fn agreed_organs(plan: &Plan, lists: &[(&str, &[String])]) -> Result<Arc<[Organ]>, ConfigError> {
    let mut first: Option<(&str, Arc<[Organ]>)> = None;
    for (field, names) in lists {
        for (index, name) in names.iter().enumerate() {
            let Some(node) = plan.masks.iter().find(|mask| mask.name == *name) else { continue };
            let organs = node.mask.organs();
            match &first {
                None => first = Some((name, organs)),
                Some((other, agreed)) if agreed[..] != organs[..] => {
                    let listed = |organs: &[Organ]| {
                        let each = organs
                            .iter()
                            .map(|organ| format!("{} ({}, {})", organ.name, organ.label, organ.tumor_label));
                        each.collect::<Vec<_>>().join(", ")
                    };
                    let message = format!("`{name}` gives {}, but `{other}` {}", listed(&organs), listed(agreed));
                    return Err(ConfigError::new(format!("{field}.{index}"), message)
                        .with_hint("one network learns one set of organs, in one order"));
                }
                Some(_) => {}
            }
        }
    }
    Ok(first.map_or_else(|| [].into(), |(_, organs)| organs))
}
