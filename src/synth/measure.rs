//! Measures of a tumor's shape, with the definitions used for the real tumors that the priors were fitted to.
//!
//! Surfaces are computed by marching cubes at 0.5 on the binary mask with its real spacing. The staircase of voxels limits the
//! sphericity (0.92 for a perfect ball on isotropic voxels), so compare at equal spacing only.

use super::marching::{Surface, surface};
use crate::volume::Array3;

/// Shape measures of one binary mask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShapeMeasures {
    /// Number of voxels in the mask.
    pub voxels: usize,
    /// Volume of the voxels in the mask.
    pub volume_mm3: f64,
    /// Diameter of the ball of the same volume.
    pub diameter_mm: f64,
    /// Full axes of the ellipsoid with the same second moments, descending.
    pub axes_mm: [f64; 3],
    /// Area of the mesh.
    pub surface_mm2: f64,
    /// π^⅓ (6V)^⅔ / A of the mesh.
    pub sphericity: f64,
    /// A / V^⅔, divided by the same ratio of the fitted ellipsoid on the same grid; 1 is smooth.
    pub surface_irregularity_ratio: f64,
    /// Dice of the mask with the fitted ellipsoid.
    pub ellipsoid_dice: f64,
    /// Standard deviation over the surface of ln(distance from the centroid / radius of the ellipsoid in that direction).
    pub radial_residual_sd: f64,
}

/// Returns the sphericity of a binary mask: π^⅓ (6V)^⅔ / A of its mesh, 0 for an empty one.
pub fn sphericity(mask: &Array3<u8>, spacing_mm: [f64; 3]) -> f64 {
    sphericity_of(surface(mask, spacing_mm))
}

/// Returns the diameter of the ball of a volume.
pub fn equivalent_diameter_mm(volume_mm3: f64) -> f64 {
    libm::cbrt(6.0 * volume_mm3 / std::f64::consts::PI)
}

/// Measures a binary mask, `None` for an empty one.
///
/// # Units
/// `spacing_mm` is the spacing along [x, y, z].
///
/// ```
/// use freetumor::synth::measure::measure;
/// use freetumor::volume::Array3;
/// let ball = Array3::from_fn([24, 24, 24], |v| u8::from(v.iter().map(|&i| (i as f64 - 11.5).powi(2)).sum::<f64>() < 100.0));
/// let measures = measure(&ball, [1.0; 3]).unwrap();
/// assert!((measures.diameter_mm - 20.0).abs() < 0.1);
/// assert!((measures.sphericity - 0.92).abs() < 0.01);
/// ```
pub fn measure(mask: &Array3<u8>, spacing_mm: [f64; 3]) -> Option<ShapeMeasures> {
    let fit = Ellipsoid::fitted(mask, spacing_mm)?;
    let mesh = surface(mask, spacing_mm);
    let (ellipsoid, shared) = fit.rasterized(mask, spacing_mm);
    let ellipsoid_mesh = surface(&ellipsoid, spacing_mm);
    let ellipsoid_voxels = ellipsoid.as_slice().iter().filter(|&&v| v != 0).count();
    let ratio = |surface: Surface| surface.area_mm2 / libm::pow(surface.volume_mm3, 2.0 / 3.0);
    let volume_mm3 = fit.voxels as f64 * spacing_mm.iter().product::<f64>();
    Some(ShapeMeasures {
        voxels: fit.voxels,
        volume_mm3,
        diameter_mm: equivalent_diameter_mm(volume_mm3),
        axes_mm: fit.moment_axes_mm,
        surface_mm2: mesh.area_mm2,
        sphericity: sphericity_of(mesh),
        surface_irregularity_ratio: ratio(mesh) / ratio(ellipsoid_mesh),
        ellipsoid_dice: 2.0 * shared as f64 / (fit.voxels + ellipsoid_voxels) as f64,
        radial_residual_sd: fit.radial_residual_sd(mask, spacing_mm),
    })
}

fn sphericity_of(surface: Surface) -> f64 {
    if surface.area_mm2 == 0.0 {
        return 0.0;
    }
    libm::cbrt(std::f64::consts::PI) * libm::pow(6.0 * surface.volume_mm3, 2.0 / 3.0) / surface.area_mm2
}

/// The ellipsoid of a mask's second moments, scaled to the mask's volume.
struct Ellipsoid {
    voxels: usize,
    centroid_mm: [f64; 3],
    moment_axes_mm: [f64; 3],
    half_axes_mm: [f64; 3],
    directions: [[f64; 3]; 3],
}

