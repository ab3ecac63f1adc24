//! The application of a predictor to windows, and the average of overlapping predictions.

use std::collections::VecDeque;
use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::{Importance, VoxelBox, WindowPlan};
use crate::error::{Error, Result};
use crate::nn::failed;

const FAILED: &str = "cannot run windows";

/// The number of windows that one call of the predictor receives.
///
/// The grouping affects the predictions of a network with batch norm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WindowGrouping {
    /// One window for each call.
    #[default]
    Alone,
    /// This number of windows for each call, in scan order, across samples, like `sw_batch_size` of MONAI.
    Together(usize),
}

impl WindowGrouping {
    fn size(self) -> usize {
        match self {
            Self::Alone => 1,
            Self::Together(count) => count.max(1),
        }
    }
}

/// Applies a predictor of windows to volumes of any size.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use freetumor::nn::windows::{WindowGrouping, Importance, SlidingWindows, WindowPlan};
///
/// let plan = WindowPlan::new([10, 8, 6], [4, 4, 4], [0.5; 3])?;
/// let windows = SlidingWindows { plan, importance: Importance::Gaussian, grouping: WindowGrouping::Alone };
/// let volume = Tensor::ones((1, 1, 10, 8, 6), DType::F32, &Device::Cpu).unwrap();
/// let mut calls = 0;
/// let prediction = windows.predict_box(&volume, &[0..2, 1..2, 0..1], |window| {
///     calls += 1;
///     Ok(window.clone())
/// })?;
/// assert_eq!((prediction.dims(), calls, windows.plan.count()), (&[1, 1, 2, 1, 1][..], 1, 24));
/// # Ok::<(), freetumor::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SlidingWindows {
    /// The positions of the windows.
    pub plan: WindowPlan,
    /// The weights of a window's voxels in the average.
    pub importance: Importance,
    /// The number of windows that one call of the predictor receives.
    pub grouping: WindowGrouping,
}

