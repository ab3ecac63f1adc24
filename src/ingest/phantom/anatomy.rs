//! A body under construction, to which each part of the anatomy adds its shapes.

use super::patient::{Build, Enhancement};
use super::scene::Scene;
use super::shape::{Profile, Shape};
use crate::random::RandomStream;

/// A body under construction. Lengths are those of the standard body, [left, posterior, superior] in mm; height 0 lies
/// just under the dome of the diaphragm.
pub(super) struct Anatomy<'a> {
    pub(super) build: &'a Build,
    pub(super) hu: Enhancement,
    pub(super) profile: Profile,
    pub(super) scene: Scene,
    pub(super) draws: RandomStream,
}

impl Anatomy<'_> {
    /// The space under one side of the diaphragm, swollen by some millimetres.
    pub(super) fn dome(side: f32, swollen: f32) -> Shape {
        let dome = if side > 0.0 {
            Shape::ellipsoid([74.0, 4.0, -118.0], [82.0, 97.0, 108.0])
        } else {
            Shape::ellipsoid([-70.0, 0.0, -112.0], [88.0, 102.0, 116.0])
        };
        dome.swollen(swollen)
    }

    /// A number around 1 that makes one patient's organ differ from the next one's.
    pub(super) fn vary(&mut self, deviation: f64) -> f32 {
        self.draws.normal(1.0, deviation).clamp(1.0 - 2.0 * deviation, 1.0 + 2.0 * deviation) as f32
    }

    /// A small random shift.
    pub(super) fn shift(&mut self, deviation_mm: f64) -> [f32; 3] {
        [(); 3].map(|()| self.draws.normal(0.0, deviation_mm).clamp(-2.0 * deviation_mm, 2.0 * deviation_mm) as f32)
    }
}
