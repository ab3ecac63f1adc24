//! The sources of a network's weights.
//!
//! A network's constructor takes a [`VarBuilder`] and requests each parameter by name and shape; names and shapes are declared
//! only there. Therefore one constructor is used to list the parameters ([`declared_parameters`]), to fill them by name ([`super::fill`]),
//! to read them from a file's tensors ([`from_tensors`]) and to train them ([`Variables`]).
//!
//! A network for inference holds plain tensors. A single variable among its weights would make every operator record
//! its inputs for a backward pass, and no activation would be freed before the last operator has finished.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use freetumor::nn::parameters::{declared_parameters, from_tensors};
//! use freetumor::nn::unet3d::{Config, UNet3D};
//!
//! let config = Config { width: 2, ..Config::default() };
//! let mut weights = std::collections::BTreeMap::new();
//! for (name, shape) in declared_parameters(|vb| UNet3D::new(vb, &config))? {
//!     weights.insert(name, Tensor::zeros(shape, DType::F32, &Device::Cpu)?);
//! }
//! let network = UNet3D::new(from_tensors(weights, DType::F32, &Device::Cpu), &config)?;
//! let y = network.forward(&Tensor::zeros((1, 1, 8, 8, 8), DType::F32, &Device::Cpu)?)?;
//! assert_eq!(y.dims(), [1, 3, 8, 8, 8]);
//! # Ok::<(), candle_core::Error>(())
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Result, Shape, Tensor, Var, bail};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

/// Returns the names and shapes of the parameters that `build` requests, in order of the requests. No weights are allocated.
///
/// # Errors
///
/// The errors of `build`.
///
/// ```
/// use freetumor::nn::layers::Linear;
/// use freetumor::nn::parameters::declared_parameters;
///
/// let parameters = declared_parameters(|vb| Linear::new(vb.pp("head"), 4, 2, true))?;
/// assert_eq!(parameters[0], ("head.weight".to_owned(), (2, 4).into()));
/// assert_eq!(parameters[1], ("head.bias".to_owned(), 2.into()));
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn declared_parameters<N>(build: impl FnOnce(VarBuilder<'static>) -> Result<N>) -> Result<Vec<(String, Shape)>> {
    let requested = Arc::default();
    build(VarBuilder::from_backend(Box::new(Recorder(Arc::clone(&requested))), DType::F32, Device::Cpu))?;
    Ok(std::mem::take(&mut *lock(&requested)))
}

/// Records the requested parameters, and returns zeros of the requested shape, which share one value in memory.
struct Recorder(Arc<Mutex<Vec<(String, Shape)>>>);

impl SimpleBackend for Recorder {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        lock(&self.0).push((name.to_owned(), shape.clone()));
        Tensor::zeros((), dtype, device)?.broadcast_as(shape)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        bail!("parameter {name}: expected a shape, got none")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

/// Returns a source of weights over tensors by name, converted to `dtype` and `device`.
///
/// The request of a parameter that is absent or has another shape returns an error that names the parameter, the expected
/// shape and the actual shape. The weights are plain tensors, even if they were created from variables.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use freetumor::nn::parameters::from_tensors;
///
/// let weights = [("bias".to_owned(), Tensor::zeros(3, DType::F32, &Device::Cpu)?)].into();
/// let vb = from_tensors(weights, DType::F32, &Device::Cpu);
/// assert_eq!(vb.get(3, "bias")?.dims(), [3]);
/// let error = |name: &str| vb.get(4, name).unwrap_err().to_string();
/// assert!(error("bias").starts_with("parameter bias: expected shape [4], got [3]"));
/// assert!(error("weight").starts_with("parameter weight: expected shape [4], got none"));
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn from_tensors(tensors: BTreeMap<String, Tensor>, dtype: DType, device: &Device) -> VarBuilder<'static> {
    VarBuilder::from_backend(Box::new(TensorBackend(tensors)), dtype, device.clone())
}

struct TensorBackend(BTreeMap<String, Tensor>);

impl SimpleBackend for TensorBackend {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        match self.0.get(name) {
            Some(tensor) if tensor.shape() == &shape => tensor.detach().to_device(device)?.to_dtype(dtype),
            Some(tensor) => bail!("parameter {name}: expected shape {shape:?}, got {:?}", tensor.shape()),
            None => bail!("parameter {name}: expected shape {shape:?}, got none"),
        }
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        match self.0.get(name) {
            Some(tensor) => tensor.detach().to_device(device)?.to_dtype(dtype),
            None => bail!("parameter {name}: expected a tensor, got none"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// The trainable parameters of a network: variables by name, in the order in which the network requests them.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use freetumor::nn::{fill, layers::Linear, parameters::Variables};
///
/// let variables = Variables::new(fill::builder("", DType::F32, &Device::Cpu));
/// let layer = Linear::new(variables.builder(), 3, 1, true)?;
/// let loss = layer.forward(&Tensor::ones((1, 3), DType::F32, &Device::Cpu)?)?.sum_all()?;
/// let gradients = loss.backward()?;
/// let [(name, weight), (_, _bias)] = &variables.all()[..] else { panic!("two parameters") };
/// assert_eq!(name, "weight");
/// assert_eq!(gradients.get(weight).unwrap().to_vec2::<f32>()?, [[1.0, 1.0, 1.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub struct Variables {
    initial: VarBuilder<'static>,
    created: Arc<Mutex<Vec<(String, Var)>>>,
}

impl Variables {
    /// Creates variables with the initial values of `initial`.
    pub fn new(initial: VarBuilder<'static>) -> Self {
        Self { initial, created: Arc::default() }
    }

    /// Returns the source of weights for the constructor of a network; it returns the same variable for the same name.
    pub fn builder(&self) -> VarBuilder<'static> {
        let (dtype, device) = (self.initial.dtype(), self.initial.device().clone());
        let backend = VariableBackend { initial: self.initial.clone(), created: Arc::clone(&self.created) };
        VarBuilder::from_backend(Box::new(backend), dtype, device)
    }

    /// Returns the variables that were created so far, in order of their first request.
    pub fn all(&self) -> Vec<(String, Var)> {
        lock(&self.created).clone()
    }
}

struct VariableBackend {
    initial: VarBuilder<'static>,
    created: Arc<Mutex<Vec<(String, Var)>>>,
}

impl SimpleBackend for VariableBackend {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, _: &Device) -> Result<Tensor> {
        let mut created = lock(&self.created);
        if let Some((_, var)) = created.iter().find(|(known, _)| known == name) {
            if var.shape() != &shape {
                bail!("parameter {name}: expected shape {shape:?}, got {:?}", var.shape())
            }
            return Ok(var.as_tensor().clone());
        }
        let var = Var::from_tensor(&self.initial.get_with_hints_dtype(shape, name, init, dtype)?)?;
        created.push((name.to_owned(), var.clone()));
        Ok(var.into_inner())
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let shape = self.initial.get_unchecked_dtype(name, dtype)?.shape().clone();
        self.get(shape, name, Init::Const(0.0), dtype, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.initial.contains_tensor(name)
    }
}

/// Locks a mutex, poisoned or not: a panic of another thread cannot leave these lists half written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