impl SlidingWindows {
    /// Predicts whole volumes, averaged over overlapping windows.
    ///
    /// # Shapes
    /// `input` is `[batch, channel, x, y, z]`; `predict` takes `[n, channel, window…]` to `[n, class, window…]`; the
    /// result is `[batch, class, x, y, z]` in f32 on the input's device.
    ///
    /// # Errors
    /// If the input does not have the plan's volume, `predict` fails, or its prediction has another shape.
    pub fn predict_volume(&self, input: &Tensor, predict: impl FnMut(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        self.predict_box(input, &self.plan.volume_box(), predict)
    }

    /// Predicts a box, with the same bits as [`predict_volume`](Self::predict_volume): only the groups with a window that overlaps the
    /// box are computed, and only the box is returned.
    ///
    /// # Shapes
    /// The shapes of [`predict_volume`](Self::predict_volume), but the result is `[batch, class, box…]`.
    ///
    /// # Errors
    /// The errors of [`predict_volume`](Self::predict_volume), and an error if the box is empty or not within the volume.
    pub fn predict_box(
        &self,
        input: &Tensor,
        region: &VoxelBox,
        mut predict: impl FnMut(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let groups = self.groups(batch_of(input), region).collect();
        let predict = |window: &Tensor| predict(window).map(|prediction| move || Ok(prediction));
        self.average(input, region, groups, 1, predict)
    }

    /// Predicts a box from some windows only, averaged over those windows.
    ///
    /// Up to `ahead` groups of windows are pending at once: `predict` submits a group and returns a function that waits for its prediction.
    ///
    /// # Shapes
    /// The shapes of [`predict_box`](Self::predict_box), for one volume.
    ///
    /// # Errors
    /// The errors of [`predict_box`](Self::predict_box), and an error if the windows do not cover the box.
    pub fn predict_windows<P: FnOnce() -> Result<Tensor>>(
        &self,
        input: &Tensor,
        region: &VoxelBox,
        windows: &[usize],
        ahead: usize,
        predict: impl FnMut(&Tensor) -> Result<P>,
    ) -> Result<Tensor> {
        let groups = windows.chunks(self.grouping.size());
        let groups = groups.map(|group| group.iter().map(|&window| (0, window)).collect());
        self.average(input, region, groups.collect(), ahead, predict)
    }

    /// Runs groups of (sample, window), and averages their predictions over a box.
    fn average<P: FnOnce() -> Result<Tensor>>(
        &self,
        input: &Tensor,
        region: &VoxelBox,
        groups: Vec<Vec<(usize, usize)>>,
        ahead: usize,
        mut predict: impl FnMut(&Tensor) -> Result<P>,
    ) -> Result<Tensor> {
        self.plan.check_box(region)?;
        let (batch, channels) = match *input.dims() {
            [batch, channels, x, y, z] if [x, y, z] == self.plan.volume() => (batch, channels),
            ref dims => {
                let volume = self.plan.volume();
                return Err(Error::new(format!("expected a tensor of [batch, channel, {volume:?}], got {dims:?}")));
            }
        };
        let weights = self.importance.weights(self.plan.window());
        let first_sample = groups.iter().flatten().filter(|(sample, _)| *sample == 0);
        let used: Vec<usize> = first_sample.map(|(_, window)| *window).collect();
        let mut sums: Option<WindowSums> = None;
        let mut pending = VecDeque::new();
        let mut groups = groups.into_iter();
        loop {
            while pending.len() < ahead.max(1) {
                let Some(group) = groups.next() else { break };
                let cut = |(sample, window): &(usize, usize)| self.cut(input, *sample, *window);
                let windows: Vec<Tensor> =
                    group.iter().map(cut).collect::<candle_core::Result<_>>().map_err(failed(FAILED))?;
                pending.push_back((predict(&Tensor::cat(&windows, 0).map_err(failed(FAILED))?)?, group));
            }
            let Some((wait, group)) = pending.pop_front() else { break };
            let prediction = wait()?;
            let [x, y, z] = self.plan.window();
            let classes = match *prediction.dims() {
                [n, classes, ax, ay, az] if n == group.len() && [ax, ay, az] == [x, y, z] => classes,
                ref dims => {
                    let expected = [group.len(), channels, x, y, z];
                    return Err(Error::new(format!(
                        "expected a prediction of {expected:?} with any number of channels, the network returned {dims:?}"
                    )));
                }
            };
            let sums = sums.get_or_insert_with(|| WindowSums::new(region, batch, classes));
            if sums.classes != classes {
                return Err(Error::new(format!(
                    "expected the same number of classes for every window, got {} and {classes}",
                    sums.classes
                )));
            }
            let values = to_host(&prediction).map_err(failed(FAILED))?;
            for (values, (sample, window)) in values.chunks_exact(classes * x * y * z).zip(group) {
                sums.add(&self.plan, sample, window, values, &weights);
            }
        }
        let Some(mut sums) = sums else {
            return Err(Error::new("expected at least one volume and one window, got none"));
        };
        sums.divide(&self.plan, &used, &weights)?;
        let [x, y, z] = region.clone().map(|range| range.len());
        let result = Tensor::from_vec(sums.sums, (batch, sums.classes, x, y, z), &Device::Cpu);
        result.and_then(|result| result.to_device(input.device())).map_err(failed(FAILED))
    }

    /// Returns the number of calls of the predictor for a box in `batch` volumes.
    pub fn call_count(&self, batch: usize, region: &VoxelBox) -> usize {
        self.groups(batch, region).count()
    }

    /// Returns the groups of (sample, window) in which a window overlaps the box.
    fn groups<'s>(&'s self, batch: usize, region: &'s VoxelBox) -> impl Iterator<Item = Vec<(usize, usize)>> + 's {
        let (windows, size) = (self.plan.count(), self.grouping.size());
        let total = windows * batch;
        (0..total.div_ceil(size)).filter_map(move |group| {
            let group = group * size..total.min(group * size + size);
            let group: Vec<_> = group.map(|index| (index / windows, index % windows)).collect();
            group.iter().any(|(_, window)| self.plan.overlaps(*window, region)).then_some(group)
        })
    }

    /// Extracts a window of one sample, padded with zeros: `[1, channel, window…]`.
    fn cut(&self, input: &Tensor, sample: usize, window: usize) -> candle_core::Result<Tensor> {
        let mut cut = input.narrow(0, sample, 1)?;
        for (axis, range) in self.plan.covered_box(window).into_iter().enumerate() {
            cut = cut.narrow(axis + 2, range.start, range.len())?;
        }
        for (axis, (before, after)) in self.plan.padding(window).into_iter().enumerate() {
            if before + after > 0 {
                cut = cut.pad_with_zeros(axis + 2, before, after)?;
            }
        }
        cut.contiguous()
    }
}

/// The sums of the predictions of the computed windows, for the voxels of a box.
struct WindowSums<'r> {
    region: &'r VoxelBox,
    classes: usize,
    /// `[sample, class, box…]`.
    sums: Vec<f32>,
}

impl<'r> WindowSums<'r> {
    fn new(region: &'r VoxelBox, batch: usize, classes: usize) -> Self {
        Self { region, classes, sums: vec![0.0; batch * classes * voxels(region)] }
    }

