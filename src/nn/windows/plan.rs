//! The positions of windows.

use std::ops::Range;

use crate::error::{Error, Result};

/// A box of voxels: half-open ranges along `[x, y, z]`.
pub type VoxelBox = [Range<usize>; 3];

/// The positions of windows in a volume, in scan order: x slowest, z fastest.
///
/// The step between windows is the part of a window that does not overlap the next; the last window along an axis ends with the
/// volume. A volume smaller than the window is padded on both sides, the odd voxel at the end, and has one window along that axis.
///
/// ```
/// use freetumor::nn::windows::WindowPlan;
/// let plan = WindowPlan::new([40, 33, 20], [24, 24, 24], [0.5; 3])?;
/// assert_eq!(plan.count(), 3 * 2 * 1);
/// assert_eq!(plan.covered_box(0), [0..24, 0..24, 0..20]);
/// assert_eq!(plan.covered_box(5), [16..40, 9..33, 0..20]);
/// assert_eq!(plan.overlapping(&[0..9, 0..9, 4..8]), [0]);
/// # Ok::<(), freetumor::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowPlan {
    volume: [usize; 3],
    window: [usize; 3],
    /// Voxels of padding before the volume.
    before: [usize; 3],
    /// The starts of the windows along each axis of the padded volume.
    starts: [Vec<usize>; 3],
}

impl WindowPlan {
    /// Creates the plan of windows of `[x, y, z]` voxels that cover a volume; `overlap` is the fraction of a window shared with the next.
    ///
    /// # Errors
    /// If an axis has no voxels, or an overlap is not at least 0 and below 1.
    pub fn new(volume: [usize; 3], window: [usize; 3], overlap: [f64; 3]) -> Result<Self> {
        if volume.contains(&0) || window.contains(&0) {
            return Err(Error::new(format!(
                "expected at least 1 voxel along each axis, got a volume of {volume:?} and windows of {window:?}"
            )));
        }
        if let Some(overlap) = overlap.iter().find(|overlap| !(0.0..1.0).contains(*overlap)) {
            return Err(Error::new(format!("expected an overlap of at least 0 and below 1, got {overlap}")));
        }
        let starts = |axis: usize| {
            let (size, width) = (volume[axis].max(window[axis]), window[axis]);
            let step = ((width as f64 * (1.0 - overlap[axis])) as usize).max(1);
            let last = size - width;
            (0..last.div_ceil(step) + 1).map(|index| (index * step).min(last)).collect()
        };
        let before = |axis: usize| window[axis].saturating_sub(volume[axis]) / 2;
        Ok(Self { volume, window, before: [0, 1, 2].map(before), starts: [0, 1, 2].map(starts) })
    }

    /// Returns the voxels of the volume along `[x, y, z]`.
    pub fn volume(&self) -> [usize; 3] {
        self.volume
    }

    /// Returns the voxels of a window along `[x, y, z]`.
    pub fn window(&self) -> [usize; 3] {
        self.window
    }

    /// Returns the number of windows.
    pub fn count(&self) -> usize {
        self.starts.iter().map(Vec::len).product()
    }

    /// Returns the box of the volume that a window covers, without padding.
    ///
    /// # Panics
    /// If `index` is not below [`count`](Self::count).
    pub fn covered_box(&self, index: usize) -> VoxelBox {
        let start = self.start(index);
        [0, 1, 2].map(|axis| {
            let end = start[axis] + self.window[axis];
            let inside = |voxel: usize| voxel.saturating_sub(self.before[axis]).min(self.volume[axis]);
            inside(start[axis])..inside(end)
        })
    }

    /// Returns the windows that overlap a box, in scan order.
    pub fn overlapping(&self, region: &VoxelBox) -> Vec<usize> {
        (0..self.count()).filter(|index| self.overlaps(*index, region)).collect()
    }

    /// Returns whether a window overlaps a box.
    ///
    /// # Panics
    /// If `index` is not below [`count`](Self::count).
    pub fn overlaps(&self, index: usize, region: &VoxelBox) -> bool {
        let covered = self.covered_box(index);
        (0..3).all(|axis| covered[axis].start < region[axis].end && region[axis].start < covered[axis].end)
    }

    /// Returns the box of the whole volume.
    pub fn volume_box(&self) -> VoxelBox {
        self.volume.map(|size| 0..size)
    }

    /// Checks a box of interest.
    ///
    /// # Errors
    /// If the box is empty or not within the volume.
    pub(super) fn check_box(&self, region: &VoxelBox) -> Result<()> {
        if (0..3).all(|axis| region[axis].start < region[axis].end && region[axis].end <= self.volume[axis]) {
            return Ok(());
        }
        Err(Error::new(format!("expected a box within a volume of {:?} voxels, got {region:?}", self.volume)))
    }

    /// Returns the start of a window in the padded volume.
    fn start(&self, index: usize) -> [usize; 3] {
        let [x, y, z] = &self.starts;
        let (yz, z_count) = (y.len() * z.len(), z.len());
        [x[index / yz], y[index % yz / z_count], z[index % z_count]]
    }

    /// Returns the voxels of padding of a window before and after its covered box.
    pub(super) fn padding(&self, index: usize) -> [(usize, usize); 3] {
        let (start, covered) = (self.start(index), self.covered_box(index));
        [0, 1, 2].map(|axis| {
            let before = self.before[axis].saturating_sub(start[axis]);
            (before, self.window[axis] - before - covered[axis].len())
        })
    }
}
