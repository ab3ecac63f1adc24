//! The kinds of stages of graph files, and how each is built from its settings.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;

use toml::Spanned;
use toml::de::DeValue;

use super::Role;
use crate::error::ConfigError;
use crate::filter::{QualityTest, QualityTestConfig};
use crate::ingest::Source;
use crate::ingest::dicom::Decoder;
use crate::mask::{Mask, Organ};
use crate::score::ScoreStage;
use crate::sink::Output;
use crate::synth::{Synthesize, TumorNumbers};
use crate::volume::HuWindow;

/// The context in which a node is built.
#[derive(Clone, Debug)]
pub struct BuildContext {
    /// The node's name in the graph file.
    pub name: String,
    /// The folder of the graph file.
    pub folder: PathBuf,
    /// The pipeline's seed.
    pub seed: u64,
    /// The organs of the upstream masks; empty for sources and masks.
    pub organs: Arc<[Organ]>,
    /// Whether the graph is built for a calibration, whose candidates are made without steering.
    pub is_calibration: bool,
}

impl BuildContext {
    /// Resolves a path of the graph file: `${NAME}` is replaced by the environment variable, and a relative path is joined to the folder of
    /// the graph file.
    ///
    /// ```
    /// use freetumor::graph::BuildContext;
    /// let context = BuildContext { name: "archive".into(), folder: "/graphs".into(), seed: 0, organs: [].into(), is_calibration: false };
    /// assert_eq!(context.path("root", "../ct").unwrap(), std::path::Path::new("/graphs/../ct"));
    /// let error = context.path("root", "${NO_SUCH_VARIABLE}/ct").unwrap_err();
    /// assert_eq!(error.message, "the environment variable `NO_SUCH_VARIABLE` is not set");
    /// ```
    ///
    /// # Errors
    /// If a variable is not set, or a `${` has no `}`.
    pub fn path(&self, field: &str, written: impl AsRef<Path>) -> Result<PathBuf, ConfigError> {
        resolve_path(&self.folder, field, written.as_ref())
    }
}

/// Resolves a path of a graph file in `folder`; see [`BuildContext::path`].
pub(super) fn resolve_path(folder: &Path, field: &str, written: &Path) -> Result<PathBuf, ConfigError> {
    let written = written.to_string_lossy();
    let mut path = OsString::new();
    let mut rest: &str = &written;
    while let Some(start) = rest.find("${") {
        let Some(length) = rest[start..].find('}') else {
            return Err(ConfigError::new(field, format!("expected a `}}` after `${{`, got `{written}`")));
        };
        let name = &rest[start + 2..start + length];
        let value = std::env::var_os(name).ok_or_else(|| {
            let message = format!("the environment variable `{name}` is not set");
            ConfigError::new(field, message).with_hint(format!("export {name}=…"))
        })?;
        path.push(&rest[..start]);
        path.push(value);
        rest = &rest[start + length + 1..];
    }
    path.push(rest);
    Ok(folder.join(path))
}

/// The window and spacing that a stage uses; stages along an edge must agree.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct InputSpec {
    /// The HU range that the stage maps to 0..1.
    pub window: Option<HuWindow>,
    /// The spacing to which the stage resamples, along [x, y, z].
    pub spacing_mm: Option<[f64; 3]>,
}

/// A built synthesis stage.
pub struct Synthesis {
    /// The stage.
    pub synthesize: Arc<dyn Synthesize>,
    /// The organs that get tumors, a subset of [`BuildContext::organs`].
    pub organs: Vec<Organ>,
    /// Requested samples per scan; without [`Synthesis::numbers`], per organ and scan.
    pub variants: u32,
    /// The numbers of tumors of samples; `None` if every tumor is a separate sample.
    pub numbers: Option<TumorNumbers>,
    /// Share of scans that are negatives too, 0 to 1.
    pub negatives: f64,
    /// A digest of weights, or `rules` with a version.
    pub model: String,
    /// A digest of the steering of sizes and contrasts.
    pub steering: Option<String>,
    /// The window and spacing that the stage uses.
    pub input_spec: InputSpec,
}

/// A built score stage.
pub struct Scoring {
    /// The stage.
    pub stage: Arc<dyn ScoreStage>,
    /// The window and spacing that the stage uses.
    pub input_spec: InputSpec,
}

impl<S: ScoreStage + 'static> From<S> for Scoring {
    /// Wraps a stage that uses unscaled HU at any spacing.
    fn from(stage: S) -> Self {
        Self { stage: Arc::new(stage), input_spec: InputSpec::default() }
    }
}

