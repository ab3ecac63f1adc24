//! Export of tar shards of whole volumes or patches, by epoch, split and bucket of patients, with one index per split.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use super::options::ExportJob;
use super::parallel;
use super::report::{ExportReport, Refusal};
use super::scans::{ScanReader, read_patch, read_patch_bytes};
use super::select::SelectedSample;
use super::target::{JournalEntry, Target};
use crate::error::{Error, Result};
use crate::id::{PatientKey, SampleId, ScanId};
use crate::record::Split;
use crate::sink::shards::{Shard, describe, file_name, label, write_archive};
use crate::sink::tar::TarWriter;
use crate::sink::{BUCKETS, PATCHES, WebDatasetConfig, append_sample};
use crate::store::ContentWriter;
use crate::store::canonical::ItemCallback;

/// The samples of a shard: one epoch, split and bucket of patients.
struct ShardSamples<'a> {
    epoch: u64,
    label: String,
    split: Split,
    /// Sorted by id.
    samples: Vec<&'a SelectedSample>,
}

impl ShardSamples<'_> {
    fn key(&self) -> String {
        format!("{}-{}", self.epoch, self.label)
    }
}

/// The result of one shard.
struct ShardFile {
    /// `None` if no sample of the shard could be exported.
    done: Option<JournalEntry>,
    was_kept: bool,
    scans_read: usize,
    refused: Vec<Refusal>,
}

type Archive<'a> = TarWriter<&'a mut dyn Write>;

/// Exports shards of whole volumes.
pub(super) fn write_volumes(
    job: &ExportJob<'_>,
    target: &Target,
    name: &str,
    config: &WebDatasetConfig,
    reader: &ScanReader,
) -> Result<ExportReport> {
    write(job, target, name, config.buckets, &|shard| {
        let scratch = target.scratch()?;
        let mut by_scan: BTreeMap<ScanId, Vec<&SelectedSample>> = BTreeMap::new();
        for &sample in &shard.samples {
            by_scan.entry(sample.record.scan_id).or_default().push(sample);
        }
        let file = |id: SampleId, kind: &str| scratch.path().join(format!("{id}.{kind}"));
        let (mut written, mut refused) = (Vec::new(), Vec::new());
        let mut scans_read = 0;
        for samples in by_scan.into_values() {
            let refused_before = refused.len();
            refused.extend(reader.each_volume(
                job.run,
                &samples,
                config.gzip_level,
                &mut |sample, encoder, patch| {
                    let id = sample.record.sample_id;
                    let boxes = patch.overlays();
                    write_file(&file(id, "image"), |out| encoder.write_image(&boxes, out))?;
                    write_file(&file(id, "label"), |out| encoder.write_label(&boxes, out))?;
                    written.push(id);
                    Ok(())
                },
            )?);
            scans_read += usize::from(refused.len() == refused_before);
        }
        written.sort_unstable();
        let samples = shard.samples.iter().copied();
        let samples: Vec<_> =
            samples.filter(|sample| written.binary_search(&sample.record.sample_id).is_ok()).collect();
        let done = write_shard(target, name, shard, &samples, |archive, sample| {
            let open = |kind| File::open(file(sample.record.sample_id, kind));
            let (mut image, mut label) = (open("image")?, open("label")?);
            let lengths = (image.metadata()?.len(), label.metadata()?.len());
            append_sample(archive, &sample.record, &sample.others, (lengths.0, &mut image), (lengths.1, &mut label))
        })?;
        Ok(ShardFile { done, was_kept: false, scans_read, refused })
    })
}

/// Exports shards of patches; no scan is read.
pub(super) fn write_patches(job: &ExportJob<'_>, target: &Target, name: &str) -> Result<ExportReport> {
    write(job, target, name, BUCKETS, &|shard| {
        let done = write_shard(target, PATCHES, shard, &shard.samples, |archive, sample| {
            // Decode the patch first, so that no damaged patch is exported.
            let patch = read_patch(job.run, sample).and_then(|_| read_patch_bytes(job.run, sample));
            let patch = patch.map_err(io::Error::other)?;
            archive.append_part(patch.len() as u64, &mut &patch[..])
        })?;
        Ok(ShardFile { done, was_kept: false, scans_read: 0, refused: Vec::new() })
    })
}

