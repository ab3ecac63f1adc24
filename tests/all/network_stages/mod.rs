//! Synthesis, scores and masks by networks.

mod reference;
pub mod runs;

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use freetumor::inference::{Inference, NetworkConfig, Networks};
use freetumor::nn::device::DeviceKind;
use freetumor::nn::fill;
use freetumor::nn::network::{Config, Model};
use freetumor::nn::service::Service;

/// Saves weights by `fill`; the names in the file lack the prefix that determines the numbers.
pub fn save(path: &Path, config: &Config, prefix: &str) {
    let tensor = |(name, shape): (String, candle_core::Shape)| {
        let values = fill::parameter(&format!("{prefix}{name}"), shape.dims());
        (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    let weights = config.parameters().unwrap().into_iter().map(tensor).collect();
    crate::infer::save(path, &weights);
}

pub fn config(model: Model, width: usize, classes: usize) -> Config {
    Config { width, classes, ..model.published() }
}

pub fn networks() -> Arc<Networks> {
    Networks::new(Service::new(DeviceKind::Cpu, 1))
}

pub fn inference(networks: &Networks, config: &NetworkConfig, model: Model) -> Inference {
    networks.open(config, &config.weights, model).unwrap_or_else(|errors| panic!("{errors:?}"))
}
