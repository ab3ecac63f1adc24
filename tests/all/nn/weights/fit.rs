//! Conversion of a file's tensors to a network's parameters.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Shape, Tensor};
use freetumor::nn::weights::{NetworkPart, fit};

fn tensors(named: &[(&str, &[f32])]) -> BTreeMap<String, Tensor> {
    named.iter().map(|(name, numbers)| ((*name).to_owned(), Tensor::new(*numbers, &Device::Cpu).unwrap())).collect()
}

fn declared(named: &[(&str, &[usize])]) -> Vec<(String, Shape)> {
    named.iter().map(|(name, dims)| ((*name).to_owned(), Shape::from(*dims))).collect()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn fit_removes_prefixes_of_wrappers() {
    let network = declared(&[("swinViT.norm.weight", &[1]), ("out.bias", &[2])]);
    for prefix in
        ["", "module.", "backbone.", "module.backbone.", "_orig_mod.module.", "netSeg.", "module.netSeg.backbone."]
    {
        for vit in ["swin_vit", "swinViT"] {
            let (norm, bias) = (format!("{prefix}{vit}.norm.weight"), format!("{prefix}out.bias"));
            let raw = tensors(&[(&norm, &[3.0]), (&bias, &[1.0, 2.0])]);
            for part in [NetworkPart::Whole, NetworkPart::Segmentor] {
                let fitted = fit(&raw, &network, part).unwrap();
                assert_eq!(numbers(&fitted["swinViT.norm.weight"]), [3.0], "{norm}");
                assert_eq!(numbers(&fitted["out.bias"]), [1.0, 2.0], "{bias}");
            }
        }
    }
}

#[test]
fn fit_keeps_prefix_that_the_network_declares() {
    let raw = tensors(&[("module.model.bias", &[1.0])]);
    assert!(fit(&raw, &declared(&[("model.bias", &[1])]), NetworkPart::Whole).is_ok());
}

#[test]
fn fit_selects_the_part_of_a_file_with_several_networks() {
    let raw = tensors(&[("module.netG.bias", &[1.0]), ("module.netD.bias", &[2.0]), ("module.netSeg.bias", &[3.0])]);
    let network = declared(&[("bias", &[1])]);
    for (part, number) in
        [(NetworkPart::Generator, 1.0), (NetworkPart::Discriminator, 2.0), (NetworkPart::Segmentor, 3.0)]
    {
        assert_eq!(numbers(&fit(&raw, &network, part).unwrap()["bias"]), [number]);
    }
    let error = fit(&raw, &network, NetworkPart::Whole).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected weights of one network, got several networks: generator, discriminator, segmentor"
    );
    assert_eq!(error.hint(), Some("choose one with --part, or `part` in a graph file, such as generator"));
    let error = fit(&tensors(&[("netD.bias", &[2.0])]), &network, NetworkPart::Generator).unwrap_err();
    assert_eq!(error.to_string(), "expected a generator in the file, got discriminator");
}

#[test]
fn fit_ignores_buffers() {
    let raw = tensors(&[
        ("bias", &[1.0]),
        ("norm.running_mean", &[1.0]),
        ("norm.running_var", &[1.0]),
        ("norm.num_batches_tracked", &[1.0]),
        ("layers1.0.attn.relative_position_index", &[1.0]),
    ]);
    let fitted = fit(&raw, &declared(&[("bias", &[1])]), NetworkPart::Whole).unwrap();
    assert_eq!(fitted.keys().collect::<Vec<_>>(), ["bias"]);
}

#[test]
fn fit_reports_all_problems_in_one_error() {
    let raw = tensors(&[("conv1.weigth", &[1.0]), ("out.bias", &[1.0, 2.0]), ("scale", &[f32::NAN, 1.0])]);
    let network = declared(&[("conv1.weight", &[1]), ("conv2.weight", &[4, 1]), ("out.bias", &[3]), ("scale", &[2])]);
    let error = fit(&raw, &network, NetworkPart::Whole).unwrap_err().to_string();
    let expected = [
        "the weights do not fit the network's 4 parameters: 2 missing, 1 unexpected, 1 of another shape, 1 unusable",
        "missing `conv1.weight` [1]; did you mean `conv1.weigth`, which the file has?",
        "missing `conv2.weight` [4, 1]; did you mean `conv1.weigth`, which the file has?",
        "unexpected `conv1.weigth`",
        "shape of `out.bias`: expected [3], got [2]",
        "unusable `scale`: 1 of 2 numbers are NaN or infinite",
    ];
    assert_eq!(error.lines().map(str::trim).collect::<Vec<_>>(), expected);
}

#[test]
fn fit_error_shortens_long_lists() {
    let named: Vec<(String, Shape)> = (0..30).map(|index| (format!("layer{index}.weight"), 1.into())).collect();
    let error = fit(&tensors(&[("x", &[0.0])]), &named, NetworkPart::Whole).unwrap_err().to_string();
    assert!(error.contains("30 missing, 1 unexpected") && error.contains("missing 22 more"), "{error}");
    assert_eq!(error.lines().count(), 1 + 9 + 1);
}

#[test]
fn fit_converts_floats_and_exact_integers_to_f32() {
    let network = declared(&[("bias", &[2])]);
    let of = |tensor: Tensor| fit(&BTreeMap::from([("bias".to_owned(), tensor)]), &network, NetworkPart::Whole);
    let number = |dtype| Tensor::new(&[0.5f32, 2.0], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    for dtype in [DType::F64, DType::F16, DType::BF16] {
        let fitted = of(number(dtype)).unwrap();
        assert_eq!((fitted["bias"].dtype(), numbers(&fitted["bias"])), (DType::F32, vec![0.5, 2.0]));
    }
    let whole = of(Tensor::new(&[-3i64, 1 << 24], &Device::Cpu).unwrap()).unwrap();
    assert_eq!(numbers(&whole["bias"]), [-3.0, 16_777_216.0]);
    let large = of(Tensor::new(&[0, (1i64 << 24) + 1], &Device::Cpu).unwrap()).unwrap_err().to_string();
    assert!(large.contains("16777217, which f32 cannot represent exactly"), "{large}");
    let beyond = of(Tensor::new(&[1e300, 1.0], &Device::Cpu).unwrap()).unwrap_err().to_string();
    assert!(beyond.contains("`bias`: 1 of 2 numbers are NaN or infinite"), "{beyond}");
}

#[test]
fn fit_fails_on_two_tensors_for_one_parameter() {
    let raw = tensors(&[("module.bias", &[1.0]), ("bias", &[2.0])]);
    let error = fit(&raw, &declared(&[("bias", &[1])]), NetworkPart::Whole).unwrap_err().to_string();
    assert!(error.contains("`bias`: expected one tensor, got `bias` and `module.bias`"), "{error}");
}
