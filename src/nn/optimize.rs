//! The optimizer Adam, with access to its state.
//!
//! candle's own optimizer does not expose its moments, which a resumed training run requires, and lacks amsgrad.

use std::collections::BTreeMap;

use candle_core::backend::BackendStorage;
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, InplaceOp2, InplaceOp3, Layout, Result, Tensor, Var, bail};
use rayon::prelude::*;

use crate::simd::Class;

/// The configuration of Adam.
///
/// # Source
///
/// Kingma and Ba, arXiv 1412.6980; decay as Loshchilov and Hutter, arXiv 1711.05101; amsgrad as Reddi et al.,
/// arXiv 1904.09237, with the maximum taken before the correction of the bias, as PyTorch does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamConfig {
    /// The decay rates of the two moments.
    pub betas: [f64; 2],
    /// The number that is added to the denominator of a step, so that the denominator is not 0.
    pub epsilon: f64,
    /// The weight decay: each step subtracts this fraction of a parameter, times the learning rate, from the parameter.
    pub weight_decay: f64,
    /// Whether the second moment never decreases.
    pub amsgrad: bool,
}

impl Default for AdamConfig {
    /// Returns betas 0.9 and 0.999, without decay and without amsgrad.
    fn default() -> Self {
        Self { betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 0.0, amsgrad: false }
    }
}

/// The optimizer: the number of steps, and the moments of every parameter that had a gradient, by name.
///
/// ```
/// use candle_core::{Device, Var};
/// use freetumor::nn::optimize::{Adam, AdamConfig};
///
/// let w = Var::new(&[1f32, -2.0], &Device::Cpu)?;
/// let parameters = vec![("w".to_owned(), w.clone())];
/// let mut adam = Adam::new(AdamConfig::default());
/// let gradients = w.sqr()?.sum_all()?.backward()?;
/// adam.step(&parameters, &gradients, 0.1)?;
/// let stepped = w.to_vec1::<f32>()?;
/// assert!((stepped[0] - 0.9).abs() < 1e-6 && (stepped[1] + 1.9).abs() < 1e-6);
/// assert_eq!(adam.moments()["w"].first.to_vec1::<f32>()?, [0.2, -0.4]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Adam {
    config: AdamConfig,
    steps: u64,
    moments: BTreeMap<String, Moments>,
}

/// The running averages of one parameter's gradient.
#[derive(Clone, Debug)]
pub struct Moments {
    /// The average of the gradient.
    pub first: Tensor,
    /// The average of the gradient's square.
    pub second: Tensor,
    /// The maximum of `second` so far, with amsgrad.
    pub largest: Option<Tensor>,
}

impl Adam {
    /// Creates an optimizer before its first step.
    pub fn new(config: AdamConfig) -> Self {
        Self { config, steps: 0, moments: BTreeMap::new() }
    }

    /// Creates an optimizer that resumes from recorded steps and moments.
    pub fn resumed(config: AdamConfig, steps: u64, moments: BTreeMap<String, Moments>) -> Self {
        Self { config, steps, moments }
    }

    /// Returns the number of steps so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Returns the moments of every parameter, by the name of the parameter.
    pub fn moments(&self) -> &BTreeMap<String, Moments> {
        &self.moments
    }

    /// Updates every parameter that has a gradient by one step with the learning rate `rate`.
    ///
    /// # Errors
    ///
    /// If a gradient's shape differs from its parameter's.
    pub fn step(&mut self, parameters: &[(String, Var)], gradients: &GradStore, rate: f64) -> Result<()> {
        self.steps += 1;
        let [b1, b2] = self.config.betas;
        let corrections = [b1, b2].map(|beta| 1.0 - Class::current().powf_f64(beta, self.steps as f64));
        for (name, parameter) in parameters {
            let Some(gradient) = gradients.get(parameter) else { continue };
            if gradient.shape() != parameter.shape() {
                bail!("{name}: expected a gradient of shape {:?}, got {:?}", parameter.shape(), gradient.shape())
            }
            let gradient = gradient.contiguous()?;
            let moments = match self.moments.get_mut(name) {
                Some(moments) => moments,
                None => {
                    let zeros = || parameter.zeros_like().map(|zeros| zeros.detach());
                    let largest = if self.config.amsgrad { Some(zeros()?) } else { None };
                    let moments = Moments { first: zeros()?, second: zeros()?, largest };
                    self.moments.entry(name.clone()).or_insert(moments)
                }
            };
            let scales = Scales {
                rate: rate / corrections[0],
                root: corrections[1].sqrt(),
                epsilon: self.config.epsilon,
                decay: 1.0 - rate * self.config.weight_decay,
            };
            moments.first = average(&moments.first, &gradient, b1, false)?;
            moments.second = average(&moments.second, &gradient, b2, true)?;
            let second = match &mut moments.largest {
                Some(largest) => {
                    *largest = largest.maximum(&moments.second)?;
                    &*largest
                }
                None => &moments.second,
            };
            scales.apply(parameter, &moments.first, second)?;
        }
        Ok(())
    }
}

