//! The kinds that come with the crate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::registry::{BuildContext, InputSpec, Registry, Scoring, Synthesis};
use crate::error::ConfigError;
use crate::external::{
    CommandMask, CommandMaskConfig, CommandScore, CommandScoreConfig, CommandSynthesis, CommandSynthesisConfig,
};
use crate::filter::{QualityTest, QualityTestConfig};
use crate::inference::{Inference, NetworkConfig, Networks};
use crate::ingest::dicom::Decoder;
use crate::ingest::phantom::{PhantomConfig, PhantomSource};
use crate::ingest::{DecathlonListConfig, FolderConfig, FolderSource, ListSource, NnunetListConfig, Source};
use crate::mask::{
    LabelsConfig, LabelsMask, LungConfig, LungMask, Mask, Organ, SegmentorMask, SegmentorMaskConfig,
    TotalSegmentatorConfig, TotalSegmentatorMask,
};
use crate::nn::device::DeviceKind;
use crate::nn::network::Model;
use crate::nn::service::Service;
use crate::nn::weights::WeightsMetadata;
use crate::score::{Discriminator, DiscriminatorConfig, Intensity, IntensityConfig, Segmentor, SegmentorConfig};
use crate::sink::{
    self, DecathlonConfig, DecathlonSink, NnunetConfig, NnunetSink, Output, PatchesConfig, PatchesSink, StreamConfig,
    StreamSink, TrainerConfig, WebDatasetConfig, WebDatasetSink,
};
use crate::synth::{Differences, Generator, GeneratorConfig, Rules, RulesConfig};
use crate::volume::HuWindow;

/// How the machine at hand reads archives and runs networks: nothing of it changes what a pipeline means.
#[derive(Clone, Debug)]
pub struct Resources {
    /// Where compressed DICOM is decoded.
    pub decoder: Decoder,
    /// The file with the secret for patient keys, where it is not the default one.
    pub patient_secret: Option<PathBuf>,
    /// The networks of stages, and the device on which they run.
    pub networks: Arc<Networks>,
}

impl Default for Resources {
    /// Decodes in this process, takes the secret from where it customarily is, runs networks on the processor.
    fn default() -> Self {
        let networks = Networks::new(Service::new(DeviceKind::Cpu, 1));
        Self { decoder: Decoder::in_process(), patient_secret: None, networks }
    }
}

impl Registry {
    /// The kinds that come with the crate.
    pub fn standard() -> Self {
        Self::on(&Resources::default())
    }

    /// The kinds that come with the crate, as the machine at hand runs them.
    pub fn on(machine: &Resources) -> Self {
        let mut registry = Self::empty();
        registry.add_sources(machine.clone());
        registry.add_masks();
        registry.add_synthesis_and_scores();
        registry.add_networks(&machine.networks);
        registry.add_sinks();
        registry
    }

    fn add_sources(&mut self, machine: Resources) {
        let secret = machine.patient_secret.clone();
        let about = "Scans of a list in a `dataset.json`, with their labels, as MONAI reads it.";
        self.source("decathlon", about, move |config: DecathlonListConfig, place| {
            let list = path_of(place, "list", &config.list)?;
            let root = config.root.as_ref().map(|root| path_of(place, "root", root)).transpose()?;
            let source = ListSource::decathlon(&place.name, DecathlonListConfig { list, root, ..config })?;
            Ok(Arc::new(source.with_secret_file(secret.clone())) as Arc<dyn Source>)
        });
        let secret = machine.patient_secret.clone();
        let about = "Cases of a raw data set of nnU-Net, or of one part of a fold of `splits_final.json`.";
        self.source("nnunet", about, move |config: NnunetListConfig, place| {
            let root = path_of(place, "root", &config.root)?;
            let splits = config.splits.as_ref().map(|splits| path_of(place, "splits", splits)).transpose()?;
            let source = ListSource::nnunet(&place.name, NnunetListConfig { root, splits, ..config })?;
            Ok(Arc::new(source.with_secret_file(secret.clone())) as Arc<dyn Source>)
        });
        let about = "Scans below a folder: NIfTI files and DICOM series.";
        self.source("folder", about, move |config: FolderConfig, place| {
            let root = place.path("root", &config.root).map_err(|complaint| vec![complaint])?;
            let source = FolderSource::new(&place.name, FolderConfig { root, ..config })?;
            let source = source.with_decoder(machine.decoder.clone());
            let source = source.with_secret_file(machine.patient_secret.clone());
            Ok(Arc::new(source) as Arc<dyn Source>)
        });
        let about = "Procedural abdomens and chests with labels: no files are needed.";
        self.source("phantom", about, |config: PhantomConfig, place| {
            PhantomSource::new(config, &place.name).map(|source| Arc::new(source) as Arc<dyn Source>)
        });
    }

