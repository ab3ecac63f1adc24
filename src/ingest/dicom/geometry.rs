//! From the places of slices to the grid of a volume.

use crate::error::{Fault, FaultKind};
use crate::volume::{Affine, Grid};

/// Fewest slices that make a volume; fewer are scouts and screenshots.
pub(super) const FEWEST_SLICES: usize = 3;
/// How far a slice may lie from its place on the even grid, in parts of a voxel.
const PLACE_TOLERANCE_VOXELS: f64 = 0.1;
/// Largest sine of the angle between the stacking direction and the slices' normal: half a degree.
const TILT_TOLERANCE: f64 = 0.008_727;
/// How far direction cosines of one series may differ, and how far they may be from unit length and a right angle.
const COSINE_TOLERANCE: f64 = 1e-4;
/// Relative difference of pixel spacings within one series.
const SPACING_TOLERANCE: f64 = 1e-4;
/// Slices nearer than this lie at the same place.
pub(super) const SAME_PLACE_MM: f64 = 0.01;

/// Where a slice lies, in DICOM's coordinates: millimetres towards Left, Posterior, Superior.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SlicePose {
    /// Columns and rows.
    pub shape: [usize; 2],
    /// Centre of the first pixel.
    pub position_mm: [f64; 3],
    /// Direction of growing column index.
    pub along_row: [f64; 3],
    /// Direction of growing row index.
    pub along_column: [f64; 3],
    /// Millimetres between columns and between rows.
    pub spacing_mm: [f64; 2],
    /// Hash of the instance's identifier, where it has one.
    pub instance: Option<[u8; 32]>,
}

/// Slices in order and the grid that they form.
#[derive(Debug, PartialEq)]
pub(super) struct SliceStack {
    /// Indices of the places, from the first slice to the last; copies of a slice are left out.
    pub order: Vec<usize>,
    pub grid: Grid,
}

impl SlicePose {
    /// Checks one slice's own geometry.
    pub fn new(
        shape: [usize; 2],
        position_mm: [f64; 3],
        cosines: [f64; 6],
        spacing_mm: [f64; 2],
        instance: Option<[u8; 32]>,
    ) -> Result<Self, Fault> {
        let [a, b, c, d, e, f] = cosines;
        let (row, column) = ([a, b, c], [d, e, f]);
        let (row_length, column_length) = (length(row), length(column));
        let off = [row_length - 1.0, column_length - 1.0, dot(row, column)];
        if off.iter().any(|off| off.abs() > 10.0 * COSINE_TOLERANCE) {
            return Err(geometry("ImageOrientationPatient is not two perpendicular unit vectors".into()));
        }
        if spacing_mm.iter().any(|mm| !(1e-3..=100.0).contains(mm)) {
            return Err(geometry(format!(
                "pixel spacing {} × {} mm; expected 0.001 to 100 mm",
                spacing_mm[0], spacing_mm[1]
            )));
        }
        if position_mm.iter().any(|mm| mm.abs() > 1e5) {
            return Err(geometry("ImagePositionPatient lies more than 100 m away".into()));
        }
        Ok(Self {
            shape,
            position_mm,
            along_row: row.map(|v| v / row_length),
            along_column: column.map(|v| v / column_length),
            spacing_mm,
            instance,
        })
    }

    /// The direction in which slices are stacked.
    pub fn normal(&self) -> [f64; 3] {
        cross(self.along_row, self.along_column)
    }

    /// Whether two slices lie in parallel, with rows along the same direction, within `tolerance` of each cosine.
    pub fn is_parallel_to(&self, other: &Self, tolerance: f64) -> bool {
        let differs = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).any(|(a, b)| (a - b).abs() > tolerance);
        !differs(self.along_row, other.along_row) && !differs(self.along_column, other.along_column)
    }
}

