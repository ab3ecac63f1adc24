//! Tumors by an external program, with positions and sizes by rules.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Exchange;
use super::config::{Placeholders, command_config};
use super::exchange::{OutputFile, Values, max_output_bytes};
use super::program::Program;
use super::request::{CandidateContext, floats};
use super::score::check_margin;
use crate::error::{ConfigError, Fault, FaultKind, Stage};
use crate::mask::{MaskedScan, Organ};
use crate::random::Key;
use crate::synth::blend::{round_hu, tumor_of, with_tumor};
use crate::synth::classes::SizeClass;
use crate::synth::measure::measure;
use crate::synth::{
    Attempt, AttemptKey, Attempts, Candidate, Geometry, RulesConfig, SampledStructure, Synthesize,
    boundary_distance_mm, exterior_fraction,
};
use crate::volume::{Array3, Voxels};

/// Tolerance in HU outside of the organ, for rounding by writers of floats.
const UNCHANGED_HU: f32 = 0.5;

/// The form of a synthesis program's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SynthesisOutput {
    /// The box with the tumor, in HU.
    #[default]
    Image,
    /// HU to be added to the box.
    Difference,
}

/// The origin of the tumor's label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TumorShape {
    /// The shape by rules.
    #[default]
    Rules,
    /// The mask that the program writes to `{tumor_output}`, clipped to the healthy organ.
    Program,
}

/// The treatment of changes outside of the healthy organ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutsideChanges {
    /// Changes are discarded: voxels outside of the healthy organ keep their bits.
    #[default]
    Restore,
    /// Changes fail the scan.
    Fault,
}

command_config! {
    /// Settings of the synthesis kind `command`.
    CommandSynthesisConfig {
        /// Position, size, shape and number of tumors: the settings of `kind = "rules"`.
        #[serde(default)]
        rules: RulesConfig,
        /// Whether the program writes the changed box, or HU to be added to the box.
        #[serde(default)]
        output_form: SynthesisOutput,
        /// The origin of the tumor's label.
        #[serde(default)]
        tumor: TumorShape,
        /// The treatment of changes outside of the healthy organ.
        #[serde(default)]
        outside: OutsideChanges,
        /// Margin of the scan around the rules' box that the program reads, and may change within the organ, in mm.
        #[serde(default = "super::score::default_margin_mm")]
        margin_mm: f64,
    }
}

const PLACEHOLDERS: Placeholders = Placeholders {
    always: &["seed", "organ", "request", "folder", "graph"],
    files: &["image", "labels", "tumor", "input", "output", "tumor_output", "outputs"],
    outputs: &["output", "outputs", "folder"],
};

/// Runs a program on the box of every candidate by rules, and uses its tumor.
///
/// The output is used inside the healthy organ alone, without blending: the program softens edges itself. All other voxels keep their
/// bits. The candidate's box is the bounding box of all changes.
///
/// # Shapes
/// `{image}` (HU), `{labels}` (merged) and `{tumor}` (1 inside the rules' shape) are images of one box; with a pipe they are the three
/// volumes of one image, in this order. The output has the box's shape and affine.
///
/// # Units
/// HU; integers if those of the scan are. `{seed}`, 0..2³², is derived from the pipeline's seed and the attempt alone.
/// `{request}` is a JSON file with the seed, organ, labels, spacing, box, and the rules' tumor.
///
/// ```
/// use std::sync::Arc;
/// use freetumor::external::{CommandSynthesis, CommandSynthesisConfig};
/// use freetumor::mask::Organ;
/// use freetumor::synth::Rules;
/// use freetumor::volume::HuWindow;
/// let config: CommandSynthesisConfig = toml::from_str(
///     r#"
///     argv = ["/bin/cat"]
///     exchange = "pipe"
///     rules = { organs = ["liver"], variants = 2 }
///     "#,
/// )?;
/// let organs = [Organ { name: "liver".into(), label: 1, tumor_label: 2 }];
/// let rules = Arc::new(Rules::new(config.rules.clone(), &organs, HuWindow::ABDOMEN).unwrap());
/// let stage = CommandSynthesis::new(&config, rules, ".".as_ref()).unwrap();
/// assert!(stage.model().starts_with("command-"));
/// # Ok::<(), toml::de::Error>(())
/// ```
pub struct CommandSynthesis {
    program: Program,
    shapes: Arc<dyn Synthesize>,
    output: SynthesisOutput,
    tumor: TumorShape,
    outside: OutsideChanges,
    margin_mm: f64,
    model: String,
}