/// Returns whether a tensor is contiguous single precision on the CPU, so that the loops below can process the tensor.
fn is_contiguous_f32_on_cpu(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && tensor.dtype() == DType::F32 && tensor.is_contiguous()
}

/// Returns `beta · moment + (1 − beta) · gradient`, or with the gradient's square; computed in place if possible.
fn average(moment: &Tensor, gradient: &Tensor, beta: f64, square: bool) -> Result<Tensor> {
    if is_contiguous_f32_on_cpu(moment) && is_contiguous_f32_on_cpu(gradient) {
        let average = Average { decay: beta as f32, weight: (1.0 - beta) as f32, square };
        moment.inplace_op2(gradient, &average)?;
        return Ok(moment.clone());
    }
    let gradient = if square { gradient.sqr()? } else { gradient.clone() };
    (moment * beta)? + (gradient * (1.0 - beta))?
}

/// The running average as a loop.
struct Average {
    decay: f32,
    weight: f32,
    square: bool,
}

/// The number of elements that one task of a loop processes.
const CHUNK: usize = 1 << 15;

impl InplaceOp2 for Average {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn cpu_fwd(&self, moment: &mut CpuStorage, l1: &Layout, gradient: &CpuStorage, l2: &Layout) -> Result<()> {
        let (moment, gradient) = (slice_mut(moment, l1)?, slice(gradient, l2)?);
        moment.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK)).for_each(|(moment, gradient)| {
            for (moment, &gradient) in moment.iter_mut().zip(gradient) {
                let gradient = if self.square { gradient * gradient } else { gradient };
                *moment = *moment * self.decay + gradient * self.weight;
            }
        });
        Ok(())
    }
}

/// The coefficients of one step.
struct Scales {
    rate: f64,
    root: f64,
    epsilon: f64,
    decay: f64,
}

impl Scales {
    /// Sets the parameter to `decay · parameter − rate · first / (√second / root + epsilon)`.
    fn apply(&self, parameter: &Var, first: &Tensor, second: &Tensor) -> Result<()> {
        if is_contiguous_f32_on_cpu(parameter) && is_contiguous_f32_on_cpu(first) && is_contiguous_f32_on_cpu(second) {
            return parameter.inplace_op3(first, second, self);
        }
        let step = (first / ((second.sqrt()? / self.root)? + self.epsilon)?)?;
        parameter.set(&((parameter.as_tensor() * self.decay)? - (step * self.rate)?)?)
    }
}

impl InplaceOp3 for Scales {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn cpu_fwd(
        &self,
        parameter: &mut CpuStorage,
        l1: &Layout,
        first: &CpuStorage,
        l2: &Layout,
        second: &CpuStorage,
        l3: &Layout,
    ) -> Result<()> {
        let (parameter, first, second) = (slice_mut(parameter, l1)?, slice(first, l2)?, slice(second, l3)?);
        let [rate, root, epsilon, decay] = [self.rate, 1.0 / self.root, self.epsilon, self.decay].map(|x| x as f32);
        let moments = first.par_chunks(CHUNK).zip(second.par_chunks(CHUNK));
        parameter.par_chunks_mut(CHUNK).zip(moments).for_each(|(parameter, (first, second))| {
            for (parameter, (&first, &second)) in parameter.iter_mut().zip(first.iter().zip(second)) {
                *parameter = *parameter * decay - rate * first / (second.sqrt() * root + epsilon);
            }
        });
        Ok(())
    }
}

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => bail!(
            "adam: expected a contiguous tensor of f32, got {:?} with strides {:?}",
            storage.dtype(),
            layout.stride()
        ),
    }
}

fn slice_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    let element = storage.dtype();
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&mut values[start..end]),
        _ => bail!("adam: expected a contiguous tensor of f32, got {element:?} with strides {:?}", layout.stride()),
    }
}
