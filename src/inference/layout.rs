//! Which windows are looked at.

use super::field::Roi;
use super::settings::{NetworkConfig, Windows};
use crate::error::Result;
use crate::nn::windows::{Importance, SlidingWindows, VoxelBox, WindowGrouping, WindowPlan};
use crate::volume::Region;

/// The windows for one tumor, in a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The part of the field in which windows lie.
    pub volume: Region,
    /// Where windows lie in that part.
    pub plan: WindowPlan,
    /// Those that are looked at, in scan order.
    pub windows: Vec<usize>,
    grouping: WindowGrouping,
}

impl Layout {
    /// The windows for a tumor that lies in the box `tumor` of a field.
    ///
    /// # Errors
    /// Where the field has no voxels.
    pub fn new(config: &NetworkConfig, field: &Roi, tumor: Region) -> Result<Self> {
        let bounds = field.grid.shape;
        let around = match config.windows {
            Windows::Centred => tumor,
            Windows::Reaching | Windows::Reference => field.focus,
        };
        let volume = widened(around, config.roi_voxels, bounds);
        let plan = WindowPlan::new(volume.shape, config.roi_voxels, [config.overlap; 3])?;
        let windows = match config.windows {
            Windows::Centred | Windows::Reaching => plan.reaching(&within(tumor, volume)),
            Windows::Reference => (0..plan.count()).collect(),
        };
        let grouping = match config.windows {
            Windows::Reference => WindowGrouping::Together(config.group),
            Windows::Centred | Windows::Reaching => WindowGrouping::Alone,
        };
        Ok(Self { volume, plan, windows, grouping })
    }

    /// All that the windows show, in the field.
    pub fn covered(&self) -> Region {
        let (mut low, mut high) = (self.volume.shape, [0; 3]);
        for &window in &self.windows {
            for (axis, range) in self.plan.covered(window).into_iter().enumerate() {
                low[axis] = low[axis].min(range.start);
                high[axis] = high[axis].max(range.end);
            }
        }
        let start = [0, 1, 2].map(|axis| self.volume.start[axis] + low[axis]);
        Region { start, shape: [0, 1, 2].map(|axis| high[axis].saturating_sub(low[axis])) }
    }

    /// The windows, ready to be looked at; what overlaps counts alike, as published.
    pub(super) fn sliding(&self) -> SlidingWindows {
        SlidingWindows { plan: self.plan.clone(), importance: Importance::Constant, grouping: self.grouping }
    }
}

/// A region of the field as a box of the volume, what lies outside of it left out.
pub(super) fn within(region: Region, volume: Region) -> VoxelBox {
    let end = region.end();
    [0, 1, 2].map(|axis| {
        let inside = |voxel: usize| voxel.saturating_sub(volume.start[axis]).min(volume.shape[axis]);
        inside(region.start[axis])..inside(end[axis])
    })
}

/// The region with equal margins on both sides that make it at least `least` long, as far as `bounds` allow.
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

    fn field(shape: [usize; 3], focus: Region) -> Roi {
        let grid = Grid { shape, affine: Affine::from_spacing([1.5; 3]) };
        Roi { grid, hu: Array3::filled(shape, 0.0), focus }
    }

    fn config(windows: Windows) -> NetworkConfig {
        NetworkConfig { windows, ..NetworkConfig::new("none") }
    }

    #[test]
    fn the_counts_of_the_reference() {
        // The crop and the box for which the published code was timed.
        for (focus, expected) in [([129, 123, 95], 9), ([200, 170, 150], 120)] {
            let focus = Region { start: [5, 6, 7], shape: focus };
            let shape = [0, 1, 2].map(|axis| focus.end()[axis] + 60);
            let field = field(shape, focus);
            let tumor = Region { start: [70, 66, 50], shape: [10, 12, 8] };
            let reference = Layout::new(&config(Windows::Reference), &field, tumor).unwrap();
            assert_eq!(reference.windows.len(), expected);
            let reaching = Layout::new(&config(Windows::Reaching), &field, tumor).unwrap();
            // In the small box every window reaches its middle.
            assert_eq!(reaching.windows.len(), if expected == 9 { 9 } else { 4 * 3 * 3 });
            let centred = Layout::new(&config(Windows::Centred), &field, tumor).unwrap();
            assert_eq!(centred.windows.len(), 1);
            let middle = |start: usize, length: usize| (2 * start + length) as f64 / 2.0;
            for axis in 0..3 {
                let seen = middle(centred.covered().start[axis], centred.covered().shape[axis]);
                assert!((seen - middle(tumor.start[axis], tumor.shape[axis])).abs() <= 1.0 || seen == 48.0);
            }
        }
    }

    #[test]
    fn a_tumor_larger_than_a_window_is_seen_whole() {
        let field = field([250, 250, 250], Region { start: [10; 3], shape: [230; 3] });
        let tumor = Region { start: [60; 3], shape: [110, 97, 40] };
        let layout = Layout::new(&config(Windows::Centred), &field, tumor).unwrap();
        assert_eq!(layout.windows.len(), 2 * 2);
        let covered = layout.covered();
        assert!((0..3).all(|axis| covered.start[axis] <= 60 && covered.end()[axis] >= tumor.end()[axis]));
    }

    #[test]
    fn a_scan_smaller_than_a_window_is_padded() {
        let field = field([40, 120, 30], Region { start: [3, 3, 3], shape: [20, 20, 20] });
        let tumor = Region { start: [9, 5, 9], shape: [5; 3] };
        for windows in [Windows::Centred, Windows::Reaching, Windows::Reference] {
            let layout = Layout::new(&config(windows), &field, tumor).unwrap();
            assert_eq!(layout.volume.shape, [40, 96, 30], "{windows:?}");
            assert_eq!(layout.windows, [0]);
        }
    }

    #[test]
    fn an_odd_tumor_stays_inside_when_it_fills_the_window() {
        let region = Region { start: [3, 0, 4], shape: [97, 95, 1] };
        let wide = widened(region, [96; 3], [200; 3]);
        assert!((0..3).all(|axis| wide.start[axis] <= region.start[axis] && wide.end()[axis] >= region.end()[axis]));
        assert_eq!(wide.shape, [97, 96, 96]);
    }
}
