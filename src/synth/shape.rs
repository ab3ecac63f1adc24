//! Tumor shapes sampled from a prior, directly on the scan's grid.
//!
//! A tumor is the set of voxels with small `ρ(p) − a·N(p) − b·M(p)`. ρ is the level of a randomly rotated ellipsoid (0 at its centre,
//! 1 on its surface), N a smooth random field with features in proportion to the tumor's size (lobes), M a field with features of a few
//! millimetres (the ragged edge). The threshold is chosen so that the tumor has the requested volume.

use super::fine_grid::FineGrid;
use super::level::{Ellipsoid, Levels, Roughness, Surface, minimum};
use super::noise::{Positions, SmoothNoise};
use crate::random::RandomStream;
use crate::volume::{Array3, keep_largest};

/// The width of the margin around a tumor in which its depth is computed.
const MARGIN_MM: f64 = 4.0;
/// The width of the margin around a tumor in which its noise is sampled; at least the largest voxel that is not split.
const NOISE_MARGIN_MM: f64 = 3.0;

/// The parameters of a shape, without its noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShapeParameters {
    /// Diameter of the ball of the same volume.
    pub diameter_mm: f64,
    /// Longest over middle axis of the ellipsoid, at least 1.
    pub major_over_middle: f64,
    /// Middle over shortest axis, at least 1.
    pub middle_over_minor: f64,
    /// Standard deviation of the lobes, as a share of the radius.
    pub lobes: f64,
    /// Size of the lobes' lattice, as a share of the diameter.
    pub lobe_step: f64,
    /// Standard deviation of the ragged edge.
    pub edge_mm: f64,
    /// Size of the ragged edge's lattice.
    pub edge_step_mm: f64,
}

/// A shape on a grid, in a box that may extend beyond the scan.
#[derive(Clone, Debug, PartialEq)]
pub struct RasterizedShape {
    /// The first voxel of the box in the scan; may be negative.
    pub start: [i64; 3],
    /// 1 inside the tumor.
    pub mask: Array3<u8>,
    /// Depth of each voxel: 0 on the surface, 1 at the centre, negative outside. More than 1 mm outside, it is a lower bound.
    pub depth: Array3<f32>,
    /// The semi-axes of the ellipsoid of which the shape is a deformation.
    pub radii_mm: [f64; 3],
    /// The directions of the semi-axes, as rows.
    pub rotation: [[f64; 3]; 3],
}

impl RasterizedShape {
    /// Returns the voxels of which at least half is inside the shape, for a shape that was rasterized on a fine grid.
    ///
    /// ```
    /// use freetumor::random::Key;
    /// use freetumor::synth::FineGrid;
    /// use freetumor::synth::prior::prior_of;
    /// let shape = prior_of("kidney").unwrap().shape(&mut Key::root(1).stream("size"), 30.0);
    /// let grid = FineGrid::new([0.8, 0.8, 5.0], 30.0);
    /// let raster = shape.rasterize(&mut Key::root(1).stream("shape"), grid.position([0.0; 3]), grid.spacing_mm);
    /// let voxels = raster.labeled(grid).as_slice().iter().filter(|&&inside| inside != 0).count();
    /// assert!((voxels as f64 * 0.8 * 0.8 * 5.0 / 14_137.0 - 1.0).abs() < 0.1);
    /// ```
    pub fn labeled(&self, grid: FineGrid) -> Array3<u8> {
        let [first, end] = grid.voxels(self.start, self.mask.shape());
        let shape = [0, 1, 2].map(|k| (end[k] - first[k]) as usize);
        let inside = self.mask.map(|&inside| f32::from(inside));
        grid.averaged(&inside, self.start, first, shape).map(|&share| u8::from(share >= 0.5))
    }
}

impl ShapeParameters {
    /// Returns the semi-axes of the ellipsoid, descending, in mm.
    pub fn radii_mm(&self) -> [f64; 3] {
        // a · b · c = (d / 2)³ with a / b and b / c given.
        let middle = self.diameter_mm / 2.0 * libm::cbrt(self.middle_over_minor / self.major_over_middle);
        [middle * self.major_over_middle, middle, middle / self.middle_over_minor]
    }

