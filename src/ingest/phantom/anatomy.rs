//! The builder of a body, to which each part of the anatomy adds its shapes.

use super::patient::{Build, Enhancement};
use super::scene::Scene;
use super::shape::{Profile, Shape};
use crate::random::RandomStream;

/// The builder of a body. Lengths are in the standard body, [left, posterior, superior] in mm; height 0 is
/// just below the dome of the diaphragm.
pub(super) struct Anatomy<'a> {
    pub(super) build: &'a Build,
    pub(super) hu: Enhancement,
    pub(super) profile: Profile,
    pub(super) scene: Scene,
    pub(super) random: RandomStream,
}

impl Anatomy<'_> {
    /// Returns the space under one side of the diaphragm, enlarged by `offset_mm`.
    pub(super) fn dome(side: f32, offset_mm: f32) -> Shape {
        let dome = if side > 0.0 {
            Shape::ellipsoid([74.0, 4.0, -118.0], [82.0, 97.0, 108.0])
        } else {
            Shape::ellipsoid([-70.0, 0.0, -112.0], [88.0, 102.0, 116.0])
        };
        dome.offset(offset_mm)
    }

    /// Returns a random factor around 1, by which an organ varies between patients.
    pub(super) fn vary(&mut self, deviation: f64) -> f32 {
        self.random.normal(1.0, deviation).clamp(1.0 - 2.0 * deviation, 1.0 + 2.0 * deviation) as f32
    }

    /// Returns a small random shift in mm.
    pub(super) fn shift(&mut self, deviation_mm: f64) -> [f32; 3] {
        [(); 3].map(|()| self.random.normal(0.0, deviation_mm).clamp(-2.0 * deviation_mm, 2.0 * deviation_mm) as f32)
    }
}
