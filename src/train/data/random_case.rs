//! The random selection of scans.

use std::sync::Arc;

use super::case::Case;
use super::cases::Cases;
use crate::error::{Error, Result};

/// The maximum number of scans or crops that are sampled to find a suitable one.
pub(in crate::train) const MAX_DRAWS: usize = 64;

/// Samples a case that can be read; `draw` samples the index of a case.
///
/// # Errors
/// Returns an error if none of [`MAX_DRAWS`] sampled cases can be read.
pub(in crate::train) fn random_case(cases: &Cases, mut draw: impl FnMut() -> Option<usize>) -> Result<Arc<Case>> {
    let mut last = None;
    for _ in 0..MAX_DRAWS {
        let Some(index) = draw() else { return Err(Error::new("expected at least one scan to sample, got none")) };
        match cases.get(index) {
            Ok(case) => return Ok(case),
            Err(fault) => last = Some(fault),
        }
    }
    let cause = last.map(|fault| format!("; the last: {fault}")).unwrap_or_default();
    Err(Error::new(format!("none of {MAX_DRAWS} scans sampled from {} can be read{cause}", cases.len())))
}
