//! Streaming reader of checkpoints, whose list of files may exceed memory.

use std::fmt;
use std::io::BufReader;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Counts;
use crate::error::{Error, Result};
use crate::record::{FileEntry, QualityGroup};
use crate::store::DurableStorage;
use crate::store::canonical::ItemCallback;

/// A checkpoint without its files.
#[derive(Deserialize)]
pub(super) struct CheckpointOutline {
    pub epoch: u64,
    pub commit: String,
    pub counts: Counts,
    pub quality: Vec<(QualityGroup, i64)>,
}

/// Reads all fields except the files.
pub(super) fn read_outline(store: &dyn DurableStorage, name: &str) -> Result<CheckpointOutline> {
    CheckpointOutline::deserialize(&mut open_json(store, name)?).map_err(|e| parse_error(store, name, &e))
}

/// Visits the files one by one, in their order.
pub(super) fn visit_files(store: &dyn DurableStorage, name: &str, visit: ItemCallback<'_, FileEntry>) -> Result<()> {
    let mut failure = None;
    let read = open_json(store, name)?.deserialize_map(Files { visit, failure: &mut failure });
    match failure {
        Some(error) => Err(error),
        None => read.map_err(|e| parse_error(store, name, &e)),
    }
}

type JsonReader = serde_json::Deserializer<serde_json::de::IoRead<BufReader<Box<dyn std::io::Read + Send>>>>;

fn open_json(store: &dyn DurableStorage, name: &str) -> Result<JsonReader> {
    let file =
        store.open(name)?.ok_or_else(|| Error::new(format!("expected {}, got none", store.display_path(name))))?;
    Ok(serde_json::Deserializer::from_reader(BufReader::new(file)))
}

fn parse_error(store: &dyn DurableStorage, name: &str, error: &serde_json::Error) -> Error {
    Error::new(format!("cannot parse {}: {error}", store.display_path(name))).with_hint(
        "remove the file: it was edited or written by another version, and it can be recomputed from the commits",
    )
}

/// A visitor of the field `files` of an object.
struct Files<'a, 'b> {
    visit: ItemCallback<'b, FileEntry>,
    failure: &'a mut Option<Error>,
}

impl<'de> Visitor<'de> for Files<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a checkpoint")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Files { visit, failure } = self;
        while let Some(key) = map.next_key::<String>()? {
            if key == "files" {
                map.next_value_seed(FileList { visit: &mut *visit, failure: &mut *failure })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// A visitor of the items of a list.
struct FileList<'a, 'b> {
    visit: ItemCallback<'b, FileEntry>,
    failure: &'a mut Option<Error>,
}

impl<'de> serde::de::DeserializeSeed<'de> for FileList<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for FileList<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of files")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(file) = list.next_element()? {
            if let Err(error) = (self.visit)(file) {
                *self.failure = Some(error);
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}
