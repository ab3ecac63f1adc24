//! The content digest of a scan: equal for equal content in any file format.

use std::hash::{DefaultHasher, Hash, Hasher};

use sha2::{Digest, Sha256};

use crate::id::ScanDigest;
use crate::volume::{Volume, Voxels};

/// Bytes that are reordered at once before they are hashed: less than a scan, more than a slice.
const SLAB_BYTES: usize = 2 << 20;
/// Spacings are hashed in thousandths of a millimetre: file formats round them differently beyond that.
const SPACING_STEPS_PER_MM: f64 = 1000.0;
/// Spacings are rounded up from 1 minus this fraction of a step. No decimal number of up to five digits, and no field of view in whole
/// millimetres divided by 512 or 1024, is near this bound, so that a spacing as text (DICOM) and as f32 (NIfTI) have one digest.
const SPACING_ROUNDING: f64 = 0.5269;

/// Returns the SHA-256 of the volume in its canonical form: axes in RAS order (the closest to its affine), shape, spacing
/// to a thousandth of a millimetre, and HU.
///
/// HU are hashed as i16 if every value is an integer in the range of i16, and as f32 otherwise, so that the digest
/// does not depend on the voxel type in memory. The origin of the affine is not hashed.
///
/// ```
/// use freetumor::ingest::content_digest;
/// use freetumor::volume::{Affine, Array3, Grid, Volume, Voxels};
///
/// let grid = Grid { shape: [2, 1, 1], affine: Affine::from_spacing([1.0; 3]) };
/// let integers = Volume { grid, voxels: Voxels::I16(Array3::from_vec(grid.shape, vec![-1000, 40])) };
/// let floats = Volume { grid, voxels: Voxels::F32(Array3::from_vec(grid.shape, vec![-1000.0, 40.0])) };
/// assert_eq!(content_digest(&integers), content_digest(&floats));
///
/// // The same patient, with x stored from right to left.
/// let mut flipped = Volume { grid, voxels: Voxels::I16(Array3::from_vec(grid.shape, vec![40, -1000])) };
/// flipped.grid.affine.0[0] = [-1.0, 0.0, 0.0, 1.0];
/// assert_eq!(content_digest(&integers), content_digest(&flipped));
/// ```
pub fn content_digest(volume: &Volume) -> ScanDigest {
    let mut hash = Sha256::new_with_prefix(b"freetumor volume 1\n");
    let walk = RasWalk::new(volume);
    for (size, spacing_mm) in walk.shape.into_iter().zip(walk.spacing_mm) {
        hash.update((size as u64).to_le_bytes());
        hash.update(spacing_steps(spacing_mm).to_le_bytes());
    }
    match &volume.voxels {
        Voxels::I16(array) => {
            hash.update(b"i16");
            walk.for_each_slab(array.as_slice(), |hu| hu.to_le_bytes(), |slab| hash.update(slab));
        }
        Voxels::F32(array) if array.as_slice().iter().all(|&hu| f32::from(hu as i16) == hu) => {
            hash.update(b"i16");
            walk.for_each_slab(array.as_slice(), |hu| (hu as i16).to_le_bytes(), |slab| hash.update(slab));
        }
        Voxels::F32(array) => {
            hash.update(b"f32");
            // Adding zero makes −0 the same as 0.
            walk.for_each_slab(array.as_slice(), |hu| (hu + 0.0).to_le_bytes(), |slab| hash.update(slab));
        }
    }
    ScanDigest::from_hash(&hash.finalize())
}

/// Returns a spacing in thousandths of a millimetre.
fn spacing_steps(spacing_mm: f64) -> u64 {
    (spacing_mm * SPACING_STEPS_PER_MM + SPACING_ROUNDING).floor() as u64
}

/// The axial slices of a volume, for the comparison of series: a series may be a part of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceHashes {
    /// Hash of the shape of a slice and the spacing along all axes.
    pub geometry: u64,
    /// Hash of the HU of each slice, from inferior to superior. The hashes are not cryptographic.
    pub slices: Vec<u64>,
}

