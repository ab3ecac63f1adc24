//! Closed planar contours on the voxels of a scan.

use std::collections::BTreeMap;

use crate::error::{Fault, FaultKind};
use crate::volume::{Affine, Grid};

/// Maximum extent of a contour perpendicular to the slices, in voxels.
const PLANE_TOLERANCE_VOXELS: f64 = 0.1;
/// Contours with a smaller distance perpendicular to the slices are in one plane, in voxels.
const SAME_PLANE_VOXELS: f64 = 0.05;
/// Distances of two slices with contours that are a gap in one part of a structure, not a gap between two parts.
const SHORT_GAPS: std::ops::RangeInclusive<usize> = 2..=4;
/// A structure is refused if more than one of this number of distances are short gaps.
const MAX_SHORT_GAPS: f64 = 4.0;
/// Coordinates are rounded to this fraction of a voxel, so that a point on the centre of a voxel stays there.
const ROUNDING: f64 = 1e-6;

/// The points of a contour in RAS+ millimetres.
pub(super) struct Contour(Vec<[f64; 3]>);

/// The points of a contour in voxels of a scan.
type VoxelContour = Vec<[f64; 3]>;

impl Contour {
    /// Creates a contour from points towards Left, Posterior and Superior, as DICOM stores them.
    pub fn from_lps(points: &[[f64; 3]]) -> Self {
        Self(points.iter().map(|[l, p, s]| [-l, -p, *s]).collect())
    }

    fn in_voxels(&self, to_voxels: &Affine) -> VoxelContour {
        let round = |value: f64| (value / ROUNDING).round() * ROUNDING;
        self.0.iter().map(|point| to_voxels.apply(*point).map(round)).collect()
    }
}

/// Calls `visit` with every voxel whose centre is inside an odd number of the contours in its slice, as a linear index.
///
/// A contour belongs to the nearest slice. If contours of several planes belong to one slice, those of the plane nearest to the slice are
/// used.
///
/// # Errors
/// Returns `mismatch` if the contours are not in the planes of the slices, all are outside of the scan, or no two slices with contours are
/// neighbours: slices between contours are not interpolated.
pub(super) fn for_each_voxel(contours: &[Contour], scan: &Grid, visit: &mut dyn FnMut(usize)) -> Result<(), Fault> {
    let Some(to_voxels) = scan.affine.inverse() else {
        let message = format!("expected a scan with three independent axes, got the affine {:?}", scan.affine.0);
        return Err(Fault::read(FaultKind::Geometry, message));
    };
    let contours: Vec<VoxelContour> = contours.iter().map(|contour| contour.in_voxels(&to_voxels)).collect();
    if contours.is_empty() {
        return Ok(());
    }
    let axis = slice_axis(&contours)?;
    let slices = by_slice(&contours, axis, scan.shape[axis]);
    check_slices(&slices.keys().copied().collect::<Vec<_>>())?;
    let strides = [1, scan.shape[0], scan.shape[0] * scan.shape[1]];
    let [column, row] = match axis {
        0 => [1, 2],
        1 => [0, 2],
        _ => [0, 1],
    };
    for (slice, contours) in slices {
        let polygons: Vec<Vec<[f64; 2]>> =
            contours.iter().map(|contour| contour.iter().map(|point| [point[column], point[row]]).collect()).collect();
        fill(&polygons, [scan.shape[column], scan.shape[row]], |[x, y]| {
            visit(slice * strides[axis] + x * strides[column] + y * strides[row]);
        });
    }
    Ok(())
}

/// Returns the voxel axis that is perpendicular to all contours.
fn slice_axis(contours: &[VoxelContour]) -> Result<usize, Fault> {
    let extent = |contour: &VoxelContour, axis: usize| {
        let (low, high) = ends(contour, axis);
        high - low
    };
    let largest = |axis: usize| contours.iter().map(|contour| extent(contour, axis)).fold(0.0, f64::max);
    let extents = [0, 1, 2].map(largest);
    let axis = (0..3).fold(2, |best, axis| if extents[axis] < extents[best] { axis } else { best });
    if extents[axis] <= PLANE_TOLERANCE_VOXELS {
        return Ok(axis);
    }
    Err(mismatch(format!(
        "expected contours in the planes of the scan's slices, got a contour that extends over {:.2} slices",
        extents[axis]
    )))
}

