//! Convolution by gathered planes and matrix products.
//!
//! One kernel plane of the input, `ky · kz · c_in` numbers for each output voxel, is gathered at a time, in chunks under
//! a byte limit; the `kx` taps along x are views of the gathered planes, each multiplied by its part of the weight and
//! summed. The gradient of the input is the same correlation with the mirrored weight; the gradient of the weight
//! multiplies the gathered planes by the gradient of the output. Gathered planes are freed after their chunk.

use candle_core::{D, Result, Tensor};

use super::rows;

/// The maximum number of bytes of gathered planes in memory at a time.
pub(in crate::nn::ops) const GATHERED_BYTES: usize = 256 << 20;

/// The parameters of the correlation `y[t] = Σ_i w[i] · x[start + stride · t + i]` along each axis, where `x` is zero outside its range.
#[derive(Clone, Copy, Debug)]
pub(in crate::nn::ops) struct Correlation {
    pub kernel: [usize; 3],
    pub stride: [usize; 3],
    pub start: [isize; 3],
    pub out: [usize; 3],
}

/// A part of the output: ranges (first, count) of batch, x and y.
struct Chunk {
    batch: (usize, usize),
    x: (usize, usize),
    y: (usize, usize),
}

impl Correlation {
    fn is_pointwise(&self) -> bool {
        self.kernel == [1; 3] && self.stride == [1; 3] && self.start == [0; 3]
    }

    /// Returns the number of values along `axis` that `count` outputs read, rounded up to whole strides.
    fn reach(&self, axis: usize, count: usize) -> usize {
        let (kernel, stride) = (self.kernel[axis], self.stride[axis]);
        stride * ((kernel - 1) / stride + count)
    }

    /// Returns parts of the output whose gathered planes stay under `limit` bytes, if those of one row of voxels do.
    fn chunks(&self, batch: usize, channels: usize, size_of: usize, limit: usize) -> Vec<Chunk> {
        let [ox, oy, oz] = self.out;
        let row = oz * self.kernel[1] * self.kernel[2] * channels * size_of;
        let fits = |rows: usize| row.saturating_mul(rows) <= limit;
        let max_count =
            |count: usize, rows: &dyn Fn(usize) -> usize| (1..=count).rev().find(|&n| fits(rows(n))).unwrap_or(1);
        let ny = if fits(self.reach(0, 1) * oy) { oy } else { max_count(oy, &|n| self.reach(0, 1) * n) };
        let nx = if ny == oy { max_count(ox, &|n| self.reach(0, n) * oy) } else { 1 };
        let nb = if nx == ox { max_count(batch, &|n| n * self.reach(0, ox) * oy) } else { 1 };
        let parts = |count: usize, step: usize| {
            (0..count).step_by(step).map(move |first| (first, step.min(count - first))).collect::<Vec<_>>()
        };
        let mut chunks = Vec::new();
        for batch in parts(batch, nb) {
            for x in parts(ox, nx) {
                chunks.extend(parts(oy, ny).into_iter().map(|y| Chunk { batch, x, y }));
            }
        }
        chunks
    }

    /// Gathers the planes `[x, batch, y, z, ky · kz · channel]` that `chunk` reads.
    fn gather(&self, x: &Tensor, chunk: &Chunk) -> Result<Tensor> {
        let first = |axis: usize, at: usize| self.start[axis] + (self.stride[axis] * at) as isize;
        let x = x.narrow(0, chunk.batch.0, chunk.batch.1)?;
        let x = range(&x, 1, first(0, chunk.x.0), self.reach(0, chunk.x.1))?;
        let x = range(&x, 2, first(1, chunk.y.0), self.reach(1, chunk.y.1))?;
        let x = range(&x, 3, first(2, 0), self.reach(2, self.out[2]))?;
        let x = x.transpose(0, 1)?.contiguous()?;
        let x = self.unfold(&x, 3, 2, self.out[2])?;
        self.unfold(&x, 2, 1, chunk.y.1)
    }

    /// Concatenates the taps of the kernel along `axis` in the channels.
    fn unfold(&self, x: &Tensor, dim: usize, axis: usize, count: usize) -> Result<Tensor> {
        let (kernel, stride) = (self.kernel[axis], self.stride[axis]);
        let taps = (0..kernel).map(|i| tap(x, dim, i, count, stride)?.contiguous()).collect::<Result<Vec<_>>>()?;
        Tensor::cat(&taps, D::Minus1)
    }

    /// Returns tap `i` along x of gathered planes, as `[voxel, ky · kz · channel]`.
    fn plane(&self, planes: &Tensor, i: usize, chunk: &Chunk) -> Result<Tensor> {
        rows(&tap(planes, 0, i, chunk.x.1, self.stride[0])?.contiguous()?)
    }
}

