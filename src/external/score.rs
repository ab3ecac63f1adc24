//! Scores by an external program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Exchange;
use super::config::{Placeholders, command_config};
use super::excerpt::start_of;
use super::exchange::Values;
use super::program::Program;
use super::request::{CandidateContext, floats, offset};
use crate::error::{ConfigError, Fault, FaultKind, Stage};
use crate::mask::{MaskedScan, Organ};
use crate::score::{Score, ScoreStage, Scorer, Scores};
use crate::suggest::did_you_mean;
use crate::synth::Candidate;

/// Maximum bytes of the scores that a program writes.
const MAX_SCORES_BYTES: u64 = 64 * 1024;

command_config! {
    /// Settings of the score kind `command`.
    CommandScoreConfig {
        /// The scores of the program, by their columns: `["realness", "found_fraction"]`. The output must contain all of them, and no
        /// others.
        scores: Vec<String>,
        /// Margin of the scan around the candidate's box that is passed to the program, in mm.
        #[serde(default = "default_margin_mm")]
        margin_mm: f64,
    }
}

pub(super) fn default_margin_mm() -> f64 {
    20.0
}

/// Adds an error if the margin is out of range.
pub(super) fn check_margin(margin_mm: f64, errors: &mut Vec<ConfigError>) {
    if !(0.0..=1000.0).contains(&margin_mm) {
        errors.push(ConfigError::new("margin_mm", format!("expected 0 to 1000 mm, got {margin_mm}")));
    }
}

const PLACEHOLDERS: Placeholders = Placeholders {
    always: &["organ", "request", "folder", "graph"],
    files: &["before", "after", "labels", "tumor", "input", "output", "outputs"],
    outputs: &["output", "outputs", "folder"],
};

/// Runs a program on every candidate and reads the scores that the program writes.
///
/// # Shapes
/// `{before}`, `{after}`, `{labels}` (merged, after synthesis) and `{tumor}` (1 inside) are images of one box; with a pipe they are the
/// four volumes of one image, in this order. `{request}` is a JSON file with organ, labels, spacing and box.
///
/// # Units
/// Images contain HU; the scores have the units of their columns.
///
/// ```
/// use freetumor::external::{CommandScore, CommandScoreConfig};
/// use freetumor::score::{Score, ScoreStage};
/// let config: CommandScoreConfig = toml::from_str(
///     r#"
///     argv = ["/bin/sh", "-c", "echo '{{\"realness\": 0.5}}' > \"$0\"", "{output}"]
///     scores = ["realness"]
///     "#,
/// )?;
/// let stage = CommandScore::new(config.clone(), ".".as_ref()).unwrap();
/// assert_eq!(stage.scores(), [Score::Realness]);
/// let mistyped = CommandScoreConfig { scores: vec!["realnes".into()], ..config };
/// let errors = CommandScore::new(mistyped, ".".as_ref()).err().unwrap();
/// assert_eq!(errors[0].hint.as_deref(), Some("did you mean `realness`?"));
/// # Ok::<(), toml::de::Error>(())
/// ```
pub struct CommandScore {
    program: Program,
    produced: Vec<Score>,
    margin_mm: f64,
}

