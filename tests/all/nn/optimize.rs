//! Adam compared with PyTorch's.

use candle_core::{Device, Result, Tensor, Var};
use freetumor::nn::optimize::{Adam, AdamConfig};
use serde_json::Value;

use crate::common::shared;

/// Returns the parameters after each step of minimizing the reference's function of four numbers. `portable` selects the implementation
/// for other devices.
fn minimize(config: AdamConfig, scale: impl Fn(usize) -> f64, portable: bool) -> Result<Vec<Vec<f64>>> {
    let dtype = if portable { candle_core::DType::F64 } else { candle_core::DType::F32 };
    let w = Var::from_tensor(&Tensor::new(&[1f64, -2.0, 0.5, 3.0], &Device::Cpu)?.to_dtype(dtype)?)?;
    let parameters = vec![("w".to_owned(), w.clone())];
    let mut adam = Adam::new(config);
    let mut path = Vec::new();
    for step in 0..20 {
        // The gradient of (Σ w²) · s + Σ sin 5w, or of (Σ w² + Σ sin 5w) · s for the fading function.
        let gradients = match config.betas[0] == 0.9 && config.betas[1] == 0.9 {
            true => ((w.sqr()?.sum_all()? + (w.as_tensor() * 5.0)?.sin()?.sum_all()?)? * scale(step))?.backward()?,
            false => ((w.sqr()?.sum_all()? * scale(step))? + (w.as_tensor() * 5.0)?.sin()?.sum_all()?)?.backward()?,
        };
        adam.step(&parameters, &gradients, 1e-2)?;
        path.push(w.to_dtype(candle_core::DType::F64)?.to_vec1()?);
    }
    Ok(path)
}

#[test]
fn adam_steps_equal_pytorch() -> Result<()> {
    let Some(path) = shared("golden/optimisers.json") else { return Ok(()) };
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let plain = AdamConfig { betas: [0.0, 0.999], ..AdamConfig::default() };
    let amsgrad = AdamConfig { amsgrad: true, weight_decay: 1e-2, ..AdamConfig::default() };
    let fading = AdamConfig { betas: [0.9, 0.9], ..amsgrad };
    let rising = |step: usize| (1 + step % 3) as f64;
    let falling = |step: usize| if step < 5 { 1.0 } else { 0.05 };
    for (name, config, scale) in [
        ("adam_beta1_0", plain, &rising as &dyn Fn(usize) -> f64),
        ("adamw_amsgrad", amsgrad, &rising),
        ("adamw_amsgrad_fading", fading, &falling),
    ] {
        for portable in [false, true] {
            let path = minimize(config, scale, portable)?;
            for (step, (got, expected)) in path.iter().zip(golden[name].as_array().unwrap()).enumerate() {
                for (got, expected) in got.iter().zip(expected.as_array().unwrap()) {
                    let expected = expected.as_f64().unwrap();
                    assert!((got - expected).abs() < 5e-6, "{name}, step {step}: {got}, PyTorch {expected}");
                }
            }
        }
    }
    Ok(())
}
