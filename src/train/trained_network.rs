//! A network that is trained: its variables and its optimizer under one name.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::initial;
use super::output::write_tensors;
use crate::error::{Error, Result};
use crate::nn::failed;
use crate::nn::network::{Config, Network};
use crate::nn::optimize::{Adam, AdamConfig, Moments};
use crate::nn::parameters::{Variables, from_tensors};
use crate::nn::weights::{NetworkPart, Precision, WeightsMetadata, fit, read};
use crate::random::Key;

/// A network with its variables and its optimizer.
pub struct TrainedNetwork {
    name: &'static str,
    config: Config,
    network: Network,
    variables: Variables,
    optimizer: Adam,
    adam: AdamConfig,
    device: Device,
}

impl TrainedNetwork {
    /// Creates a network with initial weights derived from `key` and `name`.
    ///
    /// # Errors
    /// Returns an error if the configuration is invalid.
    pub fn new(name: &'static str, config: Config, adam: AdamConfig, key: Key, device: &Device) -> Result<Self> {
        let variables = Variables::new(initial::builder(key.with("network", name), DType::F32, device));
        let network =
            Network::new(variables.builder(), &config).map_err(failed(&format!("cannot build the {name}")))?;
        Ok(Self { name, config, network, variables, optimizer: Adam::new(adam), adam, device: device.clone() })
    }

    /// Replaces the weights with those of a file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or contains another network.
    pub fn with_weights(self, path: &Path, part: NetworkPart) -> Result<Self> {
        WeightsMetadata::of(path).check_weights(path)?;
        let declared = self.config.parameters().map_err(failed(&format!("cannot build the {}", self.name)))?;
        let weights = fit(&read(path, &Device::Cpu)?, &declared, part).map_err(|error| {
            let wrapped = Error::new(format!("{}: {error}", path.display()));
            error.hint().into_iter().fold(wrapped, Error::with_hint)
        })?;
        for (name, variable) in self.variables.all() {
            let value = weights[&name].to_device(&self.device);
            let context = format!("cannot set the weight `{name}` of the {}", self.name);
            value.and_then(|value| variable.set(&value)).map_err(failed(&context))?;
        }
        Ok(self)
    }

    /// Returns the name of the network in tables and files.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the configuration of the network.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the device of the network.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Returns the network; a backward pass computes gradients of its variables.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Returns the same network over the same memory without gradients of weights: a backward pass computes the gradient of the
    /// input only, and each step of this network changes the weights of the returned one.
    ///
    /// # Errors
    /// Returns an error if the network cannot be built.
    pub fn frozen(&self) -> Result<Network> {
        let weights = self.variables.all().into_iter().map(|(name, variable)| (name, variable.as_tensor().detach()));
        let vb = from_tensors(weights.collect(), DType::F32, &self.device);
        Network::new(vb, &self.config).map_err(failed(&format!("cannot build the {}", self.name)))
    }

    /// Runs the backward pass from `loss` and takes one optimizer step on the variables of this network.
    ///
    /// # Errors
    /// Returns an error if the backward pass fails.
    pub fn step(&mut self, loss: &Tensor, rate: f64) -> Result<()> {
        let step = |optimizer: &mut Adam| optimizer.step(&self.variables.all(), &loss.backward()?, rate);
        step(&mut self.optimizer).map_err(failed(&format!("the optimizer step of the {} failed", self.name)))
    }

    /// Returns the weights by name.
    pub fn weights(&self) -> BTreeMap<String, Tensor> {
        self.variables.all().into_iter().map(|(name, variable)| (name, variable.as_tensor().detach())).collect()
    }

    /// Writes the weights for inference, atomically.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write_weights(&self, path: &Path, metadata: &BTreeMap<String, String>, precision: Precision) -> Result<()> {
        write_tensors(path, &self.weights(), metadata, precision)
    }

    /// Returns the bytes of the weights in single precision, and the bytes of all tensors of this network in a checkpoint after the
    /// first step.
    pub fn bytes(&self) -> [u64; 2] {
        let numbers: usize = self.variables.all().iter().map(|(_, variable)| variable.elem_count()).sum();
        let weights = 4 * numbers as u64;
        [weights, weights * if self.adam.amsgrad { 4 } else { 3 }]
    }

    /// Checks that all weights are finite.
    ///
    /// # Errors
    /// Returns an error if a weight is NaN or infinite.
    pub(super) fn check_finite(&self) -> Result<()> {
        for (name, variable) in self.variables.all() {
            let sum = variable.sum_all().and_then(|sum| sum.to_scalar::<f32>());
            let context = format!("cannot read `{name}` of the {} from the device", self.name);
            if !sum.map_err(failed(&context))?.is_finite() {
                return Err(Error::new(format!("the weights `{name}` of the {} are no longer finite", self.name)));
            }
        }
        Ok(())
    }

    /// Returns the number of steps that the optimizer has taken.
    pub(super) fn steps(&self) -> u64 {
        self.optimizer.steps()
    }

    /// Returns weights and moments, each with a unique name.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (String, Tensor)> + '_ {
        let weights = self.weights().into_iter().map(|(name, tensor)| (self.key("weights", &name), tensor));
        let moments = self.optimizer.moments().iter().flat_map(|(name, moments)| {
            let Moments { first, second, largest } = moments.clone();
            let all = [("first", Some(first)), ("second", Some(second)), ("largest", largest)];
            all.into_iter().filter_map(|(kind, tensor)| Some((self.key(kind, name), tensor?)))
        });
        weights.chain(moments)
    }

    /// Restores the tensors that [`tensors`](Self::tensors) returned.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has another shape.
    pub(super) fn restore(&mut self, tensors: &BTreeMap<String, Tensor>, steps: u64) -> Result<()> {
        let mut moments = BTreeMap::new();
        for (name, variable) in self.variables.all() {
            let get = |kind: &str| -> Result<Option<Tensor>> {
                let Some(tensor) = tensors.get(&self.key(kind, &name)) else { return Ok(None) };
                if tensor.shape() != variable.shape() {
                    let (expected, got) = (variable.dims(), tensor.dims());
                    let name = self.key(kind, &name);
                    return Err(Error::new(format!("`{name}`: expected shape {expected:?}, got {got:?}")));
                }
                let context = format!("cannot copy the tensor `{}` to the device", self.key(kind, &name));
                tensor.to_device(&self.device).map(Some).map_err(failed(&context))
            };
            let missing = |kind: &str| Error::new(format!("expected a tensor `{}`, got none", self.key(kind, &name)));
            let weight = get("weights")?.ok_or_else(|| missing("weights"))?;
            let context = format!("cannot set the weight `{name}` of the {}", self.name);
            variable.set(&weight).map_err(failed(&context))?;
            let Some(first) = get("first")? else { continue };
            let second = get("second")?.ok_or_else(|| missing("second"))?;
            let largest = get("largest")?;
            if self.adam.amsgrad && largest.is_none() {
                return Err(missing("largest"));
            }
            moments.insert(name, Moments { first, second, largest });
        }
        self.optimizer = Adam::resumed(self.adam, steps, moments);
        Ok(())
    }

    fn key(&self, kind: &str, parameter: &str) -> String {
        format!("{}.{kind}.{parameter}", self.name)
    }
}

impl std::fmt::Debug for TrainedNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrainedNetwork").field("name", &self.name).field("config", &self.config).finish_non_exhaustive()
    }
}
