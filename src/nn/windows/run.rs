//! A predictor on windows, and the average of what overlaps.

use std::collections::VecDeque;
use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::{Importance, VoxelBox, WindowPlan};
use crate::error::{Error, Result};
use crate::nn::failed;

const RUNNING: &str = "cannot run windows";

/// Which windows a predictor sees together.
///
/// It decides the answer of a network whose norm layers take statistics over the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WindowGrouping {
    /// Each by itself.
    #[default]
    Alone,
    /// This many in scan order, the next sample's following the last's, as MONAI does with `sw_batch_size`.
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

/// A way to apply a predictor of windows to volumes.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use freetumor::nn::windows::{WindowGrouping, Importance, SlidingWindows, WindowPlan};
///
/// let plan = WindowPlan::new([10, 8, 6], [4, 4, 4], [0.5; 3])?;
/// let windows = SlidingWindows { plan, importance: Importance::Gaussian, grouping: WindowGrouping::Alone };
/// let volume = Tensor::ones((1, 1, 10, 8, 6), DType::F32, &Device::Cpu).unwrap();
/// let mut seen = 0;
/// let cut = windows.inside(&volume, &[0..2, 1..2, 0..1], |window| {
///     seen += 1;
///     Ok(window.clone())
/// })?;
/// assert_eq!((cut.dims(), seen, windows.plan.count()), (&[1, 1, 2, 1, 1][..], 1, 24));
/// # Ok::<(), freetumor::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SlidingWindows {
    /// Where windows lie.
    pub plan: WindowPlan,
    /// How much each voxel of a window counts.
    pub importance: Importance,
    /// Which windows the predictor sees together.
    pub grouping: WindowGrouping,
}