impl CommandSynthesis {
    /// Creates a stage with these settings; `shapes` synthesizes the candidates that the program changes, `graph` is the folder of the
    /// graph file.
    ///
    /// # Errors
    /// Returns all errors of the settings except those of `rules`, which the constructor of `shapes` checks.
    pub fn new(
        config: &CommandSynthesisConfig,
        shapes: Arc<dyn Synthesize>,
        graph: &Path,
    ) -> Result<Self, Vec<ConfigError>> {
        let (program, errors) = check(config, graph);
        match program {
            Some(program) if errors.is_empty() => Ok(Self {
                model: config.version.clone().unwrap_or_else(|| format!("command-{}", program.digest())),
                program,
                shapes,
                output: config.output_form,
                tumor: config.tumor,
                outside: config.outside,
                margin_mm: config.margin_mm,
            }),
            _ => Err(errors),
        }
    }

    /// Returns all errors of the settings except those of `rules`.
    pub fn config_errors(config: &CommandSynthesisConfig, graph: &Path) -> Vec<ConfigError> {
        check(config, graph).1
    }

    /// Returns the model for tables: the version in the settings, or a digest of the arguments.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Returns the HU after synthesis: those of the program's output inside the healthy organ, all others unchanged.
    fn after(
        &self,
        masked: &MaskedScan,
        organ: &Organ,
        context: &CandidateContext,
        output: &Array3<f32>,
    ) -> Result<Array3<f32>, Fault> {
        let mut after = context.before.clone();
        let mut outside = 0usize;
        let voxels = after.as_mut_slice().iter_mut().zip(context.labels.as_slice()).zip(output.as_slice());
        for (((hu, &label), &value), &inside) in voxels.zip(context.tumor.as_slice()) {
            let changed = match self.output {
                SynthesisOutput::Image => value,
                SynthesisOutput::Difference => *hu + value,
            };
            if label == organ.label || inside != 0 {
                *hu = changed;
            } else {
                outside += usize::from((changed - *hu).abs() > UNCHANGED_HU);
            }
        }
        if outside > 0 {
            if self.outside == OutsideChanges::Fault {
                let message = format!(
                    "the program changed {outside} voxels outside of the healthy {}, expected none",
                    organ.name
                );
                return Err(self.program.fault(FaultKind::Mismatch, message));
            }
            tracing::debug!(organ = organ.name, voxels = outside, "changes outside of the healthy organ are discarded");
        }
        let range = f32::from(i16::MIN)..=f32::from(i16::MAX);
        if let Some(hu) =
            after.as_slice().iter().zip(context.before.as_slice()).find(|(hu, was)| hu != was && !range.contains(*hu))
        {
            let message = format!("expected HU of {} to {} from the program, got {}", range.start(), range.end(), hu.0);
            return Err(self.program.fault(FaultKind::Mismatch, message));
        }
        if matches!(masked.scan.volume.voxels, Voxels::I16(_)) {
            round_hu(&mut after);
        }
        Ok(after)
    }
}

