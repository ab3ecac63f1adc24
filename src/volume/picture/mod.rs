//! Pictures of volumes in the radiological convention.
//!
//! The patient's right is on the left of axial and coronal planes, anterior is up or, in sagittal planes, on the left,
//! and superior is up. Millimetres have the same length in every direction.

mod canvas;
mod letters;
mod plane;

pub use canvas::{Picture, stacked};
use plane::{Scale, panel};
pub use plane::{ViewDirection, label_colour};

use super::{Array3, HuWindow, Labels, Region, Volume};

/// The longest side of a plane, in pixels.
const PLANE_PIXELS: f64 = 512.0;
/// Pixels between planes.
const GAP: usize = 6;

/// Draws an axial, a coronal and a sagittal plane through a voxel, side by side, with labels as translucent colours and their
/// outlines. Marks at the edges show the positions of the other planes.
///
/// # Shapes
/// The labels have the shape of the volume and are on its grid; resample others with [`Labels::onto`].
///
/// # Panics
/// If the voxel is outside the volume, or the labels have another shape.
pub fn three_planes(volume: &Volume, labels: Option<&Labels>, voxel: [usize; 3], window: HuWindow) -> Picture {
    let ids = labels.map(|labels| &labels.ids);
    let scale = Scale::fitting(&volume.grid, PLANE_PIXELS);
    let panels = ViewDirection::ALL.map(|view| panel(volume, ids, voxel, view, window, &scale, true));
    Picture::side_by_side(&panels, GAP)
}

/// Draws a synthetic tumor before, after, and after with its label, in the three planes through its middle.
///
/// `region` is the tumor's box in the scan, `after` the HU of the box with the tumor, `tumor` its mask, and `margin_mm` the
/// margin of the scan around the box.
///
/// # Shapes
/// `after` and `tumor` have the shape of `region`.
///
/// # Panics
/// If the region is not inside the scan, or the arrays do not have its shape.
pub fn before_and_after(
    scan: &Volume,
    region: Region,
    after: &Array3<f32>,
    tumor: &Array3<u8>,
    window: HuWindow,
    margin_mm: f64,
) -> Picture {
    let rows = stages(scan, region, after, tumor, window, margin_mm, PLANE_PIXELS / 2.0, Style::Lettered);
    stacked(&rows, GAP)
}

/// Draws a synthetic tumor as [`before_and_after`] does, with a fourth column: the difference in HU from −100, black, to 100, white.
///
/// # Panics
/// Panics in the same cases as [`before_and_after`].
pub fn before_after_and_difference(
    scan: &Volume,
    region: Region,
    after: &Array3<f32>,
    tumor: &Array3<u8>,
    window: HuWindow,
    margin_mm: f64,
) -> Picture {
    let rows = stages(scan, region, after, tumor, window, margin_mm, PLANE_PIXELS / 2.0, Style::WithDifference);
    stacked(&rows, GAP)
}

/// Draws a synthetic tumor before, after, and after with its label, in the axial plane through its middle. `pixels` is the longest side of
/// a plane.
///
/// # Panics
/// Panics in the same cases as [`before_and_after`].
pub fn before_and_after_axial(
    scan: &Volume,
    region: Region,
    after: &Array3<f32>,
    tumor: &Array3<u8>,
    window: HuWindow,
    margin_mm: f64,
    pixels: f64,
) -> Picture {
    let [axial, ..] = stages(scan, region, after, tumor, window, margin_mm, pixels, Style::Plain);
    axial
}

/// The columns and letters of [`stages`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Lettered,
    /// Lettered, with the difference as a fourth column.
    WithDifference,
}

/// The HU of differences that are black and white.
const DIFFERENCE_WINDOW: HuWindow = HuWindow { low_hu: -100.0, high_hu: 100.0 };

/// Draws a synthetic tumor as [`before_and_after`] does, but with all nine planes side by side and without letters: one row of a contact
/// sheet. `pixels` is the longest side of a plane.
///
/// # Panics
/// Panics in the same cases as [`before_and_after`].
pub fn before_and_after_row(
    scan: &Volume,
    region: Region,
    after: &Array3<f32>,
    tumor: &Array3<u8>,
    window: HuWindow,
    margin_mm: f64,
    pixels: f64,
) -> Picture {
    let rows = stages(scan, region, after, tumor, window, margin_mm, pixels, Style::Plain);
    Picture::side_by_side(&rows, GAP)
}

