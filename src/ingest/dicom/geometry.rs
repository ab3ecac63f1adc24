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
    let EvenStack { order, step, .. } = EvenStack::of(poses)?;
    let first = &poses[order[0]];
    let columns = [
        first.along_row.map(|v| v * first.spacing_mm[0]),
        first.along_column.map(|v| v * first.spacing_mm[1]),
        step,
        first.position_mm,
    ];
    // Left and Posterior of DICOM are Right and Anterior with the opposite sign; adding zero turns -0 into 0.
    let affine =
        Affine([(0, -1.0), (1, -1.0), (2, 1.0)].map(|(axis, sign)| columns.map(|column| sign * column[axis] + 0.0)));
    let affine = affine.with_right_angles().map_err(tilted)?;
    Ok(SliceStack { grid: Grid { shape: [first.shape[0], first.shape[1], order.len()], affine }, order })
}

/// Slices of one shape, spacing and orientation with even gaps, possibly tilted.
#[derive(Clone, Debug)]
pub(super) struct EvenStack {
    /// Indices of the poses from the first slice to the last.
    order: Vec<usize>,
    first: SlicePose,
    last: SlicePose,
    /// Distance between slices.
    step: [f64; 3],
}

impl EvenStack {
    /// Orders slices along their normal and checks that they are a stack.
    pub fn of(poses: &[SlicePose]) -> Result<Self, Fault> {
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
        let ordered: Vec<&SlicePose> = order.iter().map(|&index| &poses[index]).collect();
        let (first, last) = (*ordered[0], *ordered[ordered.len() - 1]);
        let steps = (order.len() - 1) as f64;
        let step = [0, 1, 2].map(|axis| (last.position_mm[axis] - first.position_mm[axis]) / steps);
        for (rank, pose) in ordered.iter().enumerate() {
            let offset =
                [0, 1, 2].map(|axis| pose.position_mm[axis] - (first.position_mm[axis] + step[axis] * rank as f64));
            let voxels = [
                dot(offset, normal) / dot(step, normal),
                dot(offset, first.along_row) / first.spacing_mm[0],
                dot(offset, first.along_column) / first.spacing_mm[1],
            ];
            if voxels.iter().any(|voxels| voxels.abs() > POSITION_TOLERANCE_VOXELS) {
                return Err(deviating_slice(&ordered));
            }
        }
        Ok(Self { order, first, last, step })
    }

    /// Returns the distance between slices along their normal.
    pub fn step_mm(&self) -> f64 {
        dot(self.step, self.first.normal())
    }

    /// Returns the positions of the first and the last slice along the normal.
    fn range_mm(&self) -> [f64; 2] {
        let normal = self.first.normal();
        [dot(self.first.position_mm, normal), dot(self.last.position_mm, normal)]
    }

    /// Returns whether a slice continues the stack by one step, before the first or after the last slice.
    pub fn is_adjacent_slice(&self, pose: &SlicePose) -> bool {
        if check_consistent(&self.first, &[*pose]).is_err() {
            return false;
        }
        [(&self.first, -1.0), (&self.last, 1.0)].into_iter().any(|(end, sign)| {
            let offset = [0, 1, 2].map(|axis| pose.position_mm[axis] - end.position_mm[axis] - sign * self.step[axis]);
            length(offset) <= POSITION_TOLERANCE_VOXELS * length(self.step)
        })
    }

    /// Returns whether the plane of a slice is parallel to the stack and one step before its first or after its last slice. The slice may
    /// be flipped or have another shape.
    pub fn is_adjacent_plane(&self, pose: &SlicePose) -> bool {
        let [low, high] = self.range_mm();
        let step = self.step_mm();
        self.has_parallel_plane(pose)
            && [low - step, high + step]
                .iter()
                .any(|mm| (self.along_mm(pose) - mm).abs() <= POSITION_TOLERANCE_VOXELS * step)
    }

    /// Returns whether the plane of a slice is parallel to the stack and between its first and its last slice.
    pub fn overlaps(&self, pose: &SlicePose) -> bool {
        let [low, high] = self.range_mm();
        let tolerance = 0.5 * self.step_mm();
        self.has_parallel_plane(pose) && (low - tolerance..=high + tolerance).contains(&self.along_mm(pose))
    }

    fn along_mm(&self, pose: &SlicePose) -> f64 {
        dot(pose.position_mm, self.first.normal())
    }

    fn has_parallel_plane(&self, pose: &SlicePose) -> bool {
        dot(pose.normal(), self.first.normal()).abs() >= 1.0 - COSINE_TOLERANCE
    }
}

/// Returns whether two slices have the same grid at the same place.
pub(super) fn have_same_place(a: &SlicePose, b: &SlicePose) -> bool {
    let offset = [0, 1, 2].map(|axis| a.position_mm[axis] - b.position_mm[axis]);
    check_consistent(a, &[*b]).is_ok() && length(offset) <= SAME_POSITION_MM
}

/// Returns whether two slices have the same pixel spacing.
pub(super) fn have_same_spacing(a: &SlicePose, b: &SlicePose) -> bool {
    [0, 1].iter().all(|&axis| (b.spacing_mm[axis] / a.spacing_mm[axis] - 1.0).abs() <= SPACING_TOLERANCE)
}

/// Returns the fault of the slice that deviates most from the even grid of the others. The grid is that of the medians, which one slice
/// does not move.
fn deviating_slice(ordered: &[&SlicePose]) -> Fault {
    let first = ordered[0];
    let mut largest = (0.0, 0.0, 0, "its normal");
    for (direction, spacing_mm, name) in [
        (first.along_row, first.spacing_mm[0], "its rows"),
        (first.along_column, first.spacing_mm[1], "its columns"),
        (first.normal(), f64::NAN, "its normal"),
    ] {
        let along: Vec<f64> = ordered.iter().map(|pose| dot(pose.position_mm, direction)).collect();
        let slope = median(along.windows(2).map(|pair| pair[1] - pair[0]).collect());
        let start = median(along.iter().enumerate().map(|(rank, mm)| mm - slope * rank as f64).collect());
        let voxel_mm = if spacing_mm.is_nan() { slope } else { spacing_mm };
        for (rank, mm) in along.iter().enumerate() {
            let offset = mm - start - slope * rank as f64;
            if (offset / voxel_mm).abs() > largest.0 {
                largest = ((offset / voxel_mm).abs(), offset.abs(), rank + 1, name);
            }
        }
    }
    let (_, offset_mm, slice, direction) = largest;
    geometry(format!(
        "slices are unevenly spaced: expected at most {POSITION_TOLERANCE_VOXELS} voxels between a slice and the even grid, got {offset_mm:.2} mm at slice {slice} of {}, along {direction}",
        ordered.len(),
    ))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// Returns the fault of a tilted gantry, which shears the stack.
fn tilted(degrees: f64) -> Fault {
    geometry(format!(
        "the gantry is tilted by {degrees:.2}°: expected slices stacked along their normal within 0.5°, resample the series first"
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
        if !have_same_spacing(first, pose) {
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
    let median = median(gaps.clone());
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