    fn add_masks(&mut self) {
        let about = "Organs from a label file beside each scan.";
        self.mask("labels", about, |config: LabelsConfig, _| {
            LabelsMask::new(config).map(|mask| Arc::new(mask) as Arc<dyn Mask>)
        });
        let about = "Lungs from their HU: no labels are needed.";
        self.mask("lung", about, |config: LungConfig, _| {
            LungMask::new(config).map(|mask| Arc::new(mask) as Arc<dyn Mask>)
        });
        let about = "Organs from a folder of binary files beside each scan, as TotalSegmentator writes them.";
        self.mask("totalsegmentator", about, |config: TotalSegmentatorConfig, _| {
            TotalSegmentatorMask::new(config).map(|mask| Arc::new(mask) as Arc<dyn Mask>)
        });
        let about = "Organs from an external program.";
        self.mask("command", about, |config: CommandMaskConfig, place| {
            CommandMask::new(config, &place.folder).map(|mask| Arc::new(mask) as Arc<dyn Mask>)
        });
    }

    fn add_synthesis_and_scores(&mut self) {
        self.synthesis("rules", "Tumors by rules: no weights are needed.", rules);
        let about = "Tumors by an external program, placed and shaped by rules.";
        self.synthesis("command", about, command_synthesis);
        let about = "Scores by an external program.";
        self.score("command", about, |config: CommandScoreConfig, place| {
            CommandScore::new(config, &place.folder).map(Into::into)
        });
        let about = "Scores from HU: inside, around, before, contrast, visibility.";
        self.score("intensity", about, |config: IntensityConfig, place| {
            Intensity::new(config, &place.organs).map(Into::into)
        });
        let about = "Accepts candidates whose scores meet every condition; the others are tried again, then dropped.";
        self.filter("quality-test", about, |config: QualityTestConfig, _| QualityTest::new(config));
    }

    fn add_networks(&mut self, networks: &Arc<Networks>) {
        let shared = Arc::clone(networks);
        let about = "Organs, and suspected real tumors, from a segmentor.";
        self.mask("segmentor", about, move |config: SegmentorMaskConfig, place| {
            let viewer = open(&shared, &config.network, Model::SwinUnetr, "segmentor", place)?;
            SegmentorMask::new(config, viewer).map(|mask| Arc::new(mask) as Arc<dyn Mask>)
        });
        let shared = Arc::clone(networks);
        let about = "Tumors whose contrast a generator makes; site, shape, texture and blend as by rules.";
        self.synthesis("generator", about, move |config: GeneratorConfig, place| {
            let viewer = open(&shared, &config.network, Model::UNet3D, "generator", place)?;
            generator(config, viewer, place)
        });
        let shared = Arc::clone(networks);
        let about = "Scores by a segmentor: whether it calls the tumor one, and what else it calls tumor.";
        self.score("segmentor", about, move |config: SegmentorConfig, place| {
            let viewer = open(&shared, &config.network, Model::SwinUnetr, "segmentor", place)?;
            let frame = frame_of(&viewer);
            Segmentor::new(config, viewer, &place.organs).map(|stage| Scoring { stage: Arc::new(stage), frame })
        });
        let shared = Arc::clone(networks);
        let about = "How real a tumor looks to the discriminator that the generator was trained against.";
        self.score("discriminator", about, move |config: DiscriminatorConfig, place| {
            let viewer = open(&shared, &config.network, Model::UNet3D, "discriminator", place)?;
            let frame = frame_of(&viewer);
            Discriminator::new(config, viewer).map(|stage| Scoring { stage: Arc::new(stage), frame })
        });
    }

    fn add_sinks(&mut self) {
        let about = "Samples as patches: tar shards with an index, a few kilobytes a sample in place of whole volumes.";
        self.sink("patches", about, |config: PatchesConfig, place| {
            PatchesSink::new(&place.name, &config).map(|sink| Output::Layout(Arc::new(sink)))
        });
        let about = "A training set for nnU-Net: imagesTr, labelsTr, dataset.json, splits_final.json.";
        self.sink("nnunet", about, |config: NnunetConfig, place| {
            NnunetSink::new(&place.name, config, place.organs.clone()).map(|sink| Output::Layout(Arc::new(sink)))
        });
        let about = "A training set in the layout of the Medical Segmentation Decathlon: pairs and a list of them.";
        self.sink("decathlon", about, |config: DecathlonConfig, place| {
            DecathlonSink::new(&place.name, config, place.organs.clone()).map(|sink| Output::Layout(Arc::new(sink)))
        });
        let about = "A training set of tar shards with an index, for streaming.";
        self.sink("webdataset", about, |config: WebDatasetConfig, place| {
            WebDatasetSink::new(&place.name, config).map(|sink| Output::Layout(Arc::new(sink)))
        });
        let about =
            "Samples as an endless tar for a trainer, on standard output or a socket: see `freetumor run --sink`.";
        self.sink("stream", about, |config: StreamConfig, place| {
            StreamSink::new(&place.name, config).map(|sink| Output::Stream(Arc::new(sink)))
        });
        let about =
            "Fresh tumors for every crop of a training in the same process: see `freetumor train segmentation`.";
        self.sink("trainer", about, |config: TrainerConfig, place| sink::trainer(&place.name, &config));
    }
}

