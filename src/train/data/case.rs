//! A preprocessed training scan.

use std::sync::Arc;

use crate::error::{Fault, FaultKind};
use crate::id::ScanId;
use crate::ingest::Scan;
use crate::mask::{MaskedScan, OrganMask};
use crate::random::RandomStream;
use crate::volume::{Array3, HuWindow, Labels, Preprocess, Region, Volume, Voxels};

/// A scan with its labels on the grid of the network: oriented, resampled, cropped to the voxels above the window's
/// lower bound, padded to at least the size of a crop.
///
/// Voxels are in HU, clipped to the window, so that tumors can be made in them; [`Case::image`] scales them to [0, 1].
#[derive(Clone, Debug)]
pub struct Case {
    /// The scan in HU with the labels of organs and tumors.
    pub masked: MaskedScan,
    /// The HU that are mapped to 0 and 1.
    pub window: HuWindow,
    /// Voxels of a crop along [x, y, z]; the case is at least as large.
    pub patch: [usize; 3],
    /// The region without padding.
    pub scanned: Region,
    /// The index of the voxels of each label.
    pub index: VoxelIndex,
}

impl Case {
    /// Preprocesses a scan.
    ///
    /// # Errors
    /// Returns a fault if the geometry is invalid, or the labels and the scan have different shapes.
    pub fn prepare(masked: &MaskedScan, preprocess: &Preprocess) -> Result<Self, Fault> {
        let volume = &masked.scan.volume;
        if masked.mask.labels.shape() != volume.grid.shape {
            let (got, expected) = (masked.mask.labels.shape(), volume.grid.shape);
            let message = format!("expected labels of the scan's shape {expected:?}, got {got:?}");
            return Err(Fault::mask(FaultKind::Mismatch, message));
        }
        let labels = Labels { grid: volume.grid, ids: masked.mask.labels.map(|id| u16::from(*id)) };
        let preprocessed = preprocess.apply(volume, Some(&labels))?;
        drop(labels);
        let window = preprocess.window();
        let mut hu = preprocessed.image;
        hu.as_mut_slice().iter_mut().for_each(|value| *value = window.low_hu + *value * window.width_hu());
        let ids = preprocessed.labels.map(|ids| ids.map(|id| *id as u8));
        let labels = ids.unwrap_or_else(|| Array3::filled(hu.shape(), 0));
        let scan = Scan {
            acquisition: Default::default(),
            entry: masked.scan.entry.clone(),
            digest: masked.scan.digest,
            volume: Volume { grid: preprocessed.grid, voxels: Voxels::F32(hu) },
            companions: masked.scan.companions.clone(),
        };
        let index = VoxelIndex::of(&labels);
        let mask = OrganMask { labels, organs: masked.mask.organs.clone(), coverage: masked.mask.coverage };
        let masked = MaskedScan { scan: Arc::new(scan), mask };
        Ok(Self { masked, window, patch: preprocess.patch(), scanned: preprocessed.scanned, index })
    }

    /// Returns the id of the scan.
    pub fn id(&self) -> ScanId {
        self.masked.scan.entry.scan_id
    }

    /// Returns the number of voxels along [x, y, z].
    pub fn shape(&self) -> [usize; 3] {
        self.masked.mask.labels.shape()
    }

    /// Returns the size of the case in memory, in bytes.
    pub fn bytes(&self) -> u64 {
        (self.masked.scan.volume.voxels.bytes() + self.masked.mask.labels.as_slice().len() + self.index.bytes()) as u64
    }

    /// Returns the voxels of a region, scaled to [0, 1].
    ///
    /// # Panics
    /// Panics if the region is not inside the case.
    pub fn image(&self, region: Region) -> Array3<f32> {
        let mut image = self.masked.scan.volume.voxels.hu_of(region);
        image.as_mut_slice().iter_mut().for_each(|hu| *hu = self.window.apply(*hu));
        image
    }

    /// Cuts a region out of the case, to make tumors in it.
    ///
    /// # Panics
    /// Panics if the region is not inside the case.
    #[must_use]
    pub fn cut(&self, region: Region) -> MaskedScan {
        let scan = Scan {
            acquisition: Default::default(),
            entry: self.masked.scan.entry.clone(),
            digest: self.masked.scan.digest,
            volume: self.masked.scan.volume.cut(region),
            companions: self.masked.scan.companions.clone(),
        };
        let mask = OrganMask {
            labels: self.masked.mask.labels.cut(region),
            organs: self.masked.mask.organs.clone(),
            coverage: self.masked.mask.coverage,
        };
        MaskedScan { scan: Arc::new(scan), mask }
    }
}

/// Cumulative counts of the voxels of each label by row along x, to find a voxel of a label by its rank.
///
/// ```
/// use freetumor::random::Key;
/// use freetumor::train::data::VoxelIndex;
/// use freetumor::volume::Array3;
///
/// let mut labels = Array3::filled([5, 4, 3], 0u8);
/// labels[[1, 2, 0]] = 2;
/// labels[[4, 3, 2]] = 2;
/// let index = VoxelIndex::of(&labels);
/// assert_eq!((index.count(2), index.count(0), index.count(7)), (2, 58, 0));
/// assert_eq!(index.voxel(&labels, 2, 1), Some([4, 3, 2]));
/// let voxel = index.sample(&labels, |label| label == 2, &mut Key::root(1).stream("voxel")).unwrap();
/// assert_eq!(labels[voxel], 2);
/// ```
#[derive(Clone, Debug, Default)]
pub struct VoxelIndex {
    /// For each label, the number of voxels up to and including each row.
    through: Vec<(u8, Vec<u32>)>,
}

