//! Values for each direction from a point, on the faces of a cube.

use std::sync::OnceLock;

/// The number of cells along the edge of a face.
const CELLS: usize = 20;
/// The number of cells along the edge of a face with one row of cells beyond each edge, so that values are interpolated across edges.
const PADDED: usize = CELLS + 2;
/// The angle over which values are averaged.
const AVERAGED_DEGREES: f64 = 8.0;
/// The angle over which the minimum is computed: wider than the averages and the interpolation together, so that no interpolated value is
/// above the minimum that was set in its own direction.
const LOWERED_DEGREES: f64 = 21.0;

/// A smooth value for each direction, not above any limit that was set.
#[derive(Clone, Debug)]
pub(super) struct DirectionMap {
    /// Face by face, each of [`PADDED`]² cells; `None` if no limit was set.
    values: Option<Vec<f32>>,
    unlimited: f32,
}

/// A builder of a [`DirectionMap`] from limits in single directions.
pub(super) struct DirectionLimits {
    cells: Vec<f32>,
    unlimited: f32,
    any: bool,
}

impl DirectionLimits {
    /// Creates a map without limits, whose value is `unlimited` in all directions.
    pub fn new(unlimited: f32) -> Self {
        Self { cells: vec![unlimited; 6 * CELLS * CELLS], unlimited, any: false }
    }

    /// Limits the value in the direction of `offset`.
    pub fn lower(&mut self, offset: [f32; 3], limit: f32) {
        let (face, [u, v]) = face_of(offset);
        let index = |at: f32| (((at + 1.0) * 0.5 * CELLS as f32) as usize).min(CELLS - 1);
        let cell = &mut self.cells[(face * CELLS + index(v)) * CELLS + index(u)];
        if limit < *cell {
            *cell = limit;
            self.any = true;
        }
    }

    /// Returns the smooth map.
    pub fn smoothed(self) -> DirectionMap {
        let Self { cells, unlimited, any } = self;
        if !any {
            return DirectionMap { values: None, unlimited };
        }
        let near = neighbours();
        let least = |list: &Vec<u16>| list.iter().map(|&cell| cells[usize::from(cell)]).fold(unlimited, f32::min);
        let lowered: Vec<f32> = near.lowered.iter().map(least).collect();
        let mean =
            |list: &Vec<u16>| list.iter().map(|&cell| lowered[usize::from(cell)]).sum::<f32>() / list.len() as f32;
        DirectionMap { values: Some(near.averaged.iter().map(mean).collect()), unlimited }
    }
}

impl DirectionMap {
    /// Returns the value in directions without limits.
    #[inline(always)]
    pub fn unlimited(&self) -> f32 {
        self.unlimited
    }

    /// Returns whether there is any limit.
    #[inline(always)]
    pub fn is_limited(&self) -> bool {
        self.values.is_some()
    }

    /// Returns the value in the direction of `offset`, which must not be zero.
    #[inline(always)]
    pub fn at(&self, offset: [f32; 3]) -> f32 {
        let Some(values) = &self.values else { return self.unlimited };
        let (face, [u, v]) = face_of(offset);
        let position = |at: f32| (at + 1.0) * 0.5 * CELLS as f32 + 0.5;
        let (pu, pv) = (position(u), position(v));
        let (iu, iv) = ((pu as usize).min(PADDED - 2), (pv as usize).min(PADDED - 2));
        let (tu, tv) = (pu - iu as f32, pv - iv as f32);
        let first = (face * PADDED + iv) * PADDED + iu;
        let row = |start: usize| values[start] + tu * (values[start + 1] - values[start]);
        let (below, above) = (row(first), row(first + PADDED));
        below + tv * (above - below)
    }
}

