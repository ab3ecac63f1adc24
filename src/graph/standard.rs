//! The built-in kinds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::registry::{BuildContext, InputSpec, Registry, Scoring, Synthesis};
use crate::error::{ConfigError, Error};
use crate::external::{
    CommandMask, CommandMaskConfig, CommandScore, CommandScoreConfig, CommandSynthesis, CommandSynthesisConfig,
};
use crate::filter::{QualityTest, QualityTestConfig, Reference};
use crate::inference::{Inference, NetworkConfig, Networks};
use crate::ingest::dicom::Decoder;
use crate::ingest::phantom::{PhantomConfig, PhantomSource};
use crate::ingest::{
    ArchiveConfig, ArchiveSource, DecathlonListConfig, FolderConfig, FolderSource, ListSource, ManifestConfig,
    ManifestSource, NnunetListConfig, Source,
};
use crate::mask::{
    LabelsConfig, LabelsMask, LungConfig, LungMask, Mask, Organ, SegmentorMask, SegmentorMaskConfig,
    TotalSegmentatorConfig, TotalSegmentatorMask,
};
use crate::nn::device::DeviceKind;
use crate::nn::network::Model;
use crate::nn::service::Service;
use crate::nn::weights::WeightsMetadata;
use crate::score::{
    Discriminator, DiscriminatorConfig, Intensity, IntensityConfig, Segmentor, SegmentorConfig, SegmentorFold,
};
use crate::sink::{
    self, DecathlonConfig, DecathlonSink, NnunetConfig, NnunetSink, Output, PatchesConfig, PatchesSink, StreamConfig,
    StreamSink, TrainerConfig, WebDatasetConfig, WebDatasetSink,
};
use crate::synth::{Differences, Generator, GeneratorConfig, Rules, RulesConfig, Steering};
use crate::volume::HuWindow;

/// The means by which this machine reads archives and runs networks. Resources do not change the meaning of a pipeline.
#[derive(Clone, Debug)]
pub struct Resources {
    /// The decoder of compressed DICOM.
    pub decoder: Decoder,
    /// The file with the secret for patient keys, if not the default file.
    pub patient_secret: Option<PathBuf>,
    /// The networks of stages and their device.
    pub networks: Arc<Networks>,
}

impl Default for Resources {
    /// Decodes in this process, uses the default file for the secret, runs networks on the CPU.
    fn default() -> Self {
        let networks = Networks::new(Service::new(DeviceKind::Cpu, 1));
        Self { decoder: Decoder::in_process(), patient_secret: None, networks }
    }
}

impl Registry {
    /// Creates a registry of the built-in kinds with default resources.
    pub fn standard() -> Self {
        Self::with_resources(&Resources::default())
    }

    /// Creates a registry of the built-in kinds with the resources of this machine.
    pub fn with_resources(resources: &Resources) -> Self {
        let mut registry = Self::empty();
        registry.set_decoder(resources.decoder.clone());
        registry.add_sources(resources.clone());
        registry.add_masks();
        registry.add_synthesis_and_scores();
        registry.add_networks(&resources.networks);
        registry.add_sinks();
        registry
    }

