//! Resampling of labels to the grid of a scan through both affines.

use crate::error::{Fault, FaultKind};
use crate::volume::{Affine, Array3, Grid, Labels};

/// Maps each voxel of a scan to a voxel of a label file.
///
/// Labels are often stored with other axes than the scan (LAS and LPS), for a crop of the scan, or on another grid.
/// If the axes of both grids are parallel, the map is one table for each axis, which is exact for flips, swapped axes
/// and crops. Otherwise each voxel has the label that is nearest to its centre.
///
/// # Units
/// Tolerances are in voxels: axes are parallel if no voxel deviates by more than a tenth of a voxel, as in
/// [`Grid::agrees_with`].
pub struct Alignment {
    from: [usize; 3],
    to: [usize; 3],
    /// Voxel of the scan → voxel of the labels.
    map: Affine,
    /// For each axis of the scan the offsets into the memory of the labels, if the axes are parallel.
    tables: Option<[Vec<Option<usize>>; 3]>,
}

impl Alignment {
    /// Aligns labels on the grid `labels` with a scan on the grid `scan`.
    ///
    /// # Errors
    /// Returns `geometry` if the affine of the labels is degenerate, `mismatch` if the labels cover less than `min_coverage` of
    /// the voxels of the scan.
    pub fn new(labels: &Grid, scan: &Grid, min_coverage: f64) -> Result<Self, Fault> {
        let Some(inverse) = labels.affine.inverse() else {
            let message = format!("expected labels with three independent axes, got the affine {:?}", labels.affine.0);
            return Err(Fault::mask(FaultKind::Geometry, message));
        };
        let map = inverse.after(&scan.affine);
        let tables = separable(&map, scan.shape).map(|map| offsets(&map, labels.shape, scan.shape));
        let alignment = Self { from: labels.shape, to: scan.shape, map, tables };
        let coverage = alignment.coverage();
        if coverage < min_coverage {
            return Err(Fault::mask(FaultKind::Mismatch, mismatch(labels, scan, coverage, min_coverage)));
        }
        Ok(alignment)
    }

    /// Returns the share of the voxels of the scan that are within the grid of the labels.
    pub fn coverage(&self) -> f64 {
        match &self.tables {
            Some(tables) => {
                let inside = |table: &Vec<Option<usize>>| table.iter().flatten().count() as f64 / table.len() as f64;
                tables.iter().map(inside).product()
            }
            // A regular sample of the scan is sufficient to detect the mask of another scan.
            None => {
                let samples = self.to.map(|n| n.min(32));
                let probe = Array3::from_fn(samples, |voxel| {
                    let voxel =
                        [0, 1, 2].map(|a| ((voxel[a] as f64 + 0.5) * self.to[a] as f64 / samples[a] as f64).floor());
                    self.nearest(voxel).is_some()
                });
                probe.as_slice().iter().filter(|inside| **inside).count() as f64 / probe.as_slice().len() as f64
            }
        }
    }

    /// Calls `visit` with every voxel of the scan (as a linear index) whose label is not 0, and the label.
    ///
    /// # Panics
    /// Panics if the shape of `labels` is not that of the aligned grid.
    pub fn for_each_label(&self, labels: &Labels, mut visit: impl FnMut(usize, u16)) {
        assert_eq!(labels.ids.shape(), self.from, "labels of another grid");
        let ids = labels.ids.as_slice();
        let mut index = 0;
        for z in 0..self.to[2] {
            for y in 0..self.to[1] {
                match &self.tables {
                    Some([xs, ys, zs]) => {
                        if let (Some(y), Some(z)) = (ys[y], zs[z]) {
                            for (x, offset) in xs.iter().enumerate() {
                                if let Some(offset) = offset
                                    && ids[offset + y + z] != 0
                                {
                                    visit(index + x, ids[offset + y + z]);
                                }
                            }
                        }
                    }
                    None => {
                        for x in 0..self.to[0] {
                            if let Some(from) = self.nearest([x, y, z].map(|i| i as f64))
                                && ids[from] != 0
                            {
                                visit(index + x, ids[from]);
                            }
                        }
                    }
                }
                index += self.to[0];
            }
        }
    }

