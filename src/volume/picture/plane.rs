//! Rendering of one plane of a volume.

use super::Picture;
use super::letters::{Edge, write};
use crate::volume::{Array3, Grid, HuWindow, Orientation, Region, Volume};

/// The direction from which a plane is viewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewDirection {
    /// From the feet: right on the left, anterior up.
    Axial,
    /// From the front: right on the left, superior up.
    Coronal,
    /// From the left: anterior on the left, superior up.
    Sagittal,
}

impl ViewDirection {
    /// All directions, in the order of display.
    pub const ALL: [Self; 3] = [Self::Axial, Self::Coronal, Self::Sagittal];

    /// Returns the world axes along a picture's columns and rows, and along the viewing direction.
    fn axes(self) -> [usize; 3] {
        match self {
            Self::Axial => [0, 1, 2],
            Self::Coronal => [0, 2, 1],
            Self::Sagittal => [1, 2, 0],
        }
    }
}

/// Pictures run from the top left towards the patient's left, back and feet.
const ON_SCREEN: Orientation = Orientation([(0, false), (1, false), (2, false)]);
/// The letters of each world axis at the start and at the end of a picture's side.
const LETTERS: [[char; 2]; 3] = [['R', 'L'], ['A', 'P'], ['S', 'I']];
/// The opacity of a label's colour inside its outline.
const OPACITY: f32 = 0.35;

/// The number of pixels of each axis of a grid in screen orientation, equal per millimetre.
pub(super) struct Scale {
    pixels: [usize; 3],
}

impl Scale {
    /// Returns the scale at which the longest side has `longest` pixels.
    pub(super) fn fitting(grid: &Grid, longest: f64) -> Self {
        let reoriented = grid.reoriented(ON_SCREEN);
        let spacing_mm = reoriented.spacing_mm();
        let lengths_mm = [0, 1, 2].map(|axis| reoriented.shape[axis] as f64 * spacing_mm[axis]);
        let longest_mm = lengths_mm.into_iter().fold(0.0, f64::max);
        Self { pixels: lengths_mm.map(|mm| (mm / longest_mm * longest).round().max(1.0) as usize) }
    }
}

