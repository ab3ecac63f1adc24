//! A running program with all its child processes: one process group, and processes that left the group.
//!
//! A shell starts the program: it sets limits that only a process itself can set, and starts a guard in the group. If this process is
//! killed, the guard removes the scratch folder and ends the group.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// The environment variable with the scratch folder, which also marks all processes of the program.
pub(super) const MARK: &str = "FREETUMOR_FOLDER";

/// Maximum time from the kill signal to the end of a process.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// `$1`: this process, `$2`: the scratch folder, `$3`: KiB of memory or `unlimited`, then the program. Core dumps are disabled because
/// they would contain patient data.
#[cfg(unix)]
const START: &str = r#"
ulimit -c 0
[ "$3" = unlimited ] || ulimit -d "$3" || exit 125
( (while kill -0 "$1"; do sleep 1; done; rm -rf -- "$2"; kill -KILL 0) </dev/null >/dev/null 2>&1 & )
shift 3
exec "$@"
"#;

/// Returns the command that starts `program`; the caller adds arguments and streams.
#[cfg(unix)]
pub(super) fn command(program: &Path, folder: &Path, memory_bytes: Option<u64>) -> Command {
    use std::os::unix::process::CommandExt;
    let memory = memory_bytes.map_or_else(|| "unlimited".to_owned(), |bytes| (bytes / 1024).to_string());
    let mut command = Command::new("/bin/sh");
    command.args(["-c", START, "sh", &std::process::id().to_string()]);
    command.arg(folder).arg(memory).arg(program).process_group(0);
    command
}

/// Returns the command that starts `program`; the caller adds arguments and streams.
#[cfg(not(unix))]
pub(super) fn command(program: &Path, _folder: &Path, _memory_bytes: Option<u64>) -> Command {
    Command::new(program)
}

/// A started program with its process group, which is ended when dropped.
pub(super) struct ProcessGroup {
    child: Child,
    folder: PathBuf,
    ended: bool,
}

impl ProcessGroup {
    /// Takes ownership of a child that leads its own group.
    pub fn new(child: Child, folder: &Path) -> Self {
        Self { child, folder: folder.to_owned(), ended: false }
    }

    /// Returns whether the program itself has ended. The process stays a zombie, so that its id is not reused for another group.
    pub fn has_ended(&mut self) -> io::Result<bool> {
        #[cfg(unix)]
        {
            use rustix::process::{WaitId, WaitIdOptions, waitid};
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            Ok(waitid(WaitId::Pid(self.id()?), options)?.is_some())
        }
        #[cfg(not(unix))]
        Ok(self.child.try_wait()?.is_some())
    }

    /// Ends all running processes of the group and returns the exit status of the program; `None` if the program
    /// has not ended after a timeout.
    pub fn end(&mut self) -> io::Result<Option<ExitStatus>> {
        self.ended = true;
        self.kill();
        let start = Instant::now();
        while !self.has_ended()? {
            if start.elapsed() > KILL_TIMEOUT {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let status = self.child.wait()?;
        #[cfg(target_os = "linux")]
        strays::end(&self.folder);
        Ok(Some(status))
    }

    /// Returns the resident memory of the group in bytes, or `None` if the system does not report it.
    pub fn resident_bytes(&self) -> Option<u64> {
        #[cfg(target_os = "linux")]
        return Some(strays::resident_bytes(self.child.id()));
        #[cfg(not(target_os = "linux"))]
        None
    }

    #[cfg(unix)]
    fn id(&self) -> io::Result<rustix::process::Pid> {
        let id = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        id.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn kill(&mut self) {
        #[cfg(unix)]
        if let Ok(id) = self.id() {
            // An empty group is not an error.
            let _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
        }
        #[cfg(not(unix))]
        let _ = self.child.kill();
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.end();
        }
    }
}

/// Finds processes in `/proc`.
#[cfg(target_os = "linux")]
mod strays {
    use std::path::Path;

    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

    use super::MARK;

    /// Maximum number of searches: processes may start others while they are being ended.
    const ROUNDS: usize = 20;

    /// Ends processes that left the group (a daemon starts its own session) but still have its mark.
    pub fn end(folder: &Path) {
        use std::os::unix::ffi::OsStrExt;
        let mark = [MARK.as_bytes(), b"=", folder.as_os_str().as_bytes()].concat();
        for _ in 0..ROUNDS {
            let mut found = false;
            for id in processes() {
                // Open the process before reading its environment, so that a reused id is not killed.
                let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) else { continue };
                let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
                let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
                if environment.split(|&byte| byte == 0).any(|variable| variable == mark) {
                    found |= pidfd_send_signal(&process, Signal::KILL).is_ok();
                }
            }
            if !found {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    /// Returns the resident bytes of all processes of a group.
    pub fn resident_bytes(group: u32) -> u64 {
        let pages = |id: u32| {
            let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            // After the name, which may contain any character: state, parent, group, …, and the resident pages as the 22nd.
            let mut fields = text.rsplit_once(')')?.1.split_whitespace();
            (fields.nth(2)?.parse() == Ok(group)).then(|| fields.nth(18)?.parse::<u64>().ok()).flatten()
        };
        processes().filter_map(pages).sum::<u64>() * rustix::param::page_size() as u64
    }

    fn processes() -> impl Iterator<Item = u32> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    }
}