    /// Returns the maximum distance of the shape from its centre.
    pub fn reach_mm(&self) -> f64 {
        self.radii_mm()[0] * self.growth()
    }

    fn growth(&self) -> f64 {
        1.0 + 2.2 * (self.lobes + 2.0 * self.edge_mm / self.diameter_mm)
    }

    /// Returns the maximum level of the ellipsoid that is computed: higher levels need noise of four standard deviations to become tumor.
    fn max_level(&self) -> f64 {
        1.1 + 4.0 * (self.lobes + 2.0 * self.edge_mm / self.diameter_mm)
    }

    /// Samples the random rotation, lobes and ragged edge of the shape around `centre`, from which the level of each voxel is computed.
    pub(super) fn levels(&self, random: &mut RandomStream, centre: [f64; 3], spacing_mm: [f64; 3]) -> Levels {
        let radii = self.radii_mm();
        let rotation = rotation(random);
        let growth = self.growth();
        let reach = [0, 1, 2].map(|axis| {
            let square: f64 = (0..3).map(|k| (rotation[k][axis] * radii[k]) * (rotation[k][axis] * radii[k])).sum();
            // Lobes also extend sideways, away from the axes of the ellipsoid.
            libm::sqrt(square) * growth
        });
        let within = [0, 1, 2].map(|axis| reach[axis] + spacing_mm[axis]);
        let start = [0, 1, 2].map(|axis| (centre[axis] - within[axis] / spacing_mm[axis]).floor() as i64);
        let shape = [0, 1, 2]
            .map(|axis| ((centre[axis] + within[axis] / spacing_mm[axis]).ceil() as i64 - start[axis] + 1) as usize);

        // The noise covers the shape's reach on any grid: grids of different spacing get the same shape.
        let reach = reach.map(|mm| mm + NOISE_MARGIN_MM.min(self.diameter_mm));
        let positions = [0, 1, 2].map(|axis| Positions {
            first_mm: (start[axis] as f64 - centre[axis]) * spacing_mm[axis],
            spacing_mm: spacing_mm[axis],
            count: shape[axis],
        });
        let lobes = SmoothNoise::new(random, reach, self.lobe_step * self.diameter_mm, positions);
        let edge = SmoothNoise::new(random, reach, self.edge_step_mm, positions);
        Levels {
            ellipsoid: Ellipsoid { centre, spacing_mm, radii, rotation },
            shape,
            start,
            max_level: self.max_level(),
            lobes: Roughness { noise: lobes, amplitude: self.lobes as f32 },
            edge: Roughness { noise: edge, amplitude: (2.0 * self.edge_mm / self.diameter_mm) as f32 },
        }
    }

    /// Samples the noise and rasterizes the shape around `centre`, a fractional voxel of a grid of `spacing_mm`.
    pub fn rasterize(&self, random: &mut RandomStream, centre: [f64; 3], spacing_mm: [f64; 3]) -> RasterizedShape {
        let levels = self.levels(random, centre, spacing_mm);
        let voxel_mm3: f64 = spacing_mm.iter().product();
        let volume_mm3 = std::f64::consts::PI / 6.0 * self.diameter_mm * self.diameter_mm * self.diameter_mm;
        let Surface { level, near, surface } = levels.surface((volume_mm3 / voxel_mm3).round() as usize);
        // The following steps read only the tumor and its margin.
        let inside = near.extent(&level, |&value| value <= surface).unwrap_or(level.region());
        let margin_box = inside.grown(spacing_mm.map(|mm| (MARGIN_MM / mm).ceil() as usize), level.shape());
        let mut level = level.cut(margin_box);
        let mut mask = level.map(|&value| u8::from(value <= surface));
        keep_largest(&mut mask);
        let centre_level = minimum(level.as_slice());
        let scale = 1.0 / (surface - centre_level).max(f32::MIN_POSITIVE);
        level.as_mut_slice().iter_mut().for_each(|value| *value = (surface - *value) * scale);
        RasterizedShape {
            start: [0, 1, 2].map(|k| levels.start[k] + margin_box.start[k] as i64),
            mask,
            depth: level,
            radii_mm: levels.ellipsoid.radii,
            rotation: levels.ellipsoid.rotation,
        }
    }
}

