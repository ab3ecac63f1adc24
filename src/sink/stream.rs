//! A stream of samples: a tar that WebDataset reads from a pipe, for trainers that read during a run.
//!
//! Bytes in a pipe cannot be withdrawn, so the stream is not part of a commit: it contains the committed samples in the order of
//! commits, and starts from the first sample after a restart. Readers recognize repeated samples by their keys.

use std::io::{self, Read, Write};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::pairs::{self, Pair, index_of};
use super::tar::TarWriter;
use super::volume_files::DEFAULT_GZIP_LEVEL;
use super::{Content, EpochStage, Layout, LayoutReport, SealedLayout, StagedSample, check_gzip_level, check_name};
use crate::error::{ConfigError, Error, Result};
use crate::record::{FileEntry, Split};
use crate::store::DurableStorage;

/// Settings of a sink of kind `stream`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StreamConfig {
    /// The split whose samples are streamed.
    pub split: Split,
    /// Gzip level of `.nii.gz` files: 1 (fast) to 9 (small). The highest level of all sinks applies to all sinks.
    pub gzip_level: u32,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self { split: Split::Train, gzip_level: DEFAULT_GZIP_LEVEL }
    }
}

/// A sink for a pipe or socket; `freetumor run PIPELINE --sink NAME` writes its samples.
pub struct StreamSink {
    name: String,
    config: StreamConfig,
}

impl StreamSink {
    /// Creates a sink.
    ///
    /// # Errors
    /// Returns every invalid setting.
    pub fn new(name: &str, config: StreamConfig) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        check_name(name, &mut errors);
        check_gzip_level(config.gzip_level, &mut errors);
        if errors.is_empty() { Ok(Self { name: name.to_owned(), config }) } else { Err(errors) }
    }

    /// Returns the split whose samples are streamed.
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

    fn project(&self, _store: &dyn DurableStorage, _index: &[FileEntry]) -> Result<LayoutReport> {
        Ok(LayoutReport::default())
    }
}

/// Reads the samples of one split from a committed list of a sink, in the order of the list.
///
/// # Errors
/// If the list cannot be read.
pub fn read_split(store: &dyn DurableStorage, index: &FileEntry, split: Split) -> Result<Vec<Pair>> {
    let mut pairs: Vec<Pair> = pairs::read_index(store, index)?;
    pairs.retain(|pair| pair.split == split);
    Ok(pairs)
}

/// A writer of samples as a tar of unlimited length.
///
/// ```
/// use freetumor::sink::stream::TarStream;
/// let mut bytes = Vec::new();
/// let mut tar = TarStream::new(&mut bytes);
/// tar.write_member("key.json", 2, &mut &b"{}"[..]).unwrap();
/// tar.finish().unwrap();
/// drop(tar);
/// assert_eq!(tar::Archive::new(&bytes[..]).entries().unwrap().count(), 1);
/// ```
pub struct TarStream<W: Write>(TarWriter<W>);

impl<W: Write> TarStream<W> {
    /// Creates a tar that is written to `out`.
    pub fn new(out: W) -> Self {
        Self(TarWriter::new(out))
    }

    /// Writes one sample: `KEY.image.nii.gz`, `KEY.json`, `KEY.label.nii.gz`. `pass` is the number of earlier passes over all samples.
    ///
    /// # Errors
    /// If the reader has closed the stream or a committed file cannot be read.
    pub fn write_sample(&mut self, store: &dyn DurableStorage, pair: &Pair, pass: u64) -> Result<(), StreamEnd> {
        let key = pair.sample_id;
        let metadata = json!({ "pass": pass, "patient_key": pair.patient_key, "sample_id": key, "split": pair.split });
        let metadata = metadata.to_string();
        self.write_file(store, &format!("{key}.image.nii.gz"), &pair.image_path(), pair.image.bytes)?;
        self.write_member(&format!("{key}.json"), metadata.len() as u64, &mut metadata.as_bytes())
            .map_err(StreamEnd::of_writing)?;
        self.write_file(store, &format!("{key}.label.nii.gz"), &pair.label_path(), pair.label.bytes)?;
        self.0.flush().map_err(StreamEnd::of_writing)
    }

