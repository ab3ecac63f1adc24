//! The size and shape of a tumor, before its site is sampled.

use super::super::classes::ClassShape;
use super::super::shape::ShapeParameters;

/// The size and shape of a tumor, before its site is sampled.
pub(super) enum TumorForm {
    Prior(ShapeParameters),
    Class(Box<ClassShape>),
}

impl TumorForm {
    pub(super) fn diameter_mm(&self) -> f64 {
        match self {
            Self::Prior(shape) => shape.diameter_mm,
            Self::Class(class) => class.diameter_mm(),
        }
    }

    pub(super) fn radii_mm(&self) -> [f64; 3] {
        match self {
            Self::Prior(shape) => shape.radii_mm(),
            Self::Class(class) => class.radii_mm(),
        }
    }

    pub(super) fn reach_mm(&self) -> f64 {
        match self {
            Self::Prior(shape) => shape.reach_mm(),
            Self::Class(class) => class.reach_mm(),
        }
    }
}
