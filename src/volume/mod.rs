//! Volumes of voxels and their position in the patient.
//!
//! This module owns HU on grids: arrays, affines, orientation, resampling, windows, filters, crops and pictures of slices. The
//! module contains no file format, no organ and no network.
//!
//! Axis order is [x, y, z] everywhere, x fastest in memory (as in NIfTI and DICOM). World coordinates are millimetres in RAS+: they
//! increase towards the patient's Right, Anterior and Superior. Voxels stay 16-bit integers as long as that is exact, and results have
//! the same bits for any number of threads.

mod affine;
mod array;
mod components;
mod crop;
mod distance;
mod gaussian;
mod grid;
mod likeliest;
mod orientation;
mod percentile;
mod permutation;
mod picture;
mod preprocess;
mod resample;
mod row_spans;

pub use affine::Affine;
pub use array::Array3;
pub(crate) use components::keep_largest;
pub use components::{Components, Connectivity, VoxelRun};
pub use crop::padding_to;
pub use distance::distance_mm;
pub use gaussian::{Boundary, Gaussian, Scratch};
pub(crate) use gaussian::{half_kernel, radius_voxels};
pub use grid::{Grid, Region};
pub use likeliest::likeliest;
pub use orientation::Orientation;
pub use permutation::AxisPermutation;
pub use picture::{
    Picture, ViewDirection, before_after_and_difference, before_and_after, before_and_after_axial,
    before_and_after_row, busiest_voxel, label_colour, stacked, three_planes,
};
pub use preprocess::{Preprocess, PreprocessedScan};
pub use resample::{MAX_VOXELS, OutsideValue, Resampling};
pub(crate) use row_spans::{RowSpans, hull};

/// Hounsfield units on a grid. Integers stay integers until a stage needs floats.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// The position of the voxels in the patient.
    pub grid: Grid,
    /// The HU of each voxel.
    pub voxels: Voxels,
}

/// Hounsfield units, as `i16` if that is exact.
#[derive(Clone, Debug, PartialEq)]
pub enum Voxels {
    /// Whole HU, as scanners write them.
    I16(Array3<i16>),
    /// Fractional HU: scans with fractional slopes, resampled scans.
    F32(Array3<f32>),
}

impl Voxels {
    /// Returns the number of voxels along [x, y, z].
    pub fn shape(&self) -> [usize; 3] {
        match self {
            Self::I16(array) => array.shape(),
            Self::F32(array) => array.shape(),
        }
    }

    /// Returns the HU at a linear index (x fastest).
    #[inline]
    pub fn hu(&self, index: usize) -> f32 {
        match self {
            Self::I16(array) => f32::from(array.as_slice()[index]),
            Self::F32(array) => array.as_slice()[index],
        }
    }

    /// Copies the HU of `region` as floats.
    pub fn hu_of(&self, region: Region) -> Array3<f32> {
        match self {
            Self::I16(array) => array.cut_map(region, |&hu| f32::from(hu)),
            Self::F32(array) => array.cut(region),
        }
    }

    /// Returns the size in memory in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::I16(array) => array.as_slice().len() * 2,
            Self::F32(array) => array.as_slice().len() * 4,
        }
    }
}

/// Integer labels on a grid, as in a segmentation file.
#[derive(Clone, Debug, PartialEq)]
pub struct Labels {
    /// The position of the voxels in the patient.
    pub grid: Grid,
    /// The label of each voxel.
    pub ids: Array3<u16>,
}

/// A range of HU that is mapped linearly to 0..1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HuWindow {
    /// The HU that is mapped to 0.
    pub low_hu: f32,
    /// The HU that is mapped to 1.
    pub high_hu: f32,
}

impl HuWindow {
    /// −175..250 HU, used for abdominal organs.
    pub const ABDOMEN: Self = Self { low_hu: -175.0, high_hu: 250.0 };
    /// −1000..500 HU, used for the chest.
    pub const CHEST: Self = Self { low_hu: -1000.0, high_hu: 500.0 };

    /// Returns the width of the window in HU.
    pub fn width_hu(self) -> f32 {
        self.high_hu - self.low_hu
    }

    /// Maps HU to 0..1 and clips values outside the window.
    ///
    /// ```
    /// use freetumor::volume::HuWindow;
    /// assert_eq!(HuWindow::ABDOMEN.apply(-500.0), 0.0);
    /// assert_eq!(HuWindow::ABDOMEN.apply(37.5), 0.5);
    /// ```
    #[inline]
    pub fn apply(self, hu: f32) -> f32 {
        ((hu - self.low_hu) / self.width_hu()).clamp(0.0, 1.0)
    }
}
