//! The members of an archive, and the members that are refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::names::path_of_name;
use super::stream::Expansion;
use crate::error::{Fault, FaultKind};
use crate::ingest::key::{encoded, key_of};
use crate::ingest::version::FileState;

/// The limits of listing an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListingLimits {
    /// Maximum number of members.
    pub members: usize,
    /// The limit on the expansion of compressed data.
    pub expansion: Expansion,
}

/// A file in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// The length.
    pub bytes: u64,
    /// In tar, the first bytes of the SHA-256 of the content; in zip, its CRC-32.
    pub content: u128,
    /// The location of the content.
    pub location: Location,
}

impl Member {
    /// Returns the state of the member, from which the version of a scan is computed.
    pub fn state(&self) -> FileState {
        FileState::Member { bytes: self.bytes, content: self.content }
    }
}

/// The location of the content of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// Offset of the content in the decompressed tar.
    Tar { offset: u64 },
    /// Offset of the local header in the zip file, and the length of the compressed content.
    Zip { header: u64, packed: u64, is_deflated: bool },
}

impl Location {
    /// Returns the offset, which is the order in which members are read.
    pub fn offset(&self) -> u64 {
        match *self {
            Self::Tar { offset } | Self::Zip { header: offset, .. } => offset,
        }
    }
}

/// The members of an archive.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Contents {
    members: BTreeMap<PathBuf, Member>,
    /// The refused members with their faults, by the name of the member, with invalid bytes escaped.
    pub refused: BTreeMap<String, Refusal>,
    /// The fault of the archive itself, if it is damaged.
    pub damage: Option<Fault>,
    /// The folder of the last member before the damage: later members of the folder may be lost.
    pub last_folder: Option<PathBuf>,
    /// Number of members, including refused ones.
    count: usize,
}

/// A member that is refused.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    /// The path, if the name is a valid path below the archive.
    pub path: Option<PathBuf>,
    /// The fault of reading the member.
    pub fault: Fault,
}

impl Contents {
    /// Sets the fault of the archive itself.
    pub fn with_damage(self, damage: impl Into<Option<Fault>>) -> Self {
        Self { damage: damage.into(), ..self }
    }

    /// Returns the members by path, sorted.
    pub fn members(&self) -> impl Iterator<Item = (&Path, &Member)> {
        self.members.iter().map(|(path, member)| (path.as_path(), member))
    }

    /// Returns the member at a path, or `None` if the archive has no such member.
    pub fn member(&self, path: &Path) -> Option<&Member> {
        self.members.get(path)
    }

