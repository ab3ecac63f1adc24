//! Processes that the machine ended.

use std::process::ExitStatus;

/// Returns whether a process was ended from outside, by SIGKILL or SIGTERM: by an administrator, or by the system for lack of memory. A
/// process that ends itself by a fault of its input has another signal.
///
/// ```
/// # #[cfg(unix)] {
/// let status = |script: &str| std::process::Command::new("/bin/sh").args(["-c", script]).status().unwrap();
/// assert!(freetumor::error::is_killed(status("kill -KILL $$")));
/// assert!(!freetumor::error::is_killed(status("kill -SEGV $$")));
/// assert!(!freetumor::error::is_killed(status("exit 1")));
/// # }
/// ```
#[cfg(unix)]
pub fn is_killed(status: ExitStatus) -> bool {
    // A shell reports the signal of its program as 128 + signal.
    matches!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9 | 15))
        || matches!(status.code(), Some(137 | 143))
}

/// Returns false: this system does not report whether a process was ended from outside.
#[cfg(not(unix))]
pub fn is_killed(_: ExitStatus) -> bool {
    false
}