fn check(config: &CommandSynthesisConfig, graph: &Path) -> (Option<Program>, Vec<ConfigError>) {
    let mut errors = Vec::new();
    let program = Program::new(Stage::Synthesize, &config.common(), graph, &PLACEHOLDERS, &mut errors);
    check_margin(config.margin_mm, &mut errors);
    if config.tumor == TumorShape::Program && config.exchange == Exchange::Pipe {
        let error = ConfigError::new("tumor", "a second image cannot be read from a pipe");
        errors.push(error.with_hint("set exchange = \"files\", or tumor = \"rules\""));
    }
    (program, errors)
}

impl Synthesize for CommandSynthesis {
    fn program_files(&self) -> &[PathBuf] {
        self.program.reads()
    }

    fn site_plan<'scan>(
        &'scan self,
        scan: &'scan MaskedScan,
        organ: &'scan Organ,
    ) -> Result<Box<dyn Attempts + 'scan>, Fault> {
        let shapes = self.shapes.site_plan(scan, organ)?;
        Ok(Box::new(CommandAttempts { stage: self, shapes, scan, organ }))
    }
}

struct CommandAttempts<'scan> {
    stage: &'scan CommandSynthesis,
    shapes: Box<dyn Attempts + 'scan>,
    scan: &'scan MaskedScan,
    organ: &'scan Organ,
}

impl Attempts for CommandAttempts<'_> {
    fn attempt(&self, key: AttemptKey) -> Result<Attempt, Fault> {
        match self.shapes.attempt(key)? {
            Attempt::Candidate(candidate) => self.apply(key.attempt(), candidate),
            rejected @ Attempt::Rejected { .. } => Ok(rejected),
        }
    }
}

