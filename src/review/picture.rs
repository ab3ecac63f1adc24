//! Pictures of one sample.

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::export::scans::{ScanReader, read_patch};
use crate::export::select::SelectedSample;
use crate::ingest::Scan;
use crate::record::SampleRecord;
use crate::run::RunFolder;
use crate::sink::patch::Patch;
use crate::volume::{Array3, HuWindow, Picture, before_after_and_difference, before_and_after_axial};

/// The margin around a tumor in a picture.
const MARGIN_MM: f64 = 32.0;

/// The window of HU for the chest.
const CHEST: HuWindow = HuWindow { low_hu: -1000.0, high_hu: 500.0 };

/// Returns the window for the tumors of an organ.
pub fn window_of(organ: &str) -> HuWindow {
    if organ.contains("lung") { CHEST } else { HuWindow::ABDOMEN }
}

/// A sample with its scan.
pub struct SampleView {
    record: SampleRecord,
    scan: Scan,
    patch: Patch,
}

/// The HU of a box before and after, over the voxels of the tumor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BoxStatistics {
    /// Voxels of the tumor.
    pub tumor_voxels: usize,
    /// Voxels of the box that differ from the scan.
    pub changed_voxels: usize,
    /// Mean HU of the tumor's voxels in the scan.
    pub before_hu: f64,
    /// Mean HU of the tumor's voxels in the sample.
    pub after_hu: f64,
    /// Lowest difference of a voxel in HU.
    pub lowest_difference_hu: f64,
    /// Highest difference of a voxel in HU.
    pub highest_difference_hu: f64,
}

impl SampleView {
    /// Reads the patch of a sample and its scan.
    ///
    /// # Errors
    /// If the patch is damaged, or the scan cannot be read or has other voxels.
    pub fn read(run: &RunFolder, reader: &ScanReader, sample: &SelectedSample) -> Result<Self> {
        let patch = read_patch(run, sample)?;
        let record = sample.record.clone();
        let scan = reader.read_scan(record.scan_id, record.scan_digest).map_err(|message| {
            Error::new(format!("scan {}: {message}", record.scan_id))
                .with_kind(ErrorKind::Refused)
                .with_hint("a picture needs the scan: if its files were moved, pass a graph file with the new path with `--pipeline`")
        })?;
        Ok(Self { record, scan, patch })
    }

    /// Reads the patch of another sample of the same scan.
    ///
    /// # Errors
    /// If the patch is damaged.
    pub fn of_other(self, run: &RunFolder, sample: &SelectedSample) -> Result<Self> {
        Ok(Self { record: sample.record.clone(), patch: read_patch(run, sample)?, scan: self.scan })
    }

    /// Returns the box of the tumor of the row, and the mask of its tumor; `None` for a negative.
    fn tumor(&self) -> Option<(usize, Array3<u8>)> {
        let index = (self.record.tumor_id as usize).min(self.patch.boxes.len().checked_sub(1)?);
        let label = self.record.tumor_label;
        Some((index, self.patch.boxes[index].labels.map(|&id| u8::from(id == label))))
    }

    /// Draws the tumor before, after, with its outline, and as a difference, in three planes; `None` for a negative.
    pub fn three_planes(&self, window: HuWindow) -> Option<Picture> {
        let (index, tumor) = self.tumor()?;
        let changed = &self.patch.boxes[index];
        Some(before_after_and_difference(&self.scan.volume, changed.region, &changed.after, &tumor, window, MARGIN_MM))
    }

    /// Draws the tumor before, after and with its outline in the axial plane; `None` for a negative. `pixels` is the longest side of a
    /// plane.
    pub fn axial(&self, window: HuWindow, pixels: f64) -> Option<Picture> {
        let (index, tumor) = self.tumor()?;
        let changed = &self.patch.boxes[index];
        let scan = &self.scan.volume;
        Some(before_and_after_axial(scan, changed.region, &changed.after, &tumor, window, MARGIN_MM, pixels))
    }

    /// Returns the HU before and after; `None` for a negative.
    pub fn statistics(&self) -> Option<BoxStatistics> {
        let (index, tumor) = self.tumor()?;
        let changed = &self.patch.boxes[index];
        let (before, after) = (changed.before.as_slice(), changed.after.as_slice());
        let inside: Vec<usize> = (0..before.len()).filter(|&voxel| tumor.as_slice()[voxel] != 0).collect();
        let mean =
            |hu: &[f32]| inside.iter().map(|&voxel| f64::from(hu[voxel])).sum::<f64>() / inside.len().max(1) as f64;
        let differences = || before.iter().zip(after).map(|(before, after)| f64::from(after - before));
        Some(BoxStatistics {
            tumor_voxels: inside.len(),
            changed_voxels: differences().filter(|difference| *difference != 0.0).count(),
            before_hu: mean(before),
            after_hu: mean(after),
            lowest_difference_hu: differences().fold(0.0, f64::min),
            highest_difference_hu: differences().fold(0.0, f64::max),
        })
    }
}
