//! Preprocessing of scans to the input of a network.

use super::{
    Array3, AxisPermutation, Grid, HuWindow, Labels, Orientation, OutsideValue, Region, Resampling, Volume, Voxels,
    padding_to,
};
use crate::error::{ConfigError, Fault};

/// Preprocessing in five steps: reorient to RAS, resample (image linear, labels nearest), window to 0..1, crop to the foreground,
/// pad to the patch.
///
/// # Source
/// MONAI 1.6: `Orientationd("RAS")`, `Spacingd`, `ScaleIntensityRanged`, `CropForegroundd` and `SpatialPadd` with
/// their defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preprocess {
    spacing_mm: [f64; 3],
    window: HuWindow,
    patch: [usize; 3],
}

/// A scan after [`Preprocess::apply`].
#[derive(Clone, Debug, PartialEq)]
pub struct PreprocessedScan {
    /// The grid of the voxels, padding included.
    pub grid: Grid,
    /// The image in 0..1, 0 in the padding.
    pub image: Array3<f32>,
    /// The labels, 0 in the padding; `None` if no labels were given.
    pub labels: Option<Array3<u16>>,
    /// The region without the padding.
    pub scanned: Region,
}

impl Preprocess {
    /// 1.5 mm in all directions, −175..250 HU, patches of 96³.
    pub const ABDOMEN: Self = Self { spacing_mm: [1.5; 3], window: HuWindow::ABDOMEN, patch: [96; 3] };
    /// 1.25 × 1.25 × 5 mm, −1000..500 HU, patches of 192 × 192 × 32.
    pub const CHEST: Self = Self { spacing_mm: [1.25, 1.25, 5.0], window: HuWindow::CHEST, patch: [192, 192, 32] };

    /// Creates a preprocessing with checked settings.
    ///
    /// # Units
    /// Spacing in mm, the patch in voxels of that spacing, along [x, y, z] of RAS.
    ///
    /// # Errors
    /// Returns an error for each invalid setting: a spacing that is not positive, a window without width, an empty patch.
    pub fn new(spacing_mm: [f64; 3], window: HuWindow, patch: [usize; 3]) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        if spacing_mm.iter().any(|mm| !mm.is_finite() || *mm <= 0.0) {
            errors.push(ConfigError::new("spacing_mm", format!("expected three positive numbers, got {spacing_mm:?}")));
        }
        let HuWindow { low_hu, high_hu } = window;
        if !low_hu.is_finite() || !high_hu.is_finite() || low_hu >= high_hu {
            errors.push(
                ConfigError::new(
                    "window_hu",
                    format!("expected a lower and a higher number, got {low_hu} and {high_hu}"),
                )
                .with_hint("use -175 and 250 for the abdomen"),
            );
        }
        if patch.contains(&0) {
            errors.push(ConfigError::new("patch_voxels", format!("expected at least one voxel, got {patch:?}")));
        }
        if errors.is_empty() { Ok(Self { spacing_mm, window, patch }) } else { Err(errors) }
    }

    /// Returns the spacing of the result in mm.
    pub fn spacing_mm(&self) -> [f64; 3] {
        self.spacing_mm
    }

    /// Returns the HU that are mapped to 0 and 1.
    pub fn window(&self) -> HuWindow {
        self.window
    }

    /// Returns the minimum shape of the result.
    pub fn patch(&self) -> [usize; 3] {
        self.patch
    }

    /// Preprocesses a scan and its labels. The foreground is all voxels above the lower end of the window; a scan without
    /// foreground is not cropped. Labels on another grid are resampled to the scan's grid through both affines.
    ///
    /// ```
    /// use freetumor::volume::{Affine, Array3, Grid, Preprocess, Volume, Voxels};
    /// let grid = Grid { shape: [40, 40, 20], affine: Affine::from_spacing([3.0, 3.0, 5.0]) };
    /// let ball = |[x, y, z]: [usize; 3]| (x.abs_diff(20).pow(2) + y.abs_diff(20).pow(2) + z.abs_diff(10).pow(2)) < 64;
    /// let hu = Array3::from_fn(grid.shape, |voxel| if ball(voxel) { 40i16 } else { -1000 });
    /// let preprocessed = Preprocess::ABDOMEN.apply(&Volume { grid, voxels: Voxels::I16(hu) }, None).unwrap();
    /// assert_eq!(preprocessed.image.shape(), [96, 96, 96]);
    /// assert_eq!(preprocessed.scanned.shape, [29, 29, 48]);
    /// ```
    ///
    /// # Errors
    /// The errors of [`Grid::with_spacing`].
    pub fn apply(&self, scan: &Volume, labels: Option<&Labels>) -> Result<PreprocessedScan, Fault> {
        let permutation = scan.grid.orientation().permutation_to(Orientation::RAS);
        let ras = permutation.grid(&scan.grid);
        let resampling = Resampling::to_spacing(&ras, self.spacing_mm)?;
        let image = match &scan.voxels {
            Voxels::I16(hu) => self.windowed(hu, &permutation, &resampling),
            Voxels::F32(hu) => self.windowed(hu, &permutation, &resampling),
        };
        let labels = labels.map(|labels| resampled_labels(labels, &ras, &resampling)).transpose()?;

        let whole = image.region();
        let foreground = image.bounds_of(|value| *value > 0.0).unwrap_or(whole);
        let (before, shape) = padding_to(foreground.shape, self.patch);
        Ok(PreprocessedScan {
            grid: resampling.grid().cut(foreground).padded(before, shape),
            image: fitted(image, foreground, before, shape),
            labels: labels.map(|labels| fitted(labels, foreground, before, shape)),
            scanned: Region { start: before, shape: foreground.shape },
        })
    }

    fn windowed<T>(&self, hu: &Array3<T>, permutation: &AxisPermutation, resampling: &Resampling) -> Array3<f32>
    where
        T: Copy + Default + Into<f32> + Send + Sync,
    {
        let window = |hu| self.window.apply(hu);
        if permutation.is_identity() {
            resampling.linear_then(hu, OutsideValue::Edge, window)
        } else {
            resampling.linear_then(&permutation.array(hu), OutsideValue::Edge, window)
        }
    }
}

/// Returns the labels on the resampled grid: by the resampling of the scan if they are on its grid, otherwise through both affines.
fn resampled_labels(labels: &Labels, ras: &Grid, resampling: &Resampling) -> Result<Array3<u16>, Fault> {
    let permutation = labels.grid.orientation().permutation_to(Orientation::RAS);
    if !permutation.grid(&labels.grid).agrees_with(ras) {
        return Ok(labels.onto(&resampling.grid())?.ids);
    }
    Ok(if permutation.is_identity() {
        resampling.nearest(&labels.ids, OutsideValue::Edge)
    } else {
        resampling.nearest(&permutation.array(&labels.ids), OutsideValue::Edge)
    })
}

fn fitted<T: Copy + Default>(array: Array3<T>, foreground: Region, before: [usize; 3], shape: [usize; 3]) -> Array3<T> {
    let cropped = if foreground == array.region() { array } else { array.into_cut(foreground) };
    if cropped.shape() == shape { cropped } else { cropped.padded(before, shape, T::default()) }
}
