//! Results that overwrite an input: for inference, where a volume of features is needed only once.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, Tensor, bail};

use super::backend::Backend;
use super::operator::slice;

/// Returns whether the result can overwrite `x`: the native backend, contiguous memory that no other input shares, and no gradient that
/// needs the input.
pub(super) fn can_overwrite(x: &Tensor, others: &[&Tensor]) -> bool {
    let all: Vec<&Tensor> = std::iter::once(x).chain(others.iter().copied()).collect();
    let plain = Backend::of(&all) == Backend::Native && all.iter().all(|x| x.is_contiguous() && !x.track_op());
    plain && others.iter().all(|other| !share_memory(x, other))
}

/// Returns whether two tensors are views of one storage, which cannot be read while it is written.
fn share_memory(a: &Tensor, b: &Tensor) -> bool {
    std::ptr::eq(&*a.storage_and_layout().0, &*b.storage_and_layout().0)
}

/// Calls `work` to change the values of `x`, given the values of `others`, none of which may share the memory of `x`.
pub(super) fn overwrite(x: Tensor, others: &[&Tensor], work: impl Fn(&mut [f32], &[&[f32]])) -> Result<Tensor> {
    let guards: Vec<_> = others.iter().map(|other| other.storage_and_layout()).collect();
    let values = guards
        .iter()
        .map(|(storage, layout)| match &**storage {
            Storage::Cpu(storage) => slice("overwrite", storage, layout),
            other => bail!("overwrite: expected a tensor on the CPU, got one on {:?}", other.device().location()),
        })
        .collect::<Result<Vec<_>>>()?;
    x.inplace_op1(&Overwrite(|x: &mut [f32]| work(x, &values)))?;
    drop(guards);
    Ok(x)
}

struct Overwrite<F>(F);

impl<F: Fn(&mut [f32])> InplaceOp1 for Overwrite<F> {
    fn name(&self) -> &'static str {
        "overwrite"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let element = storage.dtype();
        match (storage, layout.contiguous_offsets()) {
            (CpuStorage::F32(values), Some((start, end))) => {
                (self.0)(&mut values[start..end]);
                Ok(())
            }
            _ => bail!(
                "overwrite: expected a contiguous tensor of f32, got {element:?} with strides {:?}",
                layout.stride()
            ),
        }
    }
}