impl Ellipsoid {
    fn fitted(mask: &Array3<u8>, spacing_mm: [f64; 3]) -> Option<Self> {
        let (mut count, mut sum, mut products) = (0usize, [0.0; 3], [[0.0; 3]; 3]);
        // Moments are computed about the middle of the box, so that large indices do not lose digits.
        let middle = [0, 1, 2].map(|k| mask.shape()[k] as f64 * spacing_mm[k] / 2.0);
        for_each_set(mask, |voxel| {
            let p = [0, 1, 2].map(|k| voxel[k] as f64 * spacing_mm[k] - middle[k]);
            count += 1;
            for i in 0..3 {
                sum[i] += p[i];
                for j in 0..3 {
                    products[i][j] += p[i] * p[j];
                }
            }
        });
        if count == 0 {
            return None;
        }
        let n = count as f64;
        let mean = sum.map(|total| total / n);
        let mut covariance = [[0.0; 3]; 3];
        for i in 0..3 {
            for j in 0..3 {
                covariance[i][j] = products[i][j] / n - mean[i] * mean[j];
            }
            covariance[i][i] += spacing_mm[i] * spacing_mm[i] / 12.0;
        }
        let (values, directions) = eigen(covariance);
        let moment_axes_mm = values.map(|value| 2.0 * libm::sqrt(5.0 * value.max(0.0)));
        let volume_mm3 = n * spacing_mm.iter().product::<f64>();
        let ellipsoid_mm3 = std::f64::consts::PI / 6.0 * moment_axes_mm.iter().product::<f64>();
        let scale = libm::cbrt(volume_mm3 / ellipsoid_mm3);
        Some(Self {
            voxels: count,
            centroid_mm: [0, 1, 2].map(|k| mean[k] + middle[k]),
            moment_axes_mm,
            half_axes_mm: moment_axes_mm.map(|axis| axis * scale / 2.0),
            directions,
        })
    }

    /// Returns |offset| in units of the ellipsoid's radius in that direction.
    fn level(&self, offset_mm: [f64; 3]) -> f64 {
        let square: f64 = (0..3)
            .map(|axis| {
                let along: f64 = (0..3).map(|k| self.directions[axis][k] * offset_mm[k]).sum();
                (along / self.half_axes_mm[axis]) * (along / self.half_axes_mm[axis])
            })
            .sum();
        libm::sqrt(square)
    }

    /// Rasterizes the ellipsoid on the mask's grid, in a box that contains it, and counts the voxels in both.
    fn rasterized(&self, mask: &Array3<u8>, spacing_mm: [f64; 3]) -> (Array3<u8>, usize) {
        let start =
            [0, 1, 2].map(|k| ((self.centroid_mm[k] - self.half_axes_mm[0]) / spacing_mm[k]).floor() as i64 - 1);
        let end = [0, 1, 2].map(|k| ((self.centroid_mm[k] + self.half_axes_mm[0]) / spacing_mm[k]).ceil() as i64 + 2);
        let mut shared = 0;
        let ellipsoid = Array3::from_fn([0, 1, 2].map(|k| (end[k] - start[k]) as usize), |voxel| {
            let at = [0, 1, 2].map(|k| voxel[k] as i64 + start[k]);
            let offset = [0, 1, 2].map(|k| at[k] as f64 * spacing_mm[k] - self.centroid_mm[k]);
            let inside = self.level(offset) < 1.0;
            let within = (0..3).all(|k| at[k] >= 0 && (at[k] as usize) < mask.shape()[k]);
            if inside && within && mask[at.map(|i| i as usize)] != 0 {
                shared += 1;
            }
            u8::from(inside)
        });
        (ellipsoid, shared)
    }

    /// Returns the standard deviation of ln(level) over the mesh vertices, which are the midpoints between a set voxel and a clear
    /// neighbour.
    fn radial_residual_sd(&self, mask: &Array3<u8>, spacing_mm: [f64; 3]) -> f64 {
        let (mut count, mut sum, mut squares) = (0usize, 0.0, 0.0);
        for_each_set(mask, |voxel| {
            for axis in 0..3 {
                for forward in [false, true] {
                    let mut next = voxel;
                    next[axis] = if forward { voxel[axis] + 1 } else { voxel[axis].wrapping_sub(1) };
                    if next[axis] < mask.shape()[axis] && mask[next] != 0 {
                        continue;
                    }
                    let mut offset = [0, 1, 2].map(|k| voxel[k] as f64 * spacing_mm[k] - self.centroid_mm[k]);
                    offset[axis] += if forward { 0.5 } else { -0.5 } * spacing_mm[axis];
                    let residual = libm::log(self.level(offset).max(1e-9));
                    count += 1;
                    sum += residual;
                    squares += residual * residual;
                }
            }
        });
        let mean = sum / count as f64;
        libm::sqrt((squares / count as f64 - mean * mean).max(0.0))
    }
}

