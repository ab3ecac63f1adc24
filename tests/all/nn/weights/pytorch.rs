//! Checkpoints that PyTorch writes.

use std::collections::BTreeMap;
use std::process::Command;

use candle_core::{DType, Device, Tensor};
use freetumor::nn::weights::{NetworkPart, fit, read, read_checkpoint};

use super::builder::{Entry, Pickle, checkpoint, entries, floats, zip};
use crate::common::shared;

/// Writes every kind of checkpoint that the test below reads.
const SCRIPT: &str = r#"
import sys, collections, torch, numpy as np
out = sys.argv[1]
base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4) / 8
tied = torch.nn.Parameter(base.clone())
class Odd(torch.Tensor): pass
odd = torch.ones(2).as_subclass(Odd); odd.note = "attribute"
state = collections.OrderedDict(
    f32=base, f64=base.double(), f16=base.half(), bf16=base.bfloat16(), i64=(base * 8).long(), i32=(base * 8).int(),
    i16=(base * 8).short(), i8=(base * 8).to(torch.int8), u8=(base * 8).byte(), bool=base > 1, scalar=torch.tensor(2.5),
    empty=torch.zeros(0, 3), transposed=base.transpose(0, 2), row=base[1], column=base[:, 1, 2], expanded=base[:1].expand(3, 3, 4),
    parameter=tied, tied=tied, subclass=odd, sized=torch.zeros(torch.Size([2])))
wrapped = {"epoch": 3, "metric": np.float64(0.5), "when": np.arange(3), "args": {"lr": 1e-3, "names": {"a", "b"}, "size": torch.Size([1, 2])},
           "dtype": torch.float32, "device": torch.device("cpu"), "big": 1 << 100, "bytes": b"abc", "state_dict": state}
for protocol in (2, 3, 4, 5):
    torch.save(wrapped, f"{out}/wrapped{protocol}.pt", pickle_protocol=protocol)
torch.save(state, f"{out}/top.pt")
torch.save({"model": {"state_dict": state}, "ema": {"f32": torch.zeros(1)}}, f"{out}/nested.pt")
torch.save({"network_weights": state, "optimizer_state": {"state": {0: {"m": base}}}}, f"{out}/nnunet.pt")
torch.save({"generator": {"bias": base[0, 0]}, "discriminator": {"bias": base[0, 1]}, "optimizer": {"state": {}}}, f"{out}/parts.pt")
net = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 3), torch.nn.BatchNorm3d(2))
torch.save(net, f"{out}/module.pt")
torch.jit.script(net).save(f"{out}/script.pt")
torch.save(net.state_dict(), f"{out}/batchnorm.pt")
for name, kind in (("quantized", lambda: torch.quantize_per_tensor(base, 0.1, 0, torch.qint8)), ("sparse", lambda: base.to_sparse())):
    torch.save({"w": torch.ones(1), "bad": kind()}, f"{out}/{name}.pt")
torch.save({"w": torch.ones(2, dtype=torch.complex64)}, f"{out}/complex.pt")
torch.save({"w": torch.ones(2, dtype=torch.uint16), "v": torch.ones(1)}, f"{out}/uint16.pt")
"#;

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn golden_checkpoint_equals_its_safetensors() {
    let Some(folder) = shared("golden") else { return };
    let checkpoint = read_checkpoint(&folder.join("checkpoint.pt"), &Device::Cpu).unwrap();
    let expected = read(&folder.join("checkpoint.safetensors"), &Device::Cpu).unwrap();
    assert_eq!(checkpoint.mappings, ["state_dict"]);
    assert_eq!((checkpoint.tensors.len(), expected.len()), (27, 27));
    for (name, expected) in &expected {
        let tensor = &checkpoint.tensors[&format!("module.{name}")];
        assert_eq!((tensor.dims(), tensor.dtype()), (expected.dims(), expected.dtype()), "{name}");
        assert_eq!(flat(tensor), flat(expected), "{name}");
    }
    // candle's reader of safetensors returns the same tensors.
    for (name, tensor) in candle_core::safetensors::load(folder.join("checkpoint.safetensors"), &Device::Cpu).unwrap() {
        assert_eq!(flat(&tensor), flat(&expected[&name]));
    }
    // Each of its three networks fits: a convolution, batch norm with running statistics, a convolution.
    let shapes: [(&str, &[usize]); 6] = [
        ("0.weight", &[4, 1, 3, 3, 3]),
        ("0.bias", &[4]),
        ("1.weight", &[4]),
        ("1.bias", &[4]),
        ("3.weight", &[2, 4, 1, 1, 1]),
        ("3.bias", &[2]),
    ];
    let declared = shapes.map(|(name, dims)| (name.to_owned(), dims.into()));
    for (part, prefix) in
        [(NetworkPart::Generator, "netG"), (NetworkPart::Discriminator, "netD"), (NetworkPart::Segmentor, "netSeg")]
    {
        let fitted = fit(&checkpoint.tensors, &declared, part).unwrap();
        for (name, dims) in shapes {
            let expected = freetumor::nn::fill::parameter(&format!("{prefix}.{name}"), dims);
            assert_eq!(fitted[name].flatten_all().unwrap().to_vec1::<f32>().unwrap(), expected, "{prefix}.{name}");
        }
    }
}

