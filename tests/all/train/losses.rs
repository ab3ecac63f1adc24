//! Losses and schedules compared with the reference implementation.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use freetumor::nn::weights::read;
use freetumor::train::losses::{ClassSet, Logits, Loss, dice_ce, discriminator_loss, found_fraction, linear_loss};
use freetumor::train::schedule::{RateCurve, Schedule, ScheduleConfig};
use freetumor::train::{REAL, SYNTHETIC};

use crate::common::shared;

struct Golden(BTreeMap<String, Tensor>);

impl Golden {
    fn open() -> Option<Self> {
        Some(Self(read(&shared("golden/losses.safetensors")?, &Device::Cpu).unwrap()))
    }

    fn values(&self, name: &str) -> Vec<f32> {
        self.0[name].flatten_all().unwrap().to_vec1().unwrap()
    }

    fn labels(&self, name: &str) -> Vec<u8> {
        self.values(name).into_iter().map(|value| value as u8).collect()
    }

    #[track_caller]
    fn assert_equal(&self, name: &str, loss: &Loss) {
        let expected = self.values(name)[0];
        assert!((loss.value - f64::from(expected)).abs() < 2e-6, "{name}: {} instead of {expected}", loss.value);
        let expected = self.values(&format!("{name}.grad"));
        let largest = expected.iter().fold(0f32, |max, value| max.max(value.abs()));
        for (at, (got, expected)) in loss.gradient.iter().zip(&expected).enumerate() {
            assert!((got - expected).abs() <= 1e-5 * largest.max(1e-6), "{name}, {at}: {got}, expected {expected}");
        }
        assert_eq!(loss.gradient.len(), expected.len());
    }
}

#[test]
fn linear_and_discriminator_losses_equal_reference() {
    let Some(golden) = Golden::open() else { return };
    for case in ["usual", "few", "no_real"] {
        let labels = golden.labels(&format!("{case}.label"));
        let (d, s) = (
            golden.values(&format!("{case}.discriminator_logits")),
            golden.values(&format!("{case}.segmentor_logits")),
        );
        let (d, s) = (Logits::new(&d, 2, 3), Logits::new(&s, 2, 7));
        let (real, tumors) = ([ClassSet::of([1]); 2], [ClassSet::of([2, 4, 6]); 2]);
        golden.assert_equal(&format!("{case}.generator_adversarial"), &linear_loss(&d, &labels, SYNTHETIC, &real));
        golden.assert_equal(&format!("{case}.segmentor"), &linear_loss(&s, &labels, SYNTHETIC, &tumors));
        golden.assert_equal(&format!("{case}.discriminator"), &discriminator_loss(&d, &labels));
        let found = found_fraction(&s, &labels, SYNTHETIC, &tumors);
        for (found, expected) in found.iter().zip(golden.values(&format!("{case}.found_fraction_per_sample"))) {
            assert!((found.unwrap() - f64::from(expected)).abs() < 1e-6, "{case}: {found:?}, expected {expected}");
        }
        assert_eq!(labels.contains(&REAL), case != "no_real");
    }
}

#[test]
fn dice_ce_equals_monai() {
    let Some(golden) = Golden::open() else { return };
    for case in ["usual", "rare", "absent_class", "background_only"] {
        let logits = golden.values(&format!("dice_ce.{case}.logits"));
        let target = golden.labels(&format!("dice_ce.{case}.target"));
        golden.assert_equal(&format!("dice_ce.{case}"), &dice_ce(&Logits::new(&logits, 2, 3), &target).unwrap());
    }
}

#[test]
fn losses_do_not_depend_on_threads() {
    let Some(golden) = Golden::open() else { return };
    let logits = golden.values("dice_ce.usual.logits");
    let target = golden.labels("dice_ce.usual.target");
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| dice_ce(&Logits::new(&logits, 2, 3), &target).unwrap())
    };
    assert_eq!(on(1), on(3));
}

#[test]
fn reference_schedule_equals_published_schedule() {
    let Some(path) = shared("golden/optimisers.json") else { return };
    let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let config = ScheduleConfig { course: RateCurve::Reference, warmup_steps: 5, final_share: 0.0 };
    let schedule = Schedule::new(config, 3e-4, 40);
    let cosine = Schedule::new(ScheduleConfig { course: RateCurve::Cosine, ..config }, 3e-4, 40);
    for (step, expected) in golden["warmup_cosine"].as_array().unwrap().iter().enumerate() {
        let expected = expected.as_f64().unwrap();
        assert!((schedule.rate(step as u64) - expected).abs() < 1e-16, "step {step}");
        assert!(step < 5 || (cosine.rate(step as u64) - expected).abs() < 1e-16, "step {step}");
    }
    assert!(cosine.rate(0) > 0.0);
}
