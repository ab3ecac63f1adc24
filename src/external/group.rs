//! A running program with everything that it starts: one process group, and what has left it.
//!
//! The program is not started directly but by a line of shell that sets limits which only a process itself can set, and
//! leaves a guard behind in the group: should this process die without a word, the guard removes the scratch folder and
//! ends the group.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// Names the scratch folder to the program, and marks its processes, wherever they go.
pub(super) const MARK: &str = "FREETUMOR_FOLDER";

/// How long processes may take to be gone that were killed.
const DYING: Duration = Duration::from_secs(10);

/// `$1`: this process, `$2`: the scratch folder, `$3`: KiB of memory or `unlimited`, then the program. No core dumps: they would
/// be pictures of a patient.
#[cfg(unix)]
const START: &str = r#"
ulimit -c 0
[ "$3" = unlimited ] || ulimit -d "$3" || exit 125
( (while kill -0 "$1"; do sleep 1; done; rm -rf -- "$2"; kill -KILL 0) </dev/null >/dev/null 2>&1 & )
shift 3
exec "$@"
"#;

/// The command that starts `program`; arguments and streams are added to it.
#[cfg(unix)]
pub(super) fn command(program: &Path, folder: &Path, memory_bytes: Option<u64>) -> Command {
    use std::os::unix::process::CommandExt;
    let memory = memory_bytes.map_or_else(|| "unlimited".to_owned(), |bytes| (bytes / 1024).to_string());
    let mut command = Command::new("/bin/sh");
    command.args(["-c", START, "sh", &std::process::id().to_string()]);
    command.arg(folder).arg(memory).arg(program).process_group(0);
    command
}

/// The command that starts `program`; arguments and streams are added to it.
#[cfg(not(unix))]
pub(super) fn command(program: &Path, _folder: &Path, _memory_bytes: Option<u64>) -> Command {
    Command::new(program)
}

/// A program that was started, with its group. Dropped, it is ended.
pub(super) struct ProcessGroup {
    child: Child,
    folder: PathBuf,
    over: bool,
}

impl ProcessGroup {
    /// Takes charge of a child that leads a group of its own.
    pub fn new(child: Child, folder: &Path) -> Self {
        Self { child, folder: folder.to_owned(), over: false }
    }

    /// Whether the program itself has ended. It stays a zombie, so that its number names no other group.
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

    /// Ends whatever still runs, and says how the program ended; `None` where the system cannot end it.
    pub fn end(&mut self) -> io::Result<Option<ExitStatus>> {
        self.over = true;
        self.kill();
        let begun = Instant::now();
        while !self.has_ended()? {
            if begun.elapsed() > DYING {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let status = self.child.wait()?;
        #[cfg(target_os = "linux")]
        strays::end(&self.folder);
        Ok(Some(status))
    }

    /// Bytes of memory that the group holds, where the system says.
    pub fn resident_bytes(&self) -> Option<u64> {
        #[cfg(target_os = "linux")]
        return strays::resident_bytes(self.child.id());
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
            // Nobody left to kill is no failure.
            let _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
        }
        #[cfg(not(unix))]
        let _ = self.child.kill();
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if !self.over {
            let _ = self.end();
        }
    }
}

/// Processes by what `/proc` says of them.
#[cfg(target_os = "linux")]
mod strays {
    use std::path::Path;

    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

    use super::MARK;

    /// Rounds in which processes are looked for that others start while they are being ended.
    const ROUNDS: usize = 20;

    /// Ends processes that left the group (a daemon begins a session of its own) but still carry its mark.
    pub fn end(folder: &Path) {
        use std::os::unix::ffi::OsStrExt;
        let mark = [MARK.as_bytes(), b"=", folder.as_os_str().as_bytes()].concat();
        for _ in 0..ROUNDS {
            let mut found = false;
            for id in processes() {
                // Held before it is looked at: a number that is given to another process names no other by then.
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

    /// Resident bytes of all processes of a group.
    pub fn resident_bytes(group: u32) -> Option<u64> {
        let pages = |id: u32| {
            let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            // Behind the name, which may hold anything: state, parent, group, …, and the resident pages as the 22nd.
            let mut fields = text.rsplit_once(')')?.1.split_whitespace();
            (fields.nth(2)?.parse() == Ok(group)).then(|| fields.nth(18)?.parse::<u64>().ok()).flatten()
        };
        Some(processes().filter_map(pages).sum::<u64>() * rustix::param::page_size() as u64)
    }

    fn processes() -> impl Iterator<Item = u32> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    }
}
