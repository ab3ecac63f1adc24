//! The paper's four size classes: ellipsoids with an elastic deformation in three planes.
//!
//! Sizes are in voxels of 1.5 mm, the spacing of the paper. The shape is rasterized on the scan's grid.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shape::RasterizedShape;
use crate::random::RandomStream;
use crate::volume::Array3;

/// Width in mm of the voxels in which class sizes are given.
pub const CLASS_VOXEL_MM: f64 = 1.5;

/// Distance in class voxels between the points at which the deformation is computed; values between them are interpolated linearly.
const LATTICE_VOXELS: f64 = 2.0;

/// One of the paper's size classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SizeClass {
    /// Radius about 4 voxels (6 mm).
    Tiny,
    /// Radius about 8 voxels (12 mm).
    Small,
    /// Radius about 16 voxels (24 mm).
    Medium,
    /// Radius about 32 voxels (48 mm).
    Large,
}

impl SizeClass {
    /// All classes, ascending.
    pub const ALL: [Self; 4] = [Self::Tiny, Self::Small, Self::Medium, Self::Large];

    /// Returns the name of the class in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }

    /// Returns the class for tables: tiny below 8 mm, small below 16, medium below 32, large from 32. These bounds differ from the sizes at
    /// which `sizes = "classes"` makes tumors: a tumor of the class `Tiny` has a diameter of about 12 mm.
    pub fn of_diameter(diameter_mm: f64) -> Self {
        match diameter_mm {
            d if d < 8.0 => Self::Tiny,
            d if d < 16.0 => Self::Small,
            d if d < 32.0 => Self::Medium,
            _ => Self::Large,
        }
    }

    /// Returns the radius of the class in voxels of 1.5 mm.
    pub fn radius_voxels(self) -> f64 {
        match self {
            Self::Tiny => 4.0,
            Self::Small => 8.0,
            Self::Medium => 16.0,
            Self::Large => 32.0,
        }
    }

    /// Samples the standard deviation of the deformation's control points in voxels: whole numbers, except for the tiny class.
    fn sample_sigma(self, random: &mut RandomStream) -> f64 {
        match self {
            Self::Tiny => random.uniform(0.5, 1.0),
            Self::Small => 1.0 + random.index(2) as f64,
            Self::Medium => 3.0 + random.index(4) as f64,
            Self::Large => 5.0 + random.index(6) as f64,
        }
    }
}

/// A displacement within one plane: cubic splines through 3×3 control points that span the ellipsoid's array.
#[derive(Clone, Debug, PartialEq)]
struct Plane {
    axes: [usize; 2],
    /// Spline coefficients of the displacement along each of the two axes, first axis fastest.
    coefficients: [[f64; 9]; 2],
}

impl Plane {
    fn sample(random: &mut RandomStream, axes: [usize; 2], sigma: f64) -> Self {
        let coefficients = [0, 1].map(|_| {
            let mut points = [0.0; 9];
            points.iter_mut().for_each(|point| *point = random.normal(0.0, sigma));
            for line in 0..3 {
                prefilter(&mut points, [line * 3, line * 3 + 1, line * 3 + 2]);
            }
            for line in 0..3 {
                prefilter(&mut points, [line, line + 3, line + 6]);
            }
            points
        });
        Self { axes, coefficients }
    }

    /// Returns the source position of the deformed image at `point`; `size` is the number of voxels along each axis.
    fn apply(&self, mut point: [f64; 3], size: [f64; 3]) -> [f64; 3] {
        let [u, v] = self.axes.map(|axis| weights(2.0 * point[axis] / (size[axis] - 1.0)));
        for (axis, coefficients) in self.axes.into_iter().zip(&self.coefficients) {
            let moved: f64 = (0..3).map(|j| v[j] * (0..3).map(|i| u[i] * coefficients[3 * j + i]).sum::<f64>()).sum();
            point[axis] += moved;
        }
        point
    }
}

/// Converts three values into the coefficients of the cubic B-spline through them, mirrored at both ends.
fn prefilter(points: &mut [f64; 9], [a, b, c]: [usize; 3]) {
    let middle = 2.0 * points[b] - 0.5 * (points[a] + points[c]);
    points[a] = 1.5 * points[a] - 0.5 * middle;
    points[c] = 1.5 * points[c] - 0.5 * middle;
    points[b] = middle;
}

