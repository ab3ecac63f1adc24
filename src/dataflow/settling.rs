//! Scans whose files may still be written: a run that follows its sources processes a scan when its files have not changed for the time
//! `settle`.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::graph::Plan;
use crate::id::{ScanId, ScanVersion};
use crate::ingest::ScanEntry;

use super::changes::{RunScans, ScanChanges};

/// Time without changes of a source that does not set `settle`.
const DEFAULT_SETTLE: Duration = Duration::from_secs(120);

/// The versions of new and changed scans, by which a scan is complete if its version has not changed for a while.
#[derive(Debug, Default)]
pub(super) struct SettlingScans {
    /// The version of each scan that is not processed, and when this version was first listed.
    listed: HashMap<ScanId, ListedVersion>,
    /// The scans that are no longer listed, and since when.
    missing: HashMap<ScanId, Instant>,
    /// Whether this is not the first listing.
    has_listed: bool,
}

/// A version of a scan.
#[derive(Clone, Copy, Debug)]
struct ListedVersion {
    version: ScanVersion,
    since: Instant,
    is_complete: bool,
}

impl SettlingScans {
    /// Removes the scans from `changes` that may still be written or moved, and returns their number. `now` and `clock` are the time by a
    /// monotonic clock and by the clock of the files, whose times count only in the first listing: files may be copied with their times.
    pub fn delay(
        &mut self,
        plan: &Plan,
        scans: &RunScans,
        changes: &mut ScanChanges,
        now: Instant,
        clock: SystemTime,
    ) -> usize {
        let settle_of = |source: &str| {
            let source = plan.source_index(source).map(|index| &plan.sources[index].source);
            source.and_then(|source| source.settle()).unwrap_or(DEFAULT_SETTLE)
        };
        let (mut listed, mut delayed) = (HashMap::new(), HashSet::new());
        let mut is_complete = |entry: &ScanEntry, is_new: bool| {
            let source = plan.source_index(&entry.source).map(|index| &plan.sources[index].source);
            let settle = settle_of(&entry.source);
            let earlier = self.listed.get(&entry.scan_id).filter(|earlier| earlier.version == entry.version);
            let since = earlier.map_or(now, |earlier| earlier.since);
            let is_old = is_new && !self.has_listed && age(entry, clock).is_some_and(|age| age >= settle);
            let is_complete = earlier.is_some_and(|earlier| earlier.is_complete)
                || is_old
                || now.duration_since(since) >= settle
                || source.is_none_or(|source| source.is_complete(entry));
            listed.insert(entry.scan_id, ListedVersion { version: entry.version, since, is_complete });
            if !is_complete {
                delayed.insert(entry.scan_id);
            }
            is_complete
        };
        changes.new.retain(|entry| is_complete(entry, true));
        changes.changed.retain(|entry| is_complete(entry, false));
        // A duplicate waits for its original.
        changes.duplicates.retain(|(original, _)| !delayed.contains(original));
        let mut missing = HashMap::new();
        changes.gone.retain(|scan_id| {
            let since = *self.missing.get(scan_id).unwrap_or(&now);
            missing.insert(*scan_id, since);
            let source = scans.ingested.get(scan_id).map_or("", |entry| entry.source.as_str());
            let is_gone = now.duration_since(since) >= settle_of(source);
            if !is_gone {
                delayed.insert(*scan_id);
            }
            is_gone
        });
        *self = Self { listed, missing, has_listed: true };
        delayed.len()
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
             [stages.v]\nkind = 'intensity'\ninputs = ['t']\n[stages.f]\nkind = 'quality-test'\ninputs = ['v']\n[sinks.s]\nkind = 'patches'\ninputs = ['f']\n";
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
        let mut settling = SettlingScans::default();
        let mut complete = |seconds: u64| {
            let mut changes = ScanChanges { new: plan.list(0).unwrap(), ..ScanChanges::default() };
            let now = start + Duration::from_secs(seconds);
            let waiting = settling.delay(&plan, &RunScans::default(), &mut changes, now, clock(1_000_000 + seconds));
            (changes.new.iter().map(|entry| entry.key.clone()).collect::<Vec<_>>(), waiting)
        };
        write(folder.path(), "old.nii", 999_900);
        write(folder.path(), "new.nii", 1_000_000);
        // A clock was wrong: the time of the file shows nothing.
        write(folder.path(), "future.nii", 2_000_000);
        assert_eq!(complete(0), (vec!["old.nii".to_owned()], 2));
        write(folder.path(), "new.nii", 1_000_030);
        // Copied with its old time.
        write(folder.path(), "copied.nii", 900_000);
        assert_eq!(complete(30), (vec!["old.nii".to_owned()], 3));
        assert_eq!(complete(60), (vec!["future.nii".to_owned(), "old.nii".to_owned()], 2));
        assert_eq!(complete(90).1, 0);
        // A complete scan that waits for others of its epoch stays complete.
        assert_eq!(complete(91).0.len(), 4);
        write(folder.path(), "done.nii", 1_000_090);
        assert_eq!(complete(92).1, 1);
        std::fs::write(folder.path().join("ct/done.nii.done"), "").unwrap();
        assert_eq!(complete(93).1, 0);
    }

    #[test]
    fn moved_scan_and_duplicates_of_an_incomplete_scan_wait() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(folder.path());
        write(folder.path(), "a.nii", 1_000_000);
        write(folder.path(), "b.nii", 1_000_000);
        let entries = plan.list(0).unwrap();
        let (start, mut settling) = (Instant::now(), SettlingScans::default());
        let mut delayed = |seconds| {
            let mut changes = ScanChanges {
                changed: vec![entries[0].clone()],
                duplicates: vec![(entries[0].scan_id, entries[1].clone())],
                gone: vec![ScanId::from_bytes([7; 8])],
                ..ScanChanges::default()
            };
            let now = start + Duration::from_secs(seconds);
            settling.delay(&plan, &RunScans::default(), &mut changes, now, UNIX_EPOCH + Duration::from_secs(2_000_000));
            (changes.changed.len(), changes.duplicates.len(), changes.gone.len())
        };
        assert_eq!(delayed(0), (0, 0, 0));
        assert_eq!(delayed(61), (1, 1, 0), "the source of the missing scan has the default of 120 s");
        assert_eq!(delayed(121), (1, 1, 1));
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