    fn add_sources(&mut self, resources: Resources) {
        let secret = resources.patient_secret.clone();
        let about = "Scans of a list in a `dataset.json`, with their labels, as MONAI reads it.";
        self.add_source("decathlon", about, move |config: DecathlonListConfig, context| {
            let list = resolve(context, "list", &config.list)?;
            let root = config.root.as_ref().map(|root| resolve(context, "root", root)).transpose()?;
            let source = ListSource::decathlon(&context.name, DecathlonListConfig { list, root, ..config })?;
            Ok(Arc::new(source.with_secret_file(secret.clone())) as Arc<dyn Source>)
        });
        let secret = resources.patient_secret.clone();
        let about = "Cases of a raw data set of nnU-Net, or of one part of a fold of `splits_final.json`.";
        self.add_source("nnunet", about, move |config: NnunetListConfig, context| {
            let root = resolve(context, "root", &config.root)?;
            let splits = config.splits.as_ref().map(|splits| resolve(context, "splits", splits)).transpose()?;
            let source = ListSource::nnunet(&context.name, NnunetListConfig { root, splits, ..config })?;
            Ok(Arc::new(source.with_secret_file(secret.clone())) as Arc<dyn Source>)
        });
        let archive = resources.clone();
        let about = "Scans in tar and zip archives, read without unpacking them.";
        self.add_source("archive", about, move |config: ArchiveConfig, context| {
            let path = resolve(context, "path", &config.path)?;
            let scratch = config.scratch.as_ref().map(|folder| resolve(context, "scratch", folder)).transpose()?;
            let source = ArchiveSource::new(&context.name, ArchiveConfig { path, scratch, ..config })?;
            let source = source.with_decoder(archive.decoder.clone());
            Ok(Arc::new(source.with_secret_file(archive.patient_secret.clone())) as Arc<dyn Source>)
        });
        let manifest = resources.clone();
        let about = "Scans that the rows of CSV, JSON lines or Parquet name, with their labels.";
        self.add_source("manifest", about, move |config: ManifestConfig, context| {
            let path = resolve(context, "path", &config.path)?;
            let source = ManifestSource::new(&context.name, ManifestConfig { path, ..config })?;
            let source = source.with_decoder(manifest.decoder.clone());
            Ok(Arc::new(source.with_secret_file(manifest.patient_secret.clone())) as Arc<dyn Source>)
        });
        let about = "Scans below a folder: NIfTI, NRRD and MetaImage files and DICOM series.";
        self.add_source("folder", about, move |config: FolderConfig, context| {
            let root = context.path("root", &config.root).map_err(|error| vec![error])?;
            let source = FolderSource::new(&context.name, FolderConfig { root, ..config })?;
            let source = source.with_decoder(resources.decoder.clone());
            let source = source.with_secret_file(resources.patient_secret.clone());
            Ok(Arc::new(source) as Arc<dyn Source>)
        });
        let about = "Procedural abdomens and chests with labels; needs no files.";
        self.add_source("phantom", about, |config: PhantomConfig, context| {
            PhantomSource::new(config, &context.name).map(|source| Arc::new(source) as Arc<dyn Source>)
        });
    }

    fn add_masks(&mut self) {
        let about = "Organs from a label file next to each scan.";
        self.add_mask("labels", about, |config: LabelsConfig, _| {
            LabelsMask::new(config).map(|mask| Arc::new(mask) as Arc<dyn Mask>)
        });
        let about = "Lungs from their HU; needs no labels.";
        self.add_mask("lung", about, |config: LungConfig, _| {
            LungMask::new(config).map(|mask| Arc::new(mask) as Arc<dyn Mask>)
        });
        let about = "Organs from a folder of binary masks next to each scan, as TotalSegmentator writes them.";
        self.add_mask("totalsegmentator", about, |config: TotalSegmentatorConfig, _| {
            TotalSegmentatorMask::new(config).map(|mask| Arc::new(mask) as Arc<dyn Mask>)
        });
        let about = "Organs from an external program.";
        self.add_mask("command", about, |config: CommandMaskConfig, context| {
            CommandMask::new(config, &context.folder).map(|mask| Arc::new(mask) as Arc<dyn Mask>)
        });
    }

    fn add_synthesis_and_scores(&mut self) {
        self.add_synthesis("rules", "Tumors by rules; needs no weights.", rules);
        let about = "Tumors by an external program, placed and shaped by rules.";
        self.add_synthesis("command", about, command_synthesis);
        let about = "Scores by an external program.";
        self.add_score("command", about, |config: CommandScoreConfig, context| {
            CommandScore::new(config, &context.folder).map(Into::into)
        });
        let about = "Scores from HU: inside and around the tumor, before synthesis, contrast, visibility.";
        self.add_score("intensity", about, |config: IntensityConfig, context| {
            Intensity::new(config, &context.organs).map(Into::into)
        });
        let about = "Accepts candidates whose scores meet every condition; rejected ones get another attempt, up to `attempts`.";
        self.add_filter("quality-test", about, quality_test);
    }

