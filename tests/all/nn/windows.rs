//! Sliding windows compared with MONAI, with a plain loop, and between whole volumes and boxes.

use std::collections::{BTreeMap, HashMap};

use candle_core::{Device, Tensor};
use freetumor::error::{Error, Result};
use freetumor::nn::fill::uniform;
use freetumor::nn::windows::{Importance, SlidingWindows, VoxelBox, WindowGrouping, WindowPlan};
use proptest::prelude::*;

use crate::common::shared;

fn named(name: &str, shape: &[usize]) -> Tensor {
    Tensor::from_vec(uniform(name, shape.iter().product(), -1.0, 1.0), shape, &Device::Cpu).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Returns in channel 0 the window minus its mean, and in channel 1 the window times the standard deviation, of each window or of all
/// windows together.
fn statistics(windows: &Tensor, together: bool) -> Result<Tensor> {
    let run = || {
        let [n, _, x, y, z] = windows.dims()[..] else { panic!("five axes") };
        let mean = windows.mean_keepdim((2, 3, 4))?;
        let values = if together { windows.flatten_all()? } else { windows.flatten_from(1)? };
        let deviation = values.var_keepdim(values.rank() - 1)?.sqrt()?;
        let deviation =
            if together { deviation.broadcast_as((n, 1, 1, 1, 1))? } else { deviation.reshape((n, 1, 1, 1, 1))? };
        Tensor::cat(&[windows.broadcast_sub(&mean)?, windows.broadcast_mul(&deviation)?], 1)?.reshape((n, 2, x, y, z))
    };
    run().map_err(|error: candle_core::Error| Error::new(error.to_string()))
}

fn windows(
    volume: [usize; 3],
    window: [usize; 3],
    overlap: f64,
    importance: Importance,
    grouping: WindowGrouping,
) -> SlidingWindows {
    SlidingWindows { plan: WindowPlan::new(volume, window, [overlap; 3]).unwrap(), importance, grouping }
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    flat(a).iter().zip(flat(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn predictions_of_whole_volumes_equal_the_reference() {
    let Some(folder) = shared("golden") else { return };
    let golden: HashMap<String, Tensor> =
        candle_core::safetensors::load(folder.join("sliding_window.safetensors"), &Device::Cpu).unwrap();
    let counts = std::fs::read_to_string(folder.join("sliding_window_count.json")).unwrap();
    let counts: BTreeMap<String, usize> = serde_json::from_str(&counts).unwrap();
    let (mut largest, mut compared) = (0.0f32, 0);
    for volume in [[40, 33, 24], [20, 50, 30], [24, 24, 24], [25, 61, 37]] {
        let [x, y, z] = volume;
        let input = named(&format!("window.({x}, {y}, {z})"), &[1, 1, x, y, z]);
        for overlap in [0.25, 0.5, 0.75] {
            for (mode, importance) in [("constant", Importance::Constant), ("gaussian", Importance::Gaussian)] {
                let key = format!("{x}x{y}x{z}.overlap{overlap}.{mode}");
                let windows = windows(volume, [24; 3], overlap, importance, WindowGrouping::Alone);
                let mut count = 0;
                let result = windows.predict_volume(&input, |window| {
                    count += window.dims()[0];
                    statistics(window, true)
                });
                assert_eq!((count, windows.plan.count()), (counts[&key], counts[&key]), "{key}");
                largest = largest.max(largest_difference(&result.unwrap(), &golden[&key]));
                compared += 1;
            }
        }
    }
    let input = named("window.anisotropic", &[2, 1, 21, 45, 26]);
    for (mode, importance) in [("constant", Importance::Constant), ("gaussian", Importance::Gaussian)] {
        let windows = windows([21, 45, 26], [24, 16, 20], 0.5, importance, WindowGrouping::Together(4));
        let mut sizes = Vec::new();
        let result = windows.predict_volume(&input, |window| {
            sizes.push(window.dims()[0]);
            statistics(window, false)
        });
        largest = largest.max(largest_difference(&result.unwrap(), &golden[&format!("anisotropic.{mode}")]));
        assert_eq!(sizes, [4, 4, 4, 4, 4], "expected windows of both samples in groups of four");
        compared += 1;
    }
    assert_eq!((compared, counts.len()), (26, 24));
    eprintln!("largest difference from MONAI: {largest:.1e}");
    assert!(largest <= 1e-6, "{largest:e}");
}

/// Computes the reference's algorithm as plain loops: a padded copy, every window, sums and weights over the whole volume.
fn plain(input: &Tensor, window: [usize; 3], overlap: f64, weights: &[f32], group: usize) -> Vec<f32> {
    let [batch, _, vx, vy, vz] = input.dims()[..] else { panic!("five axes") };
    let (volume, values) = ([vx, vy, vz], flat(input));
    let padded = [0, 1, 2].map(|axis| volume[axis].max(window[axis]));
    let before = [0, 1, 2].map(|axis| (padded[axis] - volume[axis]) / 2);
    let at = |sample: usize, p: [usize; 3]| {
        let inside = (0..3).all(|axis| p[axis] >= before[axis] && p[axis] - before[axis] < volume[axis]);
        let [x, y, z] = [0, 1, 2].map(|axis| p[axis].wrapping_sub(before[axis]));
        if inside { values[((sample * vx + x) * vy + y) * vz + z] } else { 0.0 }
    };
    let starts = |axis: usize| {
        let step = ((window[axis] as f64 * (1.0 - overlap)) as usize).max(1);
        let step = if window[axis] == padded[axis] { window[axis] } else { step };
        let mut starts = Vec::new();
        loop {
            let start = starts.len() * step;
            starts.push(start - (start + window[axis]).saturating_sub(padded[axis]));
            if start + window[axis] >= padded[axis] {
                return starts;
            }
        }
    };
    let mut all = Vec::new();
    for sample in 0..batch {
        for x in starts(0) {
            for y in starts(1) {
                for z in starts(2) {
                    all.push((sample, [x, y, z]));
                }
            }
        }
    }
    let size: usize = padded.iter().product();
    let (mut sums, mut totals) = (vec![0.0f32; batch * 2 * size], vec![0.0f32; batch * size]);
    let index_of = |p: [usize; 3]| (p[0] * padded[1] + p[1]) * padded[2] + p[2];
    let [wx, wy, wz] = window;
    let count = wx * wy * wz;
    let offset = |i: usize| [i / (wy * wz), i / wz % wy, i % wz];
    let plus = |a: [usize; 3], b: [usize; 3]| [0, 1, 2].map(|axis| a[axis] + b[axis]);
    for group in all.chunks(group) {
        let cut = |(sample, start): &(usize, [usize; 3])| {
            (0..count).map(|i| at(*sample, plus(*start, offset(i)))).collect::<Vec<_>>()
        };
        let cut: Vec<f32> = group.iter().flat_map(cut).collect();
        let cut = Tensor::from_vec(cut, (group.len(), 1, wx, wy, wz), &Device::Cpu).unwrap();
        let prediction = flat(&statistics(&cut, true).unwrap());
        for (index, (sample, start)) in group.iter().enumerate() {
            for i in 0..count {
                let voxel = index_of(plus(*start, offset(i)));
                totals[sample * size + voxel] += weights[i];
                for class in 0..2 {
                    sums[(sample * 2 + class) * size + voxel] +=
                        prediction[(index * 2 + class) * count + i] * weights[i];
                }
            }
        }
    }
    let mut result = Vec::new();
    for channel in 0..batch * 2 {
        for i in 0..vx * vy * vz {
            let voxel = index_of(plus([i / (vy * vz), i / vz % vy, i % vz], before));
            result.push(sums[channel * size + voxel] / totals[channel / 2 * size + voxel]);
        }
    }
    result
}

/// Returns a box in a volume, from two random numbers for each axis.
fn box_in(volume: [usize; 3], at: [(usize, usize); 3]) -> VoxelBox {
    [0, 1, 2].map(|axis| {
        let start = at[axis].0 % volume[axis];
        start..start + 1 + at[axis].1 % (volume[axis] - start)
    })
}

fn cropped(whole: &Tensor, region: &VoxelBox) -> Tensor {
    let axes = region.iter().enumerate();
    axes.fold(whole.clone(), |cut, (axis, range)| cut.narrow(axis + 2, range.start, range.len()).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn prediction_of_a_box_has_the_bits_of_the_whole_volume(
        volume in prop::array::uniform3(1usize..14), window in prop::array::uniform3(1usize..9), overlap in 0.0..0.95f64,
        at in prop::array::uniform3((0usize..99, 0usize..99)), batch in 1usize..4, group in 0usize..5, gaussian: bool,
    ) {
        let importance = if gaussian { Importance::Gaussian } else { Importance::Constant };
        let grouping = if group == 0 { WindowGrouping::Alone } else { WindowGrouping::Together(group) };
        let windows = windows(volume, window, overlap, importance, grouping);
        let input = named("windows.property", &[batch, 1, volume[0], volume[1], volume[2]]);
        let whole = windows.predict_volume(&input, |window| statistics(window, true)).unwrap();
        let weights = importance.weights(window);
        prop_assert!(weights.iter().all(|weight| *weight > 0.0));
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&flat(&whole)), bits(&plain(&input, window, overlap, &weights, group.max(1))));

        let region = box_in(volume, at);
        let mut calls = 0;
        let inside = windows.predict_box(&input, &region, |window| {
            calls += 1;
            statistics(window, true)
        }).unwrap();
        prop_assert_eq!(bits(&flat(&inside)), bits(&flat(&cropped(&whole, &region))));
        prop_assert_eq!(calls, windows.call_count(batch, &region));
        if group < 2 {
            prop_assert_eq!(calls, batch * windows.plan.overlapping(&region).len());
        }
    }

    #[test]
    fn every_voxel_is_in_a_window_and_every_window_overlaps_the_volume(
        volume in prop::array::uniform3(1usize..40), window in prop::array::uniform3(1usize..30), overlap in 0.0..0.9f64,
        voxel in prop::array::uniform3(0usize..99),
    ) {
        let plan = WindowPlan::new(volume, window, [overlap; 3]).unwrap();
        let voxel = [0, 1, 2].map(|axis| voxel[axis] % volume[axis]);
        let region = voxel.map(|at| at..at + 1);
        prop_assert!(!plan.overlapping(&region).is_empty());
        for index in plan.overlapping(&region) {
            let covered = plan.covered_box(index);
            for axis in 0..3 {
                prop_assert!(covered[axis].contains(&voxel[axis]));
                prop_assert_eq!(covered[axis].len(), window[axis].min(volume[axis]));
            }
        }
        prop_assert_eq!(plan.overlapping(&plan.volume_box()).len(), plan.count());
    }
}

#[test]
fn only_windows_that_overlap_the_box_are_run() {
    let windows = windows([192; 3], [96; 3], 0.75, Importance::Gaussian, WindowGrouping::Alone);
    assert_eq!(windows.plan.count(), 125);
    assert_eq!(windows.call_count(1, &[0..10, 0..10, 0..10]), 1);
    assert_eq!(windows.call_count(1, &[90..102, 90..102, 90..102]), 125);
    assert_eq!(
        windows.call_count(
            1,
            &[0..30, 0..30, 0..200].map(|range: std::ops::Range<usize>| range.start..range.end.min(192))
        ),
        2 * 2 * 5
    );
    let together = SlidingWindows { grouping: WindowGrouping::Together(4), ..windows };
    assert_eq!(together.call_count(1, &together.plan.volume_box()), 32);
    assert_eq!(together.call_count(2, &[0..1, 0..1, 0..1]), 2);
}

#[test]
fn windows_fail_on_invalid_input_with_expected_values() {
    let plan = |volume, window, overlap: f64| WindowPlan::new(volume, window, [overlap; 3]).unwrap_err().to_string();
    assert!(plan([0, 1, 1], [1; 3], 0.5).contains("expected at least 1 voxel"));
    assert!(plan([1; 3], [1, 0, 1], 0.5).contains("expected at least 1 voxel"));
    for overlap in [1.0, -0.1, f64::NAN, f64::INFINITY] {
        assert!(plan([9; 3], [4; 3], overlap).contains("expected an overlap of at least 0 and below 1"), "{overlap}");
    }
    let windows = windows([9; 3], [4; 3], 0.5, Importance::Constant, WindowGrouping::Together(2));
    let input = named("x", &[1, 1, 9, 9, 9]);
    let same = |window: &Tensor| Ok(window.clone());
    let error = |result: Result<Tensor>| result.unwrap_err().to_string();
    assert!(
        error(windows.predict_volume(&named("x", &[1, 1, 9, 9, 8]), same))
            .contains("expected a tensor of [batch, channel, [9, 9, 9]]")
    );
    assert!(error(windows.predict_volume(&named("x", &[9, 9, 9]), same)).contains("got [9, 9, 9]"));
    let backwards = std::ops::Range { start: 5, end: 4 };
    for region in [[0..0, 0..9, 0..9], [0..9, 0..10, 0..9], [backwards, 0..9, 0..9]] {
        assert!(error(windows.predict_box(&input, &region, same)).contains("expected a box within"), "{region:?}");
    }
    let half = |window: &Tensor| Ok(window.narrow(2, 0, 2).unwrap());
    assert!(error(windows.predict_volume(&input, half)).contains("the network returned [2, 1, 2, 4, 4]"));
    assert!(error(windows.predict_volume(&input, |_| Err(Error::new("out of memory")))).contains("out of memory"));
    let mut calls = 0;
    let inconsistent = |window: &Tensor| {
        calls += 1;
        Ok(Tensor::cat(&vec![window; calls], 1).unwrap())
    };
    assert!(error(windows.predict_volume(&input, inconsistent)).contains("for every window, got 1 and 2"));
}
