//! The training steps of the generator and the discriminator.

use candle_core::{Device, Tensor};

use super::generate::{Blend, indicator};
use super::{AdversarialLoss, SynthesisBatch, SynthesisConfig};
use crate::error::{Error, Result};
use crate::nn::failed;
use crate::nn::network::Network;
use crate::nn::predictor::{ExpectedNetwork, Predictor};
use crate::nn::weights::NetworkPart;
use crate::random::Key;
use crate::train::data::{Sampler, array_of, volumes_on};
use crate::train::losses::{
    ClassSet, Logits, attach_gradient, discriminator_loss, found_fraction, linear_loss, to_host,
};
use crate::train::run::{Learner, Numbers, check_finite};
use crate::train::schedule::Schedule;
use crate::train::trained_network::TrainedNetwork;
use crate::train::{ORGAN, SYNTHETIC};
use crate::volume::{Affine, Grid, HuWindow, Labels, Picture, Volume, Voxels, busiest_voxel, stacked, three_planes};

/// The found fraction above which a tumor passes the quality test, as published.
const PASS_THRESHOLD: f64 = 0.7;

/// The generator and the discriminator before the first step, and the frozen segmentor.
pub struct Networks {
    generator: TrainedNetwork,
    discriminator: TrainedNetwork,
    segmentor: Predictor,
}

impl Networks {
    /// Creates the networks of a configuration, with the weights in the configuration.
    ///
    /// # Errors
    /// Returns an error if a network cannot be built, weights cannot be read, or the segmentor lacks a tumor's class.
    pub fn new(config: &SynthesisConfig, seed: u64, tumor_labels: &[u8], device: &Device) -> Result<Self> {
        let key = Key::root(seed).with("train", "weights");
        let make = |name, settings: &crate::train::config::TrainedNetworkConfig, classes, part| {
            let network =
                TrainedNetwork::new(name, settings.build(classes), config.optimiser.optimizer().adam(), key, device)?;
            match &settings.weights {
                Some(path) => network.with_weights(path, part),
                None => Ok(network),
            }
        };
        let generator = make("generator", &config.generator, tumor_labels.len(), NetworkPart::Whole)?;
        let discriminator = make("discriminator", &config.discriminator, 3, NetworkPart::Whole)?;
        let expected = ExpectedNetwork {
            model: config.segmentor.model.model(),
            part: NetworkPart::Whole,
            classes: None,
            width: None,
            norm: None,
        };
        let segmentor = Predictor::open(&config.segmentor.weights, &expected, device)?;
        let classes = segmentor.config().classes;
        if let Some(label) = tumor_labels.iter().find(|label| usize::from(**label) >= classes) {
            let message =
                format!("expected a segmentor with a class for tumor label {label}, got classes 0 to {}", classes - 1);
            return Err(Error::new(message).with_hint("train the segmentor on the same organs, in the same order"));
        }
        Ok(Self { generator, discriminator, segmentor })
    }
}

/// Trains a generator and a discriminator.
pub struct SynthesisLearner {
    generator: TrainedNetwork,
    discriminator: TrainedNetwork,
    /// The discriminator without gradients of its weights, for the step of the generator.
    frozen_discriminator: Network,
    segmentor: Predictor,
    blend: Blend,
    schedule: Schedule,
    adversarial: f64,
    adversarial_loss: AdversarialLoss,
    any_tumor: bool,
    tumor_labels: Vec<u8>,
    window: HuWindow,
    spacing_mm: [f64; 3],
    validation: Vec<SynthesisBatch>,
}

