//! From a scan to what a network sees.

use super::{
    Array3, AxisPermutation, Grid, HuWindow, Labels, Orientation, OutsideValue, Region, Resampling, Volume, Voxels,
    padding_to,
};
use crate::error::{ConfigError, Fault};

/// Orient to RAS, resample (image linear, labels nearest), window to 0..1, crop to the foreground, pad to the patch.
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

/// What [`Preprocess::apply`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct PreprocessedScan {
    /// Where the voxels lie, padding included.
    pub grid: Grid,
    /// The image in 0..1, 0 in the padding.
    pub image: Array3<f32>,
    /// The labels, 0 in the padding; `None` where none were given.
    pub labels: Option<Array3<u16>>,
    /// The part that is no padding.
    pub scanned: Region,
}

impl Preprocess {
    /// 1.5 mm in all directions, −175..250 HU, patches of 96³.
    pub const ABDOMEN: Self = Self { spacing_mm: [1.5; 3], window: HuWindow::ABDOMEN, patch: [96; 3] };
    /// 1.25 × 1.25 × 5 mm, −1000..500 HU, patches of 192 × 192 × 32.
    pub const CHEST: Self = Self { spacing_mm: [1.25, 1.25, 5.0], window: HuWindow::CHEST, patch: [192, 192, 32] };

    /// A preprocessing of one's own.
    ///
    /// # Units
    /// Spacing in mm, the patch in voxels of that spacing, along [x, y, z] of RAS.
    ///
    /// # Errors
    /// Every setting that cannot be: a spacing that is not positive, a window without width, an empty patch.
    pub fn new(spacing_mm: [f64; 3], window: HuWindow, patch: [usize; 3]) -> Result<Self, Vec<ConfigError>> {
        let mut complaints = Vec::new();
        if spacing_mm.iter().any(|mm| !mm.is_finite() || *mm <= 0.0) {
            complaints
                .push(ConfigError::new("spacing_mm", format!("expected three positive numbers, got {spacing_mm:?}")));
        }
        let HuWindow { low_hu, high_hu } = window;
        if !low_hu.is_finite() || !high_hu.is_finite() || low_hu >= high_hu {
            complaints.push(
                ConfigError::new(
                    "window_hu",
                    format!("expected a lower and a higher number, got {low_hu} and {high_hu}"),
                )
                .with_hint("the abdomen takes -175 and 250"),
            );
        }
        if patch.contains(&0) {
            complaints.push(ConfigError::new("patch_voxels", format!("expected at least one voxel, got {patch:?}")));
        }
        if complaints.is_empty() { Ok(Self { spacing_mm, window, patch }) } else { Err(complaints) }
    }

    /// Millimetres between voxels of the result.
    pub fn spacing_mm(&self) -> [f64; 3] {
        self.spacing_mm
    }

    /// The HU that become 0 and 1.
    pub fn window(&self) -> HuWindow {
        self.window
    }

    /// The least shape of the result.
    pub fn patch(&self) -> [usize; 3] {
        self.patch
    }

    /// Prepares a scan and its labels. The foreground is what lies above the window's lower end; a scan without any
    /// stays whole. Labels on another grid than the scan's are brought there through both affines.
    ///
    /// ```
    /// use freetumor::volume::{Affine, Array3, Grid, Preprocess, Volume, Voxels};
    /// let grid = Grid { shape: [40, 40, 20], affine: Affine::from_spacing([3.0, 3.0, 5.0]) };
    /// let ball = |[x, y, z]: [usize; 3]| (x.abs_diff(20).pow(2) + y.abs_diff(20).pow(2) + z.abs_diff(10).pow(2)) < 64;
    /// let hu = Array3::from_fn(grid.shape, |voxel| if ball(voxel) { 40i16 } else { -1000 });
    /// let prepared = Preprocess::ABDOMEN.apply(&Volume { grid, voxels: Voxels::I16(hu) }, None).unwrap();
    /// assert_eq!(prepared.image.shape(), [96, 96, 96]);
    /// assert_eq!(prepared.scanned.shape, [29, 29, 48]);
    /// ```
    ///
    /// # Errors
    /// As [`Grid::with_spacing`].
    pub fn apply(&self, scan: &Volume, labels: Option<&Labels>) -> Result<PreprocessedScan, Fault> {
        let turn = scan.grid.orientation().turn_to(Orientation::RAS);
        let ras = turn.grid(&scan.grid);
        let resampling = Resampling::to_spacing(&ras, self.spacing_mm)?;
        let image = match &scan.voxels {
            Voxels::I16(hu) => self.windowed(hu, &turn, &resampling),
            Voxels::F32(hu) => self.windowed(hu, &turn, &resampling),
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

    fn windowed<T>(&self, hu: &Array3<T>, turn: &AxisPermutation, resampling: &Resampling) -> Array3<f32>
    where
        T: Copy + Default + Into<f32> + Send + Sync,
    {
        let window = |hu| self.window.apply(hu);
        if turn.is_identity() {
            resampling.linear_then(hu, OutsideValue::Edge, window)
        } else {
            resampling.linear_then(&turn.array(hu), OutsideValue::Edge, window)
        }
    }
}

/// The labels on the resampled grid: by the scan's own way where they lie on its grid, else through both affines.
fn resampled_labels(labels: &Labels, ras: &Grid, resampling: &Resampling) -> Result<Array3<u16>, Fault> {
    let turn = labels.grid.orientation().turn_to(Orientation::RAS);
    if !turn.grid(&labels.grid).agrees_with(ras) {
        return Ok(labels.onto(&resampling.grid())?.ids);
    }
    Ok(if turn.is_identity() {
        resampling.nearest(&labels.ids, OutsideValue::Edge)
    } else {
        resampling.nearest(&turn.array(&labels.ids), OutsideValue::Edge)
    })
}

fn fitted<T: Copy + Default>(array: Array3<T>, foreground: Region, before: [usize; 3], shape: [usize; 3]) -> Array3<T> {
    let cropped = if foreground == array.region() { array } else { array.into_cut(foreground) };
    if cropped.shape() == shape { cropped } else { cropped.padded(before, shape, T::default()) }
}
