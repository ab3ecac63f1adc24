//! Comparison of the label names of a data set with the organs to measure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::metrics::MeasuredOrgan;
use crate::error::{Error, Result};
use crate::ingest::known_label_names;
use crate::mask::is_other_organ;

/// Compares the names that the ground truth states for its labels with the organs to measure.
///
/// # Errors
/// If a label of an organ has the name of another organ.
pub fn check_label_names(organs: &[MeasuredOrgan], truths: &BTreeMap<String, PathBuf>) -> Result<()> {
    let Some(first) = truths.values().next() else { return Ok(()) };
    let names = known_label_names(first);
    for organ in organs {
        let stated = organ.organ_id.and_then(|id| Some((id, names.get(&id)?)));
        if let Some((id, name)) = stated.filter(|(_, name)| is_other_organ(name, &organ.name)) {
            let message = format!(
                "--organ {} has the label {id}, which is `{name}` by the label names of the data set",
                organ.name
            );
            return Err(Error::new(message).with_hint("select the ids of the organ with --organ NAME=ORGAN:TUMOR"));
        }
    }
    Ok(())
}
