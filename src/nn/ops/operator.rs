//! The traits of an operator, and its node in candle's graph.
//!
//! An [`Operator`] is a small struct with the geometry of one call. Its values and gradients are functions of detached
//! tensors, so the graph holds an operator's inputs and output, and no intermediate tensors.

use std::sync::Mutex;

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, MetalStorage, Result, Shape, Storage, Tensor,
    bail,
};

use super::backend::Backend;
use super::check;
use crate::nn::kernel::zeros;

/// One call of an operator, composed of candle's tensor operations.
pub(super) trait Operator: Send + Sync + 'static {
    /// The name in error messages.
    const NAME: &'static str;

    /// Returns the shape of the output.
    fn shape(&self) -> Shape;

    /// Computes the output; the inputs are contiguous and detached.
    fn forward(&self, inputs: &[Tensor]) -> Result<Tensor>;

    /// Computes the gradients of the inputs; gradients that are not `required` may be `None`.
    fn backward(&self, call: &BackwardInputs) -> Result<Vec<Option<Tensor>>>;

    /// Returns the native kernels, if there are any.
    fn native(&self) -> Option<&dyn Native> {
        None
    }
}

/// One call of an operator, computed by kernels over slices.
pub(super) trait Native {
    /// Computes the output.
    fn forward(&self, inputs: &[&[f32]]) -> Result<Vec<f32>>;

    /// Computes the gradients of the inputs; gradients that are not `required` may be `None`.
    fn backward(&self, call: &Slices) -> Result<Vec<Option<Vec<f32>>>>;
}

/// The inputs of a backward pass: all tensors are contiguous and detached.
pub(super) struct BackwardInputs {
    pub inputs: Vec<Tensor>,
    pub output: Tensor,
    pub grad: Tensor,
    pub required: Vec<bool>,
}

impl BackwardInputs {
    /// Returns the gradients of the required inputs, each computed by `gradient` from its index.
    pub fn gradients(&self, gradient: impl Fn(usize) -> Result<Tensor>) -> Result<Vec<Option<Tensor>>> {
        self.required.iter().enumerate().map(|(i, &required)| required.then(|| gradient(i)).transpose()).collect()
    }
}

/// The inputs of a native backward pass.
pub(super) struct Slices<'a> {
    pub inputs: &'a [&'a [f32]],
    pub output: &'a [f32],
    pub grad: &'a [f32],
    pub required: &'a [bool],
}

impl Slices<'_> {
    /// Returns the gradients of the required inputs, each written by `gradient` from its index into zeros of its size.
    pub fn gradients(&self, gradient: impl Fn(usize, &mut [f32])) -> Vec<Option<Vec<f32>>> {
        let gradient_of = |(i, (&required, input)): (usize, (&bool, &&[f32]))| {
            required.then(|| {
                let mut values = zeros(input.len());
                gradient(i, &mut values);
                values
            })
        };
        self.required.iter().zip(self.inputs).enumerate().map(gradient_of).collect()
    }
}

/// Runs `operator` on one to three inputs of one type and device, as one node of the graph.
pub(super) fn apply<O: Operator>(operator: O, inputs: &[&Tensor]) -> Result<Tensor> {
    check::same_type_and_device(O::NAME, inputs)?;
    let inputs = inputs.iter().map(|x| x.contiguous()).collect::<Result<Vec<_>>>()?;
    let backend = match operator.native() {
        Some(_) => Backend::of(&inputs.iter().collect::<Vec<_>>()),
        None => Backend::Portable,
    };
    let mut ready = None;
    if backend == Backend::Portable {
        let detached: Vec<_> = inputs.iter().map(Tensor::detach).collect();
        let y = operator.forward(&detached)?.contiguous()?;
        if !inputs.iter().any(Tensor::track_op) {
            return Ok(y);
        }
        ready = Some(if y.layout().start_offset() == 0 { y } else { y.force_contiguous()? });
    }
    let node = Node { operator, backend, ready: Mutex::new(ready) };
    match inputs.as_slice() {
        [a] => a.apply_op1(node),
        [a, b] => a.apply_op2(b, node),
        [a, b, c] => a.apply_op3(b, c, node),
        _ => bail!("{}: expected one to three inputs, got {}", O::NAME, inputs.len()),
    }
}

/// An operator in candle's graph. `ready` holds the portable output until the node takes its storage.
struct Node<O> {
    operator: O,
    backend: Backend,
    ready: Mutex<Option<Tensor>>,
}

impl<O: Operator> Node<O> {
    fn take_ready(&self) -> Result<Tensor> {
        match self.ready.lock().ok().and_then(|mut ready| ready.take()) {
            Some(y) => Ok(y),
            None => bail!("{}: a node's output is available only once", O::NAME),
        }
    }

