//! Reading a checkpoint whose list of files may be longer than memory.

use std::fmt;
use std::io::BufReader;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Counts;
use crate::error::{Error, Result};
use crate::record::FileEntry;
use crate::store::Durable;
use crate::store::canonical::Visit;

/// A checkpoint without its files.
#[derive(Deserialize)]
pub(super) struct CheckpointOutline {
    pub epoch: u64,
    pub commit: String,
    pub counts: Counts,
}

/// Reads everything but the files.
pub(super) fn outline_of(store: &dyn Durable, name: &str) -> Result<CheckpointOutline> {
    CheckpointOutline::deserialize(&mut reading(store, name)?).map_err(|e| unlike(store, name, &e))
}

/// Hands on the files one by one, in their order.
pub(super) fn files_of(store: &dyn Durable, name: &str, take: Visit<'_, FileEntry>) -> Result<()> {
    let mut failed = None;
    let read = reading(store, name)?.deserialize_map(Files { take, failed: &mut failed });
    match failed {
        Some(error) => Err(error),
        None => read.map_err(|e| unlike(store, name, &e)),
    }
}

type Reading = serde_json::Deserializer<serde_json::de::IoRead<BufReader<Box<dyn std::io::Read + Send>>>>;

fn reading(store: &dyn Durable, name: &str) -> Result<Reading> {
    let file =
        store.open(name)?.ok_or_else(|| Error::new(format!("expected {}, there is none", store.display_path(name))))?;
    Ok(serde_json::Deserializer::from_reader(BufReader::new(file)))
}

fn unlike(store: &dyn Durable, name: &str, error: &serde_json::Error) -> Error {
    Error::new(format!("{} is not as freetumor writes it: {error}", store.display_path(name)))
        .with_hint("it was changed by hand or written by another version; without it commits are read from the first")
}

/// Looks into the field `files` of an object.
struct Files<'a, 'b> {
    take: Visit<'b, FileEntry>,
    failed: &'a mut Option<Error>,
}

impl<'de> Visitor<'de> for Files<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a checkpoint")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Files { take, failed } = self;
        while let Some(key) = map.next_key::<String>()? {
            if key == "files" {
                map.next_value_seed(Each { take: &mut *take, failed: &mut *failed })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Hands on the items of a list.
struct Each<'a, 'b> {
    take: Visit<'b, FileEntry>,
    failed: &'a mut Option<Error>,
}

impl<'de> serde::de::DeserializeSeed<'de> for Each<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Each<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of files")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(file) = list.next_element()? {
            if let Err(error) = (self.take)(file) {
                *self.failed = Some(error);
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}