fn ends(contour: &VoxelContour, axis: usize) -> (f64, f64) {
    let start = (f64::INFINITY, f64::NEG_INFINITY);
    contour.iter().fold(start, |(low, high), point| (low.min(point[axis]), high.max(point[axis])))
}

/// Returns the contours of each slice of the scan: those of the plane nearest to the slice.
fn by_slice(contours: &[VoxelContour], axis: usize, slices: usize) -> BTreeMap<usize, Vec<&VoxelContour>> {
    let plane = |contour: &VoxelContour| {
        let (low, high) = ends(contour, axis);
        (low + high) / 2.0
    };
    let mut found: BTreeMap<usize, Vec<&VoxelContour>> = BTreeMap::new();
    for contour in contours {
        let slice = (plane(contour) + 0.5).floor();
        if slice >= 0.0 && slice < slices as f64 {
            found.entry(slice as usize).or_default().push(contour);
        }
    }
    for (slice, contours) in &mut found {
        let distance = |contour: &VoxelContour| plane(contour) - *slice as f64;
        let nearest = contours.iter().map(|contour| distance(contour)).min_by(|a, b| a.abs().total_cmp(&b.abs()));
        contours
            .retain(|contour| nearest.is_some_and(|nearest| (distance(contour) - nearest).abs() <= SAME_PLANE_VOXELS));
        // Equal contours would cancel each other: some programs write each contour twice.
        let mut known: Vec<VoxelContour> = Vec::new();
        contours.retain(|contour| {
            let points = sorted_points(contour);
            let is_new = !known.contains(&points);
            known.push(points);
            is_new
        });
    }
    found
}

/// Returns the points of a contour in an order that is independent of its start and its direction, each point once.
fn sorted_points(contour: &VoxelContour) -> VoxelContour {
    let mut points = contour.clone();
    points.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])).then(a[2].total_cmp(&b[2])));
    points.dedup();
    points
}

/// Checks the slices of a structure, in ascending order.
fn check_slices(slices: &[usize]) -> Result<(), Fault> {
    if slices.is_empty() {
        return Err(mismatch("expected contours within the scan, got all contours outside of it".to_owned()));
    }
    let gaps = slices.windows(2).map(|pair| pair[1] - pair[0]);
    if let Some(smallest) = gaps.clone().min().filter(|gap| *gap > 1) {
        return Err(mismatch(format!(
            "expected contours on each slice of the scan, got contours on every {smallest} slices or fewer: slices between them are not interpolated"
        )));
    }
    // A structure may have several parts; many short gaps are slices without a contour.
    let (all, short) = (gaps.clone().count(), gaps.clone().filter(|gap| SHORT_GAPS.contains(gap)).count());
    if short > 1 && MAX_SHORT_GAPS * (short as f64) > all as f64 {
        return Err(mismatch(format!(
            "expected contours on each slice of the scan, got none on the slices after {short} of {} slices with contours: slices between them are not interpolated",
            slices.len()
        )));
    }
    let missing: usize = gaps.map(|gap| gap - 1).sum();
    if missing > 0 {
        tracing::warn!(
            "a structure has no contour on {missing} slices between its first and last one: the structure is empty there"
        );
    }
    Ok(())
}

/// An edge of a polygon that crosses the rows `first..end`.
struct Edge {
    low: [f64; 2],
    high: [f64; 2],
    first: usize,
    end: usize,
}

impl Edge {
    /// Returns the edge between two points, if it crosses any of `rows` rows: those with low ≤ y < high.
    fn new(a: [f64; 2], b: [f64; 2], rows: usize) -> Option<Self> {
        let (low, high) = if a[1] < b[1] { (a, b) } else { (b, a) };
        // The conversion of numbers beyond the range of integers saturates.
        let row = |y: f64| (y.ceil().max(0.0) as usize).min(rows);
        let (first, end) = (row(low[1]), row(high[1]));
        (first < end).then_some(Self { low, high, first, end })
    }

    fn crossing(&self, y: usize) -> f64 {
        let share = (y as f64 - self.low[1]) / (self.high[1] - self.low[1]);
        self.low[0] + share * (self.high[0] - self.low[0])
    }
}

