//! Compares the fast implementations with the definition, voxel by voxel.

use proptest::prelude::*;

use super::*;
use crate::random::Key;
use crate::volume::{Affine, Array3, Region};

fn noise(shape: [usize; 3]) -> Array3<f32> {
    let mut random = Key::root(5).stream("noise");
    Array3::from_fn(shape, |_| random.unit_f32() * 1000.0)
}

/// Returns the position of a target voxel in the source, through both affines.
fn position(source: &Grid, target: &Grid, voxel: [usize; 3]) -> [f64; 3] {
    source.affine.inverse().unwrap().apply(target.affine.apply(voxel.map(|i| i as f64)))
}

/// Interpolates linearly by the definition: the eight neighbours with their products of weights.
fn plain_linear(values: &Array3<f32>, source: &Grid, target: &Grid, outside: OutsideValue<f32>) -> Array3<f64> {
    Array3::from_fn(target.shape, |voxel| {
        let position = position(source, target, voxel);
        let last = source.shape.map(|n| n as f64 - 1.0);
        if let (OutsideValue::Value(value), true) =
            (outside, (0..3).any(|axis| position[axis] < -0.5 - 1e-6 || position[axis] > last[axis] + 0.5 + 1e-6))
        {
            return f64::from(value);
        }
        let position = [0, 1, 2].map(|axis| position[axis].clamp(0.0, last[axis]));
        let mut sum = 0.0;
        for corner in 0..8 {
            let mut weight = 1.0;
            let neighbour = [0, 1, 2].map(|axis| {
                let lower = position[axis].floor();
                let upper = corner >> axis & 1 == 1;
                weight *= if upper { position[axis] - lower } else { 1.0 - (position[axis] - lower) };
                (lower as usize + usize::from(upper)).min(source.shape[axis] - 1)
            });
            sum += weight * f64::from(values[neighbour]);
        }
        sum
    })
}

/// Returns a grid that is rotated about z and shifted relative to the world axes.
fn tilted(shape: [usize; 3], spacing_mm: [f64; 3], angle: f64, shift_mm: [f64; 3]) -> Grid {
    let (s, c) = (libm::sin(angle), libm::cos(angle));
    let [x, y, z] = spacing_mm;
    let rows = [[c * x, -s * y, 0.0, shift_mm[0]], [s * x, c * y, 0.0, shift_mm[1]], [0.0, 0.0, z, shift_mm[2]]];
    Grid { shape, affine: Affine(rows) }
}

fn grids() -> impl Strategy<Value = (Grid, Grid)> {
    let shape = || [1usize..14, 1usize..14, 1usize..10];
    let spacing = || [0.5f64..4.0, 0.5f64..4.0, 0.5f64..4.0];
    let angle = prop_oneof![Just(0.0), -3.0f64..3.0];
    let shift = [-8.0f64..8.0, -8.0f64..8.0, -8.0f64..8.0];
    let flips = [any::<bool>(), any::<bool>(), any::<bool>()];
    (shape(), spacing(), shape(), spacing(), angle, shift, flips).prop_map(
        |(source, own_mm, target, mm, angle, shift_mm, flips)| {
            let mm = [0, 1, 2].map(|axis| if flips[axis] { -mm[axis] } else { mm[axis] });
            (tilted(source, own_mm, 0.0, [0.0; 3]), tilted(target, mm, angle, shift_mm))
        },
    )
}

