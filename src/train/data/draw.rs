//! Drawing scans at random.

use std::sync::Arc;

use super::case::Case;
use super::cases::Cases;
use crate::error::{Error, Result};
use crate::random::RandomStream;

/// How many scans, or crops, are drawn before the search for a suitable one ends with an error.
pub(in crate::train) const MOST_DRAWS: usize = 64;

/// A case that can be read, each with equal probability.
///
/// # Errors
/// Where none of [`MOST_DRAWS`] drawn cases can be read.
pub(in crate::train) fn draw_case(cases: &Cases, draws: &mut RandomStream) -> Result<Arc<Case>> {
    let mut last = None;
    for _ in 0..MOST_DRAWS {
        match cases.get(draws.index(cases.len())) {
            Ok(case) => return Ok(case),
            Err(fault) => last = Some(fault),
        }
    }
    let why = last.map(|fault| format!("; the last: {fault}")).unwrap_or_default();
    Err(Error::new(format!("{MOST_DRAWS} scans drawn from {} cannot be read{why}", cases.len())))
}
