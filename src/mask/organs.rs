//! Which merged ids the organs of a pipeline carry.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Organ;
use crate::error::ConfigError;

/// Merged ids of the organs that published segmentors know, as [organ, tumor].
const CUSTOMARY: [(&str, [u8; 2]); 4] = [("liver", [1, 2]), ("pancreas", [3, 4]), ("kidney", [5, 6]), ("lung", [1, 2])];

/// The first id of organs without a customary one.
const FIRST_FREE: u8 = 7;

/// Gives each organ its ids in the merged label map: those of `fixed` first, then the customary ones (liver 1 and 2,
/// pancreas 3 and 4, kidney 5 and 6; lung 1 and 2 where the liver is not asked for), then counting on from 7 and 8.
///
/// ```
/// use freetumor::mask::merged_organs;
/// let organs = merged_organs(&["kidney", "spleen", "lung"], &Default::default()).unwrap();
/// let ids: Vec<_> = organs.iter().map(|organ| (organ.label, organ.tumor_label)).collect();
/// assert_eq!(ids, [(5, 6), (7, 8), (1, 2)]);
/// ```
///
/// # Errors
/// Every organ that is named twice, every id that is 0 or given twice, every id for an organ that is not asked for.
pub fn merged_organs(names: &[&str], fixed: &BTreeMap<String, [u8; 2]>) -> Result<Arc<[Organ]>, Vec<ConfigError>> {
    let mut complaints = Vec::new();
    if names.is_empty() {
        complaints.push(ConfigError::new("organs", "expected at least one organ, got none"));
    }
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            complaints.push(ConfigError::new("organs", format!("`{name}` is named twice")));
        }
    }
    let mut taken: BTreeMap<u8, &str> = BTreeMap::new();
    for (name, ids) in fixed {
        if !names.contains(&name.as_str()) {
            let complaint = ConfigError::new(format!("merged_ids.{name}"), "expected one of the organs of this stage");
            complaints.push(complaint.with_hint(format!("the organs are {}", names.join(", "))));
        }
        for id in *ids {
            if id == 0 {
                complaints.push(ConfigError::new(format!("merged_ids.{name}"), "expected ids above 0, the background"));
            } else if let Some(other) = taken.insert(id, name) {
                let message = format!("expected an id of its own, got {id}, which `{other}` has");
                complaints.push(ConfigError::new(format!("merged_ids.{name}"), message));
            }
        }
    }
    let mut ids: BTreeMap<&str, [u8; 2]> = fixed.iter().map(|(name, ids)| (name.as_str(), *ids)).collect();
    for (name, pair) in CUSTOMARY {
        if names.contains(&name) && !ids.contains_key(name) && pair.iter().all(|id| !taken.contains_key(id)) {
            ids.insert(name, pair);
            taken.extend(pair.map(|id| (id, name)));
        }
    }
    for name in names {
        if !ids.contains_key(name) {
            let free =
                (FIRST_FREE..u8::MAX).step_by(2).find(|id| !taken.contains_key(id) && !taken.contains_key(&(id + 1)));
            match free {
                Some(id) => {
                    ids.insert(name, [id, id + 1]);
                    taken.extend([(id, *name), (id + 1, *name)]);
                }
                None => complaints.push(ConfigError::new("organs", format!("no merged id is left for `{name}`"))),
            }
        }
    }
    if !complaints.is_empty() {
        return Err(complaints);
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
    fn the_lung_makes_way_for_the_liver() {
        assert_eq!(ids(&["lung", "liver"], &[]).unwrap(), [[7, 8], [1, 2]]);
        assert_eq!(ids(&["lung"], &[]).unwrap(), [[1, 2]]);
    }

    #[test]
    fn fixed_ids_come_first() {
        let got = ids(&["liver", "spleen", "colon"], &[("spleen", [1, 9])]).unwrap();
        assert_eq!(got, [[7, 8], [1, 9], [11, 12]]);
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let complaints = ids(&["liver", "liver"], &[("spleen", [0, 3]), ("liver", [3, 4])]).unwrap_err();
        assert_eq!(complaints.len(), 4, "{complaints:?}");
        assert!(ids(&[], &[]).is_err());
    }
}
