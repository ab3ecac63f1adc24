//! A stream of samples: the tar that WebDataset reads from a pipe, for trainers that read while a run goes on.
//!
//! What goes into a pipe cannot be taken back, so the stream is no part of a commit: it says what is committed, in the order of commits,
//! and says it again from the start after a restart. Readers tell repeated samples by their keys.

use std::io::{self, Read, Write};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::pairs::{self, Pair, index_of};
use super::tar::TarWriter;
use super::volume_files::DEFAULT_GZIP_LEVEL;
use super::{Content, EpochStage, Layout, SealedLayout, StagedSample, check_gzip_level, check_name};
use crate::error::{ConfigError, Error, Result};
use crate::record::{FileEntry, Split};
use crate::store::Durable;

/// Settings of a sink of kind `stream`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StreamConfig {
    /// Whose samples are streamed: patients of this part of the training set.
    pub split: Split,
    /// How hard `.nii.gz` files are compressed: 1 (fast) to 9 (small). The highest of all sinks holds for all.
    pub gzip_level: u32,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self { split: Split::Train, gzip_level: DEFAULT_GZIP_LEVEL }
    }
}

/// Samples for a pipe or a socket: `freetumor run PIPELINE --sink NAME` writes them.
pub struct StreamSink {
    name: String,
    config: StreamConfig,
}

impl StreamSink {
    /// A sink.
    ///
    /// # Errors
    /// Every bad setting.
    pub fn new(name: &str, config: StreamConfig) -> Result<Self, Vec<ConfigError>> {
        let mut complaints = Vec::new();
        check_name(name, &mut complaints);
        check_gzip_level(config.gzip_level, &mut complaints);
        if complaints.is_empty() { Ok(Self { name: name.to_owned(), config }) } else { Err(complaints) }
    }

    /// The split whose samples are streamed.
    pub fn split(&self) -> Split {
        self.config.split
    }
}

impl Layout for StreamSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn index(&self) -> String {
        index_of(&self.name)
    }

    fn content(&self) -> Content {
        Content::Volumes { gzip_level: self.config.gzip_level }
    }

    fn seal(&self, stage: &EpochStage<'_>, samples: &[StagedSample]) -> Result<SealedLayout> {
        pairs::seal(stage, &self.name, samples)
    }

    fn project(&self, _store: &dyn Durable, _index: &[FileEntry]) -> Result<()> {
        Ok(())
    }
}

/// The samples of one split that a committed list of a sink names, in its order.
///
/// # Errors
/// Where the list cannot be read.
pub fn listed_in(store: &dyn Durable, index: &FileEntry, split: Split) -> Result<Vec<Pair>> {
    let mut pairs: Vec<Pair> = pairs::read_index(store, index)?;
    pairs.retain(|pair| pair.split == split);
    Ok(pairs)
}

/// Writes samples as an endless tar.
///
/// ```
/// use freetumor::sink::stream::TarStream;
/// let mut bytes = Vec::new();
/// let mut tar = TarStream::new(&mut bytes);
/// tar.member("key.json", 2, &mut &b"{}"[..]).unwrap();
/// tar.finish().unwrap();
/// drop(tar);
/// assert_eq!(tar::Archive::new(&bytes[..]).entries().unwrap().count(), 1);
/// ```
pub struct TarStream<W: Write>(TarWriter<W>);

impl<W: Write> TarStream<W> {
    /// A tar that goes to `out`.
    pub fn new(out: W) -> Self {
        Self(TarWriter::new(out))
    }

    /// Writes one sample: `KEY.image.nii.gz`, `KEY.json`, `KEY.label.nii.gz`. `pass` counts how often all samples were written before.
    ///
    /// # Errors
    /// Where the reader has closed the stream, or a committed file is gone.
    pub fn sample(&mut self, store: &dyn Durable, pair: &Pair, pass: u64) -> Result<(), StreamEnd> {
        let key = pair.sample_id;
        let about = json!({ "pass": pass, "patient_key": pair.patient_key, "sample_id": key, "split": pair.split });
        let about = about.to_string();
        self.file(store, &format!("{key}.image.nii.gz"), &pair.image_path(), pair.image.bytes)?;
        self.member(&format!("{key}.json"), about.len() as u64, &mut about.as_bytes()).map_err(StreamEnd::Closed)?;
        self.file(store, &format!("{key}.label.nii.gz"), &pair.label_path(), pair.label.bytes)?;
        self.0.flush().map_err(StreamEnd::Closed)
    }

    fn file(&mut self, store: &dyn Durable, name: &str, path: &str, bytes: u64) -> Result<(), StreamEnd> {
        let file = store.open(path).map_err(StreamEnd::Lost)?;
        let mut file = file
            .ok_or_else(|| StreamEnd::Lost(Error::new(format!("{} is committed and not there", store.place(path)))))?;
        self.member(name, bytes, &mut file).map_err(StreamEnd::Closed)
    }

    /// Writes one member; equal members have equal bytes.
    ///
    /// # Errors
    /// Where the reader has closed the stream.
    pub fn member(&mut self, name: &str, bytes: u64, content: &mut dyn Read) -> io::Result<()> {
        self.0.append(name, bytes, content)
    }

    /// Writes the end of the tar.
    ///
    /// # Errors
    /// Where the reader has closed the stream.
    pub fn finish(&mut self) -> io::Result<()> {
        self.0.finish()
    }
}

/// Why a stream ended.
#[derive(Debug)]
pub enum StreamEnd {
    /// Nobody reads any more.
    Closed(io::Error),
    /// What should be streamed cannot be read.
    Lost(Error),
}
