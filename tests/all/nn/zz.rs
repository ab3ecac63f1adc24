use candle_core::{DType, Device, Tensor};
use freetumor::nn::{
    fill, ops,
    ops::Backend,
    parameters::Variables,
    unet3d::{self, UNet3D},
};
use std::collections::BTreeMap;
fn grads(dtype: DType, backend: Backend) -> BTreeMap<String, Tensor> {
    ops::with_backend(backend, || {
        let v = Variables::new(fill::builder("", dtype, &Device::Cpu));
        let n = UNet3D::new(v.builder(), &unet3d::Config::default()).unwrap();
        let named = |name: &str, shape: &[usize], low: f64| {
            Tensor::from_vec(fill::uniform(name, shape.iter().product(), low, 1.0), shape, &Device::Cpu)
                .unwrap()
                .to_dtype(dtype)
                .unwrap()
        };
        let y = n.forward(&named("gradient.unet3d.x", &[2, 1, 16, 24, 16], 0.0)).unwrap();
        let g = named("gradient.unet3d.g", y.dims(), -1.0);
        let grads = (&y * g).unwrap().sum_all().unwrap().backward().unwrap();
        v.all().into_iter().map(|(k, var)| (k, grads.get(&var).unwrap().to_dtype(DType::F64).unwrap())).collect()
    })
}
#[test]
fn zz() {
    let exact = grads(DType::F64, Backend::Portable);
    for b in [Backend::Portable, Backend::Native] {
        let g = grads(DType::F32, b);
        let mut worst: Vec<(f64, &String)> = exact
            .iter()
            .map(|(k, e)| {
                let n = e.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
                let d = (&g[k] - e).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
                (d / n, k)
            })
            .filter(|(_, k)| !k.ends_with("conv1.bias"))
            .collect();
        worst.sort_by(|a, b| b.0.total_cmp(&a.0));
        eprintln!("{b:?} {:?}", &worst[..8]);
        for k in [
            "out_tr.final_conv.weight",
            "up_tr64.ops.1.bn1.weight",
            "up_tr64.ops.1.conv1.weight",
            "up_tr64.ops.0.conv1.weight",
            "up_tr128.ops.0.conv1.weight",
            "up_tr256.ops.0.conv1.weight",
            "down_tr512.ops.1.conv1.weight",
            "down_tr512.ops.0.conv1.weight",
            "down_tr256.ops.0.conv1.weight",
        ] {
            eprintln!("   {k} {:?}", worst.iter().find(|w| w.1 == k).map(|w| w.0));
        }
    }
}
