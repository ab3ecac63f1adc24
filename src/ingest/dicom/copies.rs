//! Copies of slices: files with the same image at the same place, in any encoding.

use std::collections::BTreeMap;

use super::decoder::Decoder;
use super::geometry;
use super::pixels::VoxelAssembly;
use super::slice::{Image, Slice};
use crate::error::Fault;
use crate::volume::{Affine, Grid, Voxels};

/// A comparison of slices by place and HU, which finds copies independently of identifiers.
pub(super) struct SliceComparison<'a> {
    slices: &'a [Slice],
    decoder: &'a Decoder,
    /// Outcomes by the indices of two slices.
    known: BTreeMap<[usize; 2], bool>,
}

impl<'a> SliceComparison<'a> {
    pub fn new(slices: &'a [Slice], decoder: &'a Decoder) -> Self {
        Self { slices, decoder, known: BTreeMap::new() }
    }

    /// Returns whether two slices have the same image at the same place.
    ///
    /// # Errors
    /// Returns the fault of reading or decoding the pixels.
    pub fn are_copies(&mut self, a: usize, b: usize) -> Result<bool, Fault> {
        let pair = [a.min(b), a.max(b)];
        if let Some(&known) = self.known.get(&pair) {
            return Ok(known);
        }
        let [first, second] = pair.map(|index| &self.slices[index]);
        let equal = match (&first.image, &second.image) {
            (Ok(image), Ok(other)) => {
                geometry::have_same_place(&image.pose, &other.pose) && self.have_same_hu(first, image, second, other)?
            }
            _ => false,
        };
        self.known.insert(pair, equal);
        Ok(equal)
    }

    /// Returns the HU of a slice with a valid header.
    ///
    /// # Errors
    /// Returns the fault of the header of the slice, and of reading or decoding the pixels.
    pub fn hu_of(&self, slice: usize) -> Result<Voxels, Fault> {
        let slice = &self.slices[slice];
        let image = slice.image.as_ref().map_err(Clone::clone)?;
        self.hu(image, image.read(&slice.path)?)
    }

    fn have_same_hu(&self, first: &Slice, image: &Image, second: &Slice, other: &Image) -> Result<bool, Fault> {
        let stored = [image.read(&first.path)?, other.read(&second.path)?];
        let is_same_encoding =
            (image.format, image.rescale, image.syntax) == (other.format, other.rescale, other.syntax);
        if is_same_encoding && stored[0] == stored[1] {
            return Ok(true);
        }
        let [stored, other_stored] = stored;
        let (hu, other_hu) = (self.hu(image, stored)?, self.hu(other, other_stored)?);
        Ok((0..image.pose.shape.iter().product()).all(|pixel| hu.hu(pixel) == other_hu.hu(pixel)))
    }

    /// Returns the HU of an image with these stored bytes.
    fn hu(&self, image: &Image, stored: Vec<u8>) -> Result<Voxels, Fault> {
        let frame = match image.syntax.is_compressed() {
            true => self.decoder.session().decode(vec![image.frame(stored)])?.concat(),
            false => stored,
        };
        let [columns, rows] = image.pose.shape;
        let mut assembly = VoxelAssembly::new(columns * rows, image.rescale.maps_to_integer_hu())?;
        assembly.push(&frame, image.format, image.syntax, image.rescale)?;
        Ok(assembly.finish(Grid { shape: [columns, rows, 1], affine: Affine::from_spacing([1.0; 3]) }).voxels)
    }
}
