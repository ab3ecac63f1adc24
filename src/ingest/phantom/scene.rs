//! A body as a list of solids, painted one over the other along rows of voxels.

use super::field::Field;
use super::noise::Noise;
use super::shape::{Point, Points, Shape};
use crate::random::RandomStream;
use crate::volume::{Array3, Grid};

/// The farthest that the body is bent from the standard one, along each axis.
const WARP_MM: f32 = 9.0;

/// What a solid does to the voxels in it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Paint {
    hu: Option<f32>,
    lumps_hu: f32,
    rough_mm: f32,
    slope_hu_per_mm: f32,
    label: Option<u8>,
    only: Option<[u8; 2]>,
    rigid: bool,
}

/// Paint of the given HU that leaves the label as it is.
pub(super) fn tissue(hu: f32) -> Paint {
    Paint { hu: Some(hu), ..Paint::default() }
}

/// Paint that changes the label only.
pub(super) fn relabel(label: u8) -> Paint {
    Paint { label: Some(label), ..Paint::default() }
}

impl Paint {
    /// Labels the solid's voxels.
    pub(super) fn label(self, label: u8) -> Self {
        Self { label: Some(label), ..self }
    }

    /// Lets HU wander by so much over a centimetre or two.
    pub(super) fn lumps(self, lumps_hu: f32) -> Self {
        Self { lumps_hu, ..self }
    }

    /// Lets the surface wander by so much.
    pub(super) fn rough(self, rough_mm: f32) -> Self {
        Self { rough_mm, ..self }
    }

    /// Makes what lies towards the back denser.
    pub(super) fn slope(self, slope_hu_per_mm: f32) -> Self {
        Self { slope_hu_per_mm, ..self }
    }

    /// Paints only voxels that carry a label from `first` to `last`.
    pub(super) fn only(self, first: u8, last: u8) -> Self {
        Self { only: Some([first, last]), ..self }
    }

    /// Keeps the solid from being deformed with the body.
    pub(super) fn rigid(self) -> Self {
        Self { rigid: true, ..self }
    }
}

struct Solid {
    shape: Shape,
    bounds: [Point; 2],
    /// How deep under the surface each coat begins.
    coats: Vec<(f32, Paint)>,
    rough_mm: f32,
    rigid: bool,
}

/// A body.
pub(super) struct Scene {
    solids: Vec<Solid>,
    /// Displacement along each axis and the wandering of surfaces and HU.
    warp: [Field; 3],
    lumps: Field,
    wall: Shape,
    size: f32,
    noise_hu: f32,
}

impl Scene {
    /// An empty scene whose body is `size` times the standard one and has this inner wall.
    pub(super) fn new(size: f32, wall: Shape, noise_hu: f32, mut draws: RandomStream) -> Self {
        let warp = [(); 3].map(|()| Field::random(&mut draws, 42.0));
        let lumps = Field::random(&mut draws, 13.0);
        Self { solids: Vec::new(), warp, lumps, wall, size, noise_hu }
    }

    /// Paints a solid over what is there.
    pub(super) fn add(&mut self, shape: Shape, paint: Paint) {
        self.add_coats(shape, &[(0.0, paint)]);
    }

    /// Paints a solid in coats, each from some millimetres under the surface inwards.
    pub(super) fn add_coats(&mut self, shape: Shape, coats: &[(f32, Paint)]) {
        let bounds = shape.bounds();
        let rough_mm = coats.iter().fold(0.0f32, |most, (_, paint)| most.max(paint.rough_mm));
        let rigid = coats.iter().any(|(_, paint)| paint.rigid);
        self.solids.push(Solid { shape, bounds, coats: coats.to_vec(), rough_mm, rigid });
    }

    /// HU and labels of the scene, the grid's own middle lying at `middle_mm` of the standard body.
    ///
    /// # Shapes
    /// Both arrays have the grid's shape; voxel axes run towards the patient's left, back and head.
    pub(super) fn render(
        &self,
        grid: &Grid,
        middle_mm: [f32; 3],
        noise: RandomStream,
        level: f32,
    ) -> (Array3<i16>, Array3<u8>) {
        let [nx, ny, nz] = grid.shape;
        let step = grid.spacing_mm().map(|mm| mm as f32 / self.size);
        let along = |axis: usize| -> Vec<f32> {
            let half = 0.5 * (grid.shape[axis] as f32 - 1.0);
            (0..grid.shape[axis]).map(|i| middle_mm[axis] + (i as f32 - half) * step[axis]).collect()
        };
        let axes = [0, 1, 2].map(along);
        let boxes: Vec<[[usize; 2]; 3]> =
            self.solids.iter().map(|solid| self.voxels_around(solid, &axes, step)).collect();
        let soft_mm = 0.5 * libm::cbrtf(step[0] * step[1] * step[2]);

        let mut warp = self.warp.each_ref().map(|field| field.along(&axes[0]));
        let mut lumps = self.lumps.along(&axes[0]);
        let mut noise = Noise::new([nx, ny], noise);
        let mut grain = vec![0.0; nx * ny];
        let mut row = Row::new(nx);
        let mut volume = Array3::filled(grid.shape, 0i16);
        let mut labels = Array3::filled(grid.shape, 0u8);
        for z in 0..nz {
            let active: Vec<usize> =
                (0..boxes.len()).filter(|&i| (boxes[i][2][0]..boxes[i][2][1]).contains(&z)).collect();
            warp.iter_mut().for_each(|field| field.plane(axes[2][z]));
            lumps.plane(axes[2][z]);
            noise.next_slice(&mut grain);
            for y in 0..ny {
                row.begin([&axes[0], &axes[1], &axes[2]], y, z);
                for ((field, raw), bent) in warp.iter_mut().zip(&row.raw).zip(&mut row.bent) {
                    field.row(axes[1][y], WARP_MM, bent);
                    bent.iter_mut().zip(raw).for_each(|(bent, raw)| *bent += raw);
                }
                row.survey(&self.wall);
                lumps.row(axes[1][y], 1.0, &mut row.lumps);
                for &solid in &active {
                    let [[x0, x1], [y0, y1], _] = boxes[solid];
                    if (y0..y1).contains(&y) && x0 < x1 {
                        row.paint(&self.solids[solid], x0, x1, soft_mm);
                    }
                }
                let grain = &grain[y * nx..(y + 1) * nx];
                for (x, (voxel, grain)) in volume.row_mut(y, z).iter_mut().zip(grain).enumerate() {
                    // More photons are lost on the way to the middle of the body.
                    let [u, v] = [axes[0][x] / 190.0, axes[1][y] / 140.0];
                    let level = level * self.noise_hu * (1.25 - 0.5 * (u * u + v * v).min(1.0));
                    *voxel = (row.hu[x] + level * grain).round().clamp(-1024.0, 3071.0) as i16;
                }
                labels.row_mut(y, z).copy_from_slice(&row.label);
            }
        }
        (volume, labels)
    }

