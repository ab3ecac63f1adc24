//! The JSON Schema of graph files, with which editors complete and check them.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value as Json, json};

use super::registry::{Kind, Registry};
use super::{PipelineConfig, Role};
use crate::record::ExpectationConfig;

/// Returns the JSON Schema (draft 2020-12) of graph files with the kinds of a registry.
///
/// ```
/// use freetumor::graph::{Registry, pipeline_schema};
/// let schema = pipeline_schema(&Registry::standard());
/// let kind = schema.pointer("/$defs/stages.quality-test/properties/kind/const").unwrap();
/// assert_eq!(kind, "quality-test");
/// ```
pub fn pipeline_schema(registry: &Registry) -> Json {
    let mut file = FileSchema::new(registry, &[SOURCES, STAGES, SINKS]);
    let items = file.generator.subschema_for::<ExpectationConfig>().to_value();
    file.sections.insert(
        "expectations".to_owned(),
        json!({ "type": "array", "items": items, "description": "Expectations on the tables of the run." }),
    );
    file.finish(
        "freetumor pipeline",
        "A graph of sources, stages and sinks that turns CT scans into synthetic tumors.",
        &["pipeline", "sources", "stages"],
    )
}

/// A kind of training, by the settings of its section `[train]`.
pub struct TrainingKind {
    description: &'static str,
    settings: fn(&mut SchemaGenerator) -> Schema,
}

impl TrainingKind {
    /// Creates the kind of training with the settings `C`.
    pub fn of<C: JsonSchema>(description: &'static str) -> Self {
        Self { description, settings: |generator| generator.subschema_for::<C>() }
    }
}

/// Returns the JSON Schema of training files: sources, stages and sinks, and for `[train]` the settings of one of `kinds`.
///
/// ```
/// use freetumor::graph::{Registry, TrainingKind, training_schema};
///
/// #[derive(schemars::JsonSchema)]
/// struct Settings {
///     /// Steps in all.
///     steps: u64,
/// }
///
/// let schema = training_schema(&Registry::standard(), &[TrainingKind::of::<Settings>("Settings of a short training run.")]);
/// assert_eq!(schema.pointer("/properties/train/anyOf/0/description").unwrap(), "Settings of a short training run.");
/// assert!(schema.pointer("/properties/stages").is_some());
/// ```
pub fn training_schema(registry: &Registry, kinds: &[TrainingKind]) -> Json {
    let mut file = FileSchema::new(registry, &[SOURCES, STAGES, SINKS]);
    let any: Vec<Json> = kinds
        .iter()
        .map(|kind| {
            let mut settings = (kind.settings)(&mut file.generator);
            settings.insert("description".to_owned(), json!(kind.description));
            settings.to_value()
        })
        .collect();
    file.sections.insert(
        "train".to_owned(),
        json!({ "description": "The networks to train, their settings and their data.", "anyOf": any }),
    );
    file.finish(
        "freetumor training",
        "Sources, stages and sinks as in a pipeline, and the training of networks on their scans and tumors.",
        &["pipeline", "sources", "stages", "train"],
    )
}

const SOURCES: (&str, &str) = ("sources", "The sources of scans.");
const STAGES: (&str, &str) = ("stages", "The stages: masks, synthesis, scores, quality tests.");
const SINKS: (&str, &str) = ("sinks", "The outputs for accepted samples; tables of all candidates are always written.");

/// Builds the schema of a file section by section.
struct FileSchema {
    generator: SchemaGenerator,
    kinds: Map<String, Json>,
    sections: Map<String, Json>,
}

impl FileSchema {
    fn new(registry: &Registry, sections: &[(&str, &str)]) -> Self {
        let mut generator = SchemaSettings::draft2020_12().into_generator();
        let pipeline = PipelineConfig::json_schema(&mut generator).to_value();
        let mut file = Self { generator, kinds: Map::new(), sections: Map::new() };
        for (section, about) in sections {
            file.add(registry, section, about);
        }
        file.sections.insert("pipeline".to_owned(), pipeline);
        file
    }

    /// Adds a section whose nodes have any of its kinds.
    fn add(&mut self, registry: &Registry, section: &str, about: &str) {
        let mut refs: Vec<Json> = Vec::new();
        for kind in registry.kinds().iter().filter(|kind| kind.role.section() == section) {
            let same =
                registry.kinds().iter().filter(|other| other.name == kind.name && other.role.section() == section);
            // A name with several roles has one schema per role.
            let suffix = if same.count() > 1 { format!(".{}", kind.role.name()) } else { String::new() };
            let name = format!("{section}.{}{suffix}", kind.name);
            refs.push(json!({ "$ref": format!("#/$defs/{name}") }));
            self.kinds.insert(name, schema_of(kind, &mut self.generator));
        }
        let any = json!({
            "type": "object",
            "description": about,
            "propertyNames": { "pattern": "^[A-Za-z0-9_-]+$" },
            "additionalProperties": { "anyOf": refs },
        });
        self.sections.insert(section.to_owned(), any);
    }

    fn finish(&mut self, title: &str, about: &str, required: &[&str]) -> Json {
        let mut definitions = self.generator.take_definitions(true);
        definitions.extend(std::mem::take(&mut self.kinds));
        let mut schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": title,
            "description": about,
            "type": "object",
            "properties": std::mem::take(&mut self.sections),
            "required": required,
            "additionalProperties": false,
            "$defs": definitions,
        });
        schema.sort_all_objects();
        schema
    }
}

/// Returns the schema of the settings of a node kind, with `kind` and `inputs` added.
fn schema_of(kind: &Kind, generator: &mut SchemaGenerator) -> Json {
    let mut schema = kind.schema(generator);
    let schema = schema.ensure_object();
    let mut required: Vec<Json> = vec![json!("kind")];
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    if let Json::Object(properties) = properties {
        properties.insert("kind".to_owned(), json!({ "const": kind.name, "description": kind.about }));
        if kind.role != Role::Source {
            let edges: Vec<&str> = kind.role.input_edges().iter().map(|edge| edge.name()).collect();
            let about = format!("Nodes that produce {}.", edges.join(" or "));
            let inputs = json!({ "type": "array", "items": { "type": "string" }, "minItems": 1, "description": about });
            properties.insert("inputs".to_owned(), inputs);
            required.push(json!("inputs"));
        }
    }
    if let Some(Json::Array(own)) = schema.get("required") {
        required.extend(own.iter().cloned());
    }
    schema.insert("required".to_owned(), Json::Array(required));
    schema.insert("title".to_owned(), json!(kind.name));
    schema.insert("description".to_owned(), json!(kind.about));
    Json::Object(schema.clone())
}
