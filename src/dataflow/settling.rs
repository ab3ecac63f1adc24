//! Scans whose files may still be written: a run that follows its sources processes a scan when its files have not changed for the time
//! `settle`.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::graph::Plan;
use crate::id::{ScanId, ScanVersion};
use crate::ingest::ScanEntry;

use super::changes::ScanChanges;

/// Time without changes of a source that does not set `settle`.
const DEFAULT_SETTLE: Duration = Duration::from_secs(120);

/// The scans whose files may still be written.
#[derive(Debug, Default)]
pub(super) struct Settling {
    /// The version of each waiting scan, and when this version was first listed.
    listed: HashMap<ScanId, (ScanVersion, Instant)>,
}

impl Settling {
    /// Removes the scans from `changes` that may still be written, and returns their number. Scans that are processed again only
    /// because the graph changed count as completely written. `now` is the time of the monotonic clock, `clock` the time of the system.
    pub fn delay(&mut self, plan: &Plan, changes: &mut ScanChanges, now: Instant, clock: SystemTime) -> usize {
        let mut waiting = HashMap::new();
        let mut is_settled = |entry: &ScanEntry| {
            let source = plan.source_index(&entry.source).map(|index| &plan.sources[index].source);
            let settle = source.and_then(|source| source.settle()).unwrap_or(DEFAULT_SETTLE);
            let is_complete = source.is_none_or(|source| source.is_complete(entry));
            let since = match self.listed.get(&entry.scan_id) {
                Some((version, since)) if *version == entry.version => *since,
                _ => now,
            };
            if is_complete || now.duration_since(since) >= settle || age(entry, clock).is_some_and(|age| age >= settle)
            {
                return true;
            }
            waiting.insert(entry.scan_id, (entry.version, since));
            false
        };
        changes.new.retain(&mut is_settled);
        changes.changed.retain(&mut is_settled);
        self.listed = waiting;
        self.listed.len()
    }
}

/// Returns the time since the last change of the files of a scan; `None` if their modification time is in the future because of a
/// wrong clock, or the scan is not read from files.
pub(super) fn age(entry: &ScanEntry, clock: SystemTime) -> Option<Duration> {
    let modified = UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(entry.modified_s).ok()?))?;
    clock.duration_since(modified).ok()
}

/// Returns warnings of sources with files that are younger than `settle`: a run that does not follow its sources processes them at once.
pub(super) fn young_scans(plan: &Plan, changes: &ScanChanges, clock: SystemTime) -> Vec<String> {
    let warning = |node: &crate::graph::SourceNode| {
        let settle = node.source.settle()?;
        let is_young = |entry: &&ScanEntry| {
            entry.source == node.name
                && !node.source.is_complete(entry)
                && age(entry, clock).is_none_or(|age| age < settle)
        };
        let young = changes.new.iter().chain(&changes.changed).filter(is_young).count();
        (young > 0).then(|| {
            let (name, seconds) = (&node.name, settle.as_secs());
            let scans = if young == 1 { "1 scan".to_owned() } else { format!("{young} scans") };
            format!(
                "the source `{name}` has {scans} with files younger than {seconds} s (`settle`), which may still be written: run again later, or with `--follow`"
            )
        })
    };
    plan.sources.iter().filter_map(warning).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{GraphFile, Registry, Resources, check};

    fn plan(folder: &std::path::Path) -> Plan {
        std::fs::write(folder.join("secret"), "a secret for tests only").unwrap();
        std::fs::create_dir(folder.join("ct")).unwrap();
        let text = "[pipeline]\nname = 'a'\n[sources.a]\nkind = 'folder'\nroot = 'ct'\ninclude = ['*.nii']\nsettle = '60 s'\n\
             [stages.m]\nkind = 'lung'\ninputs = ['a']\n[stages.t]\nkind = 'rules'\ninputs = ['m']\n\
             [stages.f]\nkind = 'quality-test'\ninputs = ['t']\n[sinks.s]\nkind = 'patches'\ninputs = ['f']\n";
        let secret = Some(folder.join("secret"));
        let registry = Registry::with_resources(&Resources { patient_secret: secret, ..Resources::default() });
        let checked = check(&GraphFile::new("a.toml", folder, text), &registry);
        checked.plan.unwrap_or_else(|| panic!("{:?}", checked.problems))
    }

    fn write(folder: &std::path::Path, name: &str, modified_s: u64) {
        let path = folder.join("ct").join(name);
        std::fs::write(&path, name).unwrap();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(modified_s)).unwrap();
    }

    #[test]
    fn scan_waits_until_its_files_have_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(folder.path());
        let (start, clock) = (Instant::now(), |seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        let mut settling = Settling::default();
        let mut settled = |seconds: u64| {
            let mut changes = ScanChanges { new: plan.list(0).unwrap(), ..ScanChanges::default() };
            let waiting =
                settling.delay(&plan, &mut changes, start + Duration::from_secs(seconds), clock(1_000_000 + seconds));
            (changes.new.iter().map(|entry| entry.key.clone()).collect::<Vec<_>>(), waiting)
        };
        write(folder.path(), "old.nii", 999_900);
        write(folder.path(), "new.nii", 1_000_000);
        // The modification time is in the future because of a wrong clock: only the time since the first listing counts.
        write(folder.path(), "future.nii", 2_000_000);
        assert_eq!(settled(0), (vec!["old.nii".to_owned()], 2));
        write(folder.path(), "new.nii", 1_000_030);
        assert_eq!(settled(30), (vec!["old.nii".to_owned()], 2));
        assert_eq!(settled(60), (vec!["future.nii".to_owned(), "old.nii".to_owned()], 1));
        assert_eq!(settled(90).1, 0);
        write(folder.path(), "done.nii", 1_000_090);
        assert_eq!(settled(90).1, 1);
        std::fs::write(folder.path().join("ct/done.nii.done"), "").unwrap();
        assert_eq!(settled(90).1, 0);
    }

    #[test]
    fn young_files_are_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(folder.path());
        write(folder.path(), "new.nii", 1_000_000);
        let changes = ScanChanges { new: plan.list(0).unwrap(), ..ScanChanges::default() };
        let warnings = |seconds| young_scans(&plan, &changes, UNIX_EPOCH + Duration::from_secs(seconds));
        assert!(warnings(1_000_059)[0].starts_with("the source `a` has 1 scan with files younger than 60 s"));
        assert!(warnings(1_000_060).is_empty());
    }
}
