//! Retries after faults of the machine.

use std::time::Duration;

use crate::error::{Fault, FaultKind};

/// The pauses before the retries.
const WAITS: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];

/// Calls `work` until it succeeds, with pauses and at most three retries. Only faults of the machine are retried, but not changed files:
/// the listing has the old version of a changed scan.
///
/// # Errors
/// The last fault.
pub(super) fn with_retries<T>(work: impl Fn() -> Result<T, Fault>) -> Result<T, Fault> {
    let is_retried = |fault: &Fault| fault.kind.is_transient() && fault.kind != FaultKind::Changed;
    for wait in WAITS {
        match work() {
            Err(fault) if is_retried(&fault) => {
                tracing::debug!("{fault}: waiting {} ms before the next attempt", wait.as_millis());
                std::thread::sleep(wait);
            }
            result => return result,
        }
    }
    work()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Returns the number of calls of work whose calls before number `success` fail with this kind, and whether the result is a success.
    fn calls(kind: FaultKind, success: usize) -> (usize, bool) {
        let calls = Cell::new(0);
        let result = with_retries(|| {
            calls.set(calls.get() + 1);
            if calls.get() >= success { Ok(()) } else { Err(Fault::read(kind, "failed")) }
        });
        (calls.get(), result.is_ok())
    }

    #[test]
    fn only_faults_of_the_machine_are_retried() {
        assert_eq!(calls(FaultKind::Io, 3), (3, true));
        assert_eq!(calls(FaultKind::Interrupted, usize::MAX), (4, false));
        assert_eq!(calls(FaultKind::Corrupt, usize::MAX), (1, false));
        assert_eq!(calls(FaultKind::Changed, usize::MAX), (1, false));
    }
}