/// Returns the weights of three mirrored coefficients at a position in 0..2.
fn weights(position: f64) -> [f64; 3] {
    let position = position.clamp(0.0, 2.0);
    let mut result = [0.0; 3];
    for knot in -1i32..=3 {
        let distance = (position - f64::from(knot)).abs();
        let weight = match distance {
            d if d < 1.0 => (4.0 - 6.0 * d * d + 3.0 * d * d * d) / 6.0,
            d if d < 2.0 => (2.0 - d) * (2.0 - d) * (2.0 - d) / 6.0,
            _ => 0.0,
        };
        // Knots -1 and 3 are mirror images of knot 1.
        result[match knot {
            0 => 0,
            2 => 2,
            _ => 1,
        }] += weight;
    }
    result
}

/// An ellipsoid of a class and its deformation.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassShape {
    /// The size class.
    pub class: SizeClass,
    /// Semi-axes along [x, y, z] in voxels of 1.5 mm, whole numbers.
    pub radii_voxels: [f64; 3],
    planes: [Plane; 3],
}

impl ClassShape {
    /// Samples radii, each a whole number in 0.75..=1.25 of the class's radius, and the deformation.
    pub fn sample(random: &mut RandomStream, class: SizeClass) -> Self {
        let radius = class.radius_voxels();
        let (low, high) = ((0.75 * radius) as usize, (1.25 * radius) as usize);
        let radii_voxels = [0, 1, 2].map(|_| (low + random.index(high - low + 1)) as f64);
        let sigma = class.sample_sigma(random);
        let planes = [[0, 1], [1, 2], [0, 2]].map(|axes| Plane::sample(random, axes, sigma));
        Self { class, radii_voxels, planes }
    }

    /// Returns the semi-axes before the deformation, descending, in mm.
    pub fn radii_mm(&self) -> [f64; 3] {
        let mut radii = self.radii_voxels.map(|radius| radius * CLASS_VOXEL_MM);
        radii.sort_by(|a, b| b.total_cmp(a));
        radii
    }

    /// Returns the maximum distance of the shape from its centre: the deformed array is four radii wide.
    pub fn reach_mm(&self) -> f64 {
        2.0 * self.radii_mm()[0]
    }

    /// Returns the diameter of the ball with the volume of the ellipsoid.
    pub fn diameter_mm(&self) -> f64 {
        2.0 * libm::cbrt(self.radii_mm().iter().product())
    }

    /// Returns the level at which the ellipsoid has the volume of its voxels. The paper's ellipsoids are the voxels whose centres are
    /// strictly inside, which makes small ones smaller.
    fn surface_level(&self) -> f64 {
        let [a, b, c] = self.radii_voxels;
        let mut voxels = 0usize;
        for z in -(c as i64)..=c as i64 {
            for y in -(b as i64)..=b as i64 {
                let rest = 1.0 - (z as f64 / c) * (z as f64 / c) - (y as f64 / b) * (y as f64 / b);
                if rest > 0.0 {
                    // The largest whole number below the half width.
                    voxels += 2 * (a * libm::sqrt(rest)).ceil() as usize - 1;
                }
            }
        }
        libm::cbrt(voxels as f64 / (4.0 / 3.0 * std::f64::consts::PI * a * b * c))
    }

    /// Returns the position in the ellipsoid's array for `point` of the deformed image, in class voxels from the array's corner.
    fn source(&self, point: [f64; 3]) -> [f64; 3] {
        let size = self.radii_voxels.map(|radius| 4.0 * radius);
        // The last deformation is applied first to the position.
        self.planes.iter().rev().fold(point, |position, plane| plane.apply(position, size))
    }

