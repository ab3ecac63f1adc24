//! The JSON Schema of graph files: what editors complete and check while a file is written.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value as Json, json};

use super::registry::{Kind, Registry};
use super::{PipelineConfig, Role};

/// The JSON Schema (draft 2020-12) of graph files with the kinds of a registry.
///
/// ```
/// use freetumor::graph::{Registry, pipeline_schema};
/// let schema = pipeline_schema(&Registry::standard());
/// let kind = schema.pointer("/$defs/stages.quality-test/properties/kind/const").unwrap();
/// assert_eq!(kind, "quality-test");
/// ```
pub fn pipeline_schema(registry: &Registry) -> Json {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let pipeline = PipelineConfig::json_schema(&mut generator).to_value();
    let mut kinds = Map::new();
    let mut sections = Map::new();
    for (section, about) in [
        ("sources", "Where scans come from."),
        ("stages", "What happens to them: masks, synthesis, scores, quality test."),
        ("sinks", "Where accepted samples go; the tables of every candidate are written in any case."),
    ] {
        let mut refs: Vec<Json> = Vec::new();
        for kind in registry.kinds().iter().filter(|kind| kind.role.section() == section) {
            let same =
                registry.kinds().iter().filter(|other| other.name == kind.name && other.role.section() == section);
            // One name may have several roles: then the role tells its schemas apart.
            let suffix = if same.count() > 1 { format!(".{}", kind.role.name()) } else { String::new() };
            let name = format!("{section}.{}{suffix}", kind.name);
            refs.push(json!({ "$ref": format!("#/$defs/{name}") }));
            kinds.insert(name, schema_of(kind, &mut generator));
        }
        let any = json!({
            "type": "object",
            "description": about,
            "propertyNames": { "pattern": "^[A-Za-z0-9_-]+$" },
            "additionalProperties": { "anyOf": refs },
        });
        sections.insert(section.to_owned(), any);
    }
    let mut definitions = generator.take_definitions(true);
    definitions.extend(kinds);
    sections.insert("pipeline".to_owned(), pipeline);
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "freetumor pipeline",
        "description": "A graph of sources, stages and sinks that turns CT scans into synthetic tumors.",
        "type": "object",
        "properties": sections,
        "required": ["pipeline", "sources", "stages"],
        "additionalProperties": false,
        "$defs": definitions,
    });
    schema.sort_all_objects();
    schema
}

/// The settings of a kind, with `kind` and `inputs` beside them.
fn schema_of(kind: &Kind, generator: &mut SchemaGenerator) -> Json {
    let mut schema = kind.schema(generator);
    let schema = schema.ensure_object();
    let mut required: Vec<Json> = vec![json!("kind")];
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    if let Json::Object(properties) = properties {
        properties.insert("kind".to_owned(), json!({ "const": kind.name, "description": kind.about }));
        if kind.role != Role::Source {
            let takes: Vec<&str> = kind.role.takes().iter().map(|edge| edge.name()).collect();
            let about = format!("Nodes that give {}.", takes.join(" or "));
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