impl SynthesisLearner {
    /// Creates a learner for the organs of `tumor_labels`; `validation` makes the validation batches.
    ///
    /// # Errors
    /// Returns an error if a network cannot be built, weights cannot be read, the segmentor lacks a tumor's class, or no
    /// validation crop can be made.
    pub fn new(
        config: &SynthesisConfig,
        seed: u64,
        tumor_labels: Vec<u8>,
        validation: &impl Sampler<Batch = SynthesisBatch>,
        device: &Device,
    ) -> Result<Self> {
        let Networks { generator, discriminator, segmentor } = Networks::new(config, seed, &tumor_labels, device)?;
        let batches = config.validation_crops.div_ceil(config.batch) as u64;
        Ok(Self {
            frozen_discriminator: discriminator.frozen()?,
            blend: Blend::new(config.activation, device)?,
            schedule: Schedule::new(config.optimiser.optimizer().schedule, config.optimiser.rate, config.steps),
            adversarial: config.adversarial,
            adversarial_loss: config.adversarial_loss,
            any_tumor: config.any_tumor,
            window: HuWindow { low_hu: config.preprocess.window_hu[0], high_hu: config.preprocess.window_hu[1] },
            spacing_mm: config.preprocess.spacing_mm,
            validation: (0..batches).map(|step| validation.batch(step)).collect::<Result<_>>()?,
            generator,
            discriminator,
            segmentor,
            tumor_labels,
        })
    }

    /// Returns the generator.
    pub fn generator(&self) -> &TrainedNetwork {
        &self.generator
    }

    /// Puts the tumors of a generator into the images of a batch; returns the images, `[batch, 1, x, y, z]`.
    fn insert_tumors(&self, generator: &Network, batch: &SynthesisBatch) -> Result<Tensor> {
        let device = self.generator.device();
        let images = volumes_on(batch.images.clone(), batch.len(), batch.shape, device)?;
        let stencils = volumes_on(batch.stencils.clone(), batch.len(), batch.shape, device)?;
        let organ = indicator(&batch.labels, &[ORGAN, SYNTHETIC], batch.len(), batch.shape, device)?;
        let logits = generator.forward(&images).map_err(failed("the generator failed"))?;
        self.blend.apply(&images, &logits, &batch.channels, &organ, &stencils)
    }

    /// Returns the classes that count as found, for each sample.
    fn found_classes(&self, batch: &SynthesisBatch) -> Vec<ClassSet> {
        if self.any_tumor {
            return vec![ClassSet::of(self.tumor_labels.iter().copied()); batch.len()];
        }
        batch.tumor_labels.iter().map(|label| ClassSet::of([*label])).collect()
    }

    /// Returns the mean change of the synthetic tumors, in HU.
    fn change_hu(&self, batch: &SynthesisBatch, with_tumors: &[f32]) -> f64 {
        let pairs = batch.images.iter().zip(with_tumors).zip(&batch.labels);
        let changes =
            pairs.filter(|(_, label)| **label == SYNTHETIC).map(|((before, after), _)| f64::from(after - before));
        let (sum, count) = changes.fold((0.0, 0u32), |(sum, count), change| (sum + change, count + 1));
        sum / f64::from(count) * f64::from(self.window.width_hu())
    }
}

/// Returns the mean of the defined values.
fn mean(values: impl IntoIterator<Item = Option<f64>>) -> f64 {
    let (sum, count) = values.into_iter().flatten().fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    sum / f64::from(count)
}

impl Learner for SynthesisLearner {
    type Batch = SynthesisBatch;

    fn learn(&mut self, step: u64, batch: SynthesisBatch) -> Result<Numbers> {
        let rate = self.schedule.rate(step);
        let count = batch.len();
        let with_tumors = self.insert_tumors(self.generator.network(), &batch)?;
        // The step of the generator: gradients pass through the frozen discriminator and the frozen segmentor.
        let real = self.frozen_discriminator.forward(&with_tumors).map_err(failed("the discriminator failed"))?;
        let values = to_host(&real)?;
        let real_class = vec![ClassSet::of([1]); count];
        let adversarial =
            self.adversarial_loss.of(&Logits::new(&values, count, 3), &batch.labels, SYNTHETIC, &real_class);
        let found = self.segmentor.forward(&with_tumors)?;
        let values = to_host(&found)?;
        let logits = Logits::new(&values, count, self.segmentor.config().classes);
        let classes = self.found_classes(&batch);
        let segmentor_loss = linear_loss(&logits, &batch.labels, SYNTHETIC, &classes);
        let fractions = found_fraction(&logits, &batch.labels, SYNTHETIC, &classes);
        let mut numbers = vec![
            ("generator by discriminator".to_owned(), adversarial.value),
            ("generator by segmentor".to_owned(), segmentor_loss.value),
            ("found fraction".to_owned(), mean(fractions)),
            ("change hu".to_owned(), self.change_hu(&batch, &to_host(&with_tumors)?)),
            ("rate".to_owned(), rate),
        ];
        check_finite(&numbers, &batch.describe())?;
        let adversarial = attach_gradient(&real, adversarial.scaled(self.adversarial).gradient)?;
        let both =
            (adversarial + attach_gradient(&found, segmentor_loss.gradient)?).map_err(failed("cannot add losses"))?;
        self.generator.step(&both, rate)?;
        // The step of the discriminator: on the same images, detached from the generator.
        let predicted = self.discriminator.network().forward(&with_tumors.detach());
        let predicted = predicted.map_err(failed("the discriminator failed"))?;
        let values = to_host(&predicted)?;
        let loss = discriminator_loss(&Logits::new(&values, count, 3), &batch.labels);
        numbers.insert(2, ("discriminator".to_owned(), loss.value));
        check_finite(&numbers, &batch.describe())?;
        self.discriminator.step(&attach_gradient(&predicted, loss.gradient)?, rate)?;
        Ok(numbers)
    }

