//! The initial weights of a network.

use candle_core::{DType, Device, Result, Shape, Tensor, bail};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;

use crate::random::Key;

/// Returns a source of weights that are derived from `key` and the name of each parameter: kernels and matrices are uniform in
/// ±1/√(fan-in), scales of normalization layers are 1, their shifts and all biases are 0.
///
/// # Source
/// The default of PyTorch for convolutions and linear layers, except for their biases.
///
/// ```
/// use candle_core::{DType, Device};
/// use freetumor::random::Key;
/// use freetumor::train::initial;
///
/// let weights = initial::builder(Key::root(1), DType::F32, &Device::Cpu);
/// let kernel = weights.get((2, 4, 1, 1, 1), "conv.weight")?.flatten_all()?.to_vec1::<f32>()?;
/// assert!(kernel.iter().all(|value| value.abs() <= 0.5) && kernel[0] != kernel[1]);
/// assert_eq!(weights.get(2, "norm.weight")?.to_vec1::<f32>()?, [1.0, 1.0]);
/// assert_eq!(weights.get(2, "conv.bias")?.to_vec1::<f32>()?, [0.0, 0.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn builder(key: Key, dtype: DType, device: &Device) -> VarBuilder<'static> {
    VarBuilder::from_backend(Box::new(InitialWeights(key)), dtype, device.clone())
}

struct InitialWeights(Key);

impl SimpleBackend for InitialWeights {
    fn get(&self, shape: Shape, name: &str, _: candle_nn::Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let (dims, count) = (shape.dims(), shape.elem_count());
        let values: Vec<f32> = if dims.len() >= 2 {
            let bound = 1.0 / (count as f64 / dims[0] as f64).sqrt();
            let mut random = self.0.stream(name);
            (0..count).map(|_| random.uniform(-bound, bound) as f32).collect()
        } else if name.ends_with("weight") {
            vec![1.0; count]
        } else {
            vec![0.0; count]
        };
        Tensor::from_vec(values, shape, &Device::Cpu)?.to_device(device)?.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        bail!("parameter {name}: expected a shape, got none")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}
