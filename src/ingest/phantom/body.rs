//! Puts a body together, from the outside to the inside.

use super::anatomy::Anatomy;
use super::patient::{Build, Enhancement};
use super::scene::Scene;
use super::trunk::{inner_wall, profile};
use crate::random::Key;

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