/// Exports all shards, with `make` for those that do not exist, and finally the indexes.
fn write(
    job: &ExportJob<'_>,
    target: &Target,
    name: &str,
    buckets: u32,
    make: &(dyn Fn(&ShardSamples<'_>) -> Result<ShardFile> + Sync),
) -> Result<ExportReport> {
    let mut shards: BTreeMap<(u64, String), ShardSamples<'_>> = BTreeMap::new();
    for sample in job.samples {
        let (epoch, split) = (sample.record.epoch, sample.record.split);
        let label = label(split, sample.record.patient_key, buckets);
        let shard = shards.entry((epoch, label.clone()));
        shard.or_insert_with(|| ShardSamples { epoch, label, split, samples: Vec::new() }).samples.push(sample);
    }
    let shards: Vec<ShardSamples<'_>> = shards.into_values().collect();
    let files = parallel::map(&shards, job.threads, |shard| {
        let ids = shard.samples.iter().map(|sample| sample.record.sample_id);
        // A shard whose earlier export lacks samples is written again.
        let kept = target.kept(&shard.key())?.filter(|done| done.members.iter().map(|member| member.key).eq(ids));
        match kept {
            Some(done) => {
                Ok(ShardFile { done: Some(done.clone()), was_kept: true, scans_read: 0, refused: Vec::new() })
            }
            None => make(shard),
        }
    })?;
    let (mut report, mut done, mut index) = (ExportReport::default(), Vec::new(), Vec::new());
    for (shard, file) in shards.iter().zip(files) {
        report.scans_read += file.scans_read;
        report.refused.extend(file.refused);
        let Some(of_shard) = file.done else { continue };
        report.add_files(&of_shard, file.was_kept);
        of_shard.members.iter().for_each(|_| report.add_sample(shard.split));
        index.push(to_shard(shard.split, &of_shard)?);
        done.push(of_shard);
    }
    index.sort_by(|a: &Shard, b| a.file().cmp(b.file()));
    let write = |name: &str, fill: ContentWriter<'_>| target.write(name, fill).map(drop);
    describe(name, &write, &|visit: ItemCallback<'_, Shard>| index.iter().cloned().try_for_each(visit))?;
    target.finish(&done)?;
    Ok(report)
}

/// Writes and records one shard; `None` if `samples` is empty. `table` is part of the file name.
fn write_shard(
    target: &Target,
    table: &str,
    shard: &ShardSamples<'_>,
    samples: &[&SelectedSample],
    append: impl Fn(&mut Archive<'_>, &SelectedSample) -> io::Result<()>,
) -> Result<Option<JournalEntry>> {
    if samples.is_empty() {
        return Ok(None);
    }
    let records = samples.iter().map(|sample| &sample.record).enumerate();
    let keys: Vec<(usize, SampleId, PatientKey)> =
        records.map(|(index, record)| (index, record.sample_id, record.patient_key)).collect();
    let fill = |out: &mut dyn Write| write_archive(out, &keys, |archive, index| append(archive, samples[index]));
    let name = |digest: &crate::store::FileDigest| file_name(shard.epoch, table, &shard.label, &digest.sha256);
    let (file, members) = target.write_named(shard.split.name(), fill, name)?;
    let done = JournalEntry { key: shard.key(), files: vec![file], members };
    target.record(&done)?;
    Ok(Some(done))
}

fn to_shard(split: Split, done: &JournalEntry) -> Result<Shard> {
    let [file] = &done.files[..] else {
        return Err(Error::new(format!("unexpected line for `{}` in the journal of the export", done.key)));
    };
    let (path, digest) = (file.path.clone(), file.digest.clone());
    Ok(Shard { path, split, bytes: digest.bytes, sha256: digest.sha256, samples: done.members.clone() })
}

fn write_file(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let write = || {
        let mut out = io::BufWriter::new(File::create(path)?);
        fill(&mut out)?;
        out.flush()
    };
    write().map_err(|e| Error::io("cannot write", path, e))
}
