//! Conversion of a file's tensors to exactly the parameters that a network declares.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Shape, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::quoted;
use crate::error::{Error, Result};
use crate::nn::failed;
use crate::suggest::nearest;

/// The network to read from a file of weights: FreeTumor's published training saves three networks in one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkPart {
    /// The only network of the file.
    #[default]
    Whole,
    /// The network under `netG`.
    Generator,
    /// The network under `netD`.
    Discriminator,
    /// The network under `netSeg`.
    Segmentor,
}

impl NetworkPart {
    const PREFIXES: [(Self, &str); 6] = [
        (Self::Generator, "netG."),
        (Self::Generator, "generator."),
        (Self::Discriminator, "netD."),
        (Self::Discriminator, "discriminator."),
        (Self::Segmentor, "netSeg."),
        (Self::Segmentor, "segmentor."),
    ];

    /// Returns the name in messages and options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Generator => "generator",
            Self::Discriminator => "discriminator",
            Self::Segmentor => "segmentor",
        }
    }
}

/// The prefixes that wrappers of networks prepend to names.
const WRAPPERS: [&str; 6] = ["module.", "_orig_mod.", "backbone.", "model.", "net.", "network."];
/// The buffers that PyTorch saves with the parameters and that no network of this crate needs.
const IGNORED: [&str; 4] = ["running_mean", "running_var", "num_batches_tracked", "relative_position_index"];
/// The maximum number of names of each kind that an error lists.
const MAX_LISTED: usize = 8;

/// Selects the parameters of one network from the tensors of a file: exactly the `declared` parameters, as f32.
///
/// Prefixes of wrappers (`module.`, `backbone.`) and of the [`NetworkPart`] (`netG.`, `netD.`, `netSeg.`) are
/// removed, `swin_vit` is read as `swinViT`, running statistics and position tables are ignored.
///
/// # Errors
/// If a parameter is missing, unexpected, of another shape, or contains NaN, infinity or an integer that f32 cannot represent exactly;
/// one error lists all of them. If the file contains several networks and `part` is [`NetworkPart::Whole`], or lacks the network `part`.
///
/// ```
/// use std::collections::BTreeMap;
/// use candle_core::{Device, Tensor};
/// use freetumor::nn::weights::{NetworkPart, fit};
///
/// let bias = Tensor::new(&[1.0f64, 2.0], &Device::Cpu)?;
/// let raw = BTreeMap::from([("module.netG.out.bias".to_owned(), bias.clone()), ("netD.out.bias".to_owned(), bias)]);
/// let declared = [("out.bias".to_owned(), 2.into())];
/// let fitted = fit(&raw, &declared, NetworkPart::Generator).unwrap();
/// assert_eq!(fitted["out.bias"].to_vec1::<f32>()?, [1.0, 2.0]);
/// let error = fit(&raw, &declared, NetworkPart::Whole).unwrap_err();
/// assert_eq!(error.to_string(), "expected weights of one network, got several networks: generator, discriminator");
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn fit(
    raw: &BTreeMap<String, Tensor>,
    declared: &[(String, Shape)],
    part: NetworkPart,
) -> Result<BTreeMap<String, Tensor>> {
    let named: Vec<TensorName> = raw.keys().map(|name| TensorName::of(name, declared)).collect();
    let chosen = choose(&named, part)?;
    let shapes: BTreeMap<&str, &Shape> = declared.iter().map(|(name, shape)| (name.as_str(), shape)).collect();
    let (mut fitted, mut used, mut problems) = (BTreeMap::new(), BTreeMap::new(), Problems::default());
    for TensorName { raw: raw_name, name, .. } in
        named.iter().filter(|named| chosen.is_none_or(|part| named.part == Some(part)))
    {
        let Some(shape) = shapes.get(name.as_str()) else {
            let last = name.rsplit('.').next().unwrap_or(name);
            if !IGNORED.contains(&last) {
                problems.unexpected.push(name.clone());
            }
            continue;
        };
        if let Some(other) = used.insert(name.clone(), *raw_name) {
            let line = format!("{}: expected one tensor, got {} and {}", quoted(name), quoted(other), quoted(raw_name));
            problems.unusable.push(line);
            continue;
        }
        let tensor = &raw[*raw_name];
        if tensor.shape() != *shape {
            let line = format!("{}: expected {:?}, got {:?}", quoted(name), shape.dims(), tensor.dims());
            problems.other_shape.push(line);
            continue;
        }
        match parameter(tensor) {
            Ok(tensor) => drop(fitted.insert(name.clone(), tensor)),
            Err(reason) => problems.unusable.push(format!("{}: {reason}", quoted(name))),
        }
    }
    let missing = declared.iter().filter(|(name, _)| !used.contains_key(name));
    problems.missing = missing.map(|(name, shape)| (name.clone(), shape.dims().to_vec())).collect();
    problems.into_result(declared.len())?;
    Ok(fitted)
}

/// Returns the shape of the tensor that [`fit`] would select for the parameter `name`, if the file has one.
///
/// ```
/// use std::collections::BTreeMap;
/// use candle_core::{DType, Device, Tensor};
/// use freetumor::nn::weights::{NetworkPart, shape_of};
///
/// let raw = BTreeMap::from([("module.netD.out.bias".to_owned(), Tensor::zeros(3, DType::F32, &Device::Cpu)?)]);
/// assert_eq!(shape_of(&raw, "out.bias", NetworkPart::Discriminator), Some(vec![3]));
/// assert_eq!(shape_of(&raw, "out.bias", NetworkPart::Generator), None);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn shape_of(raw: &BTreeMap<String, Tensor>, name: &str, part: NetworkPart) -> Option<Vec<usize>> {
    let fits = |named: &TensorName| {
        named.name == name && (named.part.is_none() || part == NetworkPart::Whole || named.part == Some(part))
    };
    let named = raw.keys().map(|raw| TensorName::of(raw, &[])).find(fits)?;
    Some(raw[named.raw].dims().to_vec())
}

