//! The three stages of training.

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrainingStage {
    /// A segmentor on real tumors, which later scores synthetic ones.
    Segmentor,
    /// A generator and a discriminator, with a segmentor that is not changed.
    Synthesis,
    /// The final segmentor on real and synthetic tumors.
    Segmentation,
}

impl TrainingStage {
    /// The name in commands and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Segmentor => "segmentor",
            Self::Synthesis => "synthesis",
            Self::Segmentation => "segmentation",
        }
    }
}
