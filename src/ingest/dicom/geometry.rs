//! The grid of a volume from the poses of its slices.

use crate::error::{Fault, FaultKind};
use crate::volume::{Affine, Grid};

/// Minimum number of slices of a volume; fewer are localizers and screenshots.
pub(super) const FEWEST_SLICES: usize = 3;
/// Maximum distance of a slice from its position on the even grid, in voxels.
const POSITION_TOLERANCE_VOXELS: f64 = 0.1;
/// Maximum difference of direction cosines within one series. Unit length and right angle may deviate ten times as much.
const COSINE_TOLERANCE: f64 = 1e-4;
/// Maximum relative difference of pixel spacings within one series.
const SPACING_TOLERANCE: f64 = 1e-4;
/// Maximum distance of two slices at the same position.
pub(super) const SAME_POSITION_MM: f64 = 0.01;

/// Position, orientation and spacing of a slice, in DICOM coordinates: millimetres towards Left, Posterior, Superior.
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
}

/// The order of slices and their grid.
#[derive(Debug, PartialEq)]
pub(super) struct SliceStack {
    /// Indices of the poses from the first slice to the last.
    pub order: Vec<usize>,
    pub grid: Grid,
}

impl SlicePose {
    /// Creates a pose and checks its geometry.
    pub fn new(
        shape: [usize; 2],
        position_mm: [f64; 3],
        cosines: [f64; 6],
        spacing_mm: [f64; 2],
    ) -> Result<Self, Fault> {
        let [a, b, c, d, e, f] = cosines;
        let (row, column) = ([a, b, c], [d, e, f]);
        let (row_length, column_length) = (length(row), length(column));
        let deviations = [row_length - 1.0, column_length - 1.0, dot(row, column)];
        if deviations.iter().any(|deviation| deviation.abs() > 10.0 * COSINE_TOLERANCE) {
            return Err(geometry(
                "expected two perpendicular unit vectors in ImageOrientationPatient, got other values".into(),
            ));
        }
        if spacing_mm.iter().any(|mm| !(1e-3..=100.0).contains(mm)) {
            return Err(geometry(format!(
                "expected a pixel spacing of 0.001 to 100 mm, got {} × {} mm",
                spacing_mm[0], spacing_mm[1]
            )));
        }
        if position_mm.iter().any(|mm| mm.abs() > 1e5) {
            return Err(geometry(
                "expected an ImagePositionPatient within 100 m of the origin, got a larger distance".into(),
            ));
        }
        Ok(Self {
            shape,
            position_mm,
            along_row: row.map(|v| v / row_length),
            along_column: column.map(|v| v / column_length),
            spacing_mm,
        })
    }

    /// Returns the normal of the slice.
    pub fn normal(&self) -> [f64; 3] {
        cross(self.along_row, self.along_column)
    }

    /// Returns whether two slices are parallel, with rows along the same direction, within `tolerance` of each cosine.
    pub fn is_parallel_to(&self, other: &Self, tolerance: f64) -> bool {
        let differs = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).any(|(a, b)| (a - b).abs() > tolerance);
        !differs(self.along_row, other.along_row) && !differs(self.along_column, other.along_column)
    }
}

