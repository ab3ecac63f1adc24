//! Tags of a run folder: a tag names the state after a commit.
//!
//! `RUN/tags/NAME.json` is created once and never changes. The state that a tag names can be read until the state is purged.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{RunFolder, RunWriter};
use crate::error::{Error, ErrorKind, Result};
use crate::store::canonical;

/// The folder of tags.
const TAGS: &str = "tags";

/// Maximum length of a name.
const MAX_NAME_BYTES: usize = 100;

/// A tag, the content of `tags/NAME.json`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// The name.
    pub name: TagName,
    /// The epoch whose commit the tag names.
    pub epoch: u64,
    /// SHA-256 of the commit.
    pub commit: String,
}

/// The name of a tag: letters, digits, `.`, `_` and `-`, not only digits.
///
/// ```
/// use freetumor::run::TagName;
/// assert!("v1".parse::<TagName>().is_ok());
/// assert!("12".parse::<TagName>().is_err());
/// assert!("../v1".parse::<TagName>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TagName(String);

impl FromStr for TagName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_plain = name.len() <= MAX_NAME_BYTES && name.bytes().all(is_valid) && !name.starts_with(['.', '-']);
        // A number is that of a commit.
        if is_plain && !name.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self(name.to_owned()));
        }
        let message = format!("expected a name of letters, digits, `.`, `_` and `-`, not only digits, got {name:?}");
        Err(Error::new(message).with_hint("for example v1 or 2026-spring"))
    }
}

impl TryFrom<String> for TagName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        name.parse()
    }
}

impl From<TagName> for String {
    fn from(name: TagName) -> Self {
        name.0
    }
}

impl fmt::Display for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A state of a run folder, by the number of a commit or by a tag.
///
/// ```
/// use freetumor::run::Revision;
/// assert_eq!("12".parse::<Revision>()?, Revision::Commit(12));
/// assert!(matches!("v1".parse::<Revision>()?, Revision::Tag(_)));
/// # Ok::<(), freetumor::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revision {
    /// The state after this commit.
    Commit(u64),
    /// The state that a tag names.
    Tag(TagName),
}

impl FromStr for Revision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(Self::Commit).or_else(|_| text.parse().map(Self::Tag))
    }
}

impl RunFolder {
    /// Returns the number of the commit of a state.
    ///
    /// # Errors
    /// If the tag does not exist, or names a commit that the folder does not have.
    pub fn epoch_at(&self, at: &Revision) -> Result<u64> {
        let name = match at {
            Revision::Commit(epoch) => return Ok(*epoch),
            Revision::Tag(name) => name,
        };
        let path = tag_path(name);
        let text = self.store().read(&path)?.ok_or_else(|| self.unknown_tag(name))?;
        let tag: Tag = canonical::parse(&text, &self.store().display_path(&path))?;
        // Before the base, commits are purged, which the caller reports.
        if self.base().is_none_or(|base| tag.epoch > base.epoch) && self.commit(tag.epoch)?.1 != tag.commit {
            return Err(Error::new(format!(
                "the digest of commit {} in the tag {name} differs from that in the run folder",
                tag.epoch
            ))
            .with_hint("the run folder was mixed with another one: restore it from a copy"));
        }
        Ok(tag.epoch)
    }

    /// Returns all tags, sorted by name.
    ///
    /// # Errors
    /// If a tag cannot be read.
    pub fn tags(&self) -> Result<Vec<Tag>> {
        let mut tags = Vec::new();
        for name in self.store().list(TAGS)?.into_iter().filter(|name| name.ends_with(".json")) {
            let path = format!("{TAGS}/{name}");
            if let Some(text) = self.store().read(&path)? {
                tags.push(canonical::parse(&text, &self.store().display_path(&path))?);
            }
        }
        tags.sort();
        Ok(tags)
    }

    fn unknown_tag(&self, name: &TagName) -> Error {
        let names: Vec<String> = self.tags().unwrap_or_default().into_iter().map(|tag| tag.name.to_string()).collect();
        let hint = match &names[..] {
            [] => "the run folder has no tags: create one with `freetumor tag`".to_owned(),
            names => format!("the tags are {}", names.join(", ")),
        };
        Error::new(format!("expected a commit or tag of the run folder, got {name}")).with_hint(hint)
    }
}

impl RunWriter {
    /// Creates a tag that names the state after the last commit.
    ///
    /// # Errors
    /// If there is no commit, an expectation of the graph fails, or the tag names another state.
    pub fn tag(&self, name: &TagName) -> Result<Tag> {
        let head = self.head();
        let Some(epoch) = head.epoch else {
            let error = Error::new("expected a run folder with a commit, got none").with_kind(ErrorKind::Refused);
            return Err(error.with_hint("run the pipeline first"));
        };
        self.folder().require_expectations()?;
        let tag = Tag { name: name.clone(), epoch, commit: head.sha256.clone() };
        let (store, path) = (self.folder().store(), tag_path(name));
        if let Some(text) = store.read(&path)? {
            let existing: Tag = canonical::parse(&text, &store.display_path(&path))?;
            if existing != tag {
                let message = format!("the tag {name} names commit {}, not commit {epoch}", existing.epoch);
                let hint = "tags never change: choose another name";
                return Err(Error::new(message).with_kind(ErrorKind::Refused).with_hint(hint));
            }
        }
        store.create(&path, &canonical::pretty(&tag)?)?;
        Ok(tag)
    }
}

fn tag_path(name: &TagName) -> String {
    format!("{TAGS}/{name}.json")
}
