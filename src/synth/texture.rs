//! Tumor textures: smooth random volumes, computed once and sampled at any position in millimetres.
//!
//! Smoothed uniform noise is a probability field. A Bernoulli sample of the field is smoothed again and scaled so that the values
//! above 0.12 have a mean of about 0.5. Volumes are periodic, so that any offset is valid for any box.

use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use crate::random::{Key, RandomStream};
use crate::simd::{Simd, SimdKernel, dispatch_short_rows};
use crate::volume::{Array3, RowSpans, half_kernel, radius_voxels};

/// The number of voxels along each side of a volume.
const SIDE: usize = 96;

/// The parameters of a family of textures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextureRecipe {
    /// Standard deviations that smooth the uniform noise, one volume each.
    pub field_sigmas_voxels: &'static [f64],
    /// Standard deviations that smooth the Bernoulli sample, one volume each for every sigma of the field.
    pub sample_sigmas_voxels: &'static [f64],
    /// Width of a texture's voxel in mm.
    pub voxel_mm: f64,
    /// Number of volumes of each kind.
    pub copies: usize,
}

impl TextureRecipe {
    /// Textures of the abdomen: sigmas 3 and 4 voxels of 1.5 mm, four volumes.
    pub const ABDOMEN: Self =
        Self { field_sigmas_voxels: &[3.0], sample_sigmas_voxels: &[4.0], voxel_mm: 1.5, copies: 4 };
    /// Textures of the chest: sigmas 3, 6, 9, 12, 15 and 4, 7 voxels of 1.25 mm, ten volumes.
    pub const CHEST: Self = Self {
        field_sigmas_voxels: &[3.0, 6.0, 9.0, 12.0, 15.0],
        sample_sigmas_voxels: &[4.0, 7.0],
        voxel_mm: 1.25,
        copies: 1,
    };
}

/// A set of textures to sample from.
#[derive(Debug)]
pub struct TexturePool {
    volumes: Vec<Array3<f32>>,
    voxel_mm: f64,
}

impl TexturePool {
    /// Computes all volumes of a recipe; `key` defines every voxel.
    pub fn new(recipe: TextureRecipe, key: Key) -> Self {
        let kinds: Vec<(usize, f64, f64)> = (0..recipe.copies)
            .flat_map(|_| recipe.field_sigmas_voxels)
            .flat_map(|&field| recipe.sample_sigmas_voxels.iter().map(move |&sample| (field, sample)))
            .enumerate()
            .map(|(index, (field, sample))| (index, field, sample))
            .collect();
        let volumes = kinds
            .into_par_iter()
            .map(|(index, field, sample)| {
                volume(&mut key.number("volume", index as u64).stream("texture"), field, sample)
            })
            .collect();
        Self { volumes, voxel_mm: recipe.voxel_mm }
    }

    /// Returns the textures of the abdomen, computed at first use and shared by the process.
    pub fn abdomen() -> Arc<Self> {
        static POOL: OnceLock<Arc<TexturePool>> = OnceLock::new();
        let create = || Arc::new(Self::new(TextureRecipe::ABDOMEN, Key::root(0).with("pool", "abdomen")));
        Arc::clone(POOL.get_or_init(create))
    }

    /// Returns the textures of the chest, computed at first use and shared by the process.
    pub fn chest() -> Arc<Self> {
        static POOL: OnceLock<Arc<TexturePool>> = OnceLock::new();
        Arc::clone(POOL.get_or_init(|| Arc::new(Self::new(TextureRecipe::CHEST, Key::root(0).with("pool", "chest")))))
    }

    /// Returns the volumes, 96³ voxels each.
    pub fn volumes(&self) -> &[Array3<f32>] {
        &self.volumes
    }

    /// Selects a random volume, offset and flips, and interpolates the volume trilinearly at voxels of `spacing_mm`. Voxels outside
    /// `within` are 0.
    pub(crate) fn sample(&self, random: &mut RandomStream, within: &RowSpans, spacing_mm: [f64; 3]) -> Array3<f32> {
        let shape = within.shape();
        let volume = &self.volumes[random.index(self.volumes.len())];
        let taps = [0, 1, 2].map(|axis| {
            let offset = random.uniform(0.0, SIDE as f64);
            let step = spacing_mm[axis] / self.voxel_mm;
            let last = shape[axis].saturating_sub(1);
            let flipped = random.chance(0.5);
            (0..shape[axis])
                .map(|index| {
                    let position = offset + if flipped { last - index } else { index } as f64 * step;
                    let below = position.floor();
                    let low = below as usize % SIDE;
                    (low, (low + 1) % SIDE, (position - below) as f32)
                })
                .collect::<Vec<Tap>>()
        });
        dispatch_short_rows(SourceBox { volume, within, taps })
    }
}

/// A box that is sampled from a volume.
struct SourceBox<'a> {
    volume: &'a Array3<f32>,
    within: &'a RowSpans,
    taps: [Vec<Tap>; 3],
}

impl SimdKernel for SourceBox<'_> {
    type Output = Array3<f32>;

    #[inline(always)]
    fn run<S: Simd>(self) -> Array3<f32> {
        trilinear(self.volume, self.within, &self.taps)
    }
}

/// The two neighbours of a voxel along an axis, and the weight of the second.
type Tap = (usize, usize, f32);

