//! The lists of mask stages in a section `[train]`.

use std::sync::Arc;

use crate::error::ConfigError;
use crate::graph::Plan;
use crate::mask::Organ;
use crate::suggest::did_you_mean;

/// Returns the errors in a list of names of mask stages.
pub(super) fn unknown_names(field: &str, names: &[String], plan: &Plan) -> Vec<ConfigError> {
    let known = || plan.masks.iter().map(|mask| mask.name.as_str());
    let mut errors = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let item = format!("{field}.{index}");
        if names[..index].contains(name) {
            errors.push(ConfigError::new(item, format!("duplicate mask stage `{name}`")));
        } else if !known().any(|known| known == name) {
            let error = ConfigError::new(item, format!("there is no mask stage named `{name}`"));
            let all = || format!("expected one of {}", known().collect::<Vec<_>>().join(", "));
            errors.push(error.with_hint(did_you_mean(name, known()).unwrap_or_else(all)));
        }
    }
    errors
}

/// Returns the organs of the named mask stages, which all must have the same organs.
///
/// # Errors
/// Returns an error that names the first stage with other organs.
pub(super) fn common_organs(plan: &Plan, lists: &[(&str, &[String])]) -> Result<Arc<[Organ]>, ConfigError> {
    let mut first: Option<(&str, Arc<[Organ]>)> = None;
    for (field, names) in lists {
        for (index, name) in names.iter().enumerate() {
            let Some(node) = plan.masks.iter().find(|mask| mask.name == *name) else { continue };
            let organs = node.mask.organs();
            match &first {
                None => first = Some((name, organs)),
                Some((other, expected)) if expected[..] != organs[..] => {
                    let listed = |organs: &[Organ]| {
                        let each = organs
                            .iter()
                            .map(|organ| format!("{} ({}, {})", organ.name, organ.label, organ.tumor_label));
                        each.collect::<Vec<_>>().join(", ")
                    };
                    let message = format!(
                        "expected the organs of `{other}`, {}, got {} in `{name}`",
                        listed(expected),
                        listed(&organs)
                    );
                    return Err(ConfigError::new(format!("{field}.{index}"), message)
                        .with_hint("use mask stages with the same organs in the same order"));
                }
                Some(_) => {}
            }
        }
    }
    Ok(first.map_or_else(|| [].into(), |(_, organs)| organs))
}
