//! Resampling of volumes and labels to another spacing or onto another grid.

mod axis;
mod linear;
mod nearest;
mod sampling;
mod spacing;

pub use axis::OutsideValue;
pub use sampling::Resampling;
pub use spacing::MAX_VOXELS;

use super::{Grid, Labels, Volume, Voxels};
use crate::error::Fault;

#[cfg(test)]
mod tests;

impl Volume {
    /// Resamples the volume linearly to another spacing; outside the outermost voxels their value is used. See [`Grid::with_spacing`]
    /// for the grid.
    ///
    /// # Errors
    /// The errors of [`Grid::with_spacing`].
    pub fn with_spacing(&self, spacing_mm: [f64; 3]) -> Result<Self, Fault> {
        let resampling = Resampling::to_spacing(&self.grid, spacing_mm)?;
        Ok(if resampling.grid() == self.grid { self.clone() } else { self.resampled(&resampling, OutsideValue::Edge) })
    }

    /// Resamples the volume onto another grid through both affines. Voxels outside this volume become `outside_hu`.
    ///
    /// # Errors
    /// A fault of kind `geometry` if this volume's axes are degenerate.
    pub fn onto(&self, target: &Grid, outside_hu: f32) -> Result<Self, Fault> {
        Ok(self.resampled(&Resampling::between(&self.grid, target)?, OutsideValue::Value(outside_hu)))
    }

    /// Applies a resampling whose source is this volume's grid.
    #[must_use]
    pub fn resampled(&self, resampling: &Resampling, outside: OutsideValue<f32>) -> Self {
        let hu = match &self.voxels {
            Voxels::I16(array) => resampling.linear(array, outside),
            Voxels::F32(array) => resampling.linear(array, outside),
        };
        Self { grid: resampling.grid(), voxels: Voxels::F32(hu) }
    }
}

impl Labels {
    /// Resamples the labels to another spacing by nearest neighbour; see [`Grid::with_spacing`] for the grid.
    ///
    /// # Errors
    /// The errors of [`Grid::with_spacing`].
    pub fn with_spacing(&self, spacing_mm: [f64; 3]) -> Result<Self, Fault> {
        let resampling = Resampling::to_spacing(&self.grid, spacing_mm)?;
        if resampling.grid() == self.grid {
            return Ok(self.clone());
        }
        Ok(Self { grid: resampling.grid(), ids: resampling.nearest(&self.ids, OutsideValue::Edge) })
    }

    /// Resamples the labels onto another grid through both affines. Voxels outside these labels become background, 0.
    ///
    /// # Errors
    /// A fault of kind `geometry` if the labels' axes are degenerate.
    pub fn onto(&self, target: &Grid) -> Result<Self, Fault> {
        let resampling = Resampling::between(&self.grid, target)?;
        Ok(Self { grid: *target, ids: resampling.nearest(&self.ids, OutsideValue::Value(0)) })
    }
}