/// A built node.
pub enum BuiltNode {
    /// See [`Role::Source`].
    Source(Arc<dyn Source>),
    /// See [`Role::Mask`].
    Mask(Arc<dyn Mask>),
    /// See [`Role::Synthesis`].
    Synthesis(Synthesis),
    /// See [`Role::Score`].
    Score(Scoring),
    /// See [`Role::Filter`].
    Filter(QualityTest),
    /// See [`Role::Sink`].
    Sink(Output),
}

/// The parsed settings of a node, with the function that builds the node.
pub struct ParsedNode {
    /// The settings as JSON, defaults filled in, paths as written.
    pub json: serde_json::Value,
    build: Box<Builder>,
}

type Builder = dyn FnOnce(&BuildContext) -> Result<BuiltNode, Vec<ConfigError>>;

impl ParsedNode {
    /// Builds the node.
    ///
    /// # Errors
    /// Returns all errors of the settings.
    pub fn build(self, context: &BuildContext) -> Result<BuiltNode, Vec<ConfigError>> {
        (self.build)(context)
    }
}

type Reader = dyn Fn(Spanned<DeValue<'_>>) -> Result<ParsedNode, toml::de::Error> + Send + Sync;

/// A kind of node in one role.
pub struct Kind {
    /// The name in graph files.
    pub name: String,
    /// The role.
    pub role: Role,
    /// One sentence for editors and hints.
    pub about: String,
    schema: fn(&mut SchemaGenerator) -> Schema,
    read: Box<Reader>,
}

impl Kind {
    /// Reads settings from a table without `kind` and `inputs`.
    pub(super) fn read(&self, table: Spanned<DeValue<'_>>) -> Result<ParsedNode, toml::de::Error> {
        (self.read)(table)
    }

    /// Returns the JSON Schema of the settings as a standalone document.
    pub(super) fn own_schema(&self) -> serde_json::Value {
        let mut generator = SchemaGenerator::default();
        let mut schema = self.schema(&mut generator);
        schema.insert("$defs".to_owned(), generator.take_definitions(true).into());
        schema.to_value()
    }

    /// Returns the JSON Schema of the settings; definitions to which the schema refers stay in the generator.
    pub(super) fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        (self.schema)(generator)
    }
}

/// The kinds of nodes, by role and name: one name may have several roles.
///
/// Register your own stage under a new kind; its settings are checked like all others:
///
/// ```
/// use freetumor::error::{ConfigError, Fault};
/// use freetumor::graph::{Registry, Role};
/// use freetumor::mask::{MaskedScan, Organ};
/// use freetumor::score::{Scorer, Score, Scores, ScoreStage};
/// use freetumor::synth::Candidate;
///
/// /// How much darker than its organ a tumor is, in a custom unit.
/// #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(deny_unknown_fields, default)]
/// struct DarknessConfig {
///     /// HU per unit.
///     unit_hu: f64,
/// }
///
/// impl Default for DarknessConfig {
///     fn default() -> Self {
///         Self { unit_hu: 10.0 }
///     }
/// }
///
/// struct Darkness(f64);
///
/// impl ScoreStage for Darkness {
///     fn scores(&self) -> &'static [Score] {
///         &[Score::Cnr]
///     }
///     fn baseline<'s>(&'s self, _: &'s MaskedScan, _: &'s Organ) -> Result<Box<dyn Scorer + 's>, Fault> {
///         Ok(Box::new(self))
///     }
/// }
///
/// impl Scorer for &Darkness {
///     fn score(&self, candidate: &Candidate, scores: &mut Scores) -> Result<(), Fault> {
///         let change = |i| f64::from(candidate.after.as_slice()[i] - candidate.before.as_slice()[i]);
///         let tumor: Vec<usize> = (0..candidate.region.voxels()).filter(|&i| candidate.tumor.as_slice()[i] == 1).collect();
///         let mean = tumor.iter().map(|&i| change(i)).sum::<f64>() / tumor.len() as f64;
///         scores.set(Score::Cnr, mean / self.0);
///         Ok(())
///     }
/// }
///
/// let mut registry = Registry::standard();
/// registry.add_score("darkness", "Scores darkness alone.", |config: DarknessConfig, _| {
///     if config.unit_hu <= 0.0 {
///         return Err(vec![ConfigError::new("unit_hu", format!("expected more than 0 HU, got {}", config.unit_hu))]);
///     }
///     Ok(Darkness(config.unit_hu).into())
/// });
/// assert!(registry.kind(Role::Score, "darkness").is_some());
/// ```
#[derive(Default)]
pub struct Registry {
    kinds: Vec<Kind>,
    /// The decoder of compressed DICOM outside of sources; by default a decoder in this process.
    decoder: Option<Decoder>,
}

