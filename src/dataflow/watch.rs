//! Notifications of changed files below the roots of sources, with inotify on Linux.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};

/// Time without further notifications after which a burst of changes has ended.
const QUIET: Duration = Duration::from_millis(300);

/// Longest time for which a burst is waited for.
const MAX_BURST: Duration = Duration::from_secs(5);

/// A watcher of folders. It is only a hint to list the sources: network shares send no notifications of changes by other machines, and the
/// number of watched folders is limited.
pub(super) struct Watcher {
    // Watches until it is dropped.
    _watcher: Option<RecommendedWatcher>,
    notifications: Receiver<()>,
}

impl Watcher {
    /// Watches folders with all folders in them; a folder that cannot be watched is a warning.
    pub fn start<'a>(roots: impl IntoIterator<Item = &'a Path>) -> Self {
        let (sender, notifications) = channel();
        let on_event = move |event: notify::Result<Event>| {
            // Reading a file is no change.
            if event.map_or(true, |event| !event.kind.is_access()) {
                let _ = sender.send(());
            }
        };
        let mut watcher = match notify::recommended_watcher(on_event) {
            Ok(watcher) => watcher,
            Err(cause) => {
                tracing::warn!("sources are only listed at intervals: cannot watch folders: {cause}");
                return Self { _watcher: None, notifications };
            }
        };
        for root in roots {
            if let Err(cause) = watcher.watch(root, RecursiveMode::Recursive) {
                tracing::warn!("a source is only listed at intervals: cannot watch its folders: {cause}");
            }
        }
        Self { _watcher: Some(watcher), notifications }
    }

    /// Waits for a burst of notifications and its end, at most until `deadline`; `must_end` is called several times a second and ends the
    /// wait. Returns whether there were notifications.
    pub fn wait(&self, deadline: Instant, must_end: &dyn Fn() -> bool) -> bool {
        const SLICE: Duration = Duration::from_millis(100);
        while Instant::now() < deadline && !must_end() {
            match self.notifications.recv_timeout(SLICE) {
                Ok(()) => {
                    let start = Instant::now();
                    while start.elapsed() < MAX_BURST && self.notifications.recv_timeout(QUIET).is_ok() {}
                    return true;
                }
                Err(RecvTimeoutError::Timeout) => {}
                // Without a watcher.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(SLICE),
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_file_in_a_new_folder_ends_the_wait() {
        let folder = tempfile::tempdir().unwrap();
        let watcher = Watcher::start([folder.path()]);
        let far = || Instant::now() + Duration::from_secs(60);
        std::fs::create_dir(folder.path().join("case")).unwrap();
        assert!(watcher.wait(far(), &|| false));
        std::fs::write(folder.path().join("case/ct.nii"), "a").unwrap();
        assert!(watcher.wait(far(), &|| false));
        assert!(!watcher.wait(far(), &|| true), "an end without notification");
        assert!(!watcher.wait(Instant::now(), &|| false), "the deadline");
    }

    #[test]
    fn folder_that_cannot_be_watched_only_has_deadlines() {
        let watcher = Watcher::start([Path::new("/no/such/folder")]);
        assert!(!watcher.wait(Instant::now() + Duration::from_millis(50), &|| false));
    }
}
