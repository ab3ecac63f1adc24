//! Puts a body together, from the outside to the inside.

use super::patient::{Build, Enhancement};
use super::scene::Scene;
use super::shape::{Profile, Shape};
use super::trunk::{inner_wall, profile};
use crate::random::{Draws, Key};

/// A body under construction. Lengths are those of the standard body, [left, posterior, superior] in mm; height 0 lies
/// just under the dome of the diaphragm.
pub(super) struct Anatomy<'a> {
    pub(super) build: &'a Build,
    pub(super) hu: Enhancement,
    pub(super) profile: Profile,
    pub(super) scene: Scene,
    pub(super) draws: Draws,
}

/// The body of a patient during one scan.
///
/// `patient` decides what a body is like, `scan` what differs from scan to scan.
pub(super) fn body(build: &Build, hu: Enhancement, patient: Key, scan: Key) -> Scene {
    let noise_hu = scan.draws("noise level").uniform(9.0, 13.0) as f32;
    let scene = Scene::new(build.size, inner_wall(build), noise_hu, patient.draws("fields"));
    let mut anatomy = Anatomy { build, hu, profile: profile(build.girth), scene, draws: patient.draws("anatomy") };
    anatomy.wall();
    anatomy.skeleton();
    anatomy.lungs();
    anatomy.diaphragm();
    anatomy.mediastinum();
    anatomy.bowel(&mut scan.draws("bowel"));
    anatomy.organs();
    anatomy.scene
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