proptest! {
    #[test]
    fn linear_equals_plain_trilinear_interpolation(grids in grids(), outside in prop_oneof![Just(OutsideValue::Edge), Just(OutsideValue::Value(-7.0))]) {
        let (source, target) = grids;
        let values = noise(source.shape);
        let resampled = Resampling::between(&source, &target).unwrap().linear(&values, outside);
        let expected = plain_linear(&values, &source, &target, outside);
        for (value, expected) in resampled.as_slice().iter().zip(expected.as_slice()) {
            prop_assert!((f64::from(*value) - expected).abs() < 1e-2, "{} {}", value, expected);
        }
    }

    #[test]
    fn nearest_returns_value_of_a_nearest_voxel(grids in grids(), edge in any::<bool>()) {
        let (source, target) = grids;
        let values = Array3::from_fn(source.shape, |[x, y, z]| (x + 20 * (y + 20 * z)) as u32 + 1);
        let outside = if edge { OutsideValue::Edge } else { OutsideValue::Value(0) };
        let resampled = Resampling::between(&source, &target).unwrap().nearest(&values, outside);
        for z in 0..target.shape[2] {
            for y in 0..target.shape[1] {
                for x in 0..target.shape[0] {
                    let position = position(&source, &target, [x, y, z]);
                    let is_inside = (0..3).all(|axis| position[axis] > -0.5 && position[axis] < source.shape[axis] as f64 - 0.5);
                    match resampled[[x, y, z]] {
                        0 => prop_assert!(!edge && !is_inside),
                        id => {
                            let id = id as usize - 1;
                            for (axis, voxel) in [id % 20, id / 20 % 20, id / 400].into_iter().enumerate() {
                                let position = position[axis].clamp(0.0, source.shape[axis] as f64 - 1.0);
                                prop_assert!((position - voxel as f64).abs() <= 0.5 + 1e-5);
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn resampled_region_equals_cut_of_resampled_volume(grids in grids(), start in [0usize..14, 0usize..14, 0usize..10], length in [1usize..14, 1usize..14, 1usize..10]) {
        let (source, target) = grids;
        let start = [0, 1, 2].map(|axis| start[axis].min(target.shape[axis] - 1));
        let region = Region { start, shape: [0, 1, 2].map(|axis| length[axis].min(target.shape[axis] - start[axis])) };
        let whole = Resampling::between(&source, &target).unwrap();
        let part = whole.clone().of_region(region);
        let values = noise(source.shape);
        let outside = OutsideValue::Value(-3.0);
        prop_assert_eq!(part.linear(&values, outside), whole.linear(&values, outside).cut(region));
        prop_assert_eq!(part.nearest(&values, outside), whole.nearest(&values, outside).cut(region));
        prop_assert_eq!(part.grid(), target.cut(region));
    }
}

#[test]
fn region_of_region_starts_at_sum_of_both_offsets() {
    let grid = Grid { shape: [9, 8, 7], affine: Affine::from_spacing([1.0, 2.0, 3.0]) };
    let values = noise(grid.shape);
    let outer = Region { start: [2, 1, 3], shape: [6, 6, 4] };
    let inner = Region { start: [1, 2, 0], shape: [3, 2, 2] };
    let part = Resampling::between(&grid, &grid).unwrap().of_region(outer).of_region(inner);
    assert_eq!(part.linear(&values, OutsideValue::Edge), values.cut(outer).cut(inner));
    assert_eq!(part.grid(), grid.cut(outer).cut(inner));
}

#[test]
fn linear_keeps_bits_on_grid_that_differs_by_rounding() {
    let grid = tilted([11, 9, 7], [0.9765625, 0.9765625, 2.0], 0.3, [-249.5, -61.5, -804.5]);
    let mut rounded = grid;
    rounded.affine.0.iter_mut().flatten().for_each(|value| *value += 1e-9);
    let values = noise(grid.shape);
    assert_eq!(Resampling::between(&grid, &rounded).unwrap().linear(&values, OutsideValue::Value(0.0)), values);
}

#[test]
fn results_do_not_depend_on_number_of_threads() {
    let source = Grid { shape: [30, 31, 32], affine: Affine::from_spacing([3.0, 2.5, 4.0]) };
    let values = noise(source.shape);
    let resample = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let resampling = Resampling::to_spacing(&source, [1.5; 3]).unwrap();
        pool.install(|| {
            (resampling.linear(&values, OutsideValue::Edge), resampling.nearest(&values, OutsideValue::Edge))
        })
    };
    assert_eq!(resample(1), resample(5));
}

#[test]
fn degenerate_source_is_a_geometry_fault() {
    let flat = Grid { shape: [3, 3, 3], affine: Affine::from_spacing([1.0, 0.0, 1.0]) };
    let good = Grid { shape: [3, 3, 3], affine: Affine::from_spacing([1.0; 3]) };
    assert_eq!(Resampling::between(&flat, &good).unwrap_err().kind, crate::error::FaultKind::Geometry);
    assert!(Resampling::between(&good, &flat).is_ok(), "a degenerate target is allowed");
}