impl CommandScore {
    /// Creates a stage with these settings; `graph` is the folder of the graph file.
    ///
    /// # Errors
    /// Returns all errors of the settings.
    pub fn new(config: CommandScoreConfig, graph: &Path) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let program = Program::new(Stage::Score, &config.common(), graph, &PLACEHOLDERS, &mut errors);
        let mut produced = Vec::new();
        for (index, name) in config.scores.iter().enumerate() {
            let field = format!("scores.{index}");
            match Score::from_name(name) {
                Some(score) if produced.contains(&score) => {
                    errors.push(ConfigError::new(field, format!("`{name}` is named twice")));
                }
                Some(score) => produced.push(score),
                None => {
                    let hint = did_you_mean(name, Score::ALL.iter().map(|score| score.name()));
                    let hint = hint.unwrap_or_else(|| "run `freetumor schema samples` for a list of scores".into());
                    errors.push(ConfigError::new(field, format!("there is no score `{name}`")).with_hint(hint));
                }
            }
        }
        if config.scores.is_empty() {
            let error = ConfigError::new("scores", "expected at least one score, got none");
            errors.push(error.with_hint("set scores = [\"realness\"]"));
        }
        check_margin(config.margin_mm, &mut errors);
        match program {
            Some(program) if errors.is_empty() => Ok(Self { program, produced, margin_mm: config.margin_mm }),
            _ => Err(errors),
        }
    }

    /// Parses the output of the program into `scores`.
    fn parse(&self, output: &[u8], scores: &mut Scores) -> Result<(), Fault> {
        let invalid = |message: String| self.program.fault(FaultKind::Corrupt, message);
        let names = self.produced.iter().map(|score| score.name()).collect::<Vec<_>>().join(", ");
        let values: BTreeMap<String, f64> = serde_json::from_slice(output).map_err(|error| {
            invalid(format!(
                "expected a JSON object with numbers for {names} from the program, got invalid JSON at {}:{}: `{}`",
                error.line(),
                error.column(),
                start_of(output)
            ))
        })?;
        if let Some(name) = values.keys().find(|name| !self.produced.iter().any(|score| score.name() == *name)) {
            let name: String = name.chars().filter(|letter| !letter.is_control()).take(40).collect();
            return Err(invalid(format!("expected the scores {names} from the program, got also `{name}`")));
        }
        for &score in &self.produced {
            let Some(&value) = values.get(score.name()) else {
                return Err(invalid(format!(
                    "expected the scores {names} from the program, `{}` is missing",
                    score.name()
                )));
            };
            let [low, high] = score.range();
            if !(low..=high).contains(&value) || !value.is_finite() {
                let message = format!("expected `{}` of {low} to {high} from the program, got {value}", score.name());
                return Err(invalid(message));
            }
            scores.set(score, value);
        }
        Ok(())
    }
}

impl ScoreStage for CommandScore {
    fn program_files(&self) -> &[PathBuf] {
        self.program.reads()
    }

    fn reads(&self) -> Option<&[Score]> {
        Some(&[])
    }

    /// Returns a high cost, because a program starts for every candidate.
    fn cost(&self) -> f64 {
        50.0
    }

    fn scores(&self) -> &[Score] {
        &self.produced
    }

    fn baseline<'scan>(
        &'scan self,
        scan: &'scan MaskedScan,
        organ: &'scan Organ,
    ) -> Result<Box<dyn Scorer + 'scan>, Fault> {
        Ok(Box::new(CommandScorer { stage: self, scan, organ }))
    }
}

struct CommandScorer<'scan> {
    stage: &'scan CommandScore,
    scan: &'scan MaskedScan,
    organ: &'scan Organ,
}

impl Scorer for CommandScorer<'_> {
    fn score(&self, candidate: &Candidate, scores: &mut Scores) -> Result<(), Fault> {
        let program = &self.stage.program;
        let context = CandidateContext::new(self.scan, candidate, self.stage.margin_mm);
        let at = offset(candidate.region, context.region);
        let (mut after, mut labels) = (context.before.clone(), context.labels.clone());
        after.paste(at, &candidate.after);
        labels.paste(at, &candidate.labels);
        let mut call = program.call()?;
        call.set("organ", &self.organ.name);
        let mut request = context.request(self.organ, candidate);
        request["scores"] = self.stage.produced.iter().map(|score| score.name()).collect();
        program.write_text(&call.input("request", "request.json"), &request.to_string())?;
        let output = match program.exchange() {
            Exchange::Pipe => {
                let images = [&context.before, &after, &floats(&labels), &floats(&context.tumor)];
                call.run(Some(program.series_bytes(&context.grid, &images)?), MAX_SCORES_BYTES)?
            }
            Exchange::Files => {
                let images = [
                    ("before", "before.nii.gz", Values::F32(context.before.as_slice())),
                    ("after", "after.nii.gz", Values::F32(after.as_slice())),
                    ("labels", "labels.nii.gz", Values::U8(labels.as_slice())),
                    ("tumor", "tumor.nii.gz", Values::U8(context.tumor.as_slice())),
                ];
                for (name, file, values) in images {
                    program.write_image(&call.input(name, file), &context.grid, values)?;
                }
                let file = call.output("output", "scores.json");
                call.run(None, 0)?;
                read_bounded(program, &file)?
            }
        };
        self.stage.parse(&output, scores)
    }
}