    /// Returns the linear index of the label nearest to a voxel of the scan.
    fn nearest(&self, voxel: [f64; 3]) -> Option<usize> {
        let [x, y, z] = self.map.apply(voxel);
        let [nx, ny, nz] = self.from;
        Some(within(x, nx)? + nx * (within(y, ny)? + ny * within(z, nz)?))
    }
}

/// Returns the voxel nearest to a fractional index, if it is on an axis of `count` voxels.
fn within(index: f64, count: usize) -> Option<usize> {
    let nearest = (index + 0.5).floor();
    (nearest >= 0.0 && nearest < count as f64).then_some(nearest as usize)
}

/// Returns the map with one step and one offset for each axis, if no voxel moves by more than a tenth of a voxel. Steps and offsets
/// are rounded to whole voxels within the same tolerance.
fn separable(map: &Affine, shape: [usize; 3]) -> Option<Affine> {
    let mut steps = Affine([[0.0; 4]; 3]);
    let mut used = [false; 3];
    for (row, simple) in map.0.iter().zip(&mut steps.0) {
        let main = (0..3).max_by(|&a, &b| row[a].abs().total_cmp(&row[b].abs()))?;
        if std::mem::replace(&mut used[main], true) {
            return None;
        }
        (simple[main], simple[3]) = (row[main], row[3]);
    }
    let whole = Affine(steps.0.map(|row| row.map(f64::round)));
    [whole, steps].into_iter().find(|simple| simple.agrees_with(map, shape, 0.1))
}

/// Returns for each axis of the scan, and each voxel along the axis, the summand of the linear index of the labels.
fn offsets(map: &Affine, from: [usize; 3], to: [usize; 3]) -> [Vec<Option<usize>>; 3] {
    let strides = [1, from[0], from[0] * from[1]];
    [0, 1, 2].map(|axis| {
        let along = (0..3).find(|&row| map.0[row][axis] != 0.0).unwrap_or(axis);
        let [step, start] = [map.0[along][axis], map.0[along][3]];
        (0..to[axis]).map(|i| within(step * i as f64 + start, from[along]).map(|at| at * strides[along])).collect()
    })
}

