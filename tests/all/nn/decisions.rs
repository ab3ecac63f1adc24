//! Gradients in single precision with the comparisons of double precision.
//!
//! ReLU and pooling compare numbers. Of a million numbers, some are so close to the threshold that rounding changes the result of a
//! comparison, and each such change moves gradients by more than all other rounding errors together. Here a U-Net is composed of the
//! crate's layers so that it uses the comparisons of double precision: the remaining error is that of the layers.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;
use freetumor::nn::layers::{Conv3d, ConvTranspose3d, NormLayer, channels_first, channels_last};
use freetumor::nn::ops::{self, Activation, NormScope};

use super::networks::{filled_as, gradients, named};

/// The results of comparisons, in their order.
enum Decisions {
    /// Records the results of the network's comparisons.
    Record(Vec<Tensor>),
    /// Uses recorded results, and counts how many results of the network's comparisons differ from them.
    Replay { recorded: std::vec::IntoIter<Tensor>, different: f64 },
}

impl Decisions {
    /// Returns 1 where the comparison holds, 0 elsewhere.
    fn take(&mut self, own: Tensor, dtype: DType) -> Result<Tensor> {
        match self {
            Self::Record(recorded) => {
                recorded.push(own.clone());
                own.to_dtype(dtype)
            }
            Self::Replay { recorded, different } => {
                let decided = recorded.next().expect("as many decisions as were recorded");
                *different += own.ne(&decided)?.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
                decided.to_dtype(dtype)
            }
        }
    }

    fn relu(&mut self, x: &Tensor) -> Result<Tensor> {
        x * self.take(x.detach().gt(0.0)?, x.dtype())?
    }

    /// Returns the maximum of each block of eight.
    fn pool(&mut self, x: &Tensor) -> Result<Tensor> {
        let values = x.detach();
        let mut largest = ops::max_pool3d(&values)?;
        for axis in 1..4 {
            largest = Tensor::stack(&[&largest, &largest], axis + 1)?.flatten(axis, axis + 1)?;
        }
        // Blocks of zeros do not matter: no gradient passes the preceding ReLU.
        let decided = values.eq(&largest)?.mul(&values.gt(0.0)?)?;
        let mut sum = (x * self.take(decided, x.dtype())?)?;
        for axis in 1..4 {
            let mut split = sum.dims().to_vec();
            split[axis] /= 2;
            split.insert(axis + 1, 2);
            sum = sum.reshape(split)?.sum(axis + 1)?;
        }
        Ok(sum)
    }

    fn level(&mut self, vb: &VarBuilder, x: &Tensor, channels: [usize; 3]) -> Result<Tensor> {
        let mut x = x.clone();
        for (index, pair) in channels.windows(2).enumerate() {
            let vb = vb.pp("ops").pp(index);
            let conv = Conv3d::new(vb.pp("conv1"), pair[0], pair[1], 3, true)?;
            let norm = NormLayer::new(vb.pp("bn1"), pair[1], NormScope::Batch, Activation::None)?;
            x = self.relu(&norm.forward(conv.forward(&x)?)?)?;
        }
        Ok(x)
    }

    /// Computes the published network.
    fn unet3d(&mut self, vb: &VarBuilder, x: &Tensor) -> Result<Tensor> {
        let mut x = channels_last(x, "unet3d", 1, 8)?;
        let mut skips = Vec::new();
        for (depth, channels) in [[1, 32, 64], [64, 64, 128], [128, 128, 256], [256, 256, 512]].into_iter().enumerate()
        {
            if depth > 0 {
                let pooled = self.pool(&x)?;
                skips.push(std::mem::replace(&mut x, pooled));
            }
            x = self.level(&vb.pp(format!("down_tr{}", channels[2])), &x, channels)?;
        }
        for (features, skip) in [256, 128, 64].into_iter().zip(skips.into_iter().rev()) {
            let vb = vb.pp(format!("up_tr{features}"));
            let doubled = ConvTranspose3d::new(vb.pp("up_conv"), 2 * features, 2 * features, true)?.forward(&x)?;
            x = self.level(&vb, &ops::concat(&doubled, &skip)?, [3 * features, features, features])?;
        }
        channels_first(&Conv3d::new(vb.pp("out_tr").pp("final_conv"), 64, 3, 1, true)?.forward(&x)?)
    }
}

#[test]
fn unet3d_gradients_equal_the_reference_with_comparisons_of_double_precision() {
    let record = |x: &Tensor| -> Result<Vec<Tensor>> {
        let mut decisions = Decisions::Record(Vec::new());
        decisions.unet3d(&filled_as(DType::F64), &x.to_dtype(DType::F64)?)?;
        match decisions {
            Decisions::Record(recorded) => Ok(recorded),
            Decisions::Replay { .. } => unreachable!(),
        }
    };
    let forward = |vb: &VarBuilder, x: &Tensor| -> Result<Tensor> {
        let mut decisions = Decisions::Replay { recorded: record(x)?.into_iter(), different: 0.0 };
        let y = decisions.unet3d(vb, x)?;
        if let Decisions::Replay { mut recorded, different } = decisions {
            eprintln!("rounding changed {different} comparisons");
            assert!(recorded.next().is_none() && different < 100.0);
        }
        Ok(y)
    };
    gradients("unet3d", DType::F32, 1e-4, Ok, forward);
}

#[test]
fn decisions_are_replayed_in_recorded_order() {
    let x = named("decisions", &[1, 2, 2, 4, 1], -1.0);
    let mut own = Decisions::Record(Vec::new());
    let (relu, pool) = (own.relu(&x).unwrap(), own.pool(&x).unwrap());
    let zeros = Tensor::zeros_like(&pool).unwrap();
    let difference = |a: &Tensor, b: &Tensor| super::networks::largest_difference(a, b);
    assert_eq!(difference(&relu, &ops::leaky_relu(&x, 0.0).unwrap()), 0.0);
    assert_eq!(difference(&pool, &ops::max_pool3d(&x).unwrap().maximum(&zeros).unwrap()), 0.0);
    let Decisions::Record(recorded) = own else { unreachable!() };
    let mut replay = Decisions::Replay { recorded: recorded.into_iter(), different: 0.0 };
    let negated = x.neg().unwrap();
    assert_eq!(difference(&replay.relu(&negated).unwrap(), &relu.neg().unwrap()), 0.0);
    assert!(matches!(replay, Decisions::Replay { different, .. } if different == 16.0));
}