/// Returns the face of the cube in the direction of `offset` and the position on it, both coordinates in −1..=1.
#[inline(always)]
fn face_of([x, y, z]: [f32; 3]) -> (usize, [f32; 2]) {
    let [ax, ay, az] = [x.abs(), y.abs(), z.abs()];
    let (axis, along, u, v) = if ax >= ay && ax >= az {
        (0, x, y, z)
    } else if ay >= az {
        (1, y, x, z)
    } else {
        (2, z, x, y)
    };
    let scale = 1.0 / along.abs().max(f32::MIN_POSITIVE);
    (2 * axis + usize::from(along < 0.0), [u * scale, v * scale])
}

/// The cells near each cell.
struct Neighbours {
    /// For each cell, the cells within [`LOWERED_DEGREES`].
    lowered: Vec<Vec<u16>>,
    /// For each cell of the padded faces, the cells within [`AVERAGED_DEGREES`].
    averaged: Vec<Vec<u16>>,
}

fn neighbours() -> &'static Neighbours {
    static NEIGHBOURS: OnceLock<Neighbours> = OnceLock::new();
    NEIGHBOURS.get_or_init(|| {
        let cells = directions(CELLS, 0.0);
        let padded = directions(PADDED, 1.0);
        let within = |from: &[[f64; 3]], degrees: f64| {
            let least = libm::cos(degrees.to_radians());
            let near = |direction: &[f64; 3]| {
                let dot = |other: &[f64; 3]| (0..3).map(|k| direction[k] * other[k]).sum::<f64>();
                (0..cells.len()).filter(|&cell| dot(&cells[cell]) >= least).map(|cell| cell as u16).collect()
            };
            from.iter().map(near).collect()
        };
        Neighbours { lowered: within(&cells, LOWERED_DEGREES), averaged: within(&padded, AVERAGED_DEGREES) }
    })
}

/// Returns the directions of the middles of the cells, with `per_edge` cells along an edge, of which `beyond` lie beyond each edge.
fn directions(per_edge: usize, beyond: f64) -> Vec<[f64; 3]> {
    let position = |index: usize| (index as f64 + 0.5 - beyond) / CELLS as f64 * 2.0 - 1.0;
    let mut all = Vec::with_capacity(6 * per_edge * per_edge);
    for face in 0..6 {
        for v in 0..per_edge {
            for u in 0..per_edge {
                let (u, v) = (position(u), position(v));
                let along = if face % 2 == 0 { 1.0 } else { -1.0 };
                let direction = match face / 2 {
                    0 => [along, u, v],
                    1 => [u, along, v],
                    _ => [u, v, along],
                };
                let length = libm::sqrt(direction.iter().map(|x| x * x).sum());
                all.push(direction.map(|x| x / length));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    #[test]
    fn smooth_map_is_continuous_and_not_above_its_limits() {
        for seed in 0..20 {
            let mut random = Key::root(seed).stream("directions");
            let mut limits = DirectionLimits::new(2.0);
            let set: Vec<([f32; 3], f32)> =
                (0..4).map(|_| (random.direction().map(|x| x as f32), random.uniform(0.5, 1.9) as f32)).collect();
            set.iter().for_each(|(direction, limit)| limits.lower(*direction, *limit));
            let map = limits.smoothed();
            for (direction, limit) in &set {
                assert!(map.at(*direction) <= limit + 1e-5, "seed {seed}");
            }
            for _ in 0..2000 {
                let direction = random.direction();
                let step = random.direction().map(|x| 1e-3 * x);
                let near = [0, 1, 2].map(|k| (direction[k] + step[k]) as f32);
                let change = (map.at(direction.map(|x| x as f32)) - map.at(near)).abs();
                // Values change by at most 1.5 over an average of 8 degrees; at edges of the cube, by the error of the interpolation.
                assert!(change < 0.05, "seed {seed} {direction:?} {change}");
            }
        }
    }

    #[test]
    fn map_without_limits_is_constant() {
        assert_eq!(DirectionLimits::new(1.7).smoothed().at([0.3, -2.0, 1.0]), 1.7);
    }
}