    fn write_file(&mut self, store: &dyn DurableStorage, name: &str, path: &str, bytes: u64) -> Result<(), StreamEnd> {
        let file = store.open(path).map_err(StreamEnd::Failed)?;
        let mut file = file.ok_or_else(|| {
            StreamEnd::Failed(Error::new(format!("expected the committed file {}, got none", store.display_path(path))))
        })?;
        let mut content = CountedRead { content: &mut file, bytes: 0, error: None };
        let written = self.write_member(name, bytes, &mut content);
        let unreadable = |message: String| StreamEnd::Failed(Error::new(message));
        match (written, content.error) {
            (Err(_), Some(cause)) => Err(unreadable(format!("cannot read {}: {cause}", store.display_path(path)))),
            // The writer asks for the byte after the last one, so that a file that is too long counts as well.
            (Err(cause), None) if cause.kind() == io::ErrorKind::Other && content.bytes != bytes => {
                Err(unreadable(format!(
                    "expected {bytes} bytes in the committed file {}, got another length",
                    store.display_path(path)
                )))
            }
            (written, _) => written.map_err(StreamEnd::of_writing),
        }
    }

    /// Writes one member of `bytes` bytes; equal members have equal bytes.
    ///
    /// # Errors
    /// If the name is longer than tar allows, `content` cannot be read or has another length, or the reader has closed the stream.
    pub fn write_member(&mut self, name: &str, bytes: u64, content: &mut dyn Read) -> io::Result<()> {
        self.0.append(name, bytes, content)
    }

    /// Writes the end of the tar.
    ///
    /// # Errors
    /// If the reader has closed the stream.
    pub fn finish(&mut self) -> io::Result<()> {
        self.0.finish()
    }
}

/// The reason why a stream ended.
#[derive(Debug)]
pub enum StreamEnd {
    /// The reader closed the stream.
    Closed(io::Error),
    /// A file to be streamed cannot be read, or the stream cannot be written for another reason than its reader, such as a full disk.
    Failed(Error),
}

impl StreamEnd {
    /// Returns the reason for an error of writing to the stream.
    pub fn of_writing(cause: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        match cause.kind() {
            BrokenPipe | ConnectionAborted | ConnectionReset => Self::Closed(cause),
            _ => Self::Failed(Error::new(format!("cannot write the stream: {cause}")).with_source(cause)),
        }
    }
}

/// A reader that records its first error and the number of bytes, to distinguish errors of reading from errors of writing.
struct CountedRead<'a> {
    content: &'a mut dyn Read,
    bytes: u64,
    error: Option<io::Error>,
}

impl Read for CountedRead<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.content.read(buffer) {
            Ok(count) => {
                self.bytes += count as u64;
                Ok(count)
            }
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => Err(cause),
            Err(cause) => {
                let kind = cause.kind();
                self.error.get_or_insert(cause);
                Err(kind.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{PatientKey, SampleId};
    use crate::store::{DurableFolder, FileDigest};

    /// A pipe with a limited space, which then fails.
    struct Limited(usize, io::ErrorKind);

    impl Write for Limited {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(self.1)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_a_closed_reader_ends_the_stream_without_error() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableFolder::local(folder.path());
        let pair = Pair {
            sample_id: "0123456789abcdef".parse::<SampleId>().unwrap(),
            patient_key: "0123456789abcdef".parse::<PatientKey>().unwrap(),
            split: Split::Train,
            image: FileDigest::of(b"image"),
            label: FileDigest::of(b"label"),
        };
        let write = |content: &[u8], out: Limited| {
            for path in [pair.image_path(), pair.label_path()] {
                let path = folder.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, content).unwrap();
            }
            TarStream::new(out).write_sample(&store, &pair, 0)
        };
        let wide = || Limited(1 << 20, io::ErrorKind::BrokenPipe);
        write(b"image", wide()).unwrap();
        assert!(matches!(write(b"image", Limited(700, io::ErrorKind::BrokenPipe)), Err(StreamEnd::Closed(_))));
        let failed = |result| match result {
            Err(StreamEnd::Failed(error)) => error.to_string(),
            other => panic!("expected an error, got {other:?}"),
        };
        let message = failed(write(b"image", Limited(700, io::ErrorKind::StorageFull)));
        assert!(message.contains("cannot write the stream"), "{message}");
        for content in [&b"imag"[..], b"images"] {
            let message = failed(write(content, wide()));
            assert!(message.contains("expected 5 bytes in the committed file"), "{message}");
        }
    }
}