/// Returns the hashes of the slices of a volume in RAS order. As in [`content_digest`], the voxel type, the order of the axes and the
/// origin have no effect.
pub fn slice_hashes(volume: &Volume) -> SliceHashes {
    let walk = RasWalk::new(volume);
    let mut geometry = DefaultHasher::new();
    (walk.shape[0], walk.shape[1], walk.spacing_mm.map(spacing_steps)).hash(&mut geometry);
    let slice_bytes = walk.shape[0] * walk.shape[1] * size_of::<f32>();
    let mut slices = Vec::with_capacity(walk.shape[2]);
    let add = |slab: &[u8]| {
        slices.extend(slab.chunks_exact(slice_bytes).map(|slice| {
            let mut hash = DefaultHasher::new();
            hash.write(slice);
            hash.finish()
        }));
    };
    match &volume.voxels {
        Voxels::I16(array) => walk.for_each_slab(array.as_slice(), |hu| f32::from(hu).to_le_bytes(), add),
        Voxels::F32(array) => walk.for_each_slab(array.as_slice(), |hu| (hu + 0.0).to_le_bytes(), add),
    }
    SliceHashes { geometry: geometry.finish(), slices }
}

/// The order in which voxels are visited: x towards Right fastest, then Anterior, then Superior.
struct RasWalk {
    shape: [usize; 3],
    spacing_mm: [f64; 3],
    /// The linear index of the first voxel.
    first: isize,
    /// Increment of the linear index for one step along R, A, S.
    steps: [isize; 3],
}

impl RasWalk {
    fn new(volume: &Volume) -> Self {
        let shape = volume.voxels.shape();
        let spacing_mm = volume.grid.spacing_mm();
        let strides = [1, shape[0] as isize, (shape[0] * shape[1]) as isize];
        let mut walk = Self { shape: [0; 3], spacing_mm: [0.0; 3], first: 0, steps: [0; 3] };
        for (axis, (world, positive)) in volume.grid.orientation().0.into_iter().enumerate() {
            walk.shape[world] = shape[axis];
            walk.spacing_mm[world] = spacing_mm[axis];
            walk.steps[world] = if positive { strides[axis] } else { -strides[axis] };
            if !positive {
                walk.first += strides[axis] * (shape[axis] as isize - 1);
            }
        }
        walk
    }

