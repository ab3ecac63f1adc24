//! Star-shaped bodies: the radius in every direction is a sum of real spherical harmonics.

use std::f64::consts::PI;

use freetumor::random::RandomStream;

/// The highest degree: features of a sixth of the circumference.
const DEGREES: usize = 6;
/// Coefficients of degrees 1 to [`DEGREES`].
const COEFFICIENTS: usize = (DEGREES + 1) * (DEGREES + 1) - 1;

/// A surface around the origin: `r(direction) = scale · exp(Σ a_lm Y_lm(direction))`, positive for all coefficients.
#[derive(Clone, Debug)]
pub(super) struct StarBody {
    scale_mm: f64,
    coefficients: [f64; COEFFICIENTS],
    max_radius_mm: f64,
}

impl StarBody {
    /// Samples a body with the volume of a ball of the given diameter. `roughness` is approximately the deviation of the logarithm of the
    /// radius over all directions; finer details have lower weights.
    pub(super) fn sample(random: &mut RandomStream, diameter_mm: f64, roughness: f64) -> Self {
        let power = random.uniform(1.2, 2.2);
        let weight = |degree: usize| libm::pow(degree as f64, -power);
        // Degree 1 only shifts a body; the other degrees share the roughness.
        let total: f64 = (2..=DEGREES).map(|degree| (2 * degree + 1) as f64 * weight(degree).powi(2)).sum();
        let unit = roughness * libm::sqrt(4.0 * PI / total);
        let mut coefficients = [0.0; COEFFICIENTS];
        for degree in 2..=DEGREES {
            for order in 0..2 * degree + 1 {
                coefficients[degree * degree - 1 + order] = random.normal(0.0, unit * weight(degree));
            }
        }
        let mut body = Self { scale_mm: 1.0, coefficients, max_radius_mm: 1.0 };
        let (mut cubes, mut count, mut max_radius) = (0.0, 0.0, 0.0f64);
        // The directions of a Fibonacci lattice have equal shares of the sphere.
        const DIRECTIONS: usize = 2000;
        for i in 0..DIRECTIONS {
            let z = 1.0 - (2.0 * i as f64 + 1.0) / DIRECTIONS as f64;
            let angle = i as f64 * PI * (3.0 - libm::sqrt(5.0));
            let flat = libm::sqrt(1.0 - z * z);
            let radius = body.radius_mm([flat * libm::cos(angle), flat * libm::sin(angle), z]);
            cubes += radius.powi(3);
            count += 1.0;
            max_radius = max_radius.max(radius);
        }
        body.scale_mm = 0.5 * diameter_mm / libm::cbrt(cubes / count);
        body.max_radius_mm = 1.02 * max_radius * body.scale_mm;
        body
    }

    /// Returns an upper bound of the distance of the surface from the origin.
    pub(super) fn max_radius_mm(&self) -> f64 {
        self.max_radius_mm
    }

    /// Returns the distance of the surface from the origin in the direction of a point; for the origin itself, in the direction of z.
    pub(super) fn radius_mm(&self, point: [f64; 3]) -> f64 {
        let length = point.iter().map(|v| v * v).sum::<f64>().sqrt();
        let [x, y, z] = if length > 1e-9 { point.map(|v| v / length) } else { [0.0, 0.0, 1.0] };
        // sin(θ)^m cos(mφ) and sin(θ)^m sin(mφ) are the powers of x + iy.
        let (mut real, mut imaginary) = ([1.0; DEGREES + 1], [0.0; DEGREES + 1]);
        for m in 1..=DEGREES {
            real[m] = real[m - 1] * x - imaginary[m - 1] * y;
            imaginary[m] = real[m - 1] * y + imaginary[m - 1] * x;
        }
        let mut sum = 0.0;
        for m in 0..=DEGREES {
            // Recurrence of the Legendre functions without their power of sin(θ), normalized over the sphere.
            let mut at = libm::sqrt((1..=m).fold(1.0 / (4.0 * PI), |p, k| p * (2 * k + 1) as f64 / (2 * k) as f64));
            let mut before = 0.0;
            for l in m..=DEGREES {
                if l > m {
                    let (l, m) = (l as f64, m as f64);
                    let a = libm::sqrt((4.0 * l * l - 1.0) / (l * l - m * m));
                    let b = libm::sqrt(((l - 1.0) * (l - 1.0) - m * m) / (4.0 * (l - 1.0) * (l - 1.0) - 1.0));
                    (before, at) = (at, a * (z * at - b * before));
                }
                if l > 0 {
                    let first = l * l - 1 + l;
                    if m == 0 {
                        sum += self.coefficients[first] * at;
                    } else {
                        let both = self.coefficients[first + m] * real[m] + self.coefficients[first - m] * imaginary[m];
                        sum += std::f64::consts::SQRT_2 * at * both;
                    }
                }
            }
        }
        self.scale_mm * libm::exp(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use freetumor::random::Key;

    fn only(coefficient: usize) -> StarBody {
        let mut coefficients = [0.0; COEFFICIENTS];
        coefficients[coefficient] = 1.0;
        StarBody { scale_mm: 1.0, coefficients, max_radius_mm: 1.0 }
    }

    #[test]
    fn harmonics_are_orthonormal() {
        let mut random = Key::root(7).stream("directions");
        let bodies: Vec<StarBody> = [2, 5, 9, 14, 30, 47].map(only).to_vec();
        let mut products = vec![vec![0.0; bodies.len()]; bodies.len()];
        const COUNT: usize = 60_000;
        for _ in 0..COUNT {
            let direction = random.direction();
            let values: Vec<f64> = bodies.iter().map(|body| body.radius_mm(direction).ln()).collect();
            for (i, a) in values.iter().enumerate() {
                for (j, b) in values.iter().enumerate() {
                    products[i][j] += 4.0 * PI * a * b / COUNT as f64;
                }
            }
        }
        for (i, row) in products.iter().enumerate() {
            for (j, product) in row.iter().enumerate() {
                let expected = f64::from(u8::from(i == j));
                assert!((product - expected).abs() < 0.05, "{i} {j}: {product}");
            }
        }
        // Y_10 = sqrt(3 / 4π) z.
        let first = only(1).radius_mm([0.0, 0.6, 0.8]).ln();
        assert!((first - (3.0 / (4.0 * PI)).sqrt() * 0.8).abs() < 1e-12);
    }

    #[test]
    fn bodies_have_the_volume_of_their_diameter() {
        let mut random = Key::root(8).stream("bodies");
        for _ in 0..5 {
            let body = StarBody::sample(&mut random, 20.0, 0.2);
            let side = body.max_radius_mm().ceil() as i32;
            let mut voxels = 0u32;
            for z in -side..=side {
                for y in -side..=side {
                    for x in -side..=side {
                        let point = [x, y, z].map(f64::from);
                        let length = point.iter().map(|v| v * v).sum::<f64>().sqrt();
                        voxels += u32::from(length < body.radius_mm(point));
                    }
                }
            }
            let diameter = (6.0 * f64::from(voxels) / PI).cbrt();
            assert!((diameter - 20.0).abs() < 0.3, "{diameter}");
        }
    }
}
