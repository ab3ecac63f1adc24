//! The positions of tumors and cysts.

use freetumor::random::RandomStream;
use freetumor::volume::{Array3, Grid};

/// The minimum distance between two lesions.
const MIN_DISTANCE_MM: f64 = 4.0;
/// The maximum number of attempts to find a position.
const ATTEMPTS: usize = 60;

/// The voxels of an organ and the lesions in it.
pub(super) struct LesionPositions<'a> {
    grid: &'a Grid,
    inside: Vec<usize>,
    lesions: Vec<([f64; 3], f64)>,
}

impl<'a> LesionPositions<'a> {
    pub(super) fn of(grid: &'a Grid, organ: &Array3<bool>) -> Self {
        let inside = organ.as_slice().iter().enumerate().filter(|(_, inside)| **inside).map(|(at, _)| at).collect();
        Self { grid, inside, lesions: Vec::new() }
    }

    /// Samples the centre of a lesion of radius `reach_mm` anywhere in the organ, away from other lesions; returns `None` if no
    /// position was found.
    pub(super) fn sample(&mut self, random: &mut RandomStream, reach_mm: f64) -> Option<[f64; 3]> {
        let [nx, ny, _] = self.grid.shape;
        if self.inside.is_empty() {
            return None;
        }
        for _ in 0..ATTEMPTS {
            let at = self.inside[random.index(self.inside.len())];
            let voxel = [at % nx, at / nx % ny, at / (nx * ny)];
            // Anywhere inside the voxel, because positions of tumors do not depend on the grid.
            let center = self.grid.affine.apply(voxel.map(|i| i as f64 + random.uniform(-0.5, 0.5)));
            let is_free = self.lesions.iter().all(|(other, other_mm)| {
                let square: f64 = (0..3).map(|axis| (center[axis] - other[axis]).powi(2)).sum();
                square.sqrt() > reach_mm + other_mm + MIN_DISTANCE_MM
            });
            if is_free {
                self.lesions.push((center, reach_mm));
                return Some(center);
            }
        }
        None
    }
}