    /// Calls `consume` with the bytes of whole RAS slices, a few slices at a time.
    fn for_each_slab<T: Copy, const N: usize>(
        &self,
        voxels: &[T],
        bytes: impl Fn(T) -> [u8; N],
        mut consume: impl FnMut(&[u8]),
    ) {
        let [nx, ny, nz] = self.shape;
        let slice_bytes = nx * ny * N;
        if slice_bytes == 0 {
            return;
        }
        let thickness = (SLAB_BYTES / slice_bytes).clamp(1, nz);
        let mut slab = vec![0; thickness * slice_bytes];
        // The innermost loop reads the volume in memory order; writes to the slab may be strided.
        let mut order = [0, 1, 2];
        order.sort_by_key(|&world| std::cmp::Reverse(self.steps[world].abs()));
        let slab_strides = [N, nx * N, slice_bytes];
        for start in (0..nz).step_by(thickness) {
            let counts = [nx, ny, thickness.min(nz - start)];
            let [outer, middle, inner] = order;
            let origin = self.first + start as isize * self.steps[2];
            for a in 0..counts[outer] {
                for b in 0..counts[middle] {
                    let mut from = origin + a as isize * self.steps[outer] + b as isize * self.steps[middle];
                    let mut to = a * slab_strides[outer] + b * slab_strides[middle];
                    if slab_strides[inner] == N {
                        // A row of the slab is a row of the volume: the common case of an axial scan.
                        let row = &mut slab[to..to + counts[inner] * N];
                        if self.steps[inner] > 0 {
                            let stored = &voxels[from as usize..from as usize + counts[inner]];
                            for (target, &voxel) in row.chunks_exact_mut(N).zip(stored) {
                                target.copy_from_slice(&bytes(voxel));
                            }
                        } else {
                            let stored = &voxels[(from + 1) as usize - counts[inner]..=from as usize];
                            for (target, &voxel) in row.chunks_exact_mut(N).zip(stored.iter().rev()) {
                                target.copy_from_slice(&bytes(voxel));
                            }
                        }
                        continue;
                    }
                    for _ in 0..counts[inner] {
                        slab[to..to + N].copy_from_slice(&bytes(voxels[from as usize]));
                        from += self.steps[inner];
                        to += slab_strides[inner];
                    }
                }
            }
            consume(&slab[..counts[2] * slice_bytes]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::volume::{Affine, Array3, Grid};

    /// Returns the volume `ras` stored with axes in another order and direction.
    fn reoriented(ras: &Array3<i16>, spacing_mm: [f64; 3], order: [usize; 3], flips: [bool; 3]) -> Volume {
        let shape = order.map(|world| ras.shape()[world]);
        let mut affine = Affine([[0.0; 4]; 3]);
        for axis in 0..3 {
            affine.0[order[axis]][axis] = if flips[axis] { -spacing_mm[order[axis]] } else { spacing_mm[order[axis]] };
        }
        let array = Array3::from_fn(shape, |voxel| {
            let mut world = [0; 3];
            for axis in 0..3 {
                world[order[axis]] = if flips[axis] { shape[axis] - 1 - voxel[axis] } else { voxel[axis] };
            }
            ras[world]
        });
        Volume { grid: Grid { shape, affine }, voxels: Voxels::I16(array) }
    }

    const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

    proptest! {
        #[test]
        fn digest_ignores_axis_order(
            shape in [1usize..7, 1usize..6, 1usize..9],
            which in 0usize..6,
            flips in any::<[bool; 3]>(),
            seed in any::<i16>(),
        ) {
            let ras = Array3::from_fn(shape, |[x, y, z]| seed.wrapping_add((x * 5 + y * 131 + z * 1009) as i16));
            let spacing_mm = [0.7, 0.8, 5.0];
            let plain = reoriented(&ras, spacing_mm, [0, 1, 2], [false; 3]);
            let other = reoriented(&ras, spacing_mm, ORDERS[which], flips);
            prop_assert_eq!(content_digest(&plain), content_digest(&other));
        }
    }

    #[test]
    fn digest_by_slabs_equals_digest_of_whole_volume() {
        // More than one slab, the last one thinner.
        let ras = Array3::from_fn([300, 290, 31], |[x, y, z]| (x * 7 + y * 3 + z * 11) as i16);
        let plain: Vec<u8> = ras.as_slice().iter().flat_map(|hu| hu.to_le_bytes()).collect();
        for order in ORDERS {
            let volume = reoriented(&ras, [1.0; 3], order, [true, false, true]);
            let Voxels::I16(array) = &volume.voxels else { unreachable!("reoriented() returns integers") };
            let mut bytes = Vec::new();
            RasWalk::new(&volume)
                .for_each_slab(array.as_slice(), i16::to_le_bytes, |slab| bytes.extend_from_slice(slab));
            assert!(bytes == plain, "order {order:?}");
        }
    }

    #[test]
    fn digest_depends_on_voxels_and_spacing_but_not_on_origin() {
        let ras = Array3::from_fn([4, 3, 2], |[x, y, z]| (x + 10 * y + 100 * z) as i16);
        let volume = reoriented(&ras, [0.7, 0.7, 5.0], [0, 1, 2], [false; 3]);
        let digest = content_digest(&volume);

        let mut moved = volume.clone();
        moved.grid.affine.0[2][3] = 17.0;
        moved.grid.affine.0[0][0] += 1e-5;
        assert_eq!(content_digest(&moved), digest);

        let mut thicker = volume.clone();
        thicker.grid.affine.0[2][2] = 5.002;
        assert_ne!(content_digest(&thicker), digest);

        let floats = |change: f32| {
            let mut array = ras.map(|&hu| f32::from(hu));
            array.as_mut_slice()[0] += change;
            Volume { grid: volume.grid, voxels: Voxels::F32(array) }
        };
        assert_eq!(content_digest(&floats(0.0)), digest);
        assert_eq!(content_digest(&floats(-0.0)), digest);
        assert_ne!(content_digest(&floats(0.5)), digest);
    }

    proptest! {
        #[test]
        fn spacing_as_decimal_and_as_f32_has_one_digest(hundred_thousandths in 10_000u32..1_000_000) {
            let spacing_mm = f64::from(hundred_thousandths) / 100_000.0;
            prop_assert_eq!(spacing_steps(spacing_mm), spacing_steps(f64::from(spacing_mm as f32)));
        }
    }

    #[test]
    fn slice_hashes_of_a_part_are_those_of_the_whole() {
        let ras = Array3::from_fn([3, 4, 6], |[x, y, z]| (x + 10 * y + 100 * z) as i16);
        let whole = slice_hashes(&reoriented(&ras, [1.0; 3], [0, 1, 2], [false; 3]));
        let part = Array3::from_fn([3, 4, 3], |[x, y, z]| ras[[x, y, z + 2]]);
        let part = slice_hashes(&reoriented(&part, [1.0; 3], [2, 1, 0], [true, false, true]));
        assert_eq!(part.geometry, whole.geometry);
        assert_eq!(part.slices[..], whole.slices[2..5]);
        let thicker = slice_hashes(&reoriented(&ras, [1.0, 1.0, 2.0], [0, 1, 2], [false; 3]));
        assert_ne!(thicker.geometry, whole.geometry);
        assert_eq!(thicker.slices, whole.slices);
    }
}