/// Orders slices along their normal and computes their grid.
pub(super) fn stack(poses: &[SlicePose]) -> Result<SliceStack, Fault> {
    let [first, ..] = poses else { return Err(too_few(0)) };
    check_consistent(first, poses)?;
    let normal = first.normal();
    let along = |index: usize| dot(poses[index].position_mm, normal);
    let mut order: Vec<usize> = (0..poses.len()).collect();
    order.sort_by(|&a, &b| along(a).total_cmp(&along(b)).then(a.cmp(&b)));
    let along_mm: Vec<f64> = order.iter().map(|&index| along(index)).collect();
    if along_mm.windows(2).any(|pair| pair[1] - pair[0] <= SAME_POSITION_MM) {
        return Err(geometry(
            "two different slices at the same position: expected one acquisition per series, got several".into(),
        ));
    }
    if order.len() < FEWEST_SLICES {
        return Err(too_few(order.len()));
    }
    check_gaps(&along_mm)?;

    let start = poses[order[0]].position_mm;
    let end = poses[order[order.len() - 1]].position_mm;
    let step = [0, 1, 2].map(|axis| (end[axis] - start[axis]) / (order.len() - 1) as f64);
    for (rank, &index) in order.iter().enumerate() {
        let position = poses[index].position_mm;
        let offset = [0, 1, 2].map(|axis| position[axis] - (start[axis] + step[axis] * rank as f64));
        let voxels = [
            dot(offset, normal) / dot(step, normal),
            dot(offset, first.along_row) / first.spacing_mm[0],
            dot(offset, first.along_column) / first.spacing_mm[1],
        ];
        if voxels.iter().any(|voxels| voxels.abs() > POSITION_TOLERANCE_VOXELS) {
            return Err(geometry(format!(
                "slices are unevenly spaced: expected at most {POSITION_TOLERANCE_VOXELS} voxels between a slice and the even grid, got {2:.2} mm at slice {0} of {1}",
                rank + 1,
                order.len(),
                length(offset),
            )));
        }
    }

    let columns = [
        first.along_row.map(|v| v * first.spacing_mm[0]),
        first.along_column.map(|v| v * first.spacing_mm[1]),
        step,
        start,
    ];
    // Left and Posterior of DICOM are Right and Anterior with the opposite sign; adding zero turns -0 into 0.
    let affine =
        Affine([(0, -1.0), (1, -1.0), (2, 1.0)].map(|(axis, sign)| columns.map(|column| sign * column[axis] + 0.0)));
    let affine = affine.with_right_angles().map_err(tilted)?;
    Ok(SliceStack { grid: Grid { shape: [first.shape[0], first.shape[1], order.len()], affine }, order })
}

/// Returns whether a slice continues an even stack by one step, before its first or after its last slice.
pub(super) fn continues(poses: &[SlicePose], pose: &SlicePose) -> bool {
    let Ok(stack) = stack(poses) else { return false };
    let (first, last) = (&poses[stack.order[0]], &poses[stack.order[stack.order.len() - 1]]);
    if check_consistent(first, &[*pose]).is_err() {
        return false;
    }
    let steps = (stack.order.len() - 1) as f64;
    let step = [0, 1, 2].map(|axis| (last.position_mm[axis] - first.position_mm[axis]) / steps);
    [(first, -1.0), (last, 1.0)].into_iter().any(|(end, sign)| {
        let offset = [0, 1, 2].map(|axis| pose.position_mm[axis] - end.position_mm[axis] - sign * step[axis]);
        length(offset) <= POSITION_TOLERANCE_VOXELS * length(step)
    })
}

/// Returns the fault of a tilted gantry, which shears the stack.
fn tilted(degrees: f64) -> Fault {
    geometry(format!(
        "the gantry is tilted by {degrees:.1}°: expected slices stacked along their normal within 0.5°, resample the series first"
    ))
}

/// Returns the fault of a stack with too few slices.
fn too_few(slices: usize) -> Fault {
    geometry(format!("expected at least {FEWEST_SLICES} slices at different positions, got {slices}"))
}

fn check_consistent(first: &SlicePose, poses: &[SlicePose]) -> Result<(), Fault> {
    for pose in poses {
        if pose.shape != first.shape {
            let ([a, b], [c, d]) = (first.shape, pose.shape);
            return Err(geometry(format!(
                "expected slices of one shape in a series, got {a} × {b} and {c} × {d} pixels"
            )));
        }
        let relative = [0, 1].map(|axis| (pose.spacing_mm[axis] / first.spacing_mm[axis] - 1.0).abs());
        if relative.iter().any(|relative| *relative > SPACING_TOLERANCE) {
            let ([a, b], [c, d]) = (first.spacing_mm, pose.spacing_mm);
            return Err(geometry(format!("expected one pixel spacing in a series, got {a} × {b} and {c} × {d} mm")));
        }
        if !pose.is_parallel_to(first, COSINE_TOLERANCE) {
            return Err(geometry("expected slices of one orientation in a series, got several".into()));
        }
    }
    Ok(())
}

