//! Where tumors and cysts may lie.

use freetumor::random::RandomStream;
use freetumor::volume::{Array3, Grid};

/// Millimetres of healthy tissue that are left between two of them.
const APART_MM: f64 = 4.0;
/// Draws until one that lies apart is found.
const ATTEMPTS: usize = 60;

/// The places of an organ and what has been put there.
pub(super) struct Places<'a> {
    grid: &'a Grid,
    inside: Vec<usize>,
    taken: Vec<([f64; 3], f64)>,
}

impl<'a> Places<'a> {
    pub(super) fn of(grid: &'a Grid, organ: &Array3<bool>) -> Self {
        let inside = organ.as_slice().iter().enumerate().filter(|(_, inside)| **inside).map(|(at, _)| at).collect();
        Self { grid, inside, taken: Vec::new() }
    }

    /// The middle of something that reaches so far, anywhere in the organ but apart from what is there; `None` where no
    /// such place was found.
    pub(super) fn take(&mut self, draws: &mut RandomStream, reach_mm: f64) -> Option<[f64; 3]> {
        let [nx, ny, _] = self.grid.shape;
        if self.inside.is_empty() {
            return None;
        }
        for _ in 0..ATTEMPTS {
            let at = self.inside[draws.index(self.inside.len())];
            let voxel = [at % nx, at / nx % ny, at / (nx * ny)];
            // Anywhere within the voxel: a tumor does not know of the grid.
            let center = self.grid.affine.apply(voxel.map(|i| i as f64 + draws.uniform(-0.5, 0.5)));
            let is_apart = self.taken.iter().all(|(other, other_mm)| {
                let square: f64 = (0..3).map(|axis| (center[axis] - other[axis]).powi(2)).sum();
                square.sqrt() > reach_mm + other_mm + APART_MM
            });
            if is_apart {
                self.taken.push((center, reach_mm));
                return Some(center);
            }
        }
        None
    }
}
