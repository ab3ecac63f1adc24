//! Gradients in single precision, where rounding decides nothing.
//!
//! A ReLU and a pool decide by comparing. Of a million numbers some lie so near to the border that rounding decides for them, and
//! each of those moves gradients by more than all other rounding together. Here a U-Net is put together from the engine's layers
//! so that it takes the decisions of double precision: what is left is the engine's own error.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;
use freetumor::nn::layers::{Conv3d, ConvTranspose3d, Normalize, channels_first, channels_last};
use freetumor::nn::ops::{self, Activation, NormScope};

use super::networks::{filled_as, gradients, named};

/// Decisions in the order in which they are taken.
enum Decisions {
    /// Takes its own and keeps them.
    Record(Vec<Tensor>),
    /// Takes those that were kept, and counts how many of its own would have been others.
    Follow { kept: std::vec::IntoIter<Tensor>, others: f64 },
}

impl Decisions {
    /// 1 where it is decided for a number, 0 elsewhere.
    fn take(&mut self, own: Tensor, dtype: DType) -> Result<Tensor> {
        match self {
            Self::Record(kept) => {
                kept.push(own.clone());
                own.to_dtype(dtype)
            }
            Self::Follow { kept, others } => {
                let decided = kept.next().expect("as many decisions as were kept");
                *others += own.ne(&decided)?.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
                decided.to_dtype(dtype)
            }
        }
    }

    fn relu(&mut self, x: &Tensor) -> Result<Tensor> {
        x * self.take(x.detach().gt(0.0)?, x.dtype())?
    }

    /// The largest of each block of eight.
    fn pool(&mut self, x: &Tensor) -> Result<Tensor> {
        let values = x.detach();
        let mut largest = ops::max_pool3d(&values)?;
        for axis in 1..4 {
            largest = Tensor::stack(&[&largest, &largest], axis + 1)?.flatten(axis, axis + 1)?;
        }
        // Among zeros it does not matter: no gradient passes the ReLU before.
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
        for (place, pair) in channels.windows(2).enumerate() {
            let vb = vb.pp("ops").pp(place);
            let conv = Conv3d::new(vb.pp("conv1"), pair[0], pair[1], 3, true)?;
            let norm = Normalize::new(vb.pp("bn1"), pair[1], NormScope::Batch, Activation::None)?;
            x = self.relu(&norm.forward(conv.forward(&x)?)?)?;
        }
        Ok(x)
    }

    /// The published network.
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
fn unet3d_has_the_gradients_of_the_reference_where_rounding_decides_nothing() {
    let exactly = |x: &Tensor| -> Result<Vec<Tensor>> {
        let mut decisions = Decisions::Record(Vec::new());
        decisions.unet3d(&filled_as(DType::F64), &x.to_dtype(DType::F64)?)?;
        match decisions {
            Decisions::Record(kept) => Ok(kept),
            Decisions::Follow { .. } => unreachable!(),
        }
    };
    let forward = |vb: &VarBuilder, x: &Tensor| -> Result<Tensor> {
        let mut decisions = Decisions::Follow { kept: exactly(x)?.into_iter(), others: 0.0 };
        let y = decisions.unet3d(vb, x)?;
        if let Decisions::Follow { mut kept, others } = decisions {
            eprintln!("rounding would have decided {others} times");
            assert!(kept.next().is_none() && others < 100.0);
        }
        Ok(y)
    };
    gradients("unet3d", DType::F32, 1e-4, Ok, forward);
}

#[test]
fn decisions_are_taken_in_the_order_in_which_they_were_kept() {
    let x = named("decisions", &[1, 2, 2, 4, 1], -1.0);
    let mut own = Decisions::Record(Vec::new());
    let (relu, pool) = (own.relu(&x).unwrap(), own.pool(&x).unwrap());
    let zeros = Tensor::zeros_like(&pool).unwrap();
    let difference = |a: &Tensor, b: &Tensor| super::networks::largest_difference(a, b);
    assert_eq!(difference(&relu, &ops::leaky_relu(&x, 0.0).unwrap()), 0.0);
    assert_eq!(difference(&pool, &ops::max_pool3d(&x).unwrap().maximum(&zeros).unwrap()), 0.0);
    let Decisions::Record(kept) = own else { unreachable!() };
    let mut other = Decisions::Follow { kept: kept.into_iter(), others: 0.0 };
    let negated = x.neg().unwrap();
    assert_eq!(difference(&other.relu(&negated).unwrap(), &relu.neg().unwrap()), 0.0);
    assert!(matches!(other, Decisions::Follow { others, .. } if others == 16.0));
}