impl SlidingWindows {
    /// The averaged prediction for whole volumes.
    ///
    /// # Shapes
    /// `input` is `[batch, channel, x, y, z]`; `predict` takes `[n, channel, window…]` to `[n, class, window…]`; the
    /// result is `[batch, class, x, y, z]` in f32 on the input's device.
    ///
    /// # Errors
    /// Where the input is not a volume of the plan's, `predict` fails, or its answer has another shape.
    pub fn whole(&self, input: &Tensor, predict: impl FnMut(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        self.inside(input, &self.plan.whole(), predict)
    }

    /// The averaged prediction inside of a box, bit for bit as in [`whole`](Self::whole): only the groups with a window
    /// that reaches the box are run, and only the box is kept.
    ///
    /// # Shapes
    /// As for [`whole`](Self::whole), the result `[batch, class, box…]`.
    ///
    /// # Errors
    /// As those of [`whole`](Self::whole), and where the box is empty or does not lie in the volume.
    pub fn inside(
        &self,
        input: &Tensor,
        region: &VoxelBox,
        mut predict: impl FnMut(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let groups = self.groups(batch_of(input), region).collect();
        let now = |window: &Tensor| predict(window).map(|answer| move || Ok(answer));
        self.average(input, region, groups, 1, now)
    }

    /// The averaged prediction inside of a box, over some windows only: what they say where they overlap, as if there were
    /// no others.
    ///
    /// Up to `ahead` groups of windows are out at once: `predict` sends them on their way and gives what waits for the answer.
    ///
    /// # Shapes
    /// As for [`inside`](Self::inside), of one volume.
    ///
    /// # Errors
    /// As those of [`inside`](Self::inside), and where a voxel of the box is in none of the windows.
    pub fn over<A: FnOnce() -> Result<Tensor>>(
        &self,
        input: &Tensor,
        region: &VoxelBox,
        windows: &[usize],
        ahead: usize,
        predict: impl FnMut(&Tensor) -> Result<A>,
    ) -> Result<Tensor> {
        let groups = windows.chunks(self.grouping.size()).map(|group| group.iter().map(|&it| (0, it)).collect());
        self.average(input, region, groups.collect(), ahead, predict)
    }

    /// Runs groups of (sample, window), and averages them inside of a box.
    fn average<A: FnOnce() -> Result<Tensor>>(
        &self,
        input: &Tensor,
        region: &VoxelBox,
        groups: Vec<Vec<(usize, usize)>>,
        ahead: usize,
        mut predict: impl FnMut(&Tensor) -> Result<A>,
    ) -> Result<Tensor> {
        self.plan.check_box(region)?;
        let (batch, channels) = match *input.dims() {
            [batch, channels, x, y, z] if [x, y, z] == self.plan.volume() => (batch, channels),
            ref dims => {
                let volume = self.plan.volume();
                return Err(Error::new(format!("a tensor of {dims:?}; expected [batch, channel, {volume:?}]")));
            }
        };
        let weights = self.importance.weights(self.plan.window());
        let used: Vec<usize> = groups.iter().flatten().filter(|(sample, _)| *sample == 0).map(|it| it.1).collect();
        let mut sums: Option<WindowSums> = None;
        let mut out = VecDeque::new();
        let mut waiting = groups.into_iter();
        loop {
            while out.len() < ahead.max(1) {
                let Some(group) = waiting.next() else { break };
                let cut = |(sample, window): &(usize, usize)| self.cut(input, *sample, *window);
                let windows: Vec<Tensor> =
                    group.iter().map(cut).collect::<candle_core::Result<_>>().map_err(failed(RUNNING))?;
                out.push_back((predict(&Tensor::cat(&windows, 0).map_err(failed(RUNNING))?)?, group));
            }
            let Some((answer, group)) = out.pop_front() else { break };
            let answer = answer()?;
            let [x, y, z] = self.plan.window();
            let classes = match *answer.dims() {
                [n, classes, ax, ay, az] if n == group.len() && [ax, ay, az] == [x, y, z] => classes,
                ref dims => {
                    let expected = [group.len(), channels, x, y, z];
                    return Err(Error::new(format!(
                        "the network gave {dims:?} for windows of {expected:?}; expected the same but for the channels"
                    )));
                }
            };
            let sums = sums.get_or_insert_with(|| WindowSums::new(region, batch, classes));
            if sums.classes != classes {
                return Err(Error::new(format!("the network gave {classes} classes after {}", sums.classes)));
            }
            let answer = host(&answer).map_err(failed(RUNNING))?;
            for (answer, (sample, window)) in answer.chunks_exact(classes * x * y * z).zip(group) {
                sums.add(&self.plan, sample, window, answer, &weights);
            }
        }
        let Some(mut sums) = sums else {
            return Err(Error::new("no volume, or no window, to look at"));
        };
        sums.divide(&self.plan, &used, &weights)?;
        let [x, y, z] = region.clone().map(|range| range.len());
        let result = Tensor::from_vec(sums.sums, (batch, sums.classes, x, y, z), &Device::Cpu);
        result.and_then(|result| result.to_device(input.device())).map_err(failed(RUNNING))
    }

    /// How often the predictor is called for a box in `batch` volumes.
    pub fn calls(&self, batch: usize, region: &VoxelBox) -> usize {
        self.groups(batch, region).count()
    }

    /// The groups of (sample, window) in which a window reaches the box.
    fn groups<'s>(&'s self, batch: usize, region: &'s VoxelBox) -> impl Iterator<Item = Vec<(usize, usize)>> + 's {
        let (windows, size) = (self.plan.count(), self.grouping.size());
        let total = windows * batch;
        (0..total.div_ceil(size)).filter_map(move |group| {
            let group = group * size..total.min(group * size + size);
            let group: Vec<_> = group.map(|index| (index / windows, index % windows)).collect();
            group.iter().any(|(_, window)| self.plan.reaches(*window, region)).then_some(group)
        })
    }

    /// A window of one sample, padded with zeros: `[1, channel, window…]`.
    fn cut(&self, input: &Tensor, sample: usize, window: usize) -> candle_core::Result<Tensor> {
        let mut cut = input.narrow(0, sample, 1)?;
        for (axis, range) in self.plan.covered(window).into_iter().enumerate() {
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

/// Sums over the windows that were run, for the voxels of a box.
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

    /// Adds one window's answer, `[class, window…]`.
    fn add(&mut self, plan: &WindowPlan, sample: usize, window: usize, answer: &[f32], weights: &[f32]) {
        let (volume, runs) = (voxels(self.region), runs(plan, window, self.region));
        for class in 0..self.classes {
            let sums = &mut self.sums[(sample * self.classes + class) * volume..][..volume];
            let answer = &answer[class * weights.len()..][..weights.len()];
            for (inside, from) in &runs {
                let (answer, weights) = (&answer[*from..], &weights[*from..]);
                for ((sum, answer), weight) in sums[inside.clone()].iter_mut().zip(answer).zip(weights) {
                    *sum += answer * weight;
                }
            }
        }
    }

    /// Divides by the sum of the windows' weights, added up in the same order.
    fn divide(&mut self, plan: &WindowPlan, windows: &[usize], weights: &[f32]) -> Result<()> {
        let mut total = vec![0.0f32; voxels(self.region)];
        for &window in windows {
            for (inside, from) in runs(plan, window, self.region) {
                total[inside].iter_mut().zip(&weights[from..]).for_each(|(total, weight)| *total += weight);
            }
        }
        if total.contains(&0.0) {
            return Err(Error::new(format!("some of the box {:?} is in none of the windows", self.region)));
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

/// The runs along z that a window and a box share: where in the box, and from where in the window.
fn runs(plan: &WindowPlan, window: usize, region: &VoxelBox) -> Vec<(Range<usize>, usize)> {
    let (covered, padding, [_, wy, wz]) = (plan.covered(window), plan.padding(window), plan.window());
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

/// The numbers of a tensor, as f32 in the host's memory.
fn host(tensor: &Tensor) -> candle_core::Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()
}