/// Reads the file of the scores, which must not exceed the maximum size.
fn read_bounded(program: &Program, path: &Path) -> Result<Vec<u8>, Fault> {
    let metadata = path.metadata().ok().filter(std::fs::Metadata::is_file);
    let Some(metadata) = metadata else {
        return Err(program.fault(FaultKind::Missing, "expected scores from the program, got none"));
    };
    if metadata.len() > MAX_SCORES_BYTES {
        let message =
            format!("expected at most {MAX_SCORES_BYTES} bytes of scores from the program, got {}", metadata.len());
        return Err(program.fault(FaultKind::TooLarge, message));
    }
    std::fs::read(path).map_err(|error| {
        program.fault(FaultKind::Io, format!("cannot read the scores from the program: {}", error.kind()))
    })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn output_must_contain_exactly_the_declared_scores() {
        let config = toml::from_str("argv = ['/bin/sh', '{output}']\nscores = ['realness', 'delta_hu']").unwrap();
        let stage = CommandScore::new(config, Path::new(".")).unwrap();
        let parse = |text: &str| {
            let mut scores = Scores::default();
            stage.parse(text.as_bytes(), &mut scores).map(|()| scores)
        };
        let scores = parse("{\"realness\": 1, \"delta_hu\": -31.5}\n").unwrap();
        assert_eq!((scores.get(Score::Realness), scores.get(Score::DeltaHu)), (Some(1.0), Some(-31.5)));
        for (text, expected) in [
            ("", "expected a JSON object with numbers for realness, delta_hu"),
            ("[1, 2]", "got invalid JSON at 1:0: `[1, 2]`"),
            ("{\"realness\": NaN, \"delta_hu\": 0}", "expected a JSON object"),
            ("{\"realness\": null, \"delta_hu\": 0}", "expected a JSON object"),
            ("{\"realness\": 0.5}", "`delta_hu` is missing"),
            ("{\"realness\": 0.5, \"delta_hu\": 0, \"dice\": 1}", "got also `dice`"),
            ("{\"realness\": 1.5, \"delta_hu\": 0}", "expected `realness` of 0 to 1 from the program, got 1.5"),
            ("{\"realness\": 0.5, \"delta_hu\": 1e999}", "expected"),
        ] {
            let fault = parse(text).unwrap_err();
            assert!(fault.message.contains(expected) && fault.stage == Stage::Score, "{text}: {fault}");
        }
    }

    #[test]
    fn new_rejects_unknown_and_duplicate_scores() {
        let fields = |scores: &str| {
            let config =
                toml::from_str(&format!("argv = ['/bin/sh', '{{output}}']\nmargin_mm = -1\nscores = {scores}"));
            let errors = CommandScore::new(config.unwrap(), Path::new(".")).err().unwrap();
            errors.into_iter().map(|error| error.field).collect::<Vec<_>>()
        };
        assert_eq!(fields("['dice', 'dice', 'x']"), ["scores.1", "scores.2", "margin_mm"]);
        assert_eq!(fields("[]"), ["scores", "margin_mm"]);
    }
}
