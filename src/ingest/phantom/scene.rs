//! A body as a list of solids, which are painted in order along rows of voxels.

use super::field::Field;
use super::noise::Noise;
use super::shape::{Point, Points, Shape};
use crate::random::RandomStream;
use crate::volume::{Array3, Grid};

/// Maximum displacement of the body from the standard body along each axis.
const WARP_MM: f32 = 9.0;

/// The HU and label that a solid paints on its voxels.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Paint {
    hu: Option<f32>,
    variation_hu: f32,
    roughness_mm: f32,
    gradient_hu_per_mm: f32,
    label: Option<u8>,
    within_labels: Option<[u8; 2]>,
    rigid: bool,
}

/// Creates paint of the given HU that keeps the label.
pub(super) fn tissue(hu: f32) -> Paint {
    Paint { hu: Some(hu), ..Paint::default() }
}

/// Creates paint that changes the label only.
pub(super) fn relabel(label: u8) -> Paint {
    Paint { label: Some(label), ..Paint::default() }
}

impl Paint {
    /// Sets the label of the voxels.
    pub(super) fn label(self, label: u8) -> Self {
        Self { label: Some(label), ..self }
    }

    /// Sets the amplitude of smooth variation of HU over one to two centimetres.
    pub(super) fn variation(self, variation_hu: f32) -> Self {
        Self { variation_hu, ..self }
    }

    /// Sets the amplitude of smooth variation of the surface.
    pub(super) fn roughness(self, roughness_mm: f32) -> Self {
        Self { roughness_mm, ..self }
    }

    /// Sets the increase of HU towards the back.
    pub(super) fn gradient(self, gradient_hu_per_mm: f32) -> Self {
        Self { gradient_hu_per_mm, ..self }
    }

    /// Restricts the paint to voxels with a label from `first` to `last`.
    pub(super) fn within_labels(self, first: u8, last: u8) -> Self {
        Self { within_labels: Some([first, last]), ..self }
    }

    /// Excludes the solid from the deformation of the body.
    pub(super) fn rigid(self) -> Self {
        Self { rigid: true, ..self }
    }
}

struct Solid {
    shape: Shape,
    bounds: [Point; 2],
    /// The depth under the surface at which each layer starts, and its paint.
    layers: Vec<(f32, Paint)>,
    roughness_mm: f32,
    rigid: bool,
}

/// A body as a list of solids that are painted one over the other.
pub(super) struct Scene {
    solids: Vec<Solid>,
    /// Displacement along each axis.
    warp: [Field; 3],
    /// Smooth variation of surfaces and HU.
    variation: Field,
    wall: Shape,
    size: f32,
    noise_hu: f32,
}

impl Scene {
    /// Creates an empty scene with a body of `size` times the standard body and the given inner wall.
    pub(super) fn new(size: f32, wall: Shape, noise_hu: f32, mut random: RandomStream) -> Self {
        let warp = [(); 3].map(|()| Field::random(&mut random, 42.0));
        let variation = Field::random(&mut random, 13.0);
        Self { solids: Vec::new(), warp, variation, wall, size, noise_hu }
    }

    /// Adds a solid, which is painted over all earlier solids.
    pub(super) fn add(&mut self, shape: Shape, paint: Paint) {
        self.add_layers(shape, &[(0.0, paint)]);
    }

    /// Adds a solid with several layers, each from a depth in mm under the surface inwards.
    pub(super) fn add_layers(&mut self, shape: Shape, layers: &[(f32, Paint)]) {
        let bounds = shape.bounds();
        let roughness_mm = layers.iter().fold(0.0f32, |max, (_, paint)| max.max(paint.roughness_mm));
        let rigid = layers.iter().any(|(_, paint)| paint.rigid);
        self.solids.push(Solid { shape, bounds, layers: layers.to_vec(), roughness_mm, rigid });
    }