#[test]
fn read_fails_on_legacy_format_with_a_conversion_command() {
    let Some(path) = shared("golden/checkpoint_legacy.pt") else { return };
    let error = read(&path, &Device::Cpu).unwrap_err();
    assert!(error.to_string().ends_with("the format of PyTorch before 1.6, which is not supported"), "{error}");
    assert!(error.hint().unwrap().contains("python -c \"import torch; torch.save(torch.load("));
}

#[test]
fn read_supports_checkpoints_of_torch_save() {
    let python = std::env::var("FREETUMOR_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_torch =
        Command::new(&python).args(["-c", "import torch"]).output().is_ok_and(|output| output.status.success());
    if !has_torch {
        eprintln!("skipped: {python} has no PyTorch; set FREETUMOR_PYTHON to a Python with PyTorch");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(&python).args(["-W", "ignore", "-c", SCRIPT]).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let of = |name: &str| read_checkpoint(&folder.path().join(name), &Device::Cpu);

    let eighths: Vec<f64> = (0..24).map(|index| f64::from(index) / 8.0).collect();
    let whole: Vec<f64> = (0..24).map(f64::from).collect();
    let names = ["wrapped2.pt", "wrapped3.pt", "wrapped4.pt", "wrapped5.pt", "top.pt", "nested.pt", "nnunet.pt"];
    let paths = ["state_dict", "state_dict", "state_dict", "state_dict", "", "model.state_dict", "network_weights"];
    for (name, path) in names.into_iter().zip(paths) {
        let checkpoint = of(name).unwrap();
        assert_eq!(checkpoint.mappings, [path], "{name}");
        let tensors = checkpoint.tensors;
        assert_eq!(tensors.len(), 20, "{name}");
        for (key, dtype) in [
            ("f32", DType::F32),
            ("f64", DType::F64),
            ("f16", DType::F16),
            ("bf16", DType::BF16),
            ("parameter", DType::F32),
            ("tied", DType::F32),
        ] {
            let tensor = &tensors[key];
            assert_eq!(
                (tensor.dtype(), tensor.dims(), flat(tensor)),
                (dtype, &[2, 3, 4][..], eighths.clone()),
                "{name} {key}"
            );
        }
        for (key, dtype) in
            [("i64", DType::I64), ("i32", DType::I64), ("i16", DType::I64), ("i8", DType::I64), ("u8", DType::U8)]
        {
            assert_eq!((tensors[key].dtype(), flat(&tensors[key])), (dtype, whole.clone()), "{name} {key}");
        }
        assert_eq!(flat(&tensors["bool"]).iter().sum::<f64>(), 15.0);
        assert_eq!(tensors["scalar"].to_scalar::<f32>().unwrap(), 2.5);
        assert_eq!(tensors["empty"].dims(), [0, 3]);
        let transposed: Vec<f64> = (0..24).map(|i| eighths[i % 2 * 12 + i / 2 % 3 * 4 + i / 6]).collect();
        assert_eq!((tensors["transposed"].dims(), flat(&tensors["transposed"])), (&[4, 3, 2][..], transposed));
        assert_eq!(flat(&tensors["row"]), eighths[12..]);
        assert_eq!(flat(&tensors["column"]), [eighths[6], eighths[18]]);
        assert_eq!(flat(&tensors["expanded"]), eighths[..12].repeat(3));
        assert_eq!(flat(&tensors["subclass"]), [1.0, 1.0]);
    }

    let parts = of("parts.pt").unwrap();
    assert_eq!(parts.mappings, ["discriminator", "generator"]);
    let bias = fit(&parts.tensors, &[("bias".to_owned(), 4.into())], NetworkPart::Discriminator).unwrap();
    assert_eq!(flat(&bias["bias"]), eighths[4..8]);
    let network = [("0.weight", &[2, 1, 3, 3, 3][..]), ("0.bias", &[2]), ("1.weight", &[2]), ("1.bias", &[2])];
    let network = network.map(|(name, dims)| (name.to_owned(), dims.into()));
    assert_eq!(fit(&of("batchnorm.pt").unwrap().tensors, &network, NetworkPart::Whole).unwrap().len(), 4);

    for (name, expected) in [
        ("module.pt", "`torch.nn.modules.container.Sequential`, not a state_dict"),
        ("script.pt", "a TorchScript program"),
        (
            "quantized.pt",
            "`bad`: expected a dense, unquantized tensor, got a tensor that `torch._utils._rebuild_qtensor` rebuilds",
        ),
        (
            "sparse.pt",
            "`bad`: expected a dense, unquantized tensor, got a tensor that `torch._utils._rebuild_sparse_tensor` rebuilds",
        ),
        ("complex.pt", "`w`: unsupported element type"),
        ("uint16.pt", "`w`: unsupported element type"),
    ] {
        let error = of(name).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn read_supports_repacked_checkpoint() {
    let numbers = [0.5, -1.0, 2.0, 3.5];
    let pickle = Pickle::dict().text("epoch").int(3).vector("bias", 4).end();
    let mut entries = entries(&pickle, &[("0", &floats(&numbers))]);
    entries.iter_mut().for_each(|entry| entry.deflated = true);
    entries.push(Entry::new("archive/version", *b"3\n"));
    for file in [zip(&entries), checkpoint(&pickle, &[("0", &floats(&numbers))])] {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), file).unwrap();
        let tensors: BTreeMap<_, _> = read(path.path(), &Device::Cpu).unwrap();
        assert_eq!(tensors.keys().collect::<Vec<_>>(), ["bias"]);
        assert_eq!(tensors["bias"].to_vec1::<f32>().unwrap(), numbers);
    }
}
