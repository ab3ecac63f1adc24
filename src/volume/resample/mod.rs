//! Bringing volumes and labels to another spacing or onto another grid.

mod axis;
mod linear;
mod nearest;
mod sampling;
mod spacing;

pub use axis::OutsideValue;
pub use sampling::Resampling;
pub use spacing::MOST_VOXELS;

use super::{Grid, Labels, Volume, Voxels};
use crate::error::Fault;

#[cfg(test)]
mod tests;

impl Volume {
    /// The volume at another spacing, between voxels linearly, beyond the outermost voxels their value; see
    /// [`Grid::with_spacing`] for the grid.
    ///
    /// # Errors
    /// As [`Grid::with_spacing`].
    pub fn with_spacing(&self, spacing_mm: [f64; 3]) -> Result<Self, Fault> {
        let resampling = Resampling::to_spacing(&self.grid, spacing_mm)?;
        Ok(if resampling.grid() == self.grid { self.clone() } else { self.resampled(&resampling, OutsideValue::Edge) })
    }

    /// The volume on another grid, through both affines; what lies outside this volume becomes `outside_hu`.
    ///
    /// # Errors
    /// A fault of class `geometry` where this volume's axes are degenerate.
    pub fn onto(&self, target: &Grid, outside_hu: f32) -> Result<Self, Fault> {
        Ok(self.resampled(&Resampling::between(&self.grid, target)?, OutsideValue::Value(outside_hu)))
    }

    /// The volume as a resampling that begins at its grid says.
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
    /// The labels at another spacing, each voxel from the nearest one; see [`Grid::with_spacing`] for the grid.
    ///
    /// # Errors
    /// As [`Grid::with_spacing`].
    pub fn with_spacing(&self, spacing_mm: [f64; 3]) -> Result<Self, Fault> {
        let resampling = Resampling::to_spacing(&self.grid, spacing_mm)?;
        if resampling.grid() == self.grid {
            return Ok(self.clone());
        }
        Ok(Self { grid: resampling.grid(), ids: resampling.nearest(&self.ids, OutsideValue::Edge) })
    }

    /// The labels on another grid, through both affines; what lies outside these labels becomes background, 0.
    ///
    /// # Errors
    /// A fault of class `geometry` where the labels' axes are degenerate.
    pub fn onto(&self, target: &Grid) -> Result<Self, Fault> {
        let resampling = Resampling::between(&self.grid, target)?;
        Ok(Self { grid: *target, ids: resampling.nearest(&self.ids, OutsideValue::Value(0)) })
    }
}
