//! The speed of the operators, compared with the speed of the memory.
//!
//! Gigabytes per second count the memory that an operator must read and write at least; the limit is a copy on all threads, measured in
//! the same run.
//!
//! ```text
//! cargo bench --bench nn_ops
//! ```

use std::hint::black_box;
use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor, Var};
use freetumor::nn::ops::{self, Activation, NormScope};
use rayon::prelude::*;

/// Returns the seconds of the fastest of several runs.
fn seconds(mut work: impl FnMut()) -> f64 {
    (0..7)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

fn numbers(shape: &[usize]) -> Tensor {
    Tensor::randn(0f32, 1., shape, &Device::Cpu).expect("a tensor")
}

/// Prints the speed of a forward and a backward pass, which read and write at least `forward` and `backward` values for each value of
/// the input. The backward pass includes candle's addition of each gradient to zeros.
fn print_speed(
    name: &str,
    shapes: &[&[usize]],
    [forward, backward]: [f64; 2],
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
) {
    let inputs: Vec<Tensor> = shapes.iter().map(|shape| numbers(shape)).collect();
    let bytes = inputs[0].elem_count() as f64 * 4.;
    let time = seconds(|| drop(black_box(f(&inputs).expect("an output"))));
    println!("{name:<42} forward  {:8.2} ms {:6.1} GB/s", time * 1e3, bytes * forward / time / 1e9);
    let vars: Vec<Tensor> = inputs.iter().map(|x| Var::from_tensor(x).expect("a variable").into_inner()).collect();
    let y = f(&vars).expect("an output");
    let time = seconds(|| drop(black_box(y.backward().expect("gradients"))));
    println!("{name:<42} backward {:8.2} ms {:6.1} GB/s", time * 1e3, bytes * backward / time / 1e9);
}

fn main() {
    let source = vec![1f32; 56_623_104];
    let time = seconds(|| {
        let mut copy = vec![0f32; source.len()];
        copy.par_chunks_mut(1 << 15).zip(source.par_chunks(1 << 15)).for_each(|(to, from)| to.copy_from_slice(from));
        black_box(&copy);
    });
    println!(
        "{:<42} copy     {:8.2} ms {:6.1} GB/s",
        "into new memory",
        time * 1e3,
        source.len() as f64 * 8. / time / 1e9
    );
    let mut copy = vec![1f32; source.len()];
    let time = seconds(|| {
        copy.par_chunks_mut(1 << 15).zip(source.par_chunks(1 << 15)).for_each(|(to, from)| to.copy_from_slice(from));
    });
    println!(
        "{:<42} copy     {:8.2} ms {:6.1} GB/s",
        "into mapped memory",
        time * 1e3,
        source.len() as f64 * 8. / time / 1e9
    );
    drop((source, copy));

    for channels in [64, 8] {
        let volume: &[usize] = &[1, 96, 96, 96, channels];
        let channel: &[usize] = &[channels];
        for scope in [NormScope::Batch, NormScope::Instance] {
            print_speed(
                &format!("normalize over {scope:?} + ReLU, {channels} channels"),
                &[volume, channel, channel],
                [3., 5.],
                |t| ops::normalize(&t[0], Some((&t[1], &t[2])), scope, 1e-5, Activation::LeakyRelu(0.)),
            );
        }
        print_speed(&format!("max_pool3d, {channels} channels"), &[volume], [1.125, 2.25], |t| ops::max_pool3d(&t[0]));
        let half: &[usize] = &[1, 48, 48, 48, channels];
        print_speed(&format!("upsample3d, {channels} channels"), &[half], [9., 9.], |t| ops::upsample3d(&t[0]));
        print_speed(&format!("leaky_relu, {channels} channels"), &[volume], [2., 3.], |t| ops::leaky_relu(&t[0], 0.01));
    }
    print_speed("softmax, 3 channels", &[&[1, 96, 96, 96, 3]], [2., 3.], |t| ops::softmax(&t[0]));
    print_speed("softmax, 7 channels", &[&[1, 96, 96, 96, 7]], [2., 3.], |t| ops::softmax(&t[0]));
    print_speed("layer_norm, 48 channels", &[&[343, 343, 48], &[48], &[48]], [2., 3.], |t| {
        ops::layer_norm(&t[0], &t[1], &t[2], 1e-5)
    });
    print_speed("layer_norm, 768 channels", &[&[2000, 768], &[768], &[768]], [2., 3.], |t| {
        ops::layer_norm(&t[0], &t[1], &t[2], 1e-5)
    });
    print_speed("gelu", &[&[343, 343, 192]], [2., 3.], |t| ops::gelu(&t[0]));

    println!("\nattention: GFLOP/s count the products alone, two forward and five backward");
    for (windows, heads, dim) in [(343, 3, 16), (64, 6, 16), (8, 12, 16), (1, 24, 16), (64, 3, 32), (343, 3, 4)] {
        let tokens = 343;
        let qkv = numbers(&[windows, tokens, 3, heads, dim]);
        let bias = numbers(&[heads, tokens, tokens]);
        let mask = Tensor::zeros((windows, tokens, tokens), DType::F32, &Device::Cpu).expect("a mask");
        let product = 2. * (windows * heads * tokens * tokens * dim) as f64;
        let (name, scale) = (format!("{windows} windows, {heads} heads, dimension {dim}"), 0.25);
        let time = seconds(|| drop(black_box(ops::attention_packed(&qkv, scale, Some(&bias), Some(&mask)))));
        println!("{name:<42} forward  {:8.2} ms {:6.1} GFLOP/s", time * 1e3, 2. * product / time / 1e9);
        let (qkv, bias) = (Var::from_tensor(&qkv).expect("a variable"), Var::from_tensor(&bias).expect("a variable"));
        let y = ops::attention_packed(&qkv, scale, Some(&bias), Some(&mask)).expect("an output");
        let loss = y.sum_all().expect("a loss");
        let time = seconds(|| drop(black_box(loss.backward())));
        println!("{name:<42} backward {:8.2} ms {:6.1} GFLOP/s", time * 1e3, 5. * product / time / 1e9);
    }
}