    fn add_networks(&mut self, networks: &Arc<Networks>) {
        let shared = Arc::clone(networks);
        let about = "Organs, and suspected real tumors, from a segmentor.";
        self.add_mask("segmentor", about, move |config: SegmentorMaskConfig, context| {
            let inference = open(&shared, &config.network, Model::SwinUnetr, "segmentor", context)?;
            SegmentorMask::new(config, inference).map(|mask| Arc::new(mask) as Arc<dyn Mask>)
        });
        let shared = Arc::clone(networks);
        let about = "Tumors with the contrast of a generator; site, shape, texture and blend as in the kind `rules`.";
        self.add_synthesis("generator", about, move |config: GeneratorConfig, context| {
            let inference = open(&shared, &config.network, Model::UNet3D, "generator", context)?;
            generator(config, inference, context)
        });
        let shared = Arc::clone(networks);
        let about = "Scores by a segmentor: whether it detects the tumor, and its false positives.";
        self.add_score("segmentor", about, move |config: SegmentorConfig, context| {
            let inference = open(&shared, &config.network, Model::SwinUnetr, "segmentor", context)?;
            let input_spec = input_spec_of(&inference);
            let mut folds = vec![fold(inference, &config.network, context)?];
            for (index, weights) in config.folds.iter().enumerate() {
                let network = NetworkConfig { weights: weights.clone(), ..config.network.clone() };
                let opened = open(&shared, &network, Model::SwinUnetr, "segmentor", context);
                let opened = opened.map_err(|errors| {
                    let of_fold = |error: ConfigError| {
                        let is_weights = error.field == "network.weights";
                        let field = if is_weights { format!("folds.{index}") } else { error.field.clone() };
                        ConfigError { field, ..error }
                    };
                    errors.into_iter().map(of_fold).collect::<Vec<_>>()
                })?;
                if folds.iter().any(|other: &SegmentorFold| other.inference.digest() == opened.digest()) {
                    let message = "expected other weights in each fold, got the same twice";
                    return Err(vec![ConfigError::new(format!("folds.{index}"), message)]);
                }
                folds.push(fold(opened, &network, context)?);
            }
            Segmentor::with_folds(config, folds, &context.organs)
                .map(|stage| Scoring { stage: Arc::new(stage), input_spec })
        });
        let shared = Arc::clone(networks);
        let about = "Realness by the discriminator that the generator was trained against.";
        self.add_score("discriminator", about, move |config: DiscriminatorConfig, context| {
            let inference = open(&shared, &config.network, Model::UNet3D, "discriminator", context)?;
            let input_spec = input_spec_of(&inference);
            Discriminator::new(config, inference).map(|stage| Scoring { stage: Arc::new(stage), input_spec })
        });
    }

