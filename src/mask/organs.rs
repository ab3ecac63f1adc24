//! The merged ids of the organs of a pipeline.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{IGNORE_LABEL, Organ};
use crate::error::ConfigError;

/// Merged ids of the organs of published segmentors, as [organ, tumor].
const DEFAULT_IDS: [(&str, [u8; 2]); 4] =
    [("liver", [1, 2]), ("pancreas", [3, 4]), ("kidney", [5, 6]), ("lung", [1, 2])];

/// The first id of organs without default ids.
const FIRST_FREE: u8 = 7;

/// Assigns ids in the merged label map to each organ: the ids of `fixed` first, then the default ids (liver 1 and 2,
/// pancreas 3 and 4, kidney 5 and 6; lung 1 and 2 if there is no liver), then the next free ids from 7 and 8.
///
/// ```
/// use freetumor::mask::merged_organs;
/// let organs = merged_organs(&["kidney", "spleen", "lung"], &Default::default()).unwrap();
/// let ids: Vec<_> = organs.iter().map(|organ| (organ.label, organ.tumor_label)).collect();
/// assert_eq!(ids, [(5, 6), (7, 8), (1, 2)]);
/// ```
///
/// # Errors
/// Returns an error for every organ that is named twice, every id that is 0 or assigned twice, and every id of an organ that is not in
/// `names`.
pub fn merged_organs(names: &[&str], fixed: &BTreeMap<String, [u8; 2]>) -> Result<Arc<[Organ]>, Vec<ConfigError>> {
    let mut errors = Vec::new();
    if names.is_empty() {
        errors.push(ConfigError::new("organs", "expected at least one organ, got none"));
    }
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            errors.push(ConfigError::new("organs", format!("expected each organ once, got `{name}` twice")));
        }
    }
    let mut used: BTreeMap<u8, &str> = BTreeMap::new();
    for (name, ids) in fixed {
        if !names.contains(&name.as_str()) {
            let error = ConfigError::new(format!("merged_ids.{name}"), "expected one of the organs of this stage");
            errors.push(error.with_hint(format!("use one of {}", names.join(", "))));
        }
        for id in *ids {
            if [0, IGNORE_LABEL].contains(&id) {
                let message = format!(
                    "expected ids from 1 to {}, got {id}: 0 is the background, {IGNORE_LABEL} is ignored",
                    IGNORE_LABEL - 1
                );
                errors.push(ConfigError::new(format!("merged_ids.{name}"), message));
            } else if let Some(other) = used.insert(id, name) {
                let message = format!("expected an unused id, got {id} of `{other}`");
                errors.push(ConfigError::new(format!("merged_ids.{name}"), message));
            }
        }
    }
    let mut ids: BTreeMap<&str, [u8; 2]> = fixed.iter().map(|(name, ids)| (name.as_str(), *ids)).collect();
    for (name, pair) in DEFAULT_IDS {
        if names.contains(&name) && !ids.contains_key(name) && pair.iter().all(|id| !used.contains_key(id)) {
            ids.insert(name, pair);
            used.extend(pair.map(|id| (id, name)));
        }
    }
    for name in names {
        if !ids.contains_key(name) {
            let free =
                (FIRST_FREE..u8::MAX).step_by(2).find(|id| !used.contains_key(id) && !used.contains_key(&(id + 1)));
            match free {
                Some(id) => {
                    ids.insert(name, [id, id + 1]);
                    used.extend([(id, *name), (id + 1, *name)]);
                }
                None => errors.push(ConfigError::new("organs", format!("no merged id is left for `{name}`"))),
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let organ = |name: &&str| Organ { name: (*name).to_owned(), label: ids[name][0], tumor_label: ids[name][1] };
    Ok(names.iter().map(organ).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str], fixed: &[(&str, [u8; 2])]) -> Result<Vec<[u8; 2]>, Vec<ConfigError>> {
        let fixed = fixed.iter().map(|(name, ids)| ((*name).to_owned(), *ids)).collect();
        Ok(merged_organs(names, &fixed)?.iter().map(|organ| [organ.label, organ.tumor_label]).collect())
    }

    #[test]
    fn liver_precedes_lung_for_default_ids() {
        assert_eq!(ids(&["lung", "liver"], &[]).unwrap(), [[7, 8], [1, 2]]);
        assert_eq!(ids(&["lung"], &[]).unwrap(), [[1, 2]]);
    }

    #[test]
    fn fixed_ids_precede_default_ids() {
        let got = ids(&["liver", "spleen", "colon"], &[("spleen", [1, 9])]).unwrap();
        assert_eq!(got, [[7, 8], [1, 9], [11, 12]]);
    }

    #[test]
    fn invalid_ids_are_all_reported() {
        let errors = ids(&["liver", "liver"], &[("spleen", [0, 3]), ("liver", [3, 4])]).unwrap_err();
        assert_eq!(errors.len(), 4, "{errors:?}");
        assert!(ids(&[], &[]).is_err());
    }
}