impl CommandAttempts<'_> {
    /// Runs the program on a candidate by rules and applies the program's output.
    fn apply(&self, key: Key, mut candidate: Box<Candidate>) -> Result<Attempt, Fault> {
        let (stage, program) = (self.stage, &self.stage.program);
        let context = CandidateContext::new(self.scan, &candidate, stage.margin_mm);
        // 32 bits: every random number generator accepts them as a seed.
        let seed = key.stream("command").bits() >> 32;
        let mut request = context.request(self.organ, &candidate);
        request["seed"] = seed.into();
        let mut call = program.call()?;
        call.set("seed", seed.to_string());
        call.set("organ", &self.organ.name);
        program.write_text(&call.input("request", "request.json"), &request.to_string())?;
        let (output, shape) = match program.exchange() {
            Exchange::Pipe => {
                let images = [&context.before, &floats(&context.labels), &floats(&context.tumor)];
                let input = program.series_bytes(&context.grid, &images)?;
                let bytes = call.run(Some(input), max_output_bytes(&context.grid))?;
                (program.image(OutputFile::Bytes(&bytes), &context.grid)?, None)
            }
            Exchange::Files => {
                let images = [
                    ("image", "image.nii.gz", Values::F32(context.before.as_slice())),
                    ("labels", "labels.nii.gz", Values::U8(context.labels.as_slice())),
                    ("tumor", "tumor.nii.gz", Values::U8(context.tumor.as_slice())),
                ];
                for (name, file, values) in images {
                    program.write_image(&call.input(name, file), &context.grid, values)?;
                }
                let image_file = call.output("output", "image.nii.gz");
                let tumor_file = call.output("tumor_output", "tumor.nii.gz");
                call.run(None, 0)?;
                let image = program.image(OutputFile::File(&image_file), &context.grid)?;
                let shape = match stage.tumor {
                    TumorShape::Rules => None,
                    TumorShape::Program => {
                        let labels = program.labels(OutputFile::File(&tumor_file), &context.grid)?;
                        program.check_grid(&labels.grid, &context.grid)?;
                        Some(labels.ids.map(|&id| u8::from(id != 0)))
                    }
                };
                (image, shape)
            }
        };
        let after = stage.after(self.scan, self.organ, &context, &output)?;
        let tumor =
            shape.as_ref().map_or_else(|| context.tumor.clone(), |shape| tumor_of(shape, &context.labels, self.organ));
        if let Some(shape) = &shape {
            match self.geometry(&context, shape, &tumor) {
                Some(geometry) => candidate.geometry = geometry,
                None => return Ok(Attempt::Rejected { reason: "no_tumor".to_owned() }),
            }
        }
        let labels = with_tumor(&context.labels, &tumor, self.organ);
        let changed = after.as_slice().iter().zip(context.before.as_slice()).zip(tumor.as_slice());
        let changed = changed.map(|((is, was), &inside)| u8::from(is != was || inside != 0)).collect();
        let support = Array3::from_vec(context.region.shape, changed);
        let Some(kept) = support.extent(|&changed| changed != 0) else {
            return Ok(Attempt::Rejected { reason: "no_tumor".to_owned() });
        };
        let voxels = support.as_slice().iter().filter(|&&changed| changed != 0).count();
        candidate.geometry.support_mm3 = voxels as f64 * context.grid.voxel_volume_mm3();
        candidate.support = support.cut(kept);
        candidate.before = context.before.cut(kept);
        candidate.after = after.cut(kept);
        candidate.labels = labels.cut(kept);
        candidate.tumor = tumor.cut(kept);
        candidate.region = kept;
        for (start, first) in candidate.region.start.iter_mut().zip(context.region.start) {
            *start += first;
        }
        Ok(Attempt::Candidate(candidate))
    }

    /// Measures a tumor whose shape the program wrote; `None` if no voxel of the tumor is in the healthy organ.
    fn geometry(&self, context: &CandidateContext, shape: &Array3<u8>, tumor: &Array3<u8>) -> Option<Geometry> {
        let grid = &self.scan.scan.volume.grid;
        let measures = measure(tumor, grid.spacing_mm())?;
        let site = nearest_to_middle(tumor, grid.spacing_mm())?;
        let site = [0, 1, 2].map(|axis| site[axis] + context.region.start[axis]);
        let shape_voxels = shape.as_slice().iter().filter(|&&inside| inside != 0).count();
        Some(Geometry {
            size_class: SizeClass::of_diameter(measures.diameter_mm).name().to_owned(),
            site_voxel: site,
            site_mm: grid.affine.apply(site.map(|index| index as f64)),
            radii_mm: measures.axes_mm.map(|axis| axis / 2.0),
            volume_mm3: measures.volume_mm3,
            diameter_mm: measures.diameter_mm,
            sphericity: crate::synth::measure::sphericity(tumor, grid.spacing_mm()),
            clipped_fraction: 1.0 - measures.voxels as f64 / shape_voxels as f64,
            boundary_distance_mm: boundary_distance_mm(self.scan, self.organ, site),
            exterior_fraction: exterior_fraction(tumor, &context.labels, self.organ, grid.spacing_mm()),
            // Computed from the changed voxels.
            support_mm3: 0.0,
            mass_effect: 0.0,
            infiltrating: false,
            drawn_contrast_hu: None,
            steering_factor: None,
            structure: SampledStructure::default(),
        })
    }
}

/// Returns the tumor's voxel nearest to its centre of mass; the first one if several are equally near.
fn nearest_to_middle(tumor: &Array3<u8>, spacing_mm: [f64; 3]) -> Option<[usize; 3]> {
    let [nx, ny, _] = tumor.shape();
    let inside = || {
        let set = tumor.as_slice().iter().enumerate().filter(|(_, inside)| **inside != 0);
        set.map(move |(index, _)| [index % nx, index / nx % ny, index / (nx * ny)])
    };
    let count = inside().count() as f64;
    let middle = [0, 1, 2].map(|axis| inside().map(|voxel| voxel[axis] as f64).sum::<f64>() / count);
    let square = |voxel: &[usize; 3]| -> f64 {
        (0..3).map(|axis| (voxel[axis] as f64 - middle[axis]) * spacing_mm[axis]).map(|mm| mm * mm).sum()
    };
    inside().min_by(|a, b| square(a).total_cmp(&square(b)))
}
