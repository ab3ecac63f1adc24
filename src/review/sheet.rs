//! The contact sheet of a run folder: some of its newest samples, accepted ones on the left and rejected ones on the right.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::picture::{SampleView, window_of};
use crate::error::Result;
use crate::export::scans::ScanReader;
use crate::export::select::SelectedSample;
use crate::graph::Registry;
use crate::id::ScanId;
use crate::record::parquet::decode_part;
use crate::record::schema::Table;
use crate::record::{SampleKind, SampleRow};
use crate::run::RunFolder;
use crate::store::CONTACT_SHEET;
use crate::volume::{Picture, stacked};

/// Maximum number of samples in each column.
const ROWS: usize = 6;

/// Maximum number of samples of one scan in each column.
const ROWS_PER_SCAN: usize = 2;

/// Maximum number of scans that are read.
const MAX_SCANS: usize = 6;

/// Maximum number of parts of the table `samples` that are read, the newest first.
const MAX_PARTS: usize = 8;

/// The longest side of a plane in pixels.
const PIXELS: f64 = 150.0;

/// Pixels between pictures.
const GAP: usize = 8;

/// The width of a frame in pixels.
const FRAME: usize = 3;

/// The colours of the frames of accepted and rejected samples.
const COLOURS: [[u8; 3]; 2] = [[70, 170, 90], [214, 120, 40]];

/// A contact sheet that was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContactSheet {
    /// The path of the picture.
    pub path: PathBuf,
    /// Number of accepted samples.
    pub accepted: usize,
    /// Number of rejected samples.
    pub rejected: usize,
}

/// Draws `contact_sheet.png` in a run folder: a row for each sample with the axial plane before, after and with the outline of the tumor.
/// Returns `None` if the folder has no samples with patches.
///
/// # Errors
/// If the tables, patches or scans cannot be read, or the picture cannot be written.
pub fn draw_contact_sheet(run: &RunFolder, registry: &Registry) -> Result<Option<ContactSheet>> {
    let columns = chosen_samples(run)?;
    if columns.iter().all(Vec::is_empty) {
        return Ok(None);
    }
    let all: Vec<SelectedSample> = columns.iter().flatten().cloned().collect();
    let reader = ScanReader::open(run, &all, None, registry)?;
    let mut pictures: [Vec<Picture>; 2] = Default::default();
    let scans: BTreeSet<ScanId> = all.iter().map(|sample| sample.record.scan_id).collect();
    let mut problem = None;
    for scan_id in scans {
        let mut view: Option<SampleView> = None;
        for (column, samples) in columns.iter().enumerate() {
            for sample in samples.iter().filter(|sample| sample.record.scan_id == scan_id) {
                let next = match view.take() {
                    Some(view) => view.of_other(run, sample),
                    None => SampleView::read(run, &reader, sample),
                };
                match next {
                    Ok(next) => {
                        let picture = next.axial(window_of(&sample.record.organ), PIXELS);
                        pictures[column].extend(picture.map(|picture| picture.framed(FRAME, COLOURS[column])));
                        view = Some(next);
                    }
                    // The other scans are drawn.
                    Err(error) => problem = Some(error),
                }
            }
        }
    }
    if let Some(error) = problem.filter(|_| pictures.iter().all(Vec::is_empty)) {
        return Err(error);
    }
    let [accepted, rejected] = [pictures[0].len(), pictures[1].len()];
    let columns: Vec<Picture> =
        pictures.iter().filter(|rows| !rows.is_empty()).map(|rows| stacked(rows, GAP)).collect();
    let png = Picture::side_by_side(&columns, 2 * GAP).to_png()?;
    run.store().replace(CONTACT_SHEET, &mut |out| out.write_all(&png))?;
    Ok(Some(ContactSheet { path: run.store().display_path(CONTACT_SHEET).into(), accepted, rejected }))
}

/// Returns the accepted and the rejected samples of the sheet, from at most [`MAX_SCANS`] scans and as many organs as possible.
fn chosen_samples(run: &RunFolder) -> Result<[Vec<SelectedSample>; 2]> {
    let mut chosen: [Vec<SelectedSample>; 2] = Default::default();
    let mut scans = BTreeSet::new();
    for file in run.files(Table::Samples.name(), None)?.iter().rev().take(MAX_PARTS) {
        let mut by_scan: BTreeMap<ScanId, [Vec<SelectedSample>; 2]> = BTreeMap::new();
        for row in decode_part::<SampleRow>(run.read_verified(file)?)? {
            let column = usize::from(!row.record.outcome.is_accepted());
            if let Some(sample) = with_patch(row) {
                by_scan.entry(sample.record.scan_id).or_default()[column].push(sample);
            }
        }
        for (scan_id, samples) in by_scan {
            if chosen.iter().all(|column| column.len() >= ROWS) || scans.len() >= MAX_SCANS {
                return Ok(chosen);
            }
            scans.insert(scan_id);
            for (column, samples) in chosen.iter_mut().zip(samples) {
                let missing = ROWS.saturating_sub(column.len()).min(ROWS_PER_SCAN);
                column.extend(of_many_organs(samples, missing));
            }
        }
    }
    Ok(chosen)
}

/// Returns the sample of a row; `None` for a negative and for a candidate whose patch was not kept.
fn with_patch(row: SampleRow) -> Option<SelectedSample> {
    let SampleRow { record, placement } = row;
    Some(SelectedSample {
        shard: placement.patch_shard.filter(|_| record.kind == SampleKind::Synthetic)?,
        offset_bytes: placement.patch_offset_bytes?,
        length_bytes: placement.patch_length_bytes?,
        record,
        others: Vec::new(),
    })
}

/// Returns at most `count` samples, first one of each organ.
fn of_many_organs(mut samples: Vec<SelectedSample>, count: usize) -> Vec<SelectedSample> {
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    let rank = |sample: &SelectedSample| {
        let number = numbers.entry(sample.record.organ.clone()).or_default();
        *number += 1;
        *number
    };
    let ranks: Vec<usize> = samples.iter().map(rank).collect();
    let mut order: Vec<usize> = (0..samples.len()).collect();
    order.sort_by_key(|&index| (ranks[index], samples[index].record.sample_id));
    order.truncate(count);
    order.sort_unstable();
    let mut kept = order.into_iter().peekable();
    let mut index = 0;
    samples.retain(|_| {
        let is_kept = kept.next_if_eq(&index).is_some();
        index += 1;
        is_kept
    });
    samples
}