/// A tensor's name in the file, and in the network.
struct TensorName<'r> {
    raw: &'r str,
    part: Option<NetworkPart>,
    name: String,
}

impl<'r> TensorName<'r> {
    fn of(raw: &'r str, declared: &[(String, Shape)]) -> Self {
        let is_declared = |prefix: &str| declared.iter().any(|(name, _)| name.starts_with(prefix));
        let (mut rest, mut part) = (raw, None);
        loop {
            let wrapper = WRAPPERS.into_iter().find(|wrapper| rest.starts_with(wrapper) && !is_declared(wrapper));
            let named =
                NetworkPart::PREFIXES.into_iter().find(|(_, prefix)| rest.starts_with(prefix) && !is_declared(prefix));
            match (wrapper, named) {
                (Some(wrapper), _) => rest = &rest[wrapper.len()..],
                (None, Some((which, prefix))) if part.is_none() => (part, rest) = (Some(which), &rest[prefix.len()..]),
                _ => break,
            }
        }
        let name = match rest.strip_prefix("swin_vit.") {
            Some(rest) if !is_declared("swin_vit.") => format!("swinViT.{rest}"),
            _ => rest.to_owned(),
        };
        Self { raw, part, name }
    }
}

/// Returns the part whose tensors are selected; `None` for all tensors.
fn choose(named: &[TensorName], part: NetworkPart) -> Result<Option<NetworkPart>> {
    let parts: BTreeSet<NetworkPart> = named.iter().filter_map(|named| named.part).collect();
    let list = parts.iter().map(|part| part.name()).collect::<Vec<_>>().join(", ");
    match (part, parts.len()) {
        (NetworkPart::Whole, 0) => Ok(None),
        (part, 0) => {
            tracing::warn!("the weights are not divided into networks: using all weights as the {}", part.name());
            Ok(None)
        }
        (NetworkPart::Whole, 1) => Ok(None),
        (NetworkPart::Whole, _) => Err(Error::new(format!(
            "expected weights of one network, got several networks: {list}"
        ))
        .with_hint(format!(
            "choose one with --part, or `part` in a graph file, such as {}",
            parts.iter().next().map_or("", |part| part.name())
        ))),
        (part, _) if parts.contains(&part) => Ok(Some(part)),
        (part, _) => Err(Error::new(format!("expected a {} in the file, got {list}", part.name()))
            .with_hint(format!("choose one of {list} with --part, or `part` in a graph file"))),
    }
}

/// Converts a tensor to f32, and checks that all numbers are finite.
fn parameter(tensor: &Tensor) -> Result<Tensor, String> {
    let failed = |error| failed("cannot convert the tensor to f32")(error).to_string();
    if tensor.dtype() == DType::I64 {
        let numbers: Vec<i64> =
            tensor.to_device(&Device::Cpu).and_then(|tensor| tensor.flatten_all()?.to_vec1()).map_err(failed)?;
        if let Some(number) = numbers.iter().find(|number| number.unsigned_abs() > 1 << 24) {
            return Err(format!("the integer {number}, which f32 cannot represent exactly"));
        }
    }
    let tensor = tensor.to_dtype(DType::F32).and_then(|tensor| tensor.contiguous()).map_err(failed)?;
    let numbers: Vec<f32> =
        tensor.to_device(&Device::Cpu).and_then(|tensor| tensor.flatten_all()?.to_vec1()).map_err(failed)?;
    match numbers.iter().filter(|number| !number.is_finite()).count() {
        0 => Ok(tensor),
        count => Err(format!("{count} of {} numbers are NaN or infinite", numbers.len())),
    }
}

/// All differences between a file's tensors and a network's parameters.
#[derive(Default)]
struct Problems {
    missing: Vec<(String, Vec<usize>)>,
    unexpected: Vec<String>,
    other_shape: Vec<String>,
    unusable: Vec<String>,
}

impl Problems {
    fn into_result(self, declared: usize) -> Result<()> {
        let kinds = [
            (self.missing.len(), "missing"),
            (self.unexpected.len(), "unexpected"),
            (self.other_shape.len(), "of another shape"),
            (self.unusable.len(), "unusable"),
        ];
        let counts: Vec<_> = kinds.iter().filter(|(n, _)| *n > 0).map(|(n, kind)| format!("{n} {kind}")).collect();
        if counts.is_empty() {
            return Ok(());
        }
        let missing = self.missing.iter().take(MAX_LISTED).map(|(name, dims)| {
            let near = nearest(name, self.unexpected.iter().map(String::as_str));
            let near =
                near.map_or(String::new(), |near| format!("; did you mean {}, which the file has?", quoted(near)));
            format!("{} {dims:?}{near}", quoted(name))
        });
        let unexpected: Vec<String> = self.unexpected.iter().take(MAX_LISTED).map(|name| quoted(name)).collect();
        let sections = [
            ("missing", missing.collect(), self.missing.len()),
            ("unexpected", unexpected, self.unexpected.len()),
            ("shape of", self.other_shape, kinds[2].0),
            ("unusable", self.unusable, kinds[3].0),
        ];
        let mut message = format!("the weights do not fit the network's {declared} parameters: {}", counts.join(", "));
        for (kind, lines, count) in sections {
            for line in lines.iter().take(MAX_LISTED) {
                message += &format!("\n  {kind} {line}");
            }
            if count > MAX_LISTED {
                message += &format!("\n  {kind} {} more", count - MAX_LISTED);
            }
        }
        Err(Error::new(message))
    }
}