/// Samples a uniform random rotation. The rows are the directions of the ellipsoid's axes.
pub(super) fn rotation(random: &mut RandomStream) -> [[f64; 3]; 3] {
    let first = random.direction();
    let other = loop {
        let other = random.direction();
        let along: f64 = (0..3).map(|k| first[k] * other[k]).sum();
        let across = [0, 1, 2].map(|k| other[k] - along * first[k]);
        let length = libm::sqrt(across.iter().map(|v| v * v).sum());
        if length > 1e-3 {
            break across.map(|v| v / length);
        }
    };
    let third = [0, 1, 2].map(|k| {
        let (a, b) = ((k + 1) % 3, (k + 2) % 3);
        first[a] * other[b] - first[b] * other[a]
    });
    [first, other, third]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;
    use crate::synth::measure::measure;

    const PLAIN: ShapeParameters = ShapeParameters {
        diameter_mm: 20.0,
        major_over_middle: 1.4,
        middle_over_minor: 1.2,
        lobes: 0.0,
        lobe_step: 0.3,
        edge_mm: 0.0,
        edge_step_mm: 2.0,
    };

    #[test]
    fn shape_without_noise_is_ellipsoid() {
        for spacing_mm in [[0.8, 0.8, 1.0], [0.7, 0.7, 2.5]] {
            let raster = PLAIN.rasterize(&mut Key::root(1).stream("shape"), [50.2, 40.7, 30.1], spacing_mm);
            let measures = measure(&raster.mask, spacing_mm).unwrap();
            for (axis, radius) in measures.axes_mm.iter().zip(PLAIN.radii_mm()) {
                assert!((axis / (2.0 * radius) - 1.0).abs() < 0.02, "{axis} {radius}");
            }
            assert!((measures.diameter_mm - 20.0).abs() < 0.05, "{}", measures.diameter_mm);
            assert!(measures.ellipsoid_dice > 0.985, "{}", measures.ellipsoid_dice);
        }
    }

    #[test]
    fn noise_roughens_surface_and_keeps_volume() {
        let rough = ShapeParameters { lobes: 0.2, edge_mm: 0.8, ..PLAIN };
        let raster = rough.rasterize(&mut Key::root(2).stream("shape"), [0.0; 3], [0.8, 0.8, 1.0]);
        let measures = measure(&raster.mask, [0.8, 0.8, 1.0]).unwrap();
        assert!((measures.diameter_mm - 20.0).abs() < 0.5, "{}", measures.diameter_mm);
        assert!(measures.radial_residual_sd > 0.08 && measures.surface_irregularity_ratio > 1.1, "{measures:?}");
    }

    #[test]
    fn shapes_on_thick_slices_keep_their_volume() {
        let rough = ShapeParameters { lobes: 0.15, edge_mm: 0.3, ..PLAIN };
        let spacing_mm = [0.8, 0.8, 5.0];
        for seed in 0..20 {
            let grid = FineGrid::new(spacing_mm, rough.diameter_mm);
            let centre = grid.position([0.0, 0.0, 0.03 * seed as f64]);
            let raster = rough.rasterize(&mut Key::root(seed).stream("shape"), centre, grid.spacing_mm);
            let measures = measure(&raster.labeled(grid), spacing_mm).unwrap();
            // Half of the voxels at the edge are rounded up, half down.
            assert!((measures.volume_mm3 / 4188.8 - 1.0).abs() < 0.1, "seed {seed} {}", measures.volume_mm3);
        }
    }

    #[test]
    fn box_contains_whole_shape() {
        let rough = ShapeParameters { lobes: 0.25, edge_mm: 1.0, ..PLAIN };
        for seed in 0..20 {
            let raster = rough.rasterize(&mut Key::root(seed).stream("shape"), [0.0; 3], [1.0; 3]);
            let [nx, ny, nz] = raster.mask.shape();
            let rim = raster.mask.as_slice().iter().enumerate().filter(|(index, value)| {
                let voxel = [index % nx, index / nx % ny, index / nx / ny];
                **value != 0 && (0..3).any(|k| voxel[k] == 0 || voxel[k] + 1 == [nx, ny, nz][k])
            });
            assert!(rim.count() * 200 < raster.mask.as_slice().len(), "seed {seed}");
        }
    }
}
