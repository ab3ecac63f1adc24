//! Volumes of voxels and their place in the patient.
//!
//! This room owns HU on grids: arrays, affines, orientation, resampling, windows, filters, crops and pictures of slices. It knows no
//! file format, no organ and no network.
//!
//! Axis order is [x, y, z] everywhere, x fastest in memory (as NIfTI and DICOM store it). World coordinates are millimetres in RAS+: they
//! grow towards the patient's Right, Anterior and Superior. Voxels stay 16-bit integers as long as that is exact, and results have the
//! same bits for any number of threads.

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
mod picture;
mod preprocess;
mod resample;
mod stretches;
mod turn;

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
pub use picture::{Picture, ViewDirection, before_and_after, busiest_voxel, label_colour, stacked, three_planes};
pub use preprocess::{Preprocess, PreprocessedScan};
pub use resample::{MOST_VOXELS, OutsideValue, Resampling};
pub(crate) use stretches::{RowSpans, hull};
pub use turn::AxisPermutation;

/// Hounsfield units on a grid. Integers stay integers until a stage needs floats.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// Where the voxels lie.
    pub grid: Grid,
    /// Their values.
    pub voxels: Voxels,
}

/// Hounsfield units, i16 where that is exact.
#[derive(Clone, Debug, PartialEq)]
pub enum Voxels {
    /// Whole numbers of HU, as every scanner writes them.
    I16(Array3<i16>),
    /// Anything else: fractional slopes, resampled scans.
    F32(Array3<f32>),
}

impl Voxels {
    /// Number of voxels along [x, y, z].
    pub fn shape(&self) -> [usize; 3] {
        match self {
            Self::I16(array) => array.shape(),
            Self::F32(array) => array.shape(),
        }
    }

    /// HU at a linear index (x fastest).
    #[inline]
    pub fn hu(&self, index: usize) -> f32 {
        match self {
            Self::I16(array) => f32::from(array.as_slice()[index]),
            Self::F32(array) => array.as_slice()[index],
        }
    }

    /// HU of a box as floats, in the box's own order.
    pub fn hu_of(&self, region: Region) -> Array3<f32> {
        match self {
            Self::I16(array) => array.cut(region).map(|&hu| f32::from(hu)),
            Self::F32(array) => array.cut(region),
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::I16(array) => array.as_slice().len() * 2,
            Self::F32(array) => array.as_slice().len() * 4,
        }
    }
}

/// Integer labels on a grid, as a segmentation file holds them.
#[derive(Clone, Debug, PartialEq)]
pub struct Labels {
    /// Where the voxels lie.
    pub grid: Grid,
    /// The label of each voxel.
    pub ids: Array3<u16>,
}

/// The HU range that is mapped linearly to 0..1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HuWindow {
    /// HU that becomes 0.
    pub low_hu: f32,
    /// HU that becomes 1.
    pub high_hu: f32,
}

impl HuWindow {
    /// −175..250 HU, used for abdominal organs.
    pub const ABDOMEN: Self = Self { low_hu: -175.0, high_hu: 250.0 };
    /// −1000..500 HU, used for the chest.
    pub const CHEST: Self = Self { low_hu: -1000.0, high_hu: 500.0 };

    /// Width in HU.
    pub fn width_hu(self) -> f32 {
        self.high_hu - self.low_hu
    }

    /// Maps HU to 0..1, clipping what lies outside.
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
