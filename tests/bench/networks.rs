//! The speed of convolutions and whole networks, compared with limits of the processor.
//!
//! `cargo bench --bench networks` prints GFLOP/s for each shape of layer, counted as the plain algorithm's operations, and two limits
//! measured in the same run: a loop of fused multiply-adds, and a large matrix product of the crate `gemm`. Winograd convolutions
//! perform fewer operations than are counted, so they can exceed both. `-- layers` or `-- networks` runs one half.
//!
//! `-- serve` reads one command from each line and responds with JSON, for `tests/peers/networks.py`. Commands: `forward MODEL SIDE`,
//! `step MODEL SIDE WIDTH BATCH`, `write MODEL SIDE FILE`.

use std::hint::black_box;
use std::io::BufRead;
use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor};
use freetumor::nn::fill;
use freetumor::nn::kernel::{self, Accuracy, Class, Geometry};
use freetumor::nn::network::{Config, Model, Network};
use freetumor::nn::ops::NormScope;
use freetumor::nn::optimize::{Adam, AdamConfig};
use freetumor::nn::parameters::Variables;
use rayon::prelude::*;

/// Returns the seconds of the fastest of several runs that take about a second in total.
fn fastest(mut work: impl FnMut()) -> f64 {
    work();
    let (first, mut best) = (Instant::now(), f64::INFINITY);
    for run in 0..200 {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_secs_f64());
        if run > 0 && first.elapsed().as_secs_f64() > 1.0 {
            break;
        }
    }
    best
}