    /// The voxels that a solid may reach, as first and one past the last along each axis.
    fn voxels_around(&self, solid: &Solid, axes: &[Vec<f32>; 3], step: [f32; 3]) -> [[usize; 2]; 3] {
        let Solid { bounds: [low, high], rough_mm, rigid, .. } = solid;
        [0, 1, 2].map(|a| {
            let bent = if *rigid { 0.0 } else { WARP_MM };
            let margin = rough_mm + bent + step[a];
            let first = axes[a].partition_point(|&mm| mm < low[a] - margin);
            [first, axes[a].partition_point(|&mm| mm <= high[a] + margin).max(first)]
        })
    }
}

/// One row of voxels while it is painted.
struct Row {
    raw: [Vec<f32>; 3],
    bent: [Vec<f32>; 3],
    /// The stretch of y and of z in which the bent row lies.
    band: [[f32; 2]; 2],
    wall: Vec<f32>,
    lumps: Vec<f32>,
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
            bent: three(),
            band: [[0.0; 2]; 2],
            wall: zeros(),
            lumps: zeros(),
            distance: zeros(),
            hu: zeros(),
            label: vec![0; voxels],
        }
    }

    fn begin(&mut self, axes: [&[f32]; 3], y: usize, z: usize) {
        self.raw[0].copy_from_slice(axes[0]);
        self.raw[1].fill(axes[1][y]);
        self.raw[2].fill(axes[2][z]);
        self.hu.fill(-1000.0);
        self.label.fill(0);
    }

    /// Finds where the bent row lies.
    fn survey(&mut self, wall: &Shape) {
        let ends = |values: &[f32]| values.iter().fold([f32::MAX, f32::MIN], |[l, h], &v| [l.min(v), h.max(v)]);
        let [x, y, z] = &self.bent;
        self.band = [ends(y), ends(z)];
        wall.distances(Points { x, y, z, wall: &[], band: self.band }, &mut self.wall);
    }

    fn paint(&mut self, solid: &Solid, mut x0: usize, mut x1: usize, soft_mm: f32) {
        let Solid { shape, bounds, coats, rough_mm, rigid } = solid;
        if !rigid {
            // Bent rows differ little from straight ones: the ends that stay outside are cut off.
            let reach = soft_mm + rough_mm;
            let [low, high] = [bounds[0][0] - reach, bounds[1][0] + reach];
            let bent = &self.bent[0];
            while x0 < x1 && bent[x0] < low {
                x0 += 1;
            }
            while x0 < x1 && bent[x1 - 1] > high {
                x1 -= 1;
            }
        }
        let [x, y, z] = if *rigid { &self.raw } else { &self.bent };
        let band = if *rigid { [[y[0]; 2], [z[0]; 2]] } else { self.band };
        let points = Points { x: &x[x0..x1], y: &y[x0..x1], z: &z[x0..x1], wall: &self.wall[x0..x1], band };
        if x0 == x1 || Shape::misses(bounds, points, soft_mm + rough_mm) {
            return;
        }
        let distance = &mut self.distance[x0..x1];
        shape.distances(points, distance);
        // A tube thinner than a voxel fills only a part of it.
        let fill = shape.thin_radius().map_or(1.0, |radius| (radius / soft_mm).powi(2).min(1.0));
        let soft = 0.5 / soft_mm;
        for (depth, paint) in coats {
            let row = distance.iter().zip(&self.lumps[x0..x1]).zip(points.y);
            let row = row.zip(&mut self.hu[x0..x1]).zip(&mut self.label[x0..x1]);
            let [first, last] = paint.only.unwrap_or([0, u8::MAX]);
            for ((((distance, lump), y), voxel), label) in row {
                let d = distance + depth + paint.rough_mm * lump;
                if d >= soft_mm || *label < first || *label > last {
                    continue;
                }
                if let Some(hu) = paint.hu {
                    let target = hu + paint.lumps_hu * lump + paint.slope_hu_per_mm * y;
                    *voxel += (target - *voxel) * fill * (0.5 - soft * d).min(1.0);
                }
                if let (Some(own), true) = (paint.label, d < 0.0) {
                    *label = own;
                }
            }
        }
    }
}