/// Calls `visit` with every point of whole numbers within `shape` that is inside an odd number of polygons. A point on the lower edge of a
/// polygon is inside, a point on the upper edge is outside.
fn fill(polygons: &[Vec<[f64; 2]>], [columns, rows]: [usize; 2], mut visit: impl FnMut([usize; 2])) {
    let pairs = polygons.iter().flat_map(|polygon| polygon.iter().zip(polygon.iter().cycle().skip(1)));
    let mut edges: Vec<Edge> = pairs.filter_map(|(a, b)| Edge::new(*a, *b, rows)).collect();
    edges.sort_by_key(|edge| edge.first);
    let mut following = edges.iter().peekable();
    let mut active: Vec<&Edge> = Vec::new();
    let mut crossings = Vec::new();
    for y in 0..rows {
        active.retain(|edge| edge.end > y);
        while let Some(edge) = following.next_if(|edge| edge.first == y) {
            active.push(edge);
        }
        crossings.clear();
        crossings.extend(active.iter().map(|edge| edge.crossing(y)));
        crossings.sort_by(f64::total_cmp);
        let (spans, _) = crossings.as_chunks::<2>();
        for [start, end] in spans {
            let column = |x: f64| (x.ceil().max(0.0) as usize).min(columns);
            (column(*start)..column(*end)).for_each(|x| visit([x, y]));
        }
    }
}