impl Registry {
    /// Creates a registry without kinds.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Adds a kind of source.
    pub fn add_source<C: NodeConfig>(
        &mut self,
        name: &str,
        about: &str,
        build: impl Fn(C, &BuildContext) -> Result<Arc<dyn Source>, Vec<ConfigError>> + Clone + Send + Sync + 'static,
    ) {
        self.add(Role::Source, name, about, move |config, context: &BuildContext| {
            build(config, context).map(BuiltNode::Source)
        });
    }

    /// Adds a kind of mask.
    pub fn add_mask<C: NodeConfig>(
        &mut self,
        name: &str,
        about: &str,
        build: impl Fn(C, &BuildContext) -> Result<Arc<dyn Mask>, Vec<ConfigError>> + Clone + Send + Sync + 'static,
    ) {
        self.add(Role::Mask, name, about, move |config, context: &BuildContext| {
            build(config, context).map(BuiltNode::Mask)
        });
    }

    /// Adds a kind of synthesis.
    pub fn add_synthesis<C: NodeConfig>(
        &mut self,
        name: &str,
        about: &str,
        build: impl Fn(C, &BuildContext) -> Result<Synthesis, Vec<ConfigError>> + Clone + Send + Sync + 'static,
    ) {
        self.add(Role::Synthesis, name, about, move |config, context: &BuildContext| {
            build(config, context).map(BuiltNode::Synthesis)
        });
    }

    /// Adds a kind of score.
    pub fn add_score<C: NodeConfig>(
        &mut self,
        name: &str,
        about: &str,
        build: impl Fn(C, &BuildContext) -> Result<Scoring, Vec<ConfigError>> + Clone + Send + Sync + 'static,
    ) {
        self.add(Role::Score, name, about, move |config, context: &BuildContext| {
            build(config, context).map(BuiltNode::Score)
        });
    }

    /// Adds a kind of filter.
    pub fn add_filter(
        &mut self,
        name: &str,
        about: &str,
        build: impl Fn(QualityTestConfig, &BuildContext) -> Result<QualityTest, Vec<ConfigError>>
        + Clone
        + Send
        + Sync
        + 'static,
    ) {
        self.add(Role::Filter, name, about, move |config, context: &BuildContext| {
            build(config, context).map(BuiltNode::Filter)
        });
    }

    /// Adds a kind of sink.
    pub fn add_sink<C: NodeConfig>(
        &mut self,
        name: &str,
        about: &str,
        build: impl Fn(C, &BuildContext) -> Result<Output, Vec<ConfigError>> + Clone + Send + Sync + 'static,
    ) {
        self.add(Role::Sink, name, about, move |config, context: &BuildContext| {
            build(config, context).map(BuiltNode::Sink)
        });
    }

    /// Returns the kind with this name and role, or `None` if no such kind is registered.
    pub fn kind(&self, role: Role, name: &str) -> Option<&Kind> {
        self.kinds.iter().find(|kind| kind.role == role && kind.name == name)
    }

    /// Sets the decoder of the compressed DICOM of held-out scans.
    pub fn set_decoder(&mut self, decoder: Decoder) {
        self.decoder = Some(decoder);
    }

    /// Returns the decoder of the compressed DICOM of held-out scans.
    pub fn decoder(&self) -> Decoder {
        self.decoder.clone().unwrap_or_else(Decoder::in_process)
    }

    /// Returns all kinds, in the order in which they were added.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Adds a kind; replaces an earlier one with the same role and name.
    fn add<C: NodeConfig>(
        &mut self,
        role: Role,
        name: &str,
        about: &str,
        build: impl Fn(C, &BuildContext) -> Result<BuiltNode, Vec<ConfigError>> + Clone + Send + Sync + 'static,
    ) {
        self.kinds.retain(|kind| kind.role != role || kind.name != name);
        self.kinds.push(Kind {
            name: name.to_owned(),
            role,
            about: about.to_owned(),
            schema: |generator| C::json_schema(generator),
            read: Box::new(move |table| {
                let config = C::deserialize(toml::de::ValueDeserializer::from(table))?;
                let json = serde_json::to_value(&config).map_err(serde::de::Error::custom)?;
                let build = build.clone();
                Ok(ParsedNode { json, build: Box::new(move |context| build(config, context)) })
            }),
        });
    }
}

/// The settings type of a node kind: deserialized from a file, serialized with defaults filled in, described by a JSON Schema.
pub trait NodeConfig: DeserializeOwned + Serialize + JsonSchema + 'static {}

impl<C: DeserializeOwned + Serialize + JsonSchema + 'static> NodeConfig for C {}
