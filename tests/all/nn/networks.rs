//! The networks against reference numbers made with the original packages.

use candle_core::{Device, safetensors};
use freetumor::nn::fill;

use crate::common::shared;

#[test]
fn uniform_numbers_are_those_of_the_reference() {
    let Some(path) = shared("golden/unet3d.safetensors") else { return };
    let golden = safetensors::load(path, &Device::Cpu).unwrap();
    let x = golden["16x16x16.x"].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(x, fill::uniform("unet3d.input.16x16x16", 16 * 16 * 16, 0.0, 1.0));
}