/// Distinguishes missing slices from uneven spacing.
fn check_gaps(along_mm: &[f64]) -> Result<(), Fault> {
    let gaps: Vec<f64> = along_mm.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mut sorted = gaps.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[(sorted.len() - 1) / 2];
    if !(1e-3..=100.0).contains(&median) {
        return Err(geometry(format!("expected a slice spacing of 0.001 to 100 mm, got {median:.3} mm")));
    }
    let Some((at, gap)) =
        gaps.iter().enumerate().find(|(_, gap)| (*gap / median - 1.0).abs() > 2.0 * POSITION_TOLERANCE_VOXELS)
    else {
        return Ok(());
    };
    let steps = (gap / median).round();
    let are_multiples = gaps.iter().all(|gap| {
        let steps = gap / median;
        steps > 0.5 && (steps - steps.round()).abs() <= 2.0 * POSITION_TOLERANCE_VOXELS
    });
    if are_multiples && steps >= 2.0 {
        let missing: f64 = gaps.iter().map(|gap| (gap / median).round() - 1.0).sum();
        return Err(Fault::read(
            FaultKind::Missing,
            format!("{missing} slice(s) missing: expected {median:.2} mm after slice {}, got {gap:.2} mm", at + 1),
        ));
    }
    Err(geometry(format!(
        "slices are unevenly spaced: expected {median:.2} mm after slice {}, got {gap:.2} mm",
        at + 1
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

    /// Returns slices 1.25 mm apart in an oblique orientation, not in order.
    fn oblique() -> Vec<SlicePose> {
        let (c, s) = (0.8, 0.6);
        [3, 0, 4, 1, 2]
            .map(|z| {
                let along = 1.25 * f64::from(z);
                let position = [5.0, -3.0 - s * along, 7.0 + c * along];
                SlicePose::new([4, 3], position, [1.0, 0.0, 0.0, 0.0, c, s], [0.5, 0.75]).unwrap()
            })
            .to_vec()
    }

    #[test]
    fn affine_maps_every_slice_to_its_position() {
        let poses = oblique();
        let SliceStack { order, grid } = stack(&poses).unwrap();
        assert_eq!(order, [1, 3, 4, 0, 2]);
        assert_eq!(grid.shape, [4, 3, 5]);
        for (z, index) in order.into_iter().enumerate() {
            let [l, p, s] = poses[index].position_mm;
            let position = grid.affine.apply([0.0, 0.0, z as f64]);
            assert!(position.iter().zip([-l, -p, s]).all(|(a, b)| (a - b).abs() < 1e-12), "{position:?}");
        }
        let spacing = grid.affine.spacing_mm();
        assert!(spacing.iter().zip([0.5, 0.75, 1.25]).all(|(a, b)| (a - b).abs() < 1e-12), "{spacing:?}");
        // Flipping two axes keeps the handedness: left, posterior, superior is right-handed, and so is RAS.
        assert!(grid.affine.determinant() > 0.0);
    }

    #[test]
    fn two_slices_at_one_position_are_a_fault() {
        let mut poses = oblique();
        poses.push(poses[2]);
        assert!(stack(&poses).unwrap_err().message.contains("same position"));
        // Moved within its plane.
        poses[5].position_mm[0] += 1.0;
        assert!(stack(&poses).unwrap_err().message.contains("same position"));
    }

    #[test]
    fn flipped_row_direction_flips_stack() {
        let flipped: Vec<_> =
            oblique().into_iter().map(|pose| SlicePose { along_row: [-1.0, 0.0, 0.0], ..pose }).collect();
        let SliceStack { order, grid } = stack(&flipped).unwrap();
        assert_eq!(order, [2, 0, 4, 3, 1]);
        assert!(grid.affine.determinant() > 0.0);
    }
}