/// Returns `count` values along `dim` at steps of `stride`, from `first` on: a view of the contiguous `x`.
fn tap(x: &Tensor, dim: usize, first: usize, count: usize, stride: usize) -> Result<Tensor> {
    if stride == 1 {
        return x.narrow(dim, first, count);
    }
    let mut dims = x.dims().to_vec();
    dims[dim] /= stride;
    dims.insert(dim + 1, stride);
    x.reshape(dims)?.narrow(dim, first / stride, count)?.narrow(dim + 1, first % stride, 1)?.squeeze(dim + 1)
}

/// Returns the values `start..start + len` along `dim`, zero outside `x`.
fn range(x: &Tensor, dim: usize, start: isize, len: usize) -> Result<Tensor> {
    let size = x.dim(dim)? as isize;
    let end = start + len as isize;
    let (from, to) = (start.clamp(0, size), end.clamp(0, size));
    if from >= to {
        let mut dims = x.dims().to_vec();
        dims[dim] = len;
        return Tensor::zeros(dims, x.dtype(), x.device());
    }
    x.narrow(dim, from as usize, (to - from) as usize)?.pad_with_zeros(
        dim,
        (from - start) as usize,
        (end - to) as usize,
    )
}

/// Reorders a weight `[c_out, c_in, kx, ky, kz]` to `[kx, ky · kz · c_in, c_out]`.
fn pack(weight: &Tensor) -> Result<Tensor> {
    let (c_out, c_in, kx, ky, kz) = weight.dims5()?;
    weight.permute((2, 3, 4, 1, 0))?.contiguous()?.reshape((kx, ky * kz * c_in, c_out))
}

/// Correlates `x` with `weight`, `[c_out, c_in, kx, ky, kz]`.
pub(in crate::nn::ops) fn correlate(x: &Tensor, weight: &Tensor, by: &Correlation, limit: usize) -> Result<Tensor> {
    let (batch, _, _, _, c_in) = x.dims5()?;
    let c_out = weight.dim(0)?;
    let packed = pack(weight)?;
    let [ox, oy, oz] = by.out;
    if by.is_pointwise() && x.dims()[1..4] == by.out {
        return rows(x)?.matmul(&packed.squeeze(0)?)?.reshape((batch, ox, oy, oz, c_out));
    }
    let mut slabs: Vec<Tensor> = Vec::new();
    let mut strips: Vec<Tensor> = Vec::new();
    for chunk in by.chunks(batch, c_in, x.dtype().size_in_bytes(), limit) {
        let planes = by.gather(x, &chunk)?;
        let mut y = by.plane(&planes, 0, &chunk)?.matmul(&packed.get(0)?)?;
        for i in 1..by.kernel[0] {
            y = (y + by.plane(&planes, i, &chunk)?.matmul(&packed.get(i)?)?)?;
        }
        let (nb, nx, ny) = (chunk.batch.1, chunk.x.1, chunk.y.1);
        let y = y.reshape((nx, nb, ny, oz, c_out))?.transpose(0, 1)?.contiguous()?;
        strips.push(y.reshape((nb * nx, ny, oz, c_out))?);
        if chunk.y.0 + ny == oy {
            slabs.push(Tensor::cat(&strips, 1)?);
            strips.clear();
        }
    }
    Tensor::cat(&slabs, 0)?.reshape((batch, ox, oy, oz, c_out))
}

/// Computes the gradient of the input, of sizes `size`, from the gradient of the output.
pub(in crate::nn::ops) fn grad_input(
    grad: &Tensor,
    weight: &Tensor,
    by: &Correlation,
    size: [usize; 3],
    limit: usize,
) -> Result<Tensor> {
    let mut spread = grad.clone();
    for axis in 0..3 {
        spread = dilate(&spread, axis + 1, by.stride[axis])?;
    }
    let mirrored = weight.flip(&[2, 3, 4])?.transpose(0, 1)?.contiguous()?;
    let start = std::array::from_fn(|axis| -by.start[axis] - (by.kernel[axis] as isize - 1));
    correlate(&spread, &mirrored, &Correlation { kernel: by.kernel, stride: [1; 3], start, out: size }, limit)
}

/// Inserts `stride - 1` zeros after each value along `dim`.
fn dilate(x: &Tensor, dim: usize, stride: usize) -> Result<Tensor> {
    if stride == 1 {
        return Ok(x.clone());
    }
    let mut dims = x.dims().to_vec();
    dims[dim] *= stride;
    x.unsqueeze(dim + 1)?.pad_with_zeros(dim + 1, 0, stride - 1)?.reshape(dims)
}