/// Orders slices along their normal and finds their grid.
pub(super) fn stack(places: &[SlicePose]) -> Result<SliceStack, Fault> {
    let [first, ..] = places else { return Err(too_few(0)) };
    check_alike(first, places)?;
    let normal = first.normal();
    let along = |index: usize| dot(places[index].position_mm, normal);
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|&a, &b| along(a).total_cmp(&along(b)).then(a.cmp(&b)));
    let order = without_copies(places, order, along)?;
    if order.len() < FEWEST_SLICES {
        return Err(too_few(order.len()));
    }
    check_gaps(&order.iter().map(|&index| along(index)).collect::<Vec<_>>())?;

    let start = places[order[0]].position_mm;
    let end = places[order[order.len() - 1]].position_mm;
    let step = [0, 1, 2].map(|axis| (end[axis] - start[axis]) / (order.len() - 1) as f64);
    check_tilt(step, normal)?;
    for (rank, &index) in order.iter().enumerate() {
        let place = places[index].position_mm;
        let off = [0, 1, 2].map(|axis| place[axis] - (start[axis] + step[axis] * rank as f64));
        let voxels = [
            dot(off, normal) / dot(step, normal),
            dot(off, first.along_row) / first.spacing_mm[0],
            dot(off, first.along_column) / first.spacing_mm[1],
        ];
        if voxels.iter().any(|voxels| voxels.abs() > PLACE_TOLERANCE_VOXELS) {
            return Err(geometry(format!(
                "slices are unevenly spaced: slice {} of {} lies {:.2} mm from its place; expected {PLACE_TOLERANCE_VOXELS} voxels at most",
                rank + 1,
                order.len(),
                length(off),
            )));
        }
    }

    let columns = [
        first.along_row.map(|v| v * first.spacing_mm[0]),
        first.along_column.map(|v| v * first.spacing_mm[1]),
        step,
        start,
    ];
    // DICOM's Left and Posterior are our Right and Anterior with the sign turned; adding zero turns -0 into 0.
    let affine =
        Affine([(0, -1.0), (1, -1.0), (2, 1.0)].map(|(axis, sign)| columns.map(|column| sign * column[axis] + 0.0)));
    Ok(SliceStack { grid: Grid { shape: [first.shape[0], first.shape[1], order.len()], affine }, order })
}

/// The fault of a stack that is no volume.
pub(super) fn too_few(slices: usize) -> Fault {
    geometry(format!("{slices} slice(s) at different places; expected at least {FEWEST_SLICES} for a volume"))
}

fn check_alike(first: &SlicePose, places: &[SlicePose]) -> Result<(), Fault> {
    for place in places {
        if place.shape != first.shape {
            let ([a, b], [c, d]) = (first.shape, place.shape);
            return Err(geometry(format!("slices of {a} × {b} and of {c} × {d} pixels in one series")));
        }
        let relative = [0, 1].map(|axis| (place.spacing_mm[axis] / first.spacing_mm[axis] - 1.0).abs());
        if relative.iter().any(|relative| *relative > SPACING_TOLERANCE) {
            let ([a, b], [c, d]) = (first.spacing_mm, place.spacing_mm);
            return Err(geometry(format!("pixels of {a} × {b} mm and of {c} × {d} mm in one series")));
        }
        if !place.is_parallel_to(first, COSINE_TOLERANCE) {
            return Err(geometry("slices of different orientation in one series".into()));
        }
    }
    Ok(())
}

/// Leaves out copies of the same instance; other slices at one place cannot be told apart.
fn without_copies(places: &[SlicePose], order: Vec<usize>, along: impl Fn(usize) -> f64) -> Result<Vec<usize>, Fault> {
    let mut kept: Vec<usize> = Vec::with_capacity(order.len());
    for index in order {
        if let Some(&last) = kept.last()
            && along(index) - along(last) <= SAME_PLACE_MM
        {
            let (here, there) = (&places[index], &places[last]);
            if here.instance.is_some() && here.instance == there.instance && here.position_mm == there.position_mm {
                continue;
            }
            return Err(geometry(
                "two different slices at the same place: expected one acquisition per series, found several mixed"
                    .into(),
            ));
        }
        kept.push(index);
    }
    Ok(kept)
}