impl VoxelIndex {
    /// Builds the index of a label map.
    pub fn of(labels: &Array3<u8>) -> Self {
        let [nx, ny, nz] = labels.shape();
        let mut slots = [usize::MAX; 256];
        let mut through: Vec<(u8, Vec<u32>)> = Vec::new();
        for (row, voxels) in labels.as_slice().chunks_exact(nx.max(1)).enumerate() {
            for &label in voxels {
                let slot = &mut slots[usize::from(label)];
                if *slot == usize::MAX {
                    *slot = through.len();
                    through.push((label, vec![0; ny * nz]));
                }
                through[*slot].1[row] += 1;
            }
        }
        for (_, counts) in &mut through {
            let mut sum = 0;
            counts.iter_mut().for_each(|count| {
                sum += *count;
                *count = sum;
            });
        }
        through.sort_unstable_by_key(|(label, _)| *label);
        Self { through }
    }

    /// Returns the labels in the map, in ascending order.
    pub fn labels(&self) -> impl Iterator<Item = u8> + '_ {
        self.through.iter().map(|(label, _)| *label)
    }

    /// Returns the number of voxels of a label.
    pub fn count(&self, label: u8) -> usize {
        let rows = self.through.iter().find(|(own, _)| *own == label);
        rows.and_then(|(_, through)| through.last()).map_or(0, |count| *count as usize)
    }

    /// Returns the voxel of a label with `rank` voxels of that label before it, in the order with x fastest; `None` if the labels contain
    /// at most `rank` such voxels.
    pub fn voxel(&self, labels: &Array3<u8>, label: u8, rank: usize) -> Option<[usize; 3]> {
        let (_, through) = self.through.iter().find(|(own, _)| *own == label)?;
        let row = through.partition_point(|count| *count as usize <= rank);
        let before = row.checked_sub(1).map_or(0, |row| through[row] as usize);
        let ny = labels.shape()[1];
        let [y, z] = [row % ny, row / ny];
        if row >= through.len() {
            return None;
        }
        let mut voxels = labels.row(y, z).iter().enumerate().filter(|(_, own)| **own == label);
        voxels.nth(rank - before).map(|(x, _)| [x, y, z])
    }

    /// Samples a voxel uniformly from the selected labels; returns `None` if there is no such voxel.
    pub fn sample(
        &self,
        labels: &Array3<u8>,
        is_selected: impl Fn(u8) -> bool,
        random: &mut RandomStream,
    ) -> Option<[usize; 3]> {
        let selected: Vec<u8> = self.labels().filter(|label| is_selected(*label)).collect();
        let all: usize = selected.iter().map(|label| self.count(*label)).sum();
        if all == 0 {
            return None;
        }
        let mut rank = random.index(all);
        for label in selected {
            match rank.checked_sub(self.count(label)) {
                Some(rest) => rank = rest,
                None => return self.voxel(labels, label, rank),
            }
        }
        None
    }

    fn bytes(&self) -> usize {
        self.through.iter().map(|(_, rows)| 4 * rows.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;
    use crate::train::testing::phantom;

    #[test]
    fn voxel_index_finds_voxels_by_rank() {
        let mut random = Key::root(3).stream("labels");
        let labels = Array3::from_fn([7, 5, 6], |_| random.index(4) as u8);
        let index = VoxelIndex::of(&labels);
        for label in 0..5u8 {
            let own: Vec<_> = (0..index.count(label)).map(|rank| index.voxel(&labels, label, rank).unwrap()).collect();
            let expected: Vec<_> = (0..6)
                .flat_map(|z| (0..5).flat_map(move |y| (0..7).map(move |x| [x, y, z])))
                .filter(|voxel| labels[*voxel] == label)
                .collect();
            assert_eq!(own, expected);
            assert_eq!(index.voxel(&labels, label, own.len()), None);
        }
    }

    #[test]
    fn case_equals_preprocessed_scan() {
        let masked = phantom(5);
        let preprocess = Preprocess::new([4.0, 4.0, 5.0], HuWindow::ABDOMEN, [32, 32, 48]).unwrap();
        let case = Case::prepare(&masked, &preprocess).unwrap();
        let labels = Labels { grid: masked.scan.volume.grid, ids: masked.mask.labels.map(|id| u16::from(*id)) };
        let expected = preprocess.apply(&masked.scan.volume, Some(&labels)).unwrap();
        let image = case.image(Region { start: [0; 3], shape: case.shape() });
        let differences = image.as_slice().iter().zip(expected.image.as_slice()).map(|(a, b)| (a - b).abs());
        assert!(differences.fold(0.0, f32::max) < 1e-6);
        assert_eq!(case.masked.mask.labels.map(|id| u16::from(*id)), expected.labels.unwrap());
        assert!(case.index.count(1) > 500, "the case contains the liver");
    }
}