/// Interpolates a volume trilinearly.
#[inline(always)]
fn trilinear(volume: &Array3<f32>, within: &RowSpans, taps: &[Vec<Tap>; 3]) -> Array3<f32> {
    let mut result = Array3::filled(within.shape(), 0.0f32);
    let mut line = vec![0.0f32; SIDE];
    for (y, z, span) in within.rows() {
        let ((y0, y1, ty), (z0, z1, tz)) = (taps[1][y], taps[2][z]);
        let rows = [volume.row(y0, z0), volume.row(y1, z0), volume.row(y0, z1), volume.row(y1, z1)];
        let [a, b, c, d] = rows.map(|row| &row[..SIDE]);
        let corner = [(1.0 - ty) * (1.0 - tz), ty * (1.0 - tz), (1.0 - ty) * tz, ty * tz];
        for (x, value) in line.iter_mut().enumerate() {
            *value = corner[0] * a[x] + corner[1] * b[x] + corner[2] * c[x] + corner[3] * d[x];
        }
        let taps = &taps[0][span.clone()];
        for (value, &(x0, x1, tx)) in result.row_mut(y, z)[span].iter_mut().zip(taps) {
            *value = line[x0] + tx * (line[x1] - line[x0]);
        }
    }
    result
}

fn volume(random: &mut RandomStream, field_sigma: f64, sample_sigma: f64) -> Array3<f32> {
    let shape = [SIDE; 3];
    let noise = Array3::from_fn(shape, |_| random.unit_f32());
    let field = periodic_gaussian(noise, field_sigma);
    let (low, high) =
        field.as_slice().iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), &v| (a.min(v), b.max(v)));
    let (base, span) = (random.uniform(0.04, 0.06) as f32, random.uniform(0.19, 0.21) as f32);
    let sample = field.map(|&value| {
        let probability = base + span * (value - low) / (high - low);
        f32::from(u8::from(probability > random.unit_f32()))
    });
    let mut texture = periodic_gaussian(sample, sample_sigma);
    let above = texture.as_slice().iter().filter(|&&value| value > 0.12);
    let (sum, count) = above.fold((0.0f64, 0usize), |(sum, count), &value| (sum + f64::from(value), count + 1));
    let scale = (random.uniform(0.5, 0.55) * count as f64 / sum) as f32;
    for value in texture.as_mut_slice() {
        *value = (*value * scale).clamp(0.0, 1.0);
    }
    texture
}

/// Smooths a periodic volume.
fn periodic_gaussian(mut values: Array3<f32>, sigma: f64) -> Array3<f32> {
    let reach = radius_voxels(sigma, 4.0);
    let half = half_kernel(sigma, reach);
    let [nx, ny, nz] = values.shape();
    let mut target = Array3::filled([nx, ny, nz], 0.0f32);
    let wrap =
        |index: usize, offset: isize, length: usize| (index as isize + offset).rem_euclid(length as isize) as usize;
    let mut padded = vec![0.0f32; nx + 2 * reach];
    for axis in 0..3 {
        for z in 0..nz {
            for y in 0..ny {
                let row = target.row_mut(y, z);
                row.fill(0.0);
                if axis == 0 {
                    for (index, value) in padded.iter_mut().enumerate() {
                        *value = values.row(y, z)[wrap(index, -(reach as isize), nx)];
                    }
                }
                for offset in -(reach as isize)..=reach as isize {
                    let weight = half[offset.unsigned_abs()];
                    let line = match axis {
                        0 => &padded[(reach as isize + offset) as usize..],
                        1 => values.row(wrap(y, offset, ny), z),
                        _ => values.row(y, wrap(z, offset, nz)),
                    };
                    row.iter_mut().zip(line).for_each(|(out, value)| *out += weight * value);
                }
            }
        }
        std::mem::swap(&mut values, &mut target);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_is_periodic_and_smooth() {
        let pool = TexturePool::abdomen();
        let sample = pool.sample(&mut Key::root(1).stream("texture"), &RowSpans::whole([120, 5, 4]), [1.5; 3]);
        // The period is 96 voxels.
        for z in 0..4 {
            for y in 0..5 {
                let row = sample.row(y, z);
                assert!(row[..24].iter().zip(&row[96..]).all(|(a, b)| (a - b).abs() < 1e-5));
            }
        }
        let steps = sample.as_slice().windows(2).map(|pair| (pair[0] - pair[1]).abs()).fold(0.0, f32::max);
        assert!(steps < 0.2 && steps > 0.0, "{steps}");
    }

    #[test]
    fn sample_at_finer_spacing_shows_same_positions() {
        let pool = TexturePool::abdomen();
        let coarse = pool.sample(&mut Key::root(2).stream("texture"), &RowSpans::whole([10; 3]), [3.0; 3]);
        let fine = pool.sample(&mut Key::root(2).stream("texture"), &RowSpans::whole([19; 3]), [1.5; 3]);
        for (z, y, x) in [(0, 0, 0), (3, 5, 7), (9, 9, 9)] {
            assert!((coarse[[x, y, z]] - fine[[2 * x, 2 * y, 2 * z]]).abs() < 1e-5);
        }
    }

    #[test]
    fn pool_depends_on_key_only() {
        let recipe = TextureRecipe { copies: 2, ..TextureRecipe::ABDOMEN };
        let pool = TexturePool::new(recipe, Key::root(5));
        assert_eq!(pool.volumes(), TexturePool::new(recipe, Key::root(5)).volumes());
        assert_ne!(pool.volumes()[0], pool.volumes()[1]);
    }
}