fn mismatch(labels: &Grid, scan: &Grid, coverage: f64, min_coverage: f64) -> String {
    let extent = |grid: &Grid| {
        let [a, b] = [[0.0; 3], grid.shape.map(|n| n as f64 - 1.0)].map(|corner| grid.affine.apply(corner));
        let axis = |i: usize| format!("{}..{}", a[i].min(b[i]).round(), a[i].max(b[i]).round());
        format!("{:?} voxels over R {}, A {}, S {} mm", grid.shape, axis(0), axis(1), axis(2))
    };
    format!(
        "the labels cover {:.0}% of the scan, expected at least {:.0}%: scan {}; labels {}",
        100.0 * coverage,
        100.0 * min_coverage,
        extent(scan),
        extent(labels)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn resampled(labels: &Labels, scan: &Grid) -> Vec<u16> {
        let mut out = vec![0; scan.voxels()];
        Alignment::new(&labels.grid, scan, 0.0).unwrap().for_each_label(labels, |index, id| out[index] = id);
        out
    }

    fn numbered(grid: Grid) -> Labels {
        let mut next = 0;
        Labels { grid, ids: Array3::from_fn(grid.shape, |_| (next += 1, next).1) }
    }

    /// Returns the grid of the scan with its axes in another order and some axes flipped.
    fn reoriented(grid: &Grid, order: [usize; 3], flip: [bool; 3]) -> Grid {
        let mut affine = grid.affine;
        for row in 0..3 {
            let old = grid.affine.0[row];
            for (axis, &from) in order.iter().enumerate() {
                affine.0[row][axis] = if flip[axis] { -old[from] } else { old[from] };
                if flip[axis] {
                    affine.0[row][3] += old[from] * (grid.shape[from] as f64 - 1.0);
                }
            }
        }
        Grid { shape: order.map(|axis| grid.shape[axis]), affine }
    }

    fn oblique(tilt: f64) -> Grid {
        let (s, c) = (tilt.sin(), tilt.cos());
        let affine = Affine([[-0.8, 0.0, 0.0, 120.0], [0.0, -0.9 * c, 2.5 * s, 80.0], [0.0, 0.9 * s, 2.5 * c, -300.0]]);
        Grid { shape: [7, 6, 5], affine }
    }

    proptest! {
        #[test]
        fn labels_in_any_axis_order_keep_world_positions(
            order in Just([0usize, 1, 2]).prop_shuffle(), flip in any::<[bool; 3]>(), tilt in -0.3f64..0.3,
        ) {
            let scan = oblique(tilt);
            let labels = numbered(reoriented(&scan, order, flip));
            let got = resampled(&labels, &scan);
            for (index, &id) in got.iter().enumerate() {
                let voxel = [index % 7, index / 7 % 6, index / 42];
                let n = usize::from(id) - 1;
                let [nx, ny, _] = labels.grid.shape;
                let source = [n % nx, n / nx % ny, n / (nx * ny)];
                let (here, there) = (
                    scan.affine.apply(voxel.map(|i| i as f64)),
                    labels.grid.affine.apply(source.map(|i| i as f64)),
                );
                for axis in 0..3 {
                    prop_assert!((here[axis] - there[axis]).abs() < 1e-9);
                }
            }
        }

        #[test]
        fn oblique_labels_are_resampled_to_nearest(tilt in -0.5f64..0.5, shift in -3.0f64..3.0) {
            let scan = oblique(0.0);
            let mut grid = oblique(tilt);
            grid.affine.0[0][3] += shift;
            let labels = numbered(grid);
            let inverse = grid.affine.inverse().unwrap();
            let got = resampled(&labels, &scan);
            for (index, &id) in got.iter().enumerate() {
                let world = scan.affine.apply([index % 7, index / 7 % 6, index / 42].map(|i| i as f64));
                let at = inverse.apply(world);
                // A voxel almost midway between two labels may have either label.
                if at.iter().any(|v| ((v - 0.5).round() - (v - 0.5)).abs() < 0.11) {
                    continue;
                }
                let nearest = at.map(|v| v.round());
                let inside = (0..3).all(|a| (0.0..grid.shape[a] as f64).contains(&nearest[a]));
                let expected = if inside { labels.ids[nearest.map(|v| v as usize)] } else { 0 };
                prop_assert_eq!(id, expected);
            }
        }
    }

    #[test]
    fn cropped_labels_fill_only_their_region() {
        let scan = oblique(0.1);
        let region = crate::volume::Region { start: [2, 1, 1], shape: [4, 4, 3] };
        let labels = numbered(scan.cut(region));
        let got = Array3::from_vec(scan.shape, resampled(&labels, &scan));
        assert_eq!(got.cut(region), labels.ids);
        assert_eq!(got.as_slice().iter().filter(|id| **id != 0).count(), region.voxels());
    }

    #[test]
    fn finer_labels_are_sampled_at_voxel_centres() {
        let scan = Grid { shape: [4, 4, 4], affine: Affine::from_spacing([3.0; 3]) };
        let fine = Grid {
            shape: [12, 12, 12],
            affine: Affine([[1.0, 0.0, 0.0, -1.0], [0.0, 1.0, 0.0, -1.0], [0.0, 0.0, 1.0, -1.0]]),
        };
        let labels = numbered(fine);
        let got = Array3::from_vec(scan.shape, resampled(&labels, &scan));
        assert_eq!(got[[2, 1, 3]], labels.ids[[7, 4, 10]]);
    }

    #[test]
    fn distant_labels_are_mismatch_faults_and_flat_labels_are_geometry_faults() {
        let scan = oblique(0.0);
        let mut distant = scan;
        distant.affine.0[2][3] += 40.0;
        let fault = Alignment::new(&distant, &scan, 0.5).err().unwrap();
        assert_eq!(fault.kind, FaultKind::Mismatch);
        assert!(fault.message.contains("cover 0% of the scan"), "{fault}");
        let mut flat = scan;
        flat.affine.0[1] = [0.0; 4];
        assert_eq!(Alignment::new(&flat, &scan, 0.5).err().unwrap().kind, FaultKind::Geometry);
    }
}
