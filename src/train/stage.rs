//! The three stages of training.

/// A stage of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrainingStage {
    /// A segmentor on real tumors, which later scores synthetic ones.
    Segmentor,
    /// A generator and a discriminator, with a frozen segmentor.
    Synthesis,
    /// The final segmentor on real and synthetic tumors.
    Segmentation,
}

impl TrainingStage {
    /// Returns the name of the stage in commands and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Segmentor => "segmentor",
            Self::Synthesis => "synthesis",
            Self::Segmentation => "segmentation",
        }
    }
}
