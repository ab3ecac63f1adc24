//! Export of one image and one label per sample, in the layouts of nnU-Net and the Decathlon.

use std::collections::BTreeMap;

use super::options::ExportJob;
use super::parallel;
use super::report::{ExportReport, Refusal};
use super::scans::ScanReader;
use super::select::SelectedSample;
use super::target::{JournalEntry, Target};
use crate::error::{Error, Result};
use crate::id::ScanId;
use crate::record::Split;
use crate::sink::pairs::{DatasetDescription, Pair, PairLayout};
use crate::store::ContentWriter;
use crate::store::canonical::ItemCallback;

/// The files of the samples of one scan.
#[derive(Default)]
struct ScanFiles {
    written: Vec<JournalEntry>,
    kept: Vec<JournalEntry>,
    refused: Vec<Refusal>,
    was_read: bool,
}

/// Writes the files of all samples, scan by scan, and finally the description of the data set.
pub(super) fn write(
    job: &ExportJob<'_>,
    target: &Target,
    layout: &dyn PairLayout,
    reader: &ScanReader,
) -> Result<ExportReport> {
    let root = layout.folder();
    let below_root = |name: &str| format!("{root}/{name}").trim_start_matches('/').to_owned();
    let mut scans: BTreeMap<ScanId, Vec<&SelectedSample>> = BTreeMap::new();
    for sample in job.samples {
        scans.entry(sample.record.scan_id).or_default().push(sample);
    }
    let scans: Vec<Vec<&SelectedSample>> = scans.into_values().collect();
    let all = parallel::map(&scans, job.threads, |samples| {
        let mut files = ScanFiles::default();
        let mut missing = Vec::new();
        for &sample in samples {
            match target.kept(&sample.record.sample_id.to_string())? {
                Some(done) => files.kept.push(done.clone()),
                None => missing.push(sample),
            }
        }
        files.refused = reader.each_volume(job.run, &missing, layout.gzip_level(), &mut |sample, encoder, patch| {
            let names = layout.file_names(sample.record.sample_id, sample.record.split);
            let [image, label] = names.map(|(folder, name)| below_root(&format!("{folder}/{name}")));
            let boxes = patch.overlays();
            let image = target.write(&image, &mut |out| encoder.write_image(&boxes, out))?;
            let label = target.write(&label, &mut |out| encoder.write_label(&boxes, out))?;
            let key = sample.record.sample_id.to_string();
            let done = JournalEntry { key, files: vec![image, label], members: Vec::new() };
            target.record(&done)?;
            files.written.push(done);
            Ok(())
        })?;
        files.was_read = !missing.is_empty() && files.refused.is_empty();
        Ok(files)
    })?;
    let (mut report, mut done) = (ExportReport::default(), Vec::new());
    for files in all {
        report.scans_read += usize::from(files.was_read);
        report.refused.extend(files.refused);
        files.written.iter().for_each(|done| report.add_files(done, false));
        files.kept.iter().for_each(|done| report.add_files(done, true));
        done.extend(files.written.into_iter().chain(files.kept));
    }
    done.sort_by(|a, b| a.key.cmp(&b.key));
    let pairs = pairs_of(job.samples, &done)?;
    pairs.iter().for_each(|pair| report.add_sample(pair.split));
    let test = pairs.iter().filter(|pair| pair.split == Split::Test).count();
    let write = |name: &str, fill: ContentWriter<'_>| target.write(&below_root(name), fill).map(drop);
    let for_each = |visit: ItemCallback<'_, Pair>| pairs.iter().cloned().try_for_each(visit);
    let training = pairs.len() - test;
    layout.describe(&DatasetDescription {
        write: &write,
        for_each: &for_each,
        organs: reader.organs(),
        training,
        test,
    })?;
    target.finish(&done)?;
    Ok(report)
}

/// Returns the exported samples by epoch and then by id; `samples` and `done` are sorted by id.
fn pairs_of(samples: &[SelectedSample], done: &[JournalEntry]) -> Result<Vec<Pair>> {
    let by_id = |key: &str| samples.binary_search_by(|sample| sample.record.sample_id.to_string().as_str().cmp(key));
    let pair = |done: &JournalEntry| {
        let (Ok(index), [image, label]) = (by_id(&done.key), &done.files[..]) else {
            return Err(Error::new(format!("unexpected line for `{}` in the journal of the export", done.key)));
        };
        let record = &samples[index].record;
        let (image, label) = (image.digest.clone(), label.digest.clone());
        let (sample_id, patient_key, split) = (record.sample_id, record.patient_key, record.split);
        Ok((record.epoch, Pair { sample_id, patient_key, split, image, label }))
    };
    let mut pairs = done.iter().map(pair).collect::<Result<Vec<_>>>()?;
    pairs.sort();
    Ok(pairs.into_iter().map(|(_, pair)| pair).collect())
}
