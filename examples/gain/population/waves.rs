//! Correlated random fields without a lattice, as sums of random plane waves.

use freetumor::random::RandomStream;

/// The number of waves of a field, enough for a nearly normal distribution.
const WAVES: usize = 40;

/// A random field of mean 0 and deviation 1, with coordinates in mm.
///
/// The correlation of two points is a Gaussian of their distance with the given length (Rahimi and Recht,
/// *Random Features for Large-Scale Kernel Machines*, 2007).
#[derive(Clone, Debug)]
pub(super) struct Waves(Vec<([f64; 3], f64)>);

impl Waves {
    /// Samples a field in which points at distance `length_mm` have the correlation exp(−1/2).
    pub(super) fn sample(random: &mut RandomStream, length_mm: f64) -> Self {
        let wave = |random: &mut RandomStream| {
            let vector = [(); 3].map(|()| random.normal(0.0, 1.0 / length_mm));
            (vector, random.uniform(0.0, std::f64::consts::TAU))
        };
        Self((0..WAVES).map(|_| wave(random)).collect())
    }

    /// Returns the value of the field at a point.
    pub(super) fn at(&self, [x, y, z]: [f64; 3]) -> f64 {
        let sum: f64 = self.0.iter().map(|([a, b, c], phase)| libm::cos(a * x + b * y + c * z + phase)).sum();
        sum * libm::sqrt(2.0 / WAVES as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use freetumor::random::Key;

    #[test]
    fn field_has_expected_deviation_and_correlation_length() {
        let mut random = Key::root(2).stream("fields");
        let (mut square, mut near, mut far) = (0.0, 0.0, 0.0);
        const FIELDS: usize = 4000;
        for _ in 0..FIELDS {
            let field = Waves::sample(&mut random, 3.0);
            let [a, b, c] = [0.0, 3.0, 12.0].map(|x| field.at([x, 1.0, -2.0]));
            square += a * a / FIELDS as f64;
            near += a * b / FIELDS as f64;
            far += a * c / FIELDS as f64;
        }
        assert!((square - 1.0).abs() < 0.08, "{square}");
        assert!((near - (-0.5f64).exp()).abs() < 0.08, "{near}");
        assert!(far.abs() < 0.08, "{far}");
    }
}