    fn cpu(&self, inputs: &[(&CpuStorage, &Layout)]) -> Result<(CpuStorage, Shape)> {
        let storage = match (self.backend, self.operator.native()) {
            (Backend::Native, Some(native)) => {
                let inputs = inputs.iter().map(|(s, l)| slice(O::NAME, s, l)).collect::<Result<Vec<_>>>()?;
                CpuStorage::F32(native.forward(&inputs)?)
            }
            _ => match &*self.take_ready()?.storage_and_layout().0 {
                Storage::Cpu(storage) => storage.clone(),
                _ => bail!("{}: expected the output on the device of the inputs", O::NAME),
            },
        };
        Ok((storage, self.operator.shape()))
    }

    fn cuda(&self) -> Result<(CudaStorage, Shape)> {
        let y = self.take_ready()?;
        let (storage, layout) = y.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, self.operator.shape())),
            _ => bail!("{}: expected the output on the device of the inputs", O::NAME),
        }
    }

    fn metal(&self) -> Result<(MetalStorage, Shape)> {
        let y = self.take_ready()?;
        let (storage, layout) = y.storage_and_layout();
        match &*storage {
            Storage::Metal(storage) => Ok((storage.try_clone(layout)?, self.operator.shape())),
            _ => bail!("{}: expected the output on the device of the inputs", O::NAME),
        }
    }

    fn gradients(&self, inputs: &[&Tensor], output: &Tensor, grad: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let call = BackwardInputs {
            inputs: inputs.iter().map(|x| x.detach()).collect(),
            output: output.detach(),
            grad: grad.detach().contiguous()?,
            required: inputs.iter().map(|x| x.track_op()).collect(),
        };
        let gradients: Vec<Option<Tensor>> = match (self.backend, self.operator.native()) {
            (Backend::Native, Some(native)) => {
                let guards: Vec<_> =
                    call.inputs.iter().chain([&call.output, &call.grad]).map(Tensor::storage_and_layout).collect();
                let slices = guards
                    .iter()
                    .map(|(storage, layout)| match &**storage {
                        Storage::Cpu(storage) => slice(O::NAME, storage, layout),
                        _ => bail!("{}: expected a gradient on the CPU", O::NAME),
                    })
                    .collect::<Result<Vec<_>>>()?;
                let (inputs, rest) = slices.split_at(call.inputs.len());
                let gradients =
                    native.backward(&Slices { inputs, output: rest[0], grad: rest[1], required: &call.required })?;
                let tensor = |(values, like): (Option<Vec<f32>>, &Tensor)| {
                    values.map(|values| Tensor::from_vec(values, like.shape(), like.device())).transpose()
                };
                gradients.into_iter().zip(&call.inputs).map(tensor).collect::<Result<_>>()?
            }
            _ => self.operator.backward(&call)?,
        };
        Ok(gradients
            .into_iter()
            .zip(&call.required)
            .map(|(gradient, &required)| gradient.filter(|_| required))
            .collect())
    }
}

/// Returns the values of a contiguous `f32` tensor.
pub(super) fn slice<'a>(op: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => bail!(
            "{op}: expected a contiguous tensor of f32, got {:?} with strides {:?}",
            storage.dtype(),
            layout.stride()
        ),
    }
}

impl<O: Operator> CustomOp1 for Node<O> {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu(&[(s, l)])
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn metal_fwd(&self, _: &MetalStorage, _: &Layout) -> Result<(MetalStorage, Shape)> {
        self.metal()
    }

    fn bwd(&self, a: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let mut gradients = self.gradients(&[a], y, grad)?.into_iter();
        Ok(gradients.next().flatten())
    }
}

impl<O: Operator> CustomOp2 for Node<O> {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu(&[(s1, l1), (s2, l2)])
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn metal_fwd(&self, _: &MetalStorage, _: &Layout, _: &MetalStorage, _: &Layout) -> Result<(MetalStorage, Shape)> {
        self.metal()
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut gradients = self.gradients(&[a, b], y, grad)?.into_iter();
        Ok((gradients.next().flatten(), gradients.next().flatten()))
    }
}

impl<O: Operator> CustomOp3 for Node<O> {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.cpu(&[(s1, l1), (s2, l2), (s3, l3)])
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn metal_fwd(
        &self,
        _: &MetalStorage,
        _: &Layout,
        _: &MetalStorage,
        _: &Layout,
        _: &MetalStorage,
        _: &Layout,
    ) -> Result<(MetalStorage, Shape)> {
        self.metal()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let mut gradients = self.gradients(&[a, b, c], y, grad)?.into_iter();
        Ok((gradients.next().flatten(), gradients.next().flatten(), gradients.next().flatten()))
    }
}