fn mismatch(message: String) -> Fault {
    Fault::read(FaultKind::Mismatch, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a grid whose voxel [i, j, k] is at [-i, -j, 2 k] mm in RAS, and so at [i, j, 2 k] in DICOM coordinates.
    fn grid() -> Grid {
        let affine = Affine([[-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]]);
        Grid { shape: [6, 5, 4], affine }
    }

    fn rectangle([left, right]: [f64; 2], [low, high]: [f64; 2], z: f64) -> Contour {
        Contour::from_lps(&[[left, low, z], [right, low, z], [right, high, z], [left, high, z]])
    }

    /// Returns the slices of a structure as text, one line per row.
    fn drawn(contours: &[Contour], scan: &Grid) -> Result<Vec<Vec<String>>, Fault> {
        let [nx, ny, nz] = scan.shape;
        let mut inside = vec![false; scan.voxels()];
        for_each_voxel(contours, scan, &mut |index| inside[index] = true)?;
        let row = |y: usize, z: usize| {
            (0..nx).map(|x| if inside[x + nx * (y + ny * z)] { '#' } else { '.' }).collect::<String>()
        };
        Ok((0..nz).map(|z| (0..ny).map(|y| row(y, z)).collect()).collect())
    }

    #[test]
    fn voxel_is_inside_if_its_centre_is_inside() {
        let slices = drawn(&[rectangle([0.6, 3.4], [0.4, 2.6], 2.0)], &grid()).unwrap();
        assert_eq!(slices[1], ["......", ".###..", ".###..", "......", "......"]);
        assert_eq!([&slices[0], &slices[2]], [&vec!["......"; 5], &vec!["......"; 5]]);
        // A centre on an edge is inside at the lower edge only.
        let slices = drawn(&[rectangle([1.0, 3.0], [1.0, 3.0], 2.0)], &grid()).unwrap();
        assert_eq!(slices[1], ["......", ".##...", ".##...", "......", "......"]);
        // A triangle with corners (0, 0), (5, 0), (0, 4), moved by a quarter of a voxel.
        let triangle = Contour::from_lps(&[[-0.25, -0.25, 0.0], [4.75, -0.25, 0.0], [-0.25, 3.75, 0.0]]);
        assert_eq!(drawn(&[triangle], &grid()).unwrap()[0], ["#####.", "####..", "##....", "#.....", "......"]);
    }

    #[test]
    fn holes_are_contours_inside_contours_or_keyholes() {
        let outer = || rectangle([-0.5, 5.5], [-0.5, 4.5], 0.0);
        let ring = vec!["######", "#....#", "#....#", "#....#", "######"];
        let slices = drawn(&[outer(), rectangle([0.5, 4.5], [0.5, 3.5], 0.0)], &grid()).unwrap();
        assert_eq!(slices[0], ring);
        let keyhole = [
            [-0.5, -0.5],
            [5.5, -0.5],
            [5.5, 4.5],
            [-0.5, 4.5],
            [-0.5, -0.5],
            [0.5, 0.5],
            [0.5, 3.5],
            [4.5, 3.5],
            [4.5, 0.5],
            [0.5, 0.5],
        ];
        let keyhole = Contour::from_lps(&keyhole.map(|[x, y]| [x, y, 0.0]));
        assert_eq!(drawn(&[keyhole], &grid()).unwrap()[0], ring);
        let island = rectangle([1.5, 2.5], [1.5, 2.5], 0.0);
        let slices = drawn(&[outer(), rectangle([0.5, 4.5], [0.5, 3.5], 0.0), island], &grid()).unwrap();
        assert_eq!(slices[0][2], "#.#..#");
    }

    #[test]
    fn equal_contours_count_once() {
        let once = drawn(&[rectangle([0.6, 3.4], [0.4, 2.6], 2.0)], &grid()).unwrap();
        let again =
            Contour::from_lps(&[[3.4, 2.6, 2.0], [3.4, 0.4, 2.0], [0.6, 0.4, 2.0], [0.6, 2.6, 2.0], [3.4, 2.6, 2.0]]);
        assert_eq!(drawn(&[rectangle([0.6, 3.4], [0.4, 2.6], 2.0), again], &grid()).unwrap(), once);
    }

    #[test]
    fn contours_belong_to_nearest_slice_and_nearest_plane() {
        let small = || rectangle([0.5, 1.5], [0.5, 1.5], 2.9);
        let slices = drawn(&[small()], &grid()).unwrap();
        assert_eq!(slices[1][1], ".#....");
        // Two planes of one slice: the nearer one is used, and their contours do not cancel each other.
        let slices = drawn(&[small(), rectangle([0.5, 2.5], [0.5, 1.5], 2.2)], &grid()).unwrap();
        assert_eq!(slices[1][1], ".##...");
    }

    #[test]
    fn missing_slices_and_non_axial_planes_are_mismatch_faults() {
        let at = |z: f64| rectangle([0.5, 3.5], [0.5, 3.5], z);
        let tilted = Contour::from_lps(&[[0.5, 0.5, 0.0], [3.5, 0.5, 0.0], [3.5, 3.5, 1.0]]);
        for (contours, message) in [
            (vec![at(0.0), at(4.0)], "every 2 slices"),
            (vec![at(-1.2), at(8.0)], "outside of it"),
            (vec![tilted], "extends over 0.50 slices"),
        ] {
            let fault = drawn(&contours, &grid()).unwrap_err();
            assert!(fault.kind == FaultKind::Mismatch && fault.message.contains(message), "{fault}");
        }
        let two_parts = drawn(&[at(0.0), at(2.0), at(6.0)], &grid()).unwrap();
        assert_eq!((&two_parts[2][1], &two_parts[3][1]), (&"......".to_owned(), &".###..".to_owned()));
        // Contours on every second slice but one.
        let tall = Grid { shape: [6, 5, 12], ..grid() };
        let contours: Vec<Contour> = [0.0, 2.0, 6.0, 10.0, 14.0, 18.0].into_iter().map(at).collect();
        let fault = drawn(&contours, &tall).unwrap_err();
        assert!(fault.message.contains("after 4 of 6 slices"), "{fault}");
        let two_lesions: Vec<Contour> = [0.0, 2.0, 14.0, 16.0].into_iter().map(at).collect();
        assert!(drawn(&two_lesions, &tall).is_ok());
        assert!(drawn(&[], &grid()).unwrap().concat().iter().all(|row| row == "......"));
    }

    #[test]
    fn contours_are_filled_in_scan_with_other_axis_order() {
        // Voxel [k, i, j] of this grid is voxel [i, j, k] of the other one.
        let affine = Affine([[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [2.0, 0.0, 0.0, 0.0]]);
        let scan = Grid { shape: [4, 6, 5], affine };
        let mut found = Vec::new();
        for_each_voxel(&[rectangle([0.6, 2.4], [0.4, 1.6], 2.0)], &scan, &mut |index| found.push(index)).unwrap();
        found.sort_unstable();
        assert_eq!(found, [1 + 4 * (1 + 6), 1 + 4 * (2 + 6)]);
    }
}