    /// Renders HU and labels of the scene on a grid whose centre is at `center_mm` of the standard body.
    ///
    /// # Shapes
    /// Both arrays have the shape of the grid; voxel axes run towards the patient's left, back and head.
    pub(super) fn render(
        &self,
        grid: &Grid,
        center_mm: [f32; 3],
        noise: RandomStream,
        level: f32,
    ) -> (Array3<i16>, Array3<u8>) {
        let [nx, ny, nz] = grid.shape;
        let step = grid.spacing_mm().map(|mm| mm as f32 / self.size);
        let along = |axis: usize| -> Vec<f32> {
            let half = 0.5 * (grid.shape[axis] as f32 - 1.0);
            (0..grid.shape[axis]).map(|i| center_mm[axis] + (i as f32 - half) * step[axis]).collect()
        };
        let axes = [0, 1, 2].map(along);
        let boxes: Vec<[[usize; 2]; 3]> =
            self.solids.iter().map(|solid| self.voxels_around(solid, &axes, step)).collect();
        let half_voxel_mm = 0.5 * libm::cbrtf(step[0] * step[1] * step[2]);

        let mut warp = self.warp.each_ref().map(|field| field.along(&axes[0]));
        let mut variation = self.variation.along(&axes[0]);
        let mut noise = Noise::new([nx, ny], noise);
        let mut grain = vec![0.0; nx * ny];
        let mut row = Row::new(nx);
        let mut volume = Array3::filled(grid.shape, 0i16);
        let mut labels = Array3::filled(grid.shape, 0u8);
        for z in 0..nz {
            let active: Vec<usize> =
                (0..boxes.len()).filter(|&i| (boxes[i][2][0]..boxes[i][2][1]).contains(&z)).collect();
            warp.iter_mut().for_each(|field| field.plane(axes[2][z]));
            variation.plane(axes[2][z]);
            noise.next_slice(&mut grain);
            for y in 0..ny {
                row.start([&axes[0], &axes[1], &axes[2]], y, z);
                for ((field, raw), warped) in warp.iter_mut().zip(&row.raw).zip(&mut row.warped) {
                    field.row(axes[1][y], WARP_MM, warped);
                    warped.iter_mut().zip(raw).for_each(|(warped, raw)| *warped += raw);
                }
                row.locate(&self.wall);
                variation.row(axes[1][y], 1.0, &mut row.variation);
                for &solid in &active {
                    let [[x0, x1], [y0, y1], _] = boxes[solid];
                    if (y0..y1).contains(&y) && x0 < x1 {
                        row.paint(&self.solids[solid], x0, x1, half_voxel_mm);
                    }
                }
                let grain = &grain[y * nx..(y + 1) * nx];
                for (x, (voxel, grain)) in volume.row_mut(y, z).iter_mut().zip(grain).enumerate() {
                    // Noise is higher in the centre of the body, where more photons are absorbed.
                    let [u, v] = [axes[0][x] / 190.0, axes[1][y] / 140.0];
                    let level = level * self.noise_hu * (1.25 - 0.5 * (u * u + v * v).min(1.0));
                    *voxel = (row.hu[x] + level * grain).round().clamp(-1024.0, 3071.0) as i16;
                }
                labels.row_mut(y, z).copy_from_slice(&row.label);
            }
        }
        (volume, labels)
    }

    /// Returns the voxels that a solid may reach, as the first and one past the last along each axis.
    fn voxels_around(&self, solid: &Solid, axes: &[Vec<f32>; 3], step: [f32; 3]) -> [[usize; 2]; 3] {
        let Solid { bounds: [low, high], roughness_mm, rigid, .. } = solid;
        [0, 1, 2].map(|a| {
            let warped = if *rigid { 0.0 } else { WARP_MM };
            let margin = roughness_mm + warped + step[a];
            let first = axes[a].partition_point(|&mm| mm < low[a] - margin);
            [first, axes[a].partition_point(|&mm| mm <= high[a] + margin).max(first)]
        })
    }
}

