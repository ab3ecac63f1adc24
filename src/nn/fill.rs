//! Reproducible weights for tests: each number is computed from its parameter's name and position, by integer arithmetic.
//!
//! There are no stored values and no random generator: the same name yields the same bits in every language and on every machine. A
//! network of any width can therefore be compared with another implementation without files of weights.
//!
//! ```
//! use candle_core::{DType, Device};
//! use freetumor::nn::fill;
//!
//! let weights = fill::builder("", DType::F32, &Device::Cpu);
//! let kernel = weights.pp("conv").get((2, 3, 1, 1, 1), "weight")?;
//! let bound = (3.0f64 / 3.0).sqrt() as f32;
//! assert_eq!(kernel.flatten_all()?.to_vec1::<f32>()?, fill::uniform("conv.weight", 6, -1.0, 1.0));
//! assert!(kernel.abs()?.max_all()?.to_scalar::<f32>()? <= bound);
//! # Ok::<(), candle_core::Error>(())
//! ```

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;

/// Returns the 64-bit FNV-1a hash of a string's bytes.
///
/// ```
/// assert_eq!(freetumor::nn::fill::fnv1a("a"), 0xaf63_dc4c_8601_ec8c);
/// ```
pub fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// Returns the output of splitmix64 at `state`.
///
/// ```
/// assert_eq!(freetumor::nn::fill::splitmix64(0), 0xE220_A839_7B1D_CDAF);
/// ```
pub fn splitmix64(state: u64) -> u64 {
    let z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Returns `count` numbers in `[low, high)`: number `i` is `splitmix64(fnv1a(name) + i) >> 40` over 2²⁴, scaled in double
/// precision and rounded once.
///
/// ```
/// let numbers = freetumor::nn::fill::uniform("probe", 1000, -1.0, 1.0);
/// assert!(numbers.iter().all(|n| (-1.0..1.0).contains(n)));
/// assert!((numbers.iter().sum::<f32>() / 1000.0).abs() < 0.1);
/// ```
pub fn uniform(name: &str, count: usize, low: f64, high: f64) -> Vec<f32> {
    let start = fnv1a(name);
    let unit = |i: usize| (splitmix64(start.wrapping_add(i as u64)) >> 40) as f64 / f64::from(1 << 24);
    (0..count).map(|i| (low + (high - low) * unit(i)) as f32).collect()
}

/// Returns the value of the parameter `name` of the given shape.
///
/// Two or more dimensions: uniform in ±√(3 / fan-in), where fan-in is the product of all dimensions but the first. One
/// dimension: uniform in `[0.5, 1.5)` if the name ends in `weight`, else in `[-0.1, 0.1)`.
///
/// ```
/// let scale = freetumor::nn::fill::parameter("norm.weight", &[64]);
/// assert!(scale.iter().all(|s| (0.5..1.5).contains(s)));
/// ```
pub fn parameter(name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    if shape.len() >= 2 {
        let fan_in = count as f64 / shape[0] as f64;
        let bound = (3.0 / fan_in).sqrt();
        uniform(name, count, -bound, bound)
    } else if name.ends_with("weight") {
        uniform(name, count, 0.5, 1.5)
    } else {
        uniform(name, count, -0.1, 0.1)
    }
}

/// Returns a source of weights that contains every parameter, with the value of [`parameter`].
///
/// `prefix` is prepended to each name to compute the value, so that `"discriminator."` produces different weights for a second
/// network; the names that the network requests have no prefix.
pub fn builder(prefix: &str, dtype: DType, device: &Device) -> VarBuilder<'static> {
    VarBuilder::from_backend(Box::new(FillBackend { prefix: prefix.to_owned() }), dtype, device.clone())
}

struct FillBackend {
    prefix: String,
}

impl SimpleBackend for FillBackend {
    fn get(&self, shape: Shape, name: &str, _: candle_nn::Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let values = parameter(&format!("{}{name}", self.prefix), shape.dims());
        Tensor::from_vec(values, shape, device)?.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("parameter {name}: expected a shape, got none")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}
