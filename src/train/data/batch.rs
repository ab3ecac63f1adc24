//! Batches of crops, in the layout of networks.

use candle_core::{Device, Tensor};

use super::Case;
use crate::error::Result;
use crate::id::ScanId;
use crate::nn::failed;
use crate::volume::{Array3, Region};

/// A crop of a case with its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Crop {
    /// The image, in [0, 1] before changes of brightness.
    pub image: Array3<f32>,
    /// Merged labels.
    pub labels: Array3<u8>,
    /// The origin of the crop.
    pub origin: CropOrigin,
}

/// The origin of a crop, for error messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CropOrigin {
    /// The id of the scan.
    pub scan_id: ScanId,
    /// The first voxel of the crop on the grid of the case.
    pub start: [usize; 3],
    /// Whether the crop has a synthetic tumor.
    pub is_synthetic: bool,
}

impl std::fmt::Display for CropOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tumor = if self.is_synthetic { " with a synthetic tumor" } else { "" };
        write!(f, "scan {} from voxel {:?}{tumor}", self.scan_id, self.start)
    }
}

impl Crop {
    /// Cuts a crop from a case.
    ///
    /// # Panics
    /// Panics if the region is not inside the case.
    pub fn of(case: &Case, region: Region) -> Self {
        let origin = CropOrigin { scan_id: case.id(), start: region.start, is_synthetic: false };
        Self { image: case.image(region), labels: case.masked.mask.labels.cut(region), origin }
    }
}

/// The crops of one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The images, `[batch, x, y, z]`, z fastest.
    pub images: Vec<f32>,
    /// The labels, `[batch, x, y, z]`, z fastest.
    pub labels: Vec<u8>,
    /// Voxels of a crop along [x, y, z].
    pub shape: [usize; 3],
    /// The origins of the crops.
    pub origins: Vec<CropOrigin>,
}

impl Batch {
    /// Creates a batch from crops.
    ///
    /// # Panics
    /// Panics if the crops have different shapes.
    pub fn of(crops: Vec<Crop>) -> Self {
        let mut batch = Self { shape: crops.first().map_or([0; 3], |crop| crop.image.shape()), ..Self::default() };
        for Crop { image, labels, origin } in crops {
            assert_eq!(image.shape(), batch.shape, "all crops of a batch have the same shape");
            append(&mut batch.images, &image);
            append(&mut batch.labels, &labels);
            batch.origins.push(origin);
        }
        batch
    }

    /// Returns the number of crops.
    pub fn len(&self) -> usize {
        self.origins.len()
    }

    /// Returns whether the batch has no crops.
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// Returns the images as the input of a network, `[batch, 1, x, y, z]`.
    ///
    /// # Errors
    /// Returns an error if the device is out of memory.
    pub fn images_on(&self, device: &Device) -> Result<Tensor> {
        volumes_on(self.images.clone(), self.len(), self.shape, device)
    }

    /// Lists the origins of the crops, for messages.
    pub fn describe(&self) -> String {
        self.origins.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

/// Copies values `[batch, x, y, z]`, z fastest, to a device as `[batch, 1, x, y, z]`.
pub(in crate::train) fn volumes_on(
    values: Vec<f32>,
    batch: usize,
    [x, y, z]: [usize; 3],
    device: &Device,
) -> Result<Tensor> {
    let tensor = Tensor::from_vec(values, (batch, 1, x, y, z), &Device::Cpu);
    tensor.and_then(|tensor| tensor.to_device(device)).map_err(failed("cannot copy a batch to the device"))
}

/// Appends an array (x fastest) in the order of tensors (z fastest).
pub(in crate::train) fn append<T: Copy>(into: &mut Vec<T>, array: &Array3<T>) {
    let [nx, ny, nz] = array.shape();
    let values = array.as_slice();
    into.reserve(values.len());
    for x in 0..nx {
        for y in 0..ny {
            into.extend((0..nz).map(|z| values[x + nx * (y + ny * z)]));
        }
    }
}

/// Creates an array (x fastest) from values in the order of tensors (z fastest).
pub(in crate::train) fn array_of<T: Copy>(values: &[T], shape: [usize; 3]) -> Array3<T> {
    let [_, ny, nz] = shape;
    Array3::from_fn(shape, |[x, y, z]| values[z + nz * (y + ny * x)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_tensors_have_z_fastest() {
        let image = Array3::from_fn([2, 3, 4], |[x, y, z]| (100 * x + 10 * y + z) as f32);
        let labels = image.map(|value| *value as u8);
        let crop =
            |image: &Array3<f32>| Crop { image: image.clone(), labels: labels.clone(), origin: Default::default() };
        let batch = Batch::of(vec![crop(&image), crop(&image.map(|value| -value))]);
        let tensor = batch.images_on(&Device::Cpu).unwrap();
        assert_eq!(tensor.dims(), [2, 1, 2, 3, 4]);
        let values = tensor.to_dtype(candle_core::DType::F32).unwrap();
        let at = |b: usize, x: usize, y: usize, z: usize| {
            values
                .get(b)
                .unwrap()
                .get(0)
                .unwrap()
                .get(x)
                .unwrap()
                .get(y)
                .unwrap()
                .get(z)
                .unwrap()
                .to_scalar::<f32>()
                .unwrap()
        };
        assert_eq!((at(0, 1, 2, 3), at(1, 1, 0, 2)), (123.0, -102.0));
        assert_eq!(array_of(&batch.images[..24], [2, 3, 4]), image);
    }
}