/// Computes the gradient of the weight from the gradient of the output.
pub(in crate::nn::ops) fn grad_weight(x: &Tensor, grad: &Tensor, by: &Correlation, limit: usize) -> Result<Tensor> {
    let (batch, _, _, _, c_in) = x.dims5()?;
    let c_out = grad.dim(4)?;
    let [kx, ky, kz] = by.kernel;
    let mut sums: Vec<Option<Tensor>> = vec![None; kx];
    for chunk in by.chunks(batch, c_in, x.dtype().size_in_bytes(), limit) {
        let planes = by.gather(x, &chunk)?;
        let part = grad.narrow(0, chunk.batch.0, chunk.batch.1)?.narrow(1, chunk.x.0, chunk.x.1)?;
        let part = rows(&part.narrow(2, chunk.y.0, chunk.y.1)?.transpose(0, 1)?.contiguous()?)?;
        for (i, sum) in sums.iter_mut().enumerate() {
            let product = by.plane(&planes, i, &chunk)?.t()?.matmul(&part)?;
            *sum = Some(match sum.take() {
                Some(sum) => (sum + product)?,
                None => product,
            });
        }
    }
    let taps: Vec<Tensor> = sums.into_iter().flatten().collect();
    Tensor::stack(&taps, 0)?.reshape((kx, ky, kz, c_in, c_out))?.permute((4, 3, 0, 1, 2))?.contiguous()
}

/// Reorders `[batch, x, y, z, 2·2·2·c]` to `[batch, 2x, 2y, 2z, c]`.
pub(in crate::nn::ops) fn interleave(x: &Tensor) -> Result<Tensor> {
    let (b, nx, ny, nz, c) = x.dims5()?;
    let c = c / 8;
    let x = x.reshape(&[b * nx, ny, nz, 2, 2, 2 * c])?.permute(&[0, 3, 1, 4, 2, 5][..])?.contiguous()?;
    x.reshape((b, 2 * nx, 2 * ny, 2 * nz, c))
}

/// Reorders `[batch, 2x, 2y, 2z, c]` to `[batch, x, y, z, 2·2·2·c]`.
pub(in crate::nn::ops) fn uninterleave(x: &Tensor) -> Result<Tensor> {
    let (b, nx, ny, nz, c) = x.dims5()?;
    let (nx, ny, nz) = (nx / 2, ny / 2, nz / 2);
    let x = x.reshape(&[b * nx, 2, ny, 2, nz, 2 * c])?.permute(&[0, 2, 4, 1, 3, 5][..])?.contiguous()?;
    x.reshape((b, nx, ny, nz, 8 * c))
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Result, Tensor};

    use super::*;

    #[test]
    fn values_and_gradients_do_not_depend_on_chunk_size() -> Result<()> {
        let by = Correlation { kernel: [3, 2, 3], stride: [2, 1, 2], start: [-1, 0, -2], out: [4, 4, 5] };
        let x = Tensor::randn(0f64, 1., (3, 7, 5, 8, 2), &Device::Cpu)?;
        let weight = Tensor::randn(0f64, 1., (4, 2, 3, 2, 3), &Device::Cpu)?;
        let run = |limit: usize| -> Result<[Tensor; 3]> {
            let y = correlate(&x, &weight, &by, limit)?;
            let x_grad = grad_input(&y, &weight, &by, [7, 5, 8], limit)?;
            Ok([grad_weight(&x, &y, &by, limit)?, x_grad, y])
        };
        let whole = run(usize::MAX)?;
        let mut counts = Vec::new();
        for limit in [1, 4_000, 8_000, 12_000, 20_000, 40_000] {
            for (part, whole) in run(limit)?.iter().zip(&whole) {
                let error = (part - whole)?.abs()?.max_all()?.to_scalar::<f64>()?;
                assert!(error < 1e-11, "limit {limit}: {error}");
            }
            counts.push(by.chunks(3, 2, 8, limit).len());
        }
        assert_eq!(counts, [48, 24, 12, 6, 3, 2]);
        Ok(())
    }

    #[test]
    fn gathered_planes_stay_under_the_limit_if_one_row_does() -> Result<()> {
        let by = Correlation { kernel: [3; 3], stride: [1; 3], start: [-1; 3], out: [6, 5, 4] };
        let x = Tensor::zeros((2, 6, 5, 4, 3), candle_core::DType::F32, &Device::Cpu)?;
        for limit in [4_000, 10_000, 50_000, 200_000] {
            for chunk in by.chunks(2, 3, 4, limit) {
                assert!(by.gather(&x, &chunk)?.elem_count() * 4 <= limit);
            }
        }
        Ok(())
    }
}