/// Computes independent chains of fused multiply-adds: enough to keep the processor busy.
#[inline(always)]
fn chains() -> f32 {
    // A flat array, so that the compiler uses plain vector loads: it loads nested arrays by gathering.
    let mut sums = [1.0f32; 12 * 16];
    for _ in 0..1_000_000 {
        for sum in &mut sums {
            *sum = sum.mul_add(0.999, 0.001);
        }
    }
    sums.iter().sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn wide_chains() -> f32 {
    chains()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn fused_chains() -> f32 {
    chains()
}

/// Returns the GFLOP/s of multiply-adds alone on all threads.
fn multiply_adds() -> f64 {
    let threads = rayon::current_num_threads();
    let seconds = fastest(|| {
        (0..threads).into_par_iter().with_max_len(1).for_each(|_| {
            let sum = match Class::detect() {
                // SAFETY: the processor has the instructions of its class.
                #[cfg(target_arch = "x86_64")]
                Class::Avx512 => unsafe { wide_chains() },
                // SAFETY: likewise.
                #[cfg(target_arch = "x86_64")]
                Class::Avx2 => unsafe { fused_chains() },
                _ => chains(),
            };
            black_box(sum);
        });
    });
    threads as f64 * 2.0 * 12.0 * 16.0 * 1e6 / seconds / 1e9
}

fn layers() -> Result<()> {
    let class = Class::detect();
    println!("{} on {} threads", class.name(), rayon::current_num_threads());
    println!("limit: multiply-adds alone      {:7.1} GFLOP/s", multiply_adds());
    let matrix = Tensor::rand(-1f32, 1.0, (2048, 2048), &Device::Cpu)?;
    let product = 2.0 * 2048f64.powi(3) / fastest(|| drop(black_box(matrix.matmul(&matrix)))) / 1e9;
    println!("limit: matrix product by gemm   {product:7.1} GFLOP/s\n");
    println!("convolutions of kernel 3, GFLOP/s   plain  trained  inferred   of input   of weight");
    let shapes = [
        (96, 1, 32),
        (96, 32, 64),
        (96, 192, 64),
        (96, 64, 64),
        (48, 64, 128),
        (48, 384, 128),
        (48, 128, 128),
        (24, 128, 256),
        (24, 768, 256),
        (12, 256, 512),
        (96, 48, 48),
        (32, 8, 8),
        (32, 24, 8),
        (16, 16, 16),
        (8, 32, 32),
    ];
    for (side, channels_in, channels_out) in shapes {
        let (kernel, stride, padding) = ([3; 3], [1; 3], [1; 3]);
        let g = Geometry { batch: 1, input: [side; 3], channels_in, channels_out, kernel, stride, padding };
        let x = fill::uniform("x", g.input_len(), -1.0, 1.0);
        let w = fill::uniform("w", g.weight_len(), -1.0, 1.0);
        let (mut y, mut dx, mut dw) = (vec![0.0; g.output_len()], vec![0.0; x.len()], vec![0.0; w.len()]);
        let speed = |seconds: f64| g.flops() / seconds / 1e9;
        let [plain, trained, inferred] = [Accuracy::Direct, Accuracy::Training, Accuracy::Inference]
            .map(|accuracy| speed(fastest(|| kernel::conv3d(class, accuracy, &g, &x, &w, None, &mut y))));
        let input = speed(fastest(|| {
            kernel::conv3d_input_gradient(class, Accuracy::Training, &g, &y, &w, &mut dx);
        }));
        let weight = speed(fastest(|| kernel::conv3d_weight_gradient(class, &g, &x, &y, &mut dw)));
        println!(
            "{side:>3}³ {channels_in:>4} → {channels_out:<4} {:>9.2} GFLOP {plain:8.1} {trained:8.1} {inferred:9.1} {input:10.1} {weight:11.1}",
            g.flops() / 1e9
        );
    }
    Ok(())
}

/// Returns the configuration of a network by its name; `narrow` is a 3-D U-Net with instance norm.
fn config(model: &str, width: Option<usize>) -> Result<Config> {
    let published = model.parse::<Model>().map(Model::published);
    let mut config = match model {
        "narrow" => Config { width: 4, classes: 2, norm: NormScope::Instance, ..Model::UNet3D.published() },
        _ => published?,
    };
    config.width = width.unwrap_or(config.width);
    Ok(config)
}

fn input(batch: usize, side: usize) -> Result<Tensor> {
    let values = fill::uniform(&format!("bench.{batch}.{side}"), batch * side.pow(3), 0.0, 1.0);
    Tensor::from_vec(values, (batch, 1, side, side, side), &Device::Cpu)
}

/// A network for inference, with its input.
struct Inference(Network, Tensor);

impl Inference {
    fn new(model: &str, side: usize) -> Result<Self> {
        let network = Network::new(fill::builder("", DType::F32, &Device::Cpu), &config(model, None)?)?;
        Ok(Self(network, input(1, side)?))
    }

    fn run(&self) -> Result<Tensor> {
        self.0.forward(&self.1)
    }
}

/// A network that is trained to return zeros.
struct Training {
    network: Network,
    variables: Variables,
    adam: Adam,
    x: Tensor,
}

impl Training {
    fn new(model: &str, side: usize, width: Option<usize>, batch: usize) -> Result<Self> {
        let variables = Variables::new(fill::builder("", DType::F32, &Device::Cpu));
        let network = Network::new(variables.builder(), &config(model, width)?)?;
        Ok(Self { network, variables, adam: Adam::new(AdamConfig::default()), x: input(batch, side)? })
    }

    fn step(&mut self) -> Result<()> {
        let loss = self.network.forward(&self.x)?.sqr()?.mean_all()?;
        let gradients = loss.backward()?;
        self.adam.step(&self.variables.all(), &gradients, 1e-4)
    }
}

fn networks() -> Result<()> {
    for (model, side) in [("unet3d", 96), ("swin_unetr", 96)] {
        let inference = Inference::new(model, side)?;
        let seconds = fastest(|| drop(black_box(inference.run().expect("logits"))));
        println!("{model:<12} {side}³ forward                 {seconds:8.3} s");
    }
    for (model, side, width, batch) in [("unet3d", 64, None, 1), ("narrow", 32, Some(4), 2), ("narrow", 32, Some(8), 2)]
    {
        let mut training = Training::new(model, side, width, batch)?;
        let seconds = fastest(|| training.step().expect("a step"));
        let width = width.map_or(String::new(), |width| format!(", width {width}"));
        println!("{:<12} {side}³ step of batch {batch}{width:<10}  {seconds:8.4} s", model);
    }
    Ok(())
}

/// Returns the peak memory of the process in bytes.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Executes one command; its network is cached for the next equal command.
fn execute(line: &str, cache: &mut Option<(String, Served)>) -> Result<String> {
    let arguments: Vec<&str> = line.split_whitespace().collect();
    let number = |at: usize| arguments.get(at).and_then(|argument| argument.parse::<usize>().ok());
    let fail = || candle_core::Error::Msg(format!("not a command: {line}"));
    let (verb, model, side) = match arguments[..] {
        [verb, model, ..] => (verb, model, number(2).ok_or_else(fail)?),
        _ => return Err(fail()),
    };
    if cache.as_ref().is_none_or(|(cached, _)| cached != line) {
        let served = match verb {
            "forward" | "write" => Served::Inference(Inference::new(model, side)?),
            "step" => Served::Training(Box::new(Training::new(model, side, number(3), number(4).unwrap_or(1))?)),
            _ => return Err(fail()),
        };
        *cache = Some((line.to_owned(), served));
    }
    let start = Instant::now();
    match cache.as_mut().map(|(_, served)| served) {
        Some(Served::Inference(inference)) => {
            let y = inference.run()?;
            if let ("write", Some(path)) = (verb, arguments.get(3)) {
                y.save_safetensors("output", path)?;
            }
        }
        Some(Served::Training(training)) => training.step()?,
        None => return Err(fail()),
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(serde_json::json!({ "seconds": seconds, "peak_bytes": peak_bytes() }).to_string())
}

/// The network of a command.
enum Served {
    Inference(Inference),
    Training(Box<Training>),
}

fn main() -> Result<()> {
    kernel::prepare_process(1);
    let mode = std::env::args().skip(1).find(|argument| argument != "--bench").unwrap_or_default();
    match mode.as_str() {
        "serve" => {
            let mut cache = None;
            for line in std::io::stdin().lock().lines() {
                println!("{}", execute(&line?, &mut cache)?);
            }
            Ok(())
        }
        "layers" => layers(),
        "networks" => networks(),
        _ => layers().and_then(|()| networks()),
    }
}
