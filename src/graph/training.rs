//! Training files: sources and stages as in any graph file, and a section `[train]`.

use serde_json::Value as Json;
use toml::de::{DeValue, ValueDeserializer};

use super::check::plan_nodes;
use super::file::{GraphFile, Problems};
use super::plan::Plan;
use super::problem::Severity;
use super::purpose::Purpose;
use super::registry::{NodeConfig, Registry};
use super::spec::{Spec, span_of};
use super::value::Value;
use super::{Problem, settings};
use crate::error::ConfigError;

/// The result of checking a training file.
#[derive(Debug)]
pub struct CheckedTraining<C> {
    /// All errors and warnings, in the order of the file.
    pub problems: Vec<Problem>,
    /// The section `[train]`; present if there is no error.
    pub settings: Option<C>,
    /// The built sources and stages; present if there is no error.
    pub plan: Option<Plan>,
}

impl<C> CheckedTraining<C> {
    /// Returns whether any problem prevents the training run from starting.
    pub fn has_errors(&self) -> bool {
        self.settings.is_none()
            || self.plan.is_none()
            || self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }
}

/// Returns the keys of the section `[train]`, including overrides; `None` if there is no such section and the file is a pipeline.
///
/// ```
/// use freetumor::graph::{GraphFile, training_keys};
/// let file = GraphFile::new("a.toml", ".", "[pipeline]\nname = \"a\"\n[train]\nsteps = 3\n").with_set("train.batch=2");
/// assert_eq!(training_keys(&file).unwrap(), ["batch", "steps"]);
/// assert_eq!(training_keys(&GraphFile::new("b.toml", ".", "[pipeline]\nname = \"b\"\n")), None);
/// ```
pub fn training_keys(file: &GraphFile) -> Option<Vec<String>> {
    let spec = Spec::read(file, Purpose::Train, &mut Problems::new(file)).filter(Spec::has_train)?;
    let DeValue::Table(table) = spec.train?.into_inner() else { return None };
    Some(table.into_iter().map(|(key, _)| key.into_inner().into_owned()).collect())
}

/// Reads a training file and reports all problems of its sources and stages, as [`check`](super::check) does, and of its section
/// `[train]`.
///
/// `errors` checks the settings alone and, if the stages were built, together with the stages that they name. Unlike in a pipeline, a
/// node with an unused output is valid: `[train]` names it.
///
/// ```
/// use freetumor::error::ConfigError;
/// use freetumor::graph::{GraphFile, Registry, check_training};
///
/// #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(deny_unknown_fields)]
/// struct Settings {
///     /// Steps in all.
///     steps: u64,
/// }
///
/// let text = "[pipeline]\nname = \"a\"\n[sources.bodies]\nkind = \"phantom\"\n[train]\nstep = 3\n";
/// let file = GraphFile::new("a.toml", ".", text);
/// let checked = check_training::<Settings>(&file, &Registry::standard(), |_, _| Vec::new());
/// let messages: Vec<_> = checked.problems.iter().map(|problem| problem.message.as_str()).collect();
/// assert_eq!(messages, ["`train` has no `steps`", "unknown key `step` in `train`"]);
/// ```
pub fn check_training<C: NodeConfig>(
    file: &GraphFile,
    registry: &Registry,
    errors: impl Fn(&C, Option<&Plan>) -> Vec<ConfigError>,
) -> CheckedTraining<C> {
    let mut problems = Problems::new(file);
    let Some(spec) = Spec::read(file, Purpose::Train, &mut problems) else {
        return CheckedTraining { problems: problems.sorted(), settings: None, plan: None };
    };
    if !spec.has_train() {
        let message = format!("{} has no section [train]", file.name());
        problems
            .error_without_location(message)
            .hint("run a pipeline, which has no such section, with `freetumor run`".to_owned());
        return CheckedTraining { problems: problems.sorted(), settings: None, plan: None };
    }
    let (_, plan, _) = plan_nodes(Purpose::Train, file, &spec, registry, &mut problems);
    let settings = spec.train.as_ref().and_then(|table| {
        let span = table.span();
        let schema: Json = schemars::schema_for!(C).to_value();
        let parse = |table: Value<'_>| C::deserialize(ValueDeserializer::from(table));
        let parsed = settings::read(table, "train", &span, &schema, parse, &mut problems);
        let settings = parsed.value?;
        let span_of = |field: &str| span_of(table, field).unwrap_or(span.clone());
        settings::report(errors(&settings, plan.as_ref()), &parsed.invalid, span_of, &mut problems);
        Some(settings)
    });
    let is_valid = !problems.any_error();
    CheckedTraining {
        problems: problems.sorted(),
        settings: settings.filter(|_| is_valid),
        plan: plan.filter(|_| is_valid),
    }
}
