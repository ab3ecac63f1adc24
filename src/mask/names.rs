//! Comparison of the label names that a file states with the organs of a stage.

use std::collections::BTreeMap;

use crate::error::{Fault, FaultKind};

/// Returns the fault of a label file whose own names contradict the ids of an organ: another version of TotalSegmentator, or another task,
/// has other ids.
///
/// `expected` returns the name of an id by the scheme, if the scheme names ids.
pub(super) fn contradiction(
    names: &BTreeMap<u16, String>,
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
                "id {id} is `{}` by the file's own table, the scheme names it {expected}",
                shown(stated)
            ));
        }
    }
    let other = names.iter().find(|(id, name)| !ids.contains(id) && normalized(name) == organ)?;
    // A table may name several ids alike.
    if ids.iter().any(|id| names.get(id).is_some_and(|name| normalized(name) == organ)) {
        return None;
    }
    mismatch(format!("{organ} is id {} by the file's own table, expected one of the ids {ids:?}", other.0))
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
        contradiction(&names, organ, ids, |id| class_name(id).filter(|_| scheme)).map(|fault| fault.message)
    }

    #[test]
    fn names_of_another_version_are_mismatch() {
        let message = fault_of(&[(7, "aorta"), (10, "pancreas")], "pancreas", &[7], true).unwrap();
        assert!(
            message.starts_with("id 7 is `aorta` by the file's own table, the scheme names it pancreas;"),
            "{message}"
        );
        assert_eq!(fault_of(&[(7, "Pancreas"), (52, "aorta")], "pancreas", &[7], true), None);
        assert_eq!(fault_of(&[(2, "kidney_right"), (3, "kidney left")], "kidney", &[2, 3], true), None);
        assert_eq!(fault_of(&[], "pancreas", &[7], true), None);
        let message = fault_of(&[(10, "pancreas")], "pancreas", &[7], true).unwrap();
        assert!(message.starts_with("pancreas is id 10 by the file's own table"), "{message}");
    }

    #[test]
    fn user_defined_ids_are_compared_by_name_of_organ_only() {
        assert!(fault_of(&[(1, "liver"), (5, "spleen")], "liver", &[5], false).is_some());
        assert_eq!(fault_of(&[(5, "Leber")], "liver", &[5], false), None);
        assert_eq!(fault_of(&[(1, "liver"), (2, "liver")], "liver", &[2], false), None);
    }
}
