//! Assembly of a body from its parts, from the outside to the inside.

use super::anatomy::Anatomy;
use super::patient::{Build, Enhancement};
use super::scene::Scene;
use super::trunk::{inner_wall, profile};
use crate::random::Key;

/// Builds the body of a patient in one scan.
///
/// `patient` is the random key of the body, `scan` the random key of properties that differ between scans of a patient.
pub(super) fn build_scene(build: &Build, hu: Enhancement, patient: Key, scan: Key) -> Scene {
    let noise_hu = scan.stream("noise level").uniform(9.0, 13.0) as f32;
    let scene = Scene::new(build.size, inner_wall(build), noise_hu, patient.stream("fields"));
    let mut anatomy = Anatomy { build, hu, profile: profile(build.girth), scene, random: patient.stream("anatomy") };
    anatomy.wall();
    anatomy.skeleton();
    anatomy.lungs();
    anatomy.diaphragm();
    anatomy.mediastinum();
    anatomy.bowel(&mut scan.stream("bowel"));
    anatomy.organs();
    anatomy.scene
}