/// Tells missing slices from an uneven stack.
fn check_gaps(along_mm: &[f64]) -> Result<(), Fault> {
    let gaps: Vec<f64> = along_mm.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mut sorted = gaps.clone();
    sorted.sort_by(f64::total_cmp);
    let usual = sorted[(sorted.len() - 1) / 2];
    if !(1e-3..=100.0).contains(&usual) {
        return Err(geometry(format!("slices {usual:.3} mm apart; expected 0.001 to 100 mm")));
    }
    let Some((at, gap)) =
        gaps.iter().enumerate().find(|(_, gap)| (*gap / usual - 1.0).abs() > 2.0 * PLACE_TOLERANCE_VOXELS)
    else {
        return Ok(());
    };
    let steps = (gap / usual).round();
    let whole = gaps.iter().all(|gap| {
        let steps = gap / usual;
        steps > 0.5 && (steps - steps.round()).abs() <= 2.0 * PLACE_TOLERANCE_VOXELS
    });
    if whole && steps >= 2.0 {
        let missing: f64 = gaps.iter().map(|gap| (gap / usual).round() - 1.0).sum();
        return Err(Fault::read(
            FaultKind::Missing,
            format!("{missing} slice(s) missing: {gap:.2} mm after slice {}, expected {usual:.2} mm", at + 1),
        ));
    }
    Err(geometry(format!("slices are unevenly spaced: {gap:.2} mm after slice {}, {usual:.2} mm elsewhere", at + 1)))
}

/// A tilted gantry shears the stack; lengths and volumes measured along its axes would be wrong.
fn check_tilt(step: [f64; 3], normal: [f64; 3]) -> Result<(), Fault> {
    let sine = length(cross(step, normal)) / length(step);
    if sine <= TILT_TOLERANCE {
        return Ok(());
    }
    Err(geometry(format!(
        "the gantry is tilted by {:.1}°: expected slices stacked along their normal within 0.5°; resample the series first",
        libm::asin(sine.min(1.0)).to_degrees()
    )))
}

fn geometry(message: String) -> Fault {
    Fault::read(FaultKind::Geometry, message)
}

pub(super) fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

fn length(a: [f64; 3]) -> f64 {
    dot(a, a).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slices 1.25 mm apart in an oblique orientation, not in order.
    fn oblique() -> Vec<SlicePose> {
        let (c, s) = (0.8, 0.6);
        [3, 0, 4, 1, 2]
            .map(|z| {
                let along = 1.25 * f64::from(z);
                let position = [5.0, -3.0 - s * along, 7.0 + c * along];
                SlicePose::new([4, 3], position, [1.0, 0.0, 0.0, 0.0, c, s], [0.5, 0.75], Some([z as u8; 32])).unwrap()
            })
            .to_vec()
    }

    #[test]
    fn every_slice_lies_where_it_says() {
        let places = oblique();
        let SliceStack { order, grid } = stack(&places).unwrap();
        assert_eq!(order, [1, 3, 4, 0, 2]);
        assert_eq!(grid.shape, [4, 3, 5]);
        for (z, index) in order.into_iter().enumerate() {
            let [l, p, s] = places[index].position_mm;
            let here = grid.affine.apply([0.0, 0.0, z as f64]);
            assert!(here.iter().zip([-l, -p, s]).all(|(a, b)| (a - b).abs() < 1e-12), "{here:?}");
        }
        let spacing = grid.affine.spacing_mm();
        assert!(spacing.iter().zip([0.5, 0.75, 1.25]).all(|(a, b)| (a - b).abs() < 1e-12), "{spacing:?}");
        // Two axes turned together keep the hand: left, posterior, superior is right-handed, and so is what comes out.
        assert!(grid.affine.determinant() > 0.0);
    }

    #[test]
    fn copies_need_the_same_name_and_place() {
        let mut places = oblique();
        places.push(places[2]);
        assert_eq!(stack(&places).unwrap().order.len(), 5);
        places[5].instance = None;
        assert!(stack(&places).unwrap_err().message.contains("same place"));
        places[2].instance = None;
        assert!(stack(&places).unwrap_err().message.contains("same place"), "nameless slices may differ");
    }

    #[test]
    fn a_flipped_row_direction_flips_the_stack() {
        let flipped: Vec<_> =
            oblique().into_iter().map(|place| SlicePose { along_row: [-1.0, 0.0, 0.0], ..place }).collect();
        let SliceStack { order, grid } = stack(&flipped).unwrap();
        assert_eq!(order, [2, 0, 4, 3, 1]);
        assert!(grid.affine.determinant() > 0.0);
    }
}