/// Draws the plane through `voxel` in the direction of `view`.
pub(super) fn panel(
    volume: &Volume,
    labels: Option<&Array3<u16>>,
    voxel: [usize; 3],
    view: ViewDirection,
    window: HuWindow,
    scale: &Scale,
    is_lettered: bool,
) -> Picture {
    let shape = volume.grid.shape;
    assert!((0..3).all(|axis| voxel[axis] < shape[axis]), "expected a voxel inside {shape:?}, got {voxel:?}");
    let [across, down, along] = view.axes();
    let orientation = volume.grid.orientation();
    let permutation = orientation.permutation_to(ON_SCREEN);
    // Only the slice is reoriented, not the volume.
    let sliced = (0..3).find(|&axis| orientation.0[axis].0 == along).unwrap_or(2);
    let mut slice = Region { start: [0; 3], shape };
    slice.start[sliced] = voxel[sliced];
    slice.shape[sliced] = 1;

    let hu = permutation.array(&volume.voxels.hu_of(slice));
    let ids = labels.map(|labels| {
        assert_eq!(labels.shape(), shape, "expected labels of the shape of the volume");
        permutation.array(&labels.cut(slice))
    });
    let [columns, rows] = [scale.pixels[across], scale.pixels[down]];
    let (across_voxels, down_voxels) = (hu.shape()[across], hu.shape()[down]);
    let voxel_at = |column: usize, row: usize| {
        let mut voxel = [0; 3];
        voxel[across] = column;
        voxel[down] = row;
        voxel
    };
    // The centre of a pixel, in voxels.
    let position =
        |pixel: usize, pixels: usize, voxels: usize| (pixel as f32 + 0.5) * voxels as f32 / pixels as f32 - 0.5;
    let nearest = |position: f32, voxels: usize| (position.round().max(0.0) as usize).min(voxels - 1);

    let mut picture = Picture::black(columns, rows);
    for row in 0..rows {
        let y = position(row, rows, down_voxels).clamp(0.0, down_voxels as f32 - 1.0);
        let (y0, y_weight) = (y as usize, y.fract());
        let y1 = (y0 + 1).min(down_voxels - 1);
        for column in 0..columns {
            let x = position(column, columns, across_voxels).clamp(0.0, across_voxels as f32 - 1.0);
            let (x0, x_weight) = (x as usize, x.fract());
            let x1 = (x0 + 1).min(across_voxels - 1);
            let line = |y: usize| hu[voxel_at(x0, y)] + (hu[voxel_at(x1, y)] - hu[voxel_at(x0, y)]) * x_weight;
            let value = line(y0) + (line(y1) - line(y0)) * y_weight;
            let grey = (window.apply(value) * 255.0).round() as u8;
            let id = |column: usize, row: usize| {
                ids.as_ref().map_or(0, |ids| {
                    let x = nearest(position(column, columns, across_voxels), across_voxels);
                    ids[voxel_at(x, nearest(position(row, rows, down_voxels), down_voxels))]
                })
            };
            let own = id(column, row);
            let colour = if own == 0 {
                [grey; 3]
            } else {
                let is_outline = (column > 0 && id(column - 1, row) != own)
                    || (row > 0 && id(column, row - 1) != own)
                    || (column + 1 < columns && id(column + 1, row) != own)
                    || (row + 1 < rows && id(column, row + 1) != own);
                let opacity = if is_outline { 1.0 } else { OPACITY };
                label_colour(own)
                    .map(|tone| (f32::from(grey) * (1.0 - opacity) + f32::from(tone) * opacity).round() as u8)
            };
            picture.set(column, row, colour);
        }
    }

    let letters = [(across, [Edge::Left, Edge::Right]), (down, [Edge::Top, Edge::Bottom])];
    for (world, [first, last]) in letters.into_iter().filter(|_| is_lettered) {
        write(&mut picture, LETTERS[world][0], first);
        write(&mut picture, LETTERS[world][1], last);
    }
    let crossing = [across, down].map(|world| {
        let axis = (0..3).find(|&axis| orientation.0[axis].0 == world).unwrap_or(0);
        let voxels = shape[axis];
        let index = if orientation.0[axis].1 { voxels - 1 - voxel[axis] } else { voxel[axis] };
        (index as f64 + 0.5) / voxels as f64
    });
    draw_marks(&mut picture, crossing);
    picture
}

/// Draws short marks at the edges where the other planes intersect this one.
fn draw_marks(picture: &mut Picture, crossing: [f64; 2]) {
    const LENGTH: usize = 8;
    const COLOUR: [u8; 3] = [120, 200, 255];
    let [width, height] = picture.size();
    let column = ((crossing[0] * width as f64) as usize).min(width - 1);
    let row = ((crossing[1] * height as f64) as usize).min(height - 1);
    for step in 0..LENGTH.min(height / 8) {
        picture.set(column, step, COLOUR);
        picture.set(column, height - 1 - step, COLOUR);
    }
    for step in 0..LENGTH.min(width / 8) {
        picture.set(step, row, COLOUR);
        picture.set(width - 1 - step, row, COLOUR);
    }
}

/// Returns the colour of a label. Hues are a golden angle apart, so that neighbouring ids differ; 1, the label of a single tumor, is
/// red.
///
/// ```
/// use freetumor::volume::label_colour;
/// assert_eq!(label_colour(1), [255, 64, 64]);
/// assert_ne!(label_colour(5), label_colour(6));
/// ```
pub fn label_colour(id: u16) -> [u8; 3] {
    let hue = (f32::from(id) - 1.0) * 137.507_77 / 60.0;
    [0.0, 4.0, 2.0].map(|shift| {
        let sector = (hue + shift).rem_euclid(6.0);
        let share = ((sector - 3.0).abs() - 1.0).clamp(0.0, 1.0);
        (64.0 + 191.0 * share).round() as u8
    })
}