fn path_of(place: &BuildContext, field: &str, written: &Path) -> Result<PathBuf, Vec<ConfigError>> {
    place.path(field, written).map_err(|complaint| vec![complaint])
}

fn rules(config: RulesConfig, place: &BuildContext) -> Result<Synthesis, Vec<ConfigError>> {
    let chosen = |organ: &&Organ| config.organs.is_empty() || config.organs.contains(&organ.name);
    let organs: Vec<Organ> = place.organs.iter().filter(chosen).cloned().collect();
    let in_chest = organs.iter().filter(|organ| organ.name == "lung").count();
    let window = if in_chest > 0 { HuWindow::CHEST } else { HuWindow::ABDOMEN };
    let variants = config.variants;
    let mixed = in_chest > 0 && in_chest < organs.len() && config.difference == Differences::Reference;
    let built = Rules::new(config, &place.organs, window);
    if mixed {
        let message = "a share of the HU window is asked for, but lungs and other organs have different windows";
        let hint = "use difference = \"prior\", or write one synthesis stage for lungs and one for the others";
        let mut complaints = built.err().unwrap_or_default();
        complaints.push(ConfigError::new("difference", message).with_hint(hint));
        return Err(complaints);
    }
    let rules = built?;
    let model = rules.version().to_owned();
    Ok(Synthesis { synthesize: Arc::new(rules), organs, variants, model, frame: InputSpec::default() })
}

fn open(
    networks: &Networks,
    config: &NetworkConfig,
    default: Model,
    role: &str,
    place: &BuildContext,
) -> Result<Inference, Vec<ConfigError>> {
    let weights = place.path("network.weights", &config.weights).map_err(|complaint| vec![complaint])?;
    let viewer = networks.open(config, &weights, default)?;
    let said = WeightsMetadata::of(&weights);
    let other = said.network_mismatch(role).map(|message| ConfigError::new("network.weights", message));
    let frames = said.preprocessing_mismatches(config.window_hu, config.spacing_mm).into_iter();
    let frames = frames.map(|(field, message, own)| {
        ConfigError::new(format!("network.{field}"), message).with_hint(format!("the weights say {field} = {own}"))
    });
    let complaints: Vec<ConfigError> = other.into_iter().chain(frames).collect();
    if complaints.is_empty() { Ok(viewer) } else { Err(complaints) }
}

fn frame_of(viewer: &Inference) -> InputSpec {
    InputSpec { window: Some(viewer.config().window()), spacing_mm: Some(viewer.config().spacing_mm) }
}

fn generator(config: GeneratorConfig, viewer: Inference, place: &BuildContext) -> Result<Synthesis, Vec<ConfigError>> {
    let (chosen, variants, frame) = (config.rules.organs.clone(), config.rules.variants, frame_of(&viewer));
    let organs = place.organs.iter().filter(|organ| chosen.is_empty() || chosen.contains(&organ.name));
    let organs = organs.cloned().collect();
    let generator = Generator::new(config, viewer, &place.organs)?;
    let model = generator.version();
    Ok(Synthesis { synthesize: Arc::new(generator), organs, variants, model, frame })
}

fn command_synthesis(config: CommandSynthesisConfig, place: &BuildContext) -> Result<Synthesis, Vec<ConfigError>> {
    match rules(config.rules.clone(), place) {
        Ok(drawn) => {
            let stage = CommandSynthesis::new(&config, drawn.synthesize, &place.folder)?;
            let model = stage.model().to_owned();
            Ok(Synthesis { synthesize: Arc::new(stage), model, ..drawn })
        }
        // What is wrong with the program is said in the same breath as what is wrong with the rules.
        Err(complaints) => {
            let within = |it: ConfigError| ConfigError { field: format!("rules.{}", it.field), ..it };
            let program = CommandSynthesis::complaints(&config, &place.folder);
            Err(complaints.into_iter().map(within).chain(program).collect())
        }
    }
}
