//! Cysts: water with a sharp edge, which are not tumors.

use freetumor::random::RandomStream;

use super::tumor::smooth;

/// A cyst.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cyst {
    /// The centre, RAS+ mm.
    pub(super) center_mm: [f64; 3],
    radii_mm: [f64; 3],
    /// The absolute HU, of water in any contrast phase.
    hu: f64,
}

impl Cyst {
    /// Samples a round cyst of 5 to 22 mm.
    pub(super) fn sample(random: &mut RandomStream) -> Self {
        let radius = 0.5 * libm::exp(random.uniform(libm::log(5.0), libm::log(22.0)));
        let radii_mm = [(); 3].map(|()| radius * random.uniform(0.9, 1.1));
        Self { center_mm: [0.0; 3], radii_mm, hu: random.uniform(-2.0, 14.0) }
    }

    /// Returns the distance from the centre beyond which no voxel changes.
    pub(super) fn reach_mm(&self) -> f64 {
        self.radii_mm.into_iter().fold(0.0, f64::max) + 0.5
    }

    /// Returns the share of the cyst at a point, and its HU.
    pub(super) fn at(&self, point_mm: [f64; 3]) -> (f64, f64) {
        let square: f64 = (0..3).map(|a| ((point_mm[a] - self.center_mm[a]) / self.radii_mm[a]).powi(2)).sum();
        let depth = (1.0 - square.sqrt()) * self.radii_mm[0];
        (smooth(0.5 + depth), self.hu)
    }
}
