//! Vessel trees, grown by forking.

use super::shape::{Point, Shape};
use crate::random::RandomStream;

/// How a tree grows.
#[derive(Clone, Copy)]
pub(super) struct BranchingRule {
    /// Forks between the trunk and the tips.
    pub(super) forks: usize,
    /// Length of a branch relative to the one before.
    pub(super) shorter: f32,
    /// Radius of a branch relative to the one before; 0.79 keeps the cube law.
    pub(super) thinner: f32,
    /// How far branches turn away, as a share of their length.
    pub(super) spread: f32,
}

/// Adds a tree that begins at `start` and runs along `way`, as long as its first branch.
pub(super) fn grow(
    draws: &mut RandomStream,
    start: Point,
    way: Point,
    radius: f32,
    habit: BranchingRule,
    tree: &mut Vec<Shape>,
) {
    let end = [0, 1, 2].map(|a| start[a] + way[a]);
    tree.push(Shape::Tube { a: start, b: end, ra: radius, rb: radius * (0.5 + 0.5 * habit.thinner) });
    if habit.forks == 0 {
        return;
    }
    let length = norm(way);
    let aside = perpendicular(draws, way);
    for side in [1.0, -1.0] {
        let turn = side * habit.spread * draws.uniform(0.6, 1.3) as f32;
        let jitter = draws.direction().map(|v| 0.25 * v as f32);
        let next = [0, 1, 2].map(|a| way[a] / length + turn * aside[a] + jitter[a]);
        let longer = length * habit.shorter * draws.uniform(0.8, 1.2) as f32 / norm(next);
        let thinner = radius * habit.thinner * draws.uniform(0.9, 1.1) as f32;
        grow(draws, end, next.map(|v| v * longer), thinner, BranchingRule { forks: habit.forks - 1, ..habit }, tree);
    }
}

fn norm(v: Point) -> f32 {
    (v[0] * v[0] + v[1] * v[1] + v[2] * v[2]).sqrt()
}

/// A random direction at right angles to `way`.
fn perpendicular(draws: &mut RandomStream, way: Point) -> Point {
    let any = draws.direction().map(|v| v as f32);
    let square = norm(way).powi(2);
    let along = (any[0] * way[0] + any[1] * way[1] + any[2] * way[2]) / square;
    let aside = [0, 1, 2].map(|a| any[a] - along * way[a]);
    let length = norm(aside).max(1e-3);
    aside.map(|v| v / length)
}