/// Draws the stages (before, after, after with label, and the difference if requested) of each of the three planes through the middle of a
/// tumor.
#[expect(clippy::too_many_arguments, reason = "the arguments of the public functions")]
fn stages(
    scan: &Volume,
    region: Region,
    after: &Array3<f32>,
    tumor: &Array3<u8>,
    window: HuWindow,
    margin_mm: f64,
    pixels: f64,
    style: Style,
) -> [Picture; 3] {
    assert_eq!([after.shape(), tumor.shape()], [region.shape; 2], "expected arrays of the shape of the region");
    let spacing_mm = scan.grid.spacing_mm();
    let margin = spacing_mm.map(|mm| (margin_mm / mm).ceil() as usize);
    // The margin is around the tumor, not around the tissue that it displaces.
    let inside = tumor.extent(|inside| *inside != 0).unwrap_or(tumor.region());
    let start = [0, 1, 2].map(|axis| region.start[axis] + inside.start[axis]);
    let shown = Region { start, shape: inside.shape }.grown(margin, scan.grid.shape);

    let before = scan.cut(shown);
    let mut changed = before.voxels.hu_of(before.grid.region());
    let mut labels = Array3::filled(shown.shape, 0u16);
    let common_start = [0, 1, 2].map(|axis| region.start[axis].max(shown.start[axis]));
    let common_end = [0, 1, 2].map(|axis| region.end()[axis].min(shown.end()[axis]));
    let common = Region {
        start: [0, 1, 2].map(|axis| common_start[axis] - region.start[axis]),
        shape: [0, 1, 2].map(|axis| common_end[axis] - common_start[axis]),
    };
    let at = [0, 1, 2].map(|axis| common_start[axis] - shown.start[axis]);
    changed.paste(at, &after.cut(common));
    labels.paste(at, &tumor.cut(common).map(|id| u16::from(*id > 0)));
    let mut difference = changed.clone();
    let unchanged = before.voxels.hu_of(before.grid.region());
    difference.as_mut_slice().iter_mut().zip(unchanged.as_slice()).for_each(|(hu, before)| *hu -= before);
    let volume = |voxels| Volume { grid: before.grid, voxels: super::Voxels::F32(voxels) };
    let (changed, difference) = (volume(changed), volume(difference));

    let middle = labels.region();
    let voxel = busiest_voxel(&labels).unwrap_or(middle.shape.map(|voxels| voxels / 2));
    let scale = Scale::fitting(&before.grid, pixels);
    ViewDirection::ALL.map(|view| {
        // Letters on the original scan only: on the others they would hide the tumor's edge.
        let has_letters = style != Style::Plain;
        let stages = [(&before, None, has_letters), (&changed, None, false), (&changed, Some(&labels), false)];
        let mut panels = stages
            .map(|(volume, labels, is_lettered)| panel(volume, labels, voxel, view, window, &scale, is_lettered))
            .to_vec();
        if style == Style::WithDifference {
            panels.push(panel(&difference, None, voxel, view, DIFFERENCE_WINDOW, &scale, false));
        }
        Picture::side_by_side(&panels, GAP)
    })
}

/// Returns the intersection of the three slices with the most labeled voxels; `None` if no voxel is labeled.
///
/// ```
/// use freetumor::volume::{Array3, busiest_voxel};
/// let mut labels = Array3::filled([9, 9, 9], 0u16);
/// labels.paste([4, 2, 6], &Array3::filled([3, 1, 1], 5));
/// assert_eq!(busiest_voxel(&labels), Some([5, 2, 6]));
/// ```
pub fn busiest_voxel(labels: &Array3<u16>) -> Option<[usize; 3]> {
    let [nx, ny, nz] = labels.shape();
    let mut counts = [vec![0usize; nx], vec![0; ny], vec![0; nz]];
    for z in 0..nz {
        for y in 0..ny {
            for (x, _) in labels.row(y, z).iter().enumerate().filter(|(_, id)| **id > 0) {
                counts[0][x] += 1;
                counts[1][y] += 1;
                counts[2][z] += 1;
            }
        }
    }
    let middle_of_maxima = |counts: &Vec<usize>| {
        let maximum = *counts.iter().max().filter(|maximum| **maximum > 0)?;
        let maxima: Vec<usize> = (0..counts.len()).filter(|&i| counts[i] == maximum).collect();
        Some(maxima[maxima.len() / 2])
    };
    let [x, y, z] = &counts;
    Some([middle_of_maxima(x)?, middle_of_maxima(y)?, middle_of_maxima(z)?])
}

#[cfg(test)]
mod tests;
