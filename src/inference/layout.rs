//! The windows on which a network infers for one tumor.

use super::roi::Roi;
use super::settings::{NetworkConfig, Windows};
use crate::error::Result;
use crate::nn::windows::{Importance, SlidingWindows, VoxelBox, WindowGrouping, WindowPlan};
use crate::volume::Region;

/// The windows for one tumor, in a region of interest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The part of the region of interest that the windows cover.
    pub volume: Region,
    /// The positions of all windows in that part.
    pub plan: WindowPlan,
    /// The indices of the windows that are computed, in scan order.
    pub windows: Vec<usize>,
    grouping: WindowGrouping,
}

impl Layout {
    /// Selects the windows for a tumor in the box `tumor` of a region of interest.
    ///
    /// # Errors
    /// If the region of interest has no voxels.
    pub fn new(config: &NetworkConfig, roi: &Roi, tumor: Region) -> Result<Self> {
        let bounds = roi.grid.shape;
        let around = match config.windows {
            Windows::Centred => tumor,
            Windows::Reaching | Windows::Reference => roi.organ_box,
        };
        let volume = widened(around, config.roi_voxels, bounds);
        let plan = WindowPlan::new(volume.shape, config.roi_voxels, [config.overlap; 3])?;
        let windows = match config.windows {
            Windows::Centred | Windows::Reaching => plan.overlapping(&within(tumor, volume)),
            Windows::Reference => (0..plan.count()).collect(),
        };
        let grouping = match config.windows {
            Windows::Reference => WindowGrouping::Together(config.group),
            Windows::Centred | Windows::Reaching => WindowGrouping::Alone,
        };
        Ok(Self { volume, plan, windows, grouping })
    }

    /// Returns the smallest box of the region of interest that contains all computed windows.
    pub fn bounding_box(&self) -> Region {
        let (mut low, mut high) = (self.volume.shape, [0; 3]);
        for &window in &self.windows {
            for (axis, range) in self.plan.covered_box(window).into_iter().enumerate() {
                low[axis] = low[axis].min(range.start);
                high[axis] = high[axis].max(range.end);
            }
        }
        let start = [0, 1, 2].map(|axis| self.volume.start[axis] + low[axis]);
        Region { start, shape: [0, 1, 2].map(|axis| high[axis].saturating_sub(low[axis])) }
    }

    /// Returns the sliding windows; overlapping predictions have equal weights, as published.
    pub(super) fn sliding(&self) -> SlidingWindows {
        SlidingWindows { plan: self.plan.clone(), importance: Importance::Constant, grouping: self.grouping }
    }
}

/// Converts a box in the region of interest to a box in `volume`, clipped to `volume`.
pub(super) fn within(region: Region, volume: Region) -> VoxelBox {
    let end = region.end();
    [0, 1, 2].map(|axis| {
        let inside = |voxel: usize| voxel.saturating_sub(volume.start[axis]).min(volume.shape[axis]);
        inside(region.start[axis])..inside(end[axis])
    })
}

/// Widens a region with equal margins on both sides to a shape of at least `least`, as far as `bounds` allow.
fn widened(region: Region, least: [usize; 3], bounds: [usize; 3]) -> Region {
    let shape = [0, 1, 2].map(|axis| region.shape[axis].max(least[axis]).min(bounds[axis]));
    let start = [0, 1, 2].map(|axis| {
        let middle = region.start[axis] + region.shape[axis] / 2;
        middle.saturating_sub(shape[axis] / 2).min(bounds[axis] - shape[axis])
    });
    Region { start, shape }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Affine, Array3, Grid};

    fn roi(shape: [usize; 3], organ_box: Region) -> Roi {
        let grid = Grid { shape, affine: Affine::from_spacing([1.5; 3]) };
        Roi { grid, hu: Array3::filled(shape, 0.0), organ_box }
    }

    fn config(windows: Windows) -> NetworkConfig {
        NetworkConfig { windows, ..NetworkConfig::new("none") }
    }

    #[test]
    fn window_counts_equal_those_of_the_reference() {
        // The crop and the box for which the published code was timed.
        for (organ_box, expected) in [([129, 123, 95], 9), ([200, 170, 150], 120)] {
            let organ_box = Region { start: [5, 6, 7], shape: organ_box };
            let shape = [0, 1, 2].map(|axis| organ_box.end()[axis] + 60);
            let roi = roi(shape, organ_box);
            let tumor = Region { start: [70, 66, 50], shape: [10, 12, 8] };
            let reference = Layout::new(&config(Windows::Reference), &roi, tumor).unwrap();
            assert_eq!(reference.windows.len(), expected);
            let reaching = Layout::new(&config(Windows::Reaching), &roi, tumor).unwrap();
            // Every window of the small box reaches the box's middle.
            assert_eq!(reaching.windows.len(), if expected == 9 { 9 } else { 4 * 3 * 3 });
            let centred = Layout::new(&config(Windows::Centred), &roi, tumor).unwrap();
            assert_eq!(centred.windows.len(), 1);
            let middle = |start: usize, length: usize| (2 * start + length) as f64 / 2.0;
            for axis in 0..3 {
                let window = middle(centred.bounding_box().start[axis], centred.bounding_box().shape[axis]);
                assert!((window - middle(tumor.start[axis], tumor.shape[axis])).abs() <= 1.0 || window == 48.0);
            }
        }
    }

    #[test]
    fn windows_cover_a_tumor_larger_than_a_window() {
        let roi = roi([250, 250, 250], Region { start: [10; 3], shape: [230; 3] });
        let tumor = Region { start: [60; 3], shape: [110, 97, 40] };
        let layout = Layout::new(&config(Windows::Centred), &roi, tumor).unwrap();
        assert_eq!(layout.windows.len(), 2 * 2);
        let covered = layout.bounding_box();
        assert!((0..3).all(|axis| covered.start[axis] <= 60 && covered.end()[axis] >= tumor.end()[axis]));
    }

    #[test]
    fn layout_of_scan_smaller_than_a_window_is_one_padded_window() {
        let roi = roi([40, 120, 30], Region { start: [3, 3, 3], shape: [20, 20, 20] });
        let tumor = Region { start: [9, 5, 9], shape: [5; 3] };
        for windows in [Windows::Centred, Windows::Reaching, Windows::Reference] {
            let layout = Layout::new(&config(windows), &roi, tumor).unwrap();
            assert_eq!(layout.volume.shape, [40, 96, 30], "{windows:?}");
            assert_eq!(layout.windows, [0]);
        }
    }

    #[test]
    fn widened_region_contains_region_and_has_minimum_shape() {
        let region = Region { start: [3, 0, 4], shape: [97, 95, 1] };
        let wide = widened(region, [96; 3], [200; 3]);
        assert!((0..3).all(|axis| wide.start[axis] <= region.start[axis] && wide.end()[axis] >= region.end()[axis]));
        assert_eq!(wide.shape, [97, 96, 96]);
    }
}
