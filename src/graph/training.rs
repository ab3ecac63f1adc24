//! Files for training: sources and stages as in any graph file, and a section `[train]`.

use serde_json::Value as Json;
use toml::de::{DeValue, ValueDeserializer};

use super::check::plan_nodes;
use super::file::{GraphFile, Problems};
use super::plan::Plan;
use super::problem::Severity;
use super::purpose::Purpose;
use super::registry::{Registry, StageConfig};
use super::spec::{Spec, place_of};
use super::value::Value;
use super::{Problem, settings};
use crate::error::ConfigError;

/// What came of checking a file for training.
#[derive(Debug)]
pub struct CheckedTraining<C> {
    /// Everything that is wrong or hardly meant, in the order of the file.
    pub problems: Vec<Problem>,
    /// The section `[train]`, where nothing is wrong.
    pub settings: Option<C>,
    /// The built sources and stages, where nothing is wrong.
    pub plan: Option<Plan>,
}

impl<C> CheckedTraining<C> {
    /// Whether anything keeps the training from starting.
    pub fn is_bad(&self) -> bool {
        self.settings.is_none()
            || self.plan.is_none()
            || self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }
}

/// What the section `[train]` of a file says something of, settings of the command line with it; `None` where there is no
/// such section: the file is a pipeline that is run.
///
/// ```
/// use freetumor::graph::{GraphFile, training_keys};
/// let file = GraphFile::new("a.toml", ".", "[pipeline]\nname = \"a\"\n[train]\nsteps = 3\n").with_set("train.batch=2");
/// assert_eq!(training_keys(&file).unwrap(), ["batch", "steps"]);
/// assert_eq!(training_keys(&GraphFile::new("b.toml", ".", "[pipeline]\nname = \"b\"\n")), None);
/// ```
pub fn training_keys(file: &GraphFile) -> Option<Vec<String>> {
    let spec = Spec::read(file, Purpose::Train, &mut Problems::of(file)).filter(Spec::has_train)?;
    let DeValue::Table(table) = spec.train?.into_inner() else { return None };
    Some(table.into_iter().map(|(key, _)| key.into_inner().into_owned()).collect())
}

/// Reads a file for training and reports every problem that it has: of its sources and stages as [`check`](super::check)
/// does, and of its section `[train]`.
///
/// `complaints` judges what was read: the settings by themselves, and, where they were built, beside the stages that they
/// name. Unlike in a graph that is run, a node whose output nothing takes is in order: `[train]` names it.
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
/// let said: Vec<_> = checked.problems.iter().map(|problem| problem.message.as_str()).collect();
/// assert_eq!(said, ["`train` has no `steps`", "unknown key `step` in `train`"]);
/// ```
pub fn check_training<C: StageConfig>(
    file: &GraphFile,
    registry: &Registry,
    complaints: impl Fn(&C, Option<&Plan>) -> Vec<ConfigError>,
) -> CheckedTraining<C> {
    let mut problems = Problems::of(file);
    let Some(spec) = Spec::read(file, Purpose::Train, &mut problems) else {
        return CheckedTraining { problems: problems.sorted(), settings: None, plan: None };
    };
    if !spec.has_train() {
        let message = format!("{} has no section [train]", file.name());
        problems.error_of_file(message).hint("a pipeline without it is run: freetumor run".to_owned());
        return CheckedTraining { problems: problems.sorted(), settings: None, plan: None };
    }
    let (_, plan) = plan_nodes(file, &spec, registry, &mut problems);
    let settings = spec.train.as_ref().and_then(|table| {
        let span = table.span();
        let schema: Json = schemars::schema_for!(C).to_value();
        let parse = |table: Value<'_>| C::deserialize(ValueDeserializer::from(table));
        let reading = settings::read(table, "train", &span, &schema, parse, &mut problems);
        let settings = reading.value?;
        let place = |field: &str| place_of(table, field).unwrap_or(span.clone());
        settings::report(complaints(&settings, plan.as_ref()), &reading.invalid, place, &mut problems);
        Some(settings)
    });
    let is_good = !problems.any_error();
    CheckedTraining {
        problems: problems.sorted(),
        settings: settings.filter(|_| is_good),
        plan: plan.filter(|_| is_good),
    }
}