    /// Adds one window's prediction, `[class, window…]`.
    fn add(&mut self, plan: &WindowPlan, sample: usize, window: usize, prediction: &[f32], weights: &[f32]) {
        let (volume, runs) = (voxels(self.region), runs(plan, window, self.region));
        for class in 0..self.classes {
            let sums = &mut self.sums[(sample * self.classes + class) * volume..][..volume];
            let values = &prediction[class * weights.len()..][..weights.len()];
            for (inside, from) in &runs {
                let (values, weights) = (&values[*from..], &weights[*from..]);
                for ((sum, value), weight) in sums[inside.clone()].iter_mut().zip(values).zip(weights) {
                    *sum += value * weight;
                }
            }
        }
    }

    /// Divides the sums of predictions by the sums of the windows' weights, which are added in the same order.
    fn divide(&mut self, plan: &WindowPlan, windows: &[usize], weights: &[f32]) -> Result<()> {
        let mut total = vec![0.0f32; voxels(self.region)];
        for &window in windows {
            for (inside, from) in runs(plan, window, self.region) {
                total[inside].iter_mut().zip(&weights[from..]).for_each(|(total, weight)| *total += weight);
            }
        }
        if total.contains(&0.0) {
            return Err(Error::new(format!("expected windows that cover the box {:?}", self.region)));
        }
        for sums in self.sums.chunks_exact_mut(total.len()) {
            sums.iter_mut().zip(&total).for_each(|(sum, total)| *sum /= total);
        }
        Ok(())
    }
}

fn batch_of(input: &Tensor) -> usize {
    input.dims().first().copied().unwrap_or(0)
}

fn voxels(region: &VoxelBox) -> usize {
    region.iter().map(ExactSizeIterator::len).product()
}

/// Returns the rows along z that a window and a box share: the range in the box, and the start in the window.
fn runs(plan: &WindowPlan, window: usize, region: &VoxelBox) -> Vec<(Range<usize>, usize)> {
    let (covered, padding, [_, wy, wz]) = (plan.covered_box(window), plan.padding(window), plan.window());
    let shared = |axis: usize| covered[axis].start.max(region[axis].start)..covered[axis].end.min(region[axis].end);
    let [xs, ys, zs] = [0, 1, 2].map(shared);
    if zs.is_empty() {
        return Vec::new();
    }
    let in_window = |axis: usize, voxel: usize| voxel - covered[axis].start + padding[axis].0;
    let in_box = |axis: usize, voxel: usize| voxel - region[axis].start;
    let run = |x: usize, y: usize| {
        let row = in_box(0, x) * region[1].len() + in_box(1, y);
        let start = row * region[2].len() + in_box(2, zs.start);
        (start..start + zs.len(), (in_window(0, x) * wy + in_window(1, y)) * wz + in_window(2, zs.start))
    };
    xs.flat_map(|x| ys.clone().map(move |y| (x, y))).map(|(x, y)| run(x, y)).collect()
}

/// Copies the numbers of a tensor to the host's memory, as f32.
fn to_host(tensor: &Tensor) -> candle_core::Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()
}
