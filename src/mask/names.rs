//! Comparison of the label names that a file states with the organs of a stage.

use std::collections::BTreeMap;

use super::classes::class_ids;
use crate::error::{Fault, FaultKind};

/// Origin of the names that a label file states.
pub(super) const FILE_TABLE: &str = "the file's own table";
/// Origin of the names of a data set.
pub(super) const DATA_SET_TABLE: &str = "the dataset.json beside the file";

/// Returns the fault of a label file whose own names contradict the ids of an organ: another version of TotalSegmentator, or another task,
/// has other ids.
///
/// `expected` returns the name of an id by the scheme, if the scheme names ids; `table` is the origin of the names. Returns `None` without
/// a contradiction.
pub(super) fn contradiction(
    names: &BTreeMap<u16, String>,
    table: &str,
    organ: &str,
    ids: &[u16],
    expected: impl Fn(u16) -> Option<String>,
) -> Option<Fault> {
    let mismatch = |message: String| {
        let message = format!("{message}; set the ids of the organ, or make labels of the scheme");
        Some(Fault::mask(FaultKind::Mismatch, message))
    };
    for &id in ids {
        // A name that the scheme does not know may be a translation.
        if let (Some(stated), Some(expected)) = (names.get(&id), expected(id))
            && normalized(stated) != expected
        {
            return mismatch(format!(
                "id {id} is `{}` according to {table}, but {expected} in the scheme",
                shown(stated)
            ));
        }
        if let Some(stated) = names.get(&id).filter(|stated| is_other_organ(stated, organ)) {
            return mismatch(format!("id {id} is `{}` according to {table}, expected {organ}", shown(stated)));
        }
    }
    let other = names.iter().find(|(id, name)| !ids.contains(id) && normalized(name) == organ)?;
    // A table may contain one name for several ids.
    if ids.iter().any(|id| names.get(id).is_some_and(|name| normalized(name) == organ)) {
        return None;
    }
    mismatch(format!("{organ} is id {} according to {table}, expected one of the ids {ids:?}", other.0))
}

/// Returns whether both names are organs of TotalSegmentator, without a common part. Any other name may be a translation.
pub fn is_other_organ(stated: &str, organ: &str) -> bool {
    let (stated, organ) = (class_ids(&normalized(stated)), class_ids(&normalized(organ)));
    !stated.is_empty() && !organ.is_empty() && !stated.iter().any(|id| organ.contains(id))
}

fn normalized(name: &str) -> String {
    name.trim().to_lowercase().replace([' ', '-', '.'], "_")
}

/// Returns a name for a message: a table can contain any text.
fn shown(name: &str) -> String {
    const SHOWN: usize = 40;
    let printable =
        |character: &char| character.is_alphanumeric() || [' ', '-', '_', '.', '(', ')'].contains(character);
    name.chars().filter(printable).take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::class_name;

    fn fault_of(table: &[(u16, &str)], organ: &str, ids: &[u16], scheme: bool) -> Option<String> {
        let names = table.iter().map(|(id, name)| (*id, (*name).to_owned())).collect();
        contradiction(&names, FILE_TABLE, organ, ids, |id| class_name(id).filter(|_| scheme)).map(|fault| fault.message)
    }

    #[test]
    fn names_of_another_version_are_mismatch() {
        let message = fault_of(&[(7, "aorta"), (10, "pancreas")], "pancreas", &[7], true).unwrap();
        assert!(
            message.starts_with("id 7 is `aorta` according to the file's own table, but pancreas in the scheme;"),
            "{message}"
        );
        assert_eq!(fault_of(&[(7, "Pancreas"), (52, "aorta")], "pancreas", &[7], true), None);
        assert_eq!(fault_of(&[(2, "kidney_right"), (3, "kidney left")], "kidney", &[2, 3], true), None);
        assert_eq!(fault_of(&[], "pancreas", &[7], true), None);
        let message = fault_of(&[(10, "pancreas")], "pancreas", &[7], true).unwrap();
        assert!(message.starts_with("pancreas is id 10 according to the file's own table"), "{message}");
    }

    #[test]
    fn user_defined_ids_are_compared_by_name_of_organ_only() {
        assert!(fault_of(&[(1, "liver"), (5, "spleen")], "liver", &[5], false).is_some());
        let message = fault_of(&[(1, "Spleen")], "liver", &[1], false).unwrap();
        assert!(message.starts_with("id 1 is `Spleen` according to the file's own table, expected liver"), "{message}");
        assert_eq!(fault_of(&[(1, "kidney_left")], "kidney", &[1], false), None);
        assert_eq!(fault_of(&[(1, "spleen")], "my organ", &[1], false), None);
        assert_eq!(fault_of(&[(5, "Leber")], "liver", &[5], false), None);
        assert_eq!(fault_of(&[(1, "liver"), (2, "liver")], "liver", &[2], false), None);
    }
}