/// The buffers of one row of voxels during painting.
struct Row {
    raw: [Vec<f32>; 3],
    warped: [Vec<f32>; 3],
    /// The range of y and of z of the warped row.
    band: [[f32; 2]; 2],
    wall: Vec<f32>,
    variation: Vec<f32>,
    distance: Vec<f32>,
    hu: Vec<f32>,
    label: Vec<u8>,
}

impl Row {
    fn new(voxels: usize) -> Self {
        let zeros = || vec![0.0; voxels];
        let three = || [zeros(), zeros(), zeros()];
        Self {
            raw: three(),
            warped: three(),
            band: [[0.0; 2]; 2],
            wall: zeros(),
            variation: zeros(),
            distance: zeros(),
            hu: zeros(),
            label: vec![0; voxels],
        }
    }

    fn start(&mut self, axes: [&[f32]; 3], y: usize, z: usize) {
        self.raw[0].copy_from_slice(axes[0]);
        self.raw[1].fill(axes[1][y]);
        self.raw[2].fill(axes[2][z]);
        self.hu.fill(-1000.0);
        self.label.fill(0);
    }

    /// Computes the range of the warped row and its distances from the wall.
    fn locate(&mut self, wall: &Shape) {
        let ends = |values: &[f32]| values.iter().fold([f32::MAX, f32::MIN], |[l, h], &v| [l.min(v), h.max(v)]);
        let [x, y, z] = &self.warped;
        self.band = [ends(y), ends(z)];
        wall.distances(Points { x, y, z, wall: &[], band: self.band }, &mut self.wall);
    }

    fn paint(&mut self, solid: &Solid, mut x0: usize, mut x1: usize, half_voxel_mm: f32) {
        let Solid { shape, bounds, layers, roughness_mm, rigid } = solid;
        if !rigid {
            // Warped rows differ little from straight rows: voxels outside at both ends are skipped.
            let reach = half_voxel_mm + roughness_mm;
            let [low, high] = [bounds[0][0] - reach, bounds[1][0] + reach];
            let warped = &self.warped[0];
            while x0 < x1 && warped[x0] < low {
                x0 += 1;
            }
            while x0 < x1 && warped[x1 - 1] > high {
                x1 -= 1;
            }
        }
        let [x, y, z] = if *rigid { &self.raw } else { &self.warped };
        let band = if *rigid { [[y[0]; 2], [z[0]; 2]] } else { self.band };
        let points = Points { x: &x[x0..x1], y: &y[x0..x1], z: &z[x0..x1], wall: &self.wall[x0..x1], band };
        if x0 == x1 || Shape::misses(bounds, points, half_voxel_mm + roughness_mm) {
            return;
        }
        let distance = &mut self.distance[x0..x1];
        shape.distances(points, distance);
        // A tube thinner than a voxel fills only a part of the voxel.
        let fill = shape.tube_radius().map_or(1.0, |radius| (radius / half_voxel_mm).powi(2).min(1.0));
        let soft = 0.5 / half_voxel_mm;
        for (depth, paint) in layers {
            let row = distance.iter().zip(&self.variation[x0..x1]).zip(points.y);
            let row = row.zip(&mut self.hu[x0..x1]).zip(&mut self.label[x0..x1]);
            let [first, last] = paint.within_labels.unwrap_or([0, u8::MAX]);
            for ((((distance, variation), y), voxel), label) in row {
                let d = distance + depth + paint.roughness_mm * variation;
                if d >= half_voxel_mm || *label < first || *label > last {
                    continue;
                }
                if let Some(hu) = paint.hu {
                    let target = hu + paint.variation_hu * variation + paint.gradient_hu_per_mm * y;
                    *voxel += (target - *voxel) * fill * (0.5 - soft * d).min(1.0);
                }
                if let (Some(painted), true) = (paint.label, d < 0.0) {
                    *label = painted;
                }
            }
        }
    }
}