    fn add_sinks(&mut self) {
        let about =
            "Samples as patches: tar shards with an index, a few kilobytes per sample instead of whole volumes.";
        self.add_sink("patches", about, |config: PatchesConfig, context| {
            PatchesSink::new(&context.name, &config).map(|sink| Output::Layout(Arc::new(sink)))
        });
        let about = "A training set for nnU-Net: imagesTr, labelsTr, dataset.json, splits_final.json.";
        self.add_sink("nnunet", about, |config: NnunetConfig, context| {
            NnunetSink::new(&context.name, config, context.organs.clone()).map(|sink| Output::Layout(Arc::new(sink)))
        });
        let about =
            "A training set in the layout of the Medical Segmentation Decathlon: image and label pairs with a list.";
        self.add_sink("decathlon", about, |config: DecathlonConfig, context| {
            DecathlonSink::new(&context.name, config, context.organs.clone()).map(|sink| Output::Layout(Arc::new(sink)))
        });
        let about = "A training set of tar shards with an index, for streaming.";
        self.add_sink("webdataset", about, |config: WebDatasetConfig, context| {
            WebDatasetSink::new(&context.name, config).map(|sink| Output::Layout(Arc::new(sink)))
        });
        let about =
            "Samples as an endless tar for a trainer, on standard output or a socket; see `freetumor run --sink`.";
        self.add_sink("stream", about, |config: StreamConfig, context| {
            StreamSink::new(&context.name, config).map(|sink| Output::Stream(Arc::new(sink)))
        });
        let about =
            "New tumors for every crop of a training run in the same process; see `freetumor train segmentation`.";
        self.add_sink("trainer", about, |config: TrainerConfig, context| sink::trainer(&context.name, &config));
    }
}

fn resolve(context: &BuildContext, field: &str, written: &Path) -> Result<PathBuf, Vec<ConfigError>> {
    context.path(field, written).map_err(|error| vec![error])
}

/// Builds a quality test with the reference of its calibration, if the file exists and is valid; `freetumor calibrate` replaces any other.
fn quality_test(config: QualityTestConfig, context: &BuildContext) -> Result<QualityTest, Vec<ConfigError>> {
    let reference = config.calibrate.as_ref().map(|calibrate| calibrate.reference.clone());
    let test = QualityTest::new(config)?;
    let Some(reference) = reference else { return Ok(test) };
    let path = resolve(context, "calibrate.reference", &reference)?;
    if !path.exists() {
        return Ok(test);
    }
    let read = Reference::read(&path).map_err(|error| {
        let located = ConfigError::new("calibrate.reference", error.to_string());
        error.hint().map(str::to_owned).into_iter().fold(located, ConfigError::with_hint)
    });
    let with_reference = read.and_then(|reference| test.clone().with_reference(Arc::new(reference)));
    Ok(with_reference.unwrap_or_else(|problem| test.with_reference_problem(problem)))
}

fn rules(config: RulesConfig, context: &BuildContext) -> Result<Synthesis, Vec<ConfigError>> {
    let chosen = |organ: &&Organ| config.organs.is_empty() || config.organs.contains(&organ.name);
    let organs: Vec<Organ> = context.organs.iter().filter(chosen).cloned().collect();
    let in_chest = organs.iter().filter(|organ| organ.name == "lung").count();
    let window = if in_chest > 0 { HuWindow::CHEST } else { HuWindow::ABDOMEN };
    let (variants, numbers, negatives) = (config.variants, config.tumor_numbers(), config.negatives);
    let mixed = in_chest > 0 && in_chest < organs.len() && config.difference == Differences::Reference;
    let (tables, steering) = steering(config.steering.as_deref(), context)?;
    let built = Rules::new(config, &context.organs, window).map(|rules| rules.with_steering(tables));
    if mixed {
        let message = "a share of the HU window requires one window, but lungs and other organs have different windows";
        let hint = "use difference = \"prior\", or write one synthesis stage for lungs and one for the others";
        let mut errors = built.err().unwrap_or_default();
        errors.push(ConfigError::new("difference", message).with_hint(hint));
        return Err(errors);
    }
    let rules = built?;
    let model = rules.version().to_owned();
    Ok(Synthesis {
        synthesize: Arc::new(rules),
        organs,
        variants,
        numbers,
        negatives,
        model,
        steering,
        input_spec: InputSpec::default(),
    })
}

/// The steering of each organ.
type SteeringTables = BTreeMap<String, Steering>;