fn for_each_set(mask: &Array3<u8>, mut visit: impl FnMut([usize; 3])) {
    let [nx, ny, nz] = mask.shape();
    for z in 0..nz {
        for y in 0..ny {
            for x in (0..nx).filter(|&x| mask.row(y, z)[x] != 0) {
                visit([x, y, z]);
            }
        }
    }
}

/// Returns the eigenvalues, descending, and unit eigenvectors of a symmetric matrix, by Jacobi's rotations.
fn eigen(mut matrix: [[f64; 3]; 3]) -> ([f64; 3], [[f64; 3]; 3]) {
    let mut vectors = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    for _ in 0..32 {
        for (p, q) in [(0, 1), (0, 2), (1, 2)] {
            if matrix[p][q].abs() < 1e-300 {
                continue;
            }
            let theta = (matrix[q][q] - matrix[p][p]) / (2.0 * matrix[p][q]);
            let t = theta.signum() / (theta.abs() + libm::sqrt(theta * theta + 1.0));
            let t = if theta == 0.0 { 1.0 } else { t };
            let c = 1.0 / libm::sqrt(t * t + 1.0);
            let s = t * c;
            for row in &mut matrix {
                (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
            }
            let (a, b) = (matrix[p], matrix[q]);
            for k in 0..3 {
                matrix[p][k] = c * a[k] - s * b[k];
                matrix[q][k] = s * a[k] + c * b[k];
            }
            let (a, b) = (vectors[p], vectors[q]);
            for k in 0..3 {
                vectors[p][k] = c * a[k] - s * b[k];
                vectors[q][k] = s * a[k] + c * b[k];
            }
        }
    }
    let mut order = [0, 1, 2];
    order.sort_by(|&a, &b| matrix[b][b].total_cmp(&matrix[a][a]));
    (order.map(|k| matrix[k][k]), order.map(|k| vectors[k]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ball(diameter_mm: f64, spacing_mm: [f64; 3], centre: [f64; 3]) -> Array3<u8> {
        let shape = spacing_mm.map(|mm| (diameter_mm / mm) as usize + 4);
        Array3::from_fn(shape, |voxel| {
            let square: f64 =
                (0..3).map(|k| ((voxel[k] as f64 - (shape[k] / 2) as f64 - centre[k]) * spacing_mm[k]).powi(2)).sum();
            u8::from(square < diameter_mm * diameter_mm / 4.0)
        })
    }

    #[test]
    fn measure_returns_axes_of_rotated_ellipsoid() {
        let (s, c) = (0.6f64, 0.8f64);
        let mask = Array3::from_fn([70, 70, 60], |[x, y, z]| {
            let [x, y, z] = [x as f64 - 34.3, y as f64 - 35.1, z as f64 - 29.6];
            let (u, v) = (c * x + s * y, -s * x + c * y);
            u8::from((u / 30.0).powi(2) + (v / 20.0).powi(2) + (z / 12.0).powi(2) < 1.0)
        });
        let measures = measure(&mask, [1.0; 3]).unwrap();
        for (axis, expected) in measures.axes_mm.iter().zip([60.0, 40.0, 24.0]) {
            assert!((axis - expected).abs() < 0.3, "{axis} {expected}");
        }
        assert!(measures.ellipsoid_dice > 0.99 && (measures.surface_irregularity_ratio - 1.0).abs() < 0.01);
        assert!(measures.radial_residual_sd < 0.03);
    }

    #[test]
    fn dented_ball_is_more_irregular_than_ball() {
        let smooth = ball(20.0, [0.8; 3], [0.2, 0.1, 0.3]);
        let mut rough = smooth.clone();
        let [nx, ny, nz] = rough.shape();
        for z in 0..nz {
            for y in 0..ny {
                for x in 0..nx {
                    if (x / 3 + y / 3 + z / 3) % 2 == 0 && (x < 6 || y < 6 || z < 6) {
                        rough[[x, y, z]] = 0;
                    }
                }
            }
        }
        let (smooth, rough) = (measure(&smooth, [0.8; 3]).unwrap(), measure(&rough, [0.8; 3]).unwrap());
        assert!(rough.surface_irregularity_ratio > smooth.surface_irregularity_ratio + 0.1);
        assert!(rough.sphericity < smooth.sphericity - 0.05 && rough.ellipsoid_dice < smooth.ellipsoid_dice);
    }

    #[test]
    fn measure_of_empty_mask_is_none() {
        assert_eq!(measure(&Array3::filled([3, 3, 3], 0), [1.0; 3]), None);
        assert_eq!(sphericity(&Array3::filled([3, 3, 3], 0), [1.0; 3]), 0.0);
    }
}