    /// Returns the members in a folder, without its subfolders.
    pub fn members_in<'a>(&'a self, folder: &'a Path) -> impl Iterator<Item = (&'a Path, &'a Member)> {
        self.members_below(folder).filter(move |(path, _)| path.parent() == Some(folder))
    }

    /// Returns the members below a folder.
    pub fn members_below<'a>(&'a self, folder: &'a Path) -> impl Iterator<Item = (&'a Path, &'a Member)> {
        let rest = self.members.range::<Path, _>((std::ops::Bound::Included(folder), std::ops::Bound::Unbounded));
        // Paths are sorted by components: those below a folder follow it.
        rest.map(|(path, member)| (path.as_path(), member)).take_while(move |(path, _)| path.starts_with(folder))
    }

    /// Returns the refusal of the member at a path, or `None` if the archive has no such refusal.
    pub fn refusal(&self, path: &Path) -> Option<&Refusal> {
        self.refused.get(&key_of(path))
    }

    /// Returns the files that are missing in a DICOM folder: refused members, and a name for those that damage may have removed.
    pub fn missing_in(&self, folder: &Path) -> Vec<PathBuf> {
        let start = key_of(folder) + if folder.as_os_str().is_empty() { "" } else { "/" };
        let refused = self.refused.range(start.clone()..).take_while(|(key, _)| key.starts_with(&start));
        let refused = refused.filter_map(|(_, refusal)| refusal.path.clone());
        let mut missing: Vec<PathBuf> = refused.filter(|path| path.parent() == Some(folder)).collect();
        if self.damage.is_some() && self.last_folder.as_deref() == Some(folder) {
            missing.push(folder.join("members after the damage"));
        }
        missing.retain(|path| !self.members.contains_key(path));
        missing
    }

    /// Counts a member before its content is read.
    ///
    /// # Errors
    /// Returns the fault of an archive with too many members.
    pub fn start_member(&mut self, name: &[u8], limits: &ListingLimits) -> Result<(), Fault> {
        if let Ok(path) = path_of_name(name) {
            self.last_folder = path.parent().map(Path::to_owned);
        }
        if self.count == limits.members {
            let message =
                format!("expected an archive of at most {} members (`max_members`), got more", limits.members);
            return Err(Fault::read(FaultKind::TooLarge, message));
        }
        self.count += 1;
        Ok(())
    }

    /// Adds a member, or a refusal if its name is not a path below the archive. A later member replaces an earlier one with the same name,
    /// as programs that unpack archives do.
    pub fn add(&mut self, name: &[u8], member: Member) {
        match path_of_name(name) {
            Ok(path) if path.as_os_str().is_empty() => self.refuse_name(name, "a file without a name"),
            Ok(path) => {
                self.refused.remove(&key_of(&path));
                self.members.insert(path, member);
            }
            Err(reason) => self.refuse_name(name, reason),
        }
    }

    fn refuse_name(&mut self, name: &[u8], got: &str) {
        let message = format!("expected a member with a path below the archive, got {got}");
        self.refuse(name, Fault::read(FaultKind::Unsupported, message));
    }

    /// Adds a member that is refused for its fault.
    pub fn refuse(&mut self, name: &[u8], fault: Fault) {
        let path = path_of_name(name).ok().filter(|path| !path.as_os_str().is_empty());
        if let Some(path) = &path {
            self.members.remove(path);
        }
        let key = path.as_ref().map_or_else(|| encoded(name), |path| key_of(path));
        self.refused.insert(key, Refusal { path, fault });
    }

    /// Refuses every member: damage may be in any of them.
    pub fn refuse_all(&mut self, fault: &Fault) {
        for path in std::mem::take(&mut self.members).into_keys() {
            let refusal = Refusal { path: Some(path.clone()), fault: fault.clone() };
            self.refused.insert(key_of(&path), refusal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(offset: u64) -> Member {
        Member { bytes: 1, content: 2, location: Location::Tar { offset } }
    }

    #[test]
    fn members_are_found_by_folder() {
        let mut contents = Contents::default();
        for name in ["a/1", "a-b/2", "a/c/3", "a.x", "b/4", "5"] {
            contents.add(name.as_bytes(), member(0));
        }
        let paths = |members: Vec<(&Path, &Member)>| {
            members.into_iter().map(|(path, _)| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(paths(contents.members_in(Path::new("a")).collect()), ["a/1"]);
        assert_eq!(paths(contents.members_below(Path::new("a")).collect()), ["a/1", "a/c/3"]);
        assert_eq!(paths(contents.members_in(Path::new("")).collect()), ["5", "a.x"]);
    }

    #[test]
    fn later_member_replaces_earlier_one() {
        let mut contents = Contents::default();
        contents.add(b"a", member(1));
        contents.add(b"./a", member(2));
        assert_eq!(contents.member(Path::new("a")), Some(&member(2)));
        contents.refuse(b"a", Fault::read(FaultKind::Unsupported, "a link"));
        assert!(contents.member(Path::new("a")).is_none() && contents.refused.len() == 1);
        contents.add(b"a", member(3));
        assert!(contents.member(Path::new("a")).is_some() && contents.refused.is_empty());
        contents.add(b"../a", member(4));
        assert!(contents.refused["../a"].fault.message.ends_with("got a path with `..`"));
    }
}