/// Returns the steering of each organ in a reference file, with a digest.
fn steering(file: Option<&Path>, context: &BuildContext) -> Result<(SteeringTables, Option<String>), Vec<ConfigError>> {
    let Some(file) = file.filter(|_| !context.is_calibration) else { return Ok(Default::default()) };
    let path = resolve(context, "steering", file)?;
    let invalid = |error: Error| {
        let located = ConfigError::new("steering", error.to_string());
        vec![error.hint().map(str::to_owned).into_iter().fold(located, ConfigError::with_hint)]
    };
    let reference = Reference::read(&path).map_err(invalid)?;
    let tables = reference.steering();
    if tables.is_empty() {
        let error =
            ConfigError::new("steering", format!("expected factors of steering in {}, got none", path.display()));
        return Err(vec![error.with_hint("write the file with `freetumor calibrate --steer 4`")]);
    }
    let digest = reference.steering_digest().map_err(invalid)?;
    Ok((tables, digest))
}

fn open(
    networks: &Networks,
    config: &NetworkConfig,
    default: Model,
    role: &str,
    context: &BuildContext,
) -> Result<Inference, Vec<ConfigError>> {
    let weights = context.path("network.weights", &config.weights).map_err(|error| vec![error])?;
    let inference = networks.open(config, &weights, default)?;
    let metadata = WeightsMetadata::of(&weights);
    let other_role = metadata.network_mismatch(role).map(|message| ConfigError::new("network.weights", message));
    let other_inputs = metadata.preprocessing_mismatches(config.window_hu, config.spacing_mm).into_iter();
    let other_inputs = other_inputs.map(|(field, message, own)| {
        ConfigError::new(format!("network.{field}"), message)
            .with_hint(format!("set {field} = {own}, as in the weights"))
    });
    let errors: Vec<ConfigError> = other_role.into_iter().chain(other_inputs).collect();
    if errors.is_empty() { Ok(inference) } else { Err(errors) }
}

/// Returns a network with the patients that it was not trained on.
fn fold(
    inference: Inference,
    network: &NetworkConfig,
    context: &BuildContext,
) -> Result<SegmentorFold, Vec<ConfigError>> {
    let weights = resolve(context, "network.weights", &network.weights)?;
    Ok(SegmentorFold { inference, held_out_patients: WeightsMetadata::of(&weights).held_out_patients })
}

fn input_spec_of(inference: &Inference) -> InputSpec {
    InputSpec { window: Some(inference.config().window()), spacing_mm: Some(inference.config().spacing_mm) }
}

fn generator(
    config: GeneratorConfig,
    inference: Inference,
    context: &BuildContext,
) -> Result<Synthesis, Vec<ConfigError>> {
    let (chosen, input_spec) = (config.rules.organs.clone(), input_spec_of(&inference));
    let (variants, numbers, negatives) = (config.rules.variants, config.rules.tumor_numbers(), config.rules.negatives);
    let organs = context.organs.iter().filter(|organ| chosen.is_empty() || chosen.contains(&organ.name));
    let organs = organs.cloned().collect();
    let (tables, steering) = steering(config.rules.steering.as_deref(), context)?;
    let generator = Generator::new(config, inference, &context.organs)?.with_steering(tables);
    let model = generator.version();
    let synthesize = Arc::new(generator);
    Ok(Synthesis { synthesize, organs, variants, numbers, negatives, model, steering, input_spec })
}

fn command_synthesis(config: CommandSynthesisConfig, context: &BuildContext) -> Result<Synthesis, Vec<ConfigError>> {
    match rules(config.rules.clone(), context) {
        Ok(by_rules) => {
            let stage = CommandSynthesis::new(&config, by_rules.synthesize, &context.folder)?;
            let model = stage.model().to_owned();
            Ok(Synthesis { synthesize: Arc::new(stage), model, ..by_rules })
        }
        // Errors of the program are reported together with errors of the rules.
        Err(errors) => {
            let within = |error: ConfigError| ConfigError { field: format!("rules.{}", error.field), ..error };
            let program = CommandSynthesis::config_errors(&config, &context.folder);
            Err(errors.into_iter().map(within).chain(program).collect())
        }
    }
}