    fn validate(&mut self) -> Result<Numbers> {
        let generator = self.generator.frozen()?;
        let (mut found, mut realness, mut change) = (Vec::new(), Vec::new(), Vec::new());
        for batch in &self.validation {
            let with_tumors = self.insert_tumors(&generator, batch)?;
            let values = to_host(&self.segmentor.forward(&with_tumors)?)?;
            let logits = Logits::new(&values, batch.len(), self.segmentor.config().classes);
            found.extend(found_fraction(&logits, &batch.labels, SYNTHETIC, &self.found_classes(batch)));
            let predicted =
                self.frozen_discriminator.forward(&with_tumors).map_err(failed("the discriminator failed"))?;
            let values = to_host(&predicted)?;
            let sets = vec![ClassSet::of([1]); batch.len()];
            let adversarial = linear_loss(&Logits::new(&values, batch.len(), 3), &batch.labels, SYNTHETIC, &sets);
            realness.push(Some(1.0 - adversarial.value));
            change.push(Some(self.change_hu(batch, &to_host(&with_tumors)?)));
        }
        let passes =
            found.iter().map(|fraction| fraction.map(|fraction| f64::from(u8::from(fraction > PASS_THRESHOLD))));
        Ok(vec![
            ("pass rate".to_owned(), mean(passes)),
            (self.score_name().to_owned(), mean(found)),
            ("realness".to_owned(), mean(realness)),
            ("change hu".to_owned(), mean(change)),
        ])
    }

    fn score_name(&self) -> &'static str {
        "found fraction"
    }

    fn picture(&mut self) -> Result<Option<Picture>> {
        let Some(batch) = self.validation.first() else { return Ok(None) };
        let with_tumors = to_host(&self.insert_tumors(&self.generator.frozen()?, batch)?)?;
        let voxels: usize = batch.shape.iter().product();
        let grid = Grid { shape: batch.shape, affine: Affine::from_spacing(self.spacing_mm) };
        let volume = |values: &[f32]| {
            let hu = array_of(&values[..voxels], batch.shape).map(|v| self.window.low_hu + v * self.window.width_hu());
            Volume { grid, voxels: Voxels::F32(hu) }
        };
        let synthetic = array_of(&batch.labels[..voxels], batch.shape).map(|label| u16::from(*label == SYNTHETIC));
        let voxel = busiest_voxel(&synthetic).unwrap_or(batch.shape.map(|side| side / 2));
        let labels = Labels { grid, ids: synthetic };
        let (before, after) = (volume(&batch.images), volume(&with_tumors));
        let rows = [(&before, None), (&after, None), (&after, Some(&labels))];
        Ok(Some(stacked(&rows.map(|(volume, labels)| three_planes(volume, labels, voxel, self.window)), 6)))
    }

    fn networks(&self) -> Vec<&TrainedNetwork> {
        vec![&self.generator, &self.discriminator]
    }

    fn networks_mut(&mut self) -> Vec<&mut TrainedNetwork> {
        vec![&mut self.generator, &mut self.discriminator]
    }
}