    /// Rasterizes the shape around `centre`, a fractional voxel of a grid of `spacing_mm`.
    pub fn rasterize(&self, centre: [f64; 3], spacing_mm: [f64; 3]) -> RasterizedShape {
        let voxel = spacing_mm.map(|mm| mm / CLASS_VOXEL_MM);
        let size = self.radii_voxels.map(|radius| 4.0 * radius);
        // The array has voxels 0 to size − 1, its middle is at half the size.
        let start = [0, 1, 2].map(|k| (centre[k] - size[k] / 2.0 / voxel[k]).ceil() as i64);
        let end = [0, 1, 2].map(|k| (centre[k] + (size[k] / 2.0 - 1.0) / voxel[k]).floor() as i64 + 1);
        let shape = [0, 1, 2].map(|k| (end[k] - start[k]).max(1) as usize);
        let at = |k: usize, index: usize| ((start[k] + index as i64) as f64 - centre[k]) * voxel[k] + size[k] / 2.0;

        let counts = size.map(|count| (count / LATTICE_VOXELS) as usize + 2);
        let lattice = Array3::from_fn(counts, |knot| self.source(knot.map(|index| index as f64 * LATTICE_VOXELS)));
        let taps = [0, 1, 2].map(|k| {
            (0..shape[k])
                .map(|index| {
                    let position = at(k, index) / LATTICE_VOXELS;
                    let low = (position.max(0.0) as usize).min(counts[k] - 2);
                    (low, position - low as f64)
                })
                .collect::<Vec<_>>()
        });
        let surface = self.surface_level();
        let mut depth = Array3::filled(shape, 0.0f32);
        let mut line = vec![[0.0; 3]; counts[0]];
        for z in 0..shape[2] {
            let (z0, tz) = taps[2][z];
            for y in 0..shape[1] {
                let (y0, ty) = taps[1][y];
                let rows = [
                    lattice.row(y0, z0),
                    lattice.row(y0 + 1, z0),
                    lattice.row(y0, z0 + 1),
                    lattice.row(y0 + 1, z0 + 1),
                ];
                let corner = [(1.0 - ty) * (1.0 - tz), ty * (1.0 - tz), (1.0 - ty) * tz, ty * tz];
                for (x, point) in line.iter_mut().enumerate() {
                    *point = [0, 1, 2].map(|k| (0..4).map(|c| corner[c] * rows[c][x][k]).sum());
                }
                for (value, &(x0, tx)) in depth.row_mut(y, z).iter_mut().zip(&taps[0]) {
                    let square: f64 = (0..3)
                        .map(|k| {
                            let source = line[x0][k] + tx * (line[x0 + 1][k] - line[x0][k]);
                            let level = (source - size[k] / 2.0) / self.radii_voxels[k];
                            level * level
                        })
                        .sum();
                    *value = (1.0 - libm::sqrt(square) / surface) as f32;
                }
            }
        }
        let mask = depth.map(|&value| u8::from(value > 0.0));
        RasterizedShape {
            start,
            mask,
            depth,
            radii_mm: self.radii_voxels.map(|radius| radius * CLASS_VOXEL_MM),
            rotation: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    #[test]
    fn spline_interpolates_its_points() {
        let mut points = [0.0; 9];
        points[..3].copy_from_slice(&[1.0, -2.0, 5.0]);
        prefilter(&mut points, [0, 1, 2]);
        for (position, expected) in [(0.0, 1.0), (1.0, -2.0), (2.0, 5.0)] {
            let value: f64 = weights(position).iter().zip(&points).map(|(w, c)| w * c).sum();
            assert!((value - expected).abs() < 1e-12, "{value} {expected}");
        }
    }

    #[test]
    fn rasterized_shape_equals_deformation_without_lattice() {
        let shape = ClassShape::sample(&mut Key::root(3).stream("class"), SizeClass::Medium);
        let raster = shape.rasterize([0.0; 3], [CLASS_VOXEL_MM; 3]);
        let size = shape.radii_voxels.map(|radius| 4.0 * radius);
        let surface = shape.surface_level();
        let (mut differing, mut set) = (0usize, 0usize);
        let [nx, ny, _] = raster.mask.shape();
        for (index, &inside) in raster.mask.as_slice().iter().enumerate() {
            let voxel = [index % nx, index / nx % ny, index / nx / ny];
            let source = shape.source([0, 1, 2].map(|k| (raster.start[k] + voxel[k] as i64) as f64 + size[k] / 2.0));
            let level: f64 = (0..3).map(|k| ((source[k] - size[k] / 2.0) / shape.radii_voxels[k]).powi(2)).sum();
            differing += usize::from((level < surface * surface) != (inside != 0));
            set += usize::from(inside);
        }
        assert!(set > 5_000 && differing * 200 < set, "{differing} of {set}");
    }

    #[test]
    fn radii_are_whole_numbers_in_range() {
        let mut random = Key::root(4).stream("class");
        for class in SizeClass::ALL {
            for _ in 0..50 {
                for radius in ClassShape::sample(&mut random, class).radii_voxels {
                    let share = radius / class.radius_voxels();
                    assert!((0.75..=1.25).contains(&share) && radius.fract() == 0.0);
                }
            }
        }
    }
}
