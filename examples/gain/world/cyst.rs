//! Cysts: water with a sharp edge, which are no tumors.

use freetumor::random::RandomStream;

use super::tumor::smooth;

/// A cyst at its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cyst {
    /// Its middle, RAS+ mm.
    pub(super) center_mm: [f64; 3],
    radii_mm: [f64; 3],
    /// Absolute: water, whatever phase the scan is in.
    hu: f64,
}

impl Cyst {
    /// A round cyst of 5 to 22 mm.
    pub(super) fn draw(draws: &mut RandomStream) -> Self {
        let radius = 0.5 * libm::exp(draws.uniform(libm::log(5.0), libm::log(22.0)));
        let radii_mm = [(); 3].map(|()| radius * draws.uniform(0.9, 1.1));
        Self { center_mm: [0.0; 3], radii_mm, hu: draws.uniform(-2.0, 14.0) }
    }

    /// No voxel farther from the middle is touched.
    pub(super) fn reach_mm(&self) -> f64 {
        self.radii_mm.into_iter().fold(0.0, f64::max) + 0.5
    }

    /// How much of a point the cyst is, and its HU.
    pub(super) fn at(&self, point_mm: [f64; 3]) -> (f64, f64) {
        let square: f64 = (0..3).map(|a| ((point_mm[a] - self.center_mm[a]) / self.radii_mm[a]).powi(2)).sum();
        let depth = (1.0 - square.sqrt()) * self.radii_mm[0];
        (smooth(0.5 + depth), self.hu)
    }
}
