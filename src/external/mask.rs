//! Masks by an external program: TotalSegmentator, nnU-Net, any script.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::Exchange;
use super::config::{Placeholders, command_config};
use super::exchange::{OutputFile, Outputs, Values, max_output_bytes};
use super::program::Program;
use crate::error::{ConfigError, Fault, Stage};
use crate::ingest::Scan;
use crate::mask::{
    FileChoice, LabelScheme, LabelsConfig, LabelsMask, Mask, Organ, OrganChoice, OrganMask, OtherLabels,
    TotalSegmentatorConfig, TotalSegmentatorMask,
};

/// The form of a mask program's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MaskOutput {
    /// One label file, `{output}`, whose ids `scheme` and `organs` define.
    #[default]
    Labels,
    /// A folder of binary masks, `{outputs}`, one per class, named as by TotalSegmentator.
    Folder,
}

command_config! {
    /// Settings of the mask kind `command`.
    CommandMaskConfig {
        /// Whether the program writes one label file or a folder of binary masks.
        #[serde(default)]
        output_form: MaskOutput,
        /// The name of the input image, the only file in the folder `{input}`: `.nii` or `.nii.gz`.
        #[serde(default = "default_image")]
        image: String,
        /// The label file, or with `output_form = "folder"` every binary mask (`{name}` is the class), in the folder `{outputs}`;
        /// `labels.nii.gz` and `{name}.nii.gz` if absent.
        #[serde(default)]
        output: Option<String>,
        /// The meaning of the ids of a label file.
        #[serde(default)]
        scheme: LabelScheme,
        /// The organs to use: names that the scheme defines (`["liver", "kidney"]`), or a table with the ids of each organ
        /// (`liver = { ids = [5], tumor_ids = [118] }`).
        #[serde(default = "no_organs")]
        organs: OrganChoice,
        /// With `output_form = "folder"`, organs by the names of their files, instead of `organs`.
        #[serde(default)]
        files: BTreeMap<String, Vec<String>>,
        /// The treatment of ids that belong to none of the organs.
        #[serde(default)]
        other: OtherLabels,
        /// Organ and tumor ids in the merged label map, instead of the default ids (`spleen = [7, 8]`).
        #[serde(default)]
        merged_ids: BTreeMap<String, [u8; 2]>,
        /// Minimum share of the scan's voxels that each file of the program must cover, 0 to 1.
        #[serde(default = "default_coverage")]
        min_coverage: f64,
    }
}

fn default_image() -> String {
    "image.nii.gz".to_owned()
}

fn no_organs() -> OrganChoice {
    OrganChoice::Names(Vec::new())
}

fn default_coverage() -> f64 {
    0.5
}

const LABELS: Placeholders = Placeholders {
    always: &["folder", "graph"],
    files: &["image", "input", "output", "outputs"],
    outputs: &["output", "outputs", "folder"],
};

/// A folder of files has no single file, so `{output}` is not defined.
const FOLDER: Placeholders =
    Placeholders { files: &["image", "input", "outputs"], outputs: &["outputs", "folder"], ..LABELS };

/// Runs a program on every scan and reads the organs that the program writes.
///
/// # Units
/// The image contains HU on the scan's own grid, i16 or f32. The output may be on any grid: its labels are resampled to the scan's
/// grid through both affines.
///
/// ```
/// use freetumor::external::{CommandMask, CommandMaskConfig};
/// let config: CommandMaskConfig = toml::from_str(
///     r#"
///     argv = ["/bin/sh", "-c", "cp /labels/like/these.nii.gz \"$0\"", "{output}"]
///     organs = ["liver", "spleen"]
///     time_limit_s = 60
///     "#,
/// )?;
/// let mask = CommandMask::new(config.clone(), ".".as_ref()).unwrap();
/// let missing = CommandMaskConfig { argv: vec!["no-such-program".into(), "{output}".into()], ..config };
/// let errors = CommandMask::new(missing, ".".as_ref()).err().unwrap();
/// assert_eq!(errors[0].message, "expected a program on the PATH, got `no-such-program`");
/// # Ok::<(), toml::de::Error>(())
/// ```
pub struct CommandMask {
    program: Program,
    image: String,
    output: String,
    reader: Reader,
}

enum Reader {
    Labels(LabelsMask),
    Folder(TotalSegmentatorMask),
}

impl CommandMask {
    /// Creates a stage with these settings; `graph` is the folder of the graph file.
    ///
    /// # Errors
    /// Returns all errors of the settings.
    pub fn new(config: CommandMaskConfig, graph: &Path) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let folder = config.output_form == MaskOutput::Folder;
        let placeholders = if folder { FOLDER } else { LABELS };
        let program = Program::new(Stage::Mask, &config.common(), graph, &placeholders, &mut errors);
        if folder && config.exchange == Exchange::Pipe {
            let error = ConfigError::new("output_form", "a folder of files cannot be read from a pipe");
            errors.push(error.with_hint("set output_form = \"labels\", or exchange = \"files\""));
        }
        let default = if folder { "{name}.nii.gz" } else { "labels.nii.gz" };
        let output = config.output.clone().unwrap_or_else(|| default.to_owned());
        for (field, path) in [("image", &config.image), ("output", &output)] {
            let is_plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
            let has_extension = path.ends_with(".nii") || path.ends_with(".nii.gz");
            if !is_plain || !has_extension || (field == "image" && path.contains('/')) {
                let message = format!("expected a name such as `image.nii` or `image.nii.gz`, got `{path}`");
                errors.push(ConfigError::new(field, message));
            }
        }
        let reader = if folder { folder_reader(config, &output) } else { labels_reader(config) };
        let reader = reader.map_err(|reader_errors| errors.extend(reader_errors)).ok();
        match (program, reader) {
            (Some(program), Some((reader, image))) if errors.is_empty() => Ok(Self { program, image, output, reader }),
            _ => Err(errors),
        }
    }
}

fn labels_reader(config: CommandMaskConfig) -> Result<(Reader, String), Vec<ConfigError>> {
    let CommandMaskConfig { image, scheme, organs, files, other, merged_ids, min_coverage, .. } = config;
    let mut errors = Vec::new();
    if !files.is_empty() {
        let error = ConfigError::new("files", "expected none with `output_form = \"labels\"`");
        errors.push(error.with_hint("set output_form = \"folder\""));
    }
    let config = LabelsConfig { pattern: "labels".into(), scheme, organs, other, merged_ids, min_coverage };
    match LabelsMask::new(config) {
        Ok(mask) if errors.is_empty() => Ok((Reader::Labels(mask), image)),
        Ok(_) => Err(errors),
        Err(mask_errors) => Err(errors.into_iter().chain(mask_errors).collect()),
    }
}

fn folder_reader(config: CommandMaskConfig, pattern: &str) -> Result<(Reader, String), Vec<ConfigError>> {
    let CommandMaskConfig { image, organs, files, merged_ids, min_coverage, .. } = config;
    let organs = match (organs, files.is_empty()) {
        (OrganChoice::Names(names), true) => FileChoice::Names(names),
        (OrganChoice::Names(names), false) if names.is_empty() => FileChoice::Files(files),
        (OrganChoice::Names(_), false) => {
            let error = ConfigError::new("files", "expected either `organs` or `files`, got both");
            return Err(vec![error.with_hint("name the files of every organ in `files`, and remove `organs`")]);
        }
        (OrganChoice::Ids(_), _) => {
            let error =
                ConfigError::new("organs", "expected names of organs, got a table of ids: binary masks have no ids");
            return Err(vec![error.with_hint("set organs = [\"liver\"], or files = { liver = [\"liver\"] }")]);
        }
    };
    let config =
        TotalSegmentatorConfig { pattern: pattern.to_owned(), organs, optional: false, merged_ids, min_coverage };
    let mask = TotalSegmentatorMask::new(config).map_err(|errors| {
        let renamed = |error: ConfigError| match error.field.as_str() {
            "pattern" => {
                ConfigError { field: "output".into(), hint: Some("set output = \"{name}.nii.gz\"".into()), ..error }
            }
            _ => error,
        };
        errors.into_iter().map(renamed).collect::<Vec<_>>()
    })?;
    Ok((Reader::Folder(mask), image))
}

impl Mask for CommandMask {
    fn program_files(&self) -> &[PathBuf] {
        self.program.reads()
    }

    fn organs(&self) -> Arc<[Organ]> {
        match &self.reader {
            Reader::Labels(mask) => mask.organs(),
            Reader::Folder(mask) => mask.organs(),
        }
    }

    fn mask(&self, scan: &Scan) -> Result<OrganMask, Fault> {
        let grid = &scan.volume.grid;
        let values = Values::from(&scan.volume.voxels);
        let mut call = self.program.call()?;
        let input = match self.program.exchange() {
            Exchange::Pipe => Some(self.program.image_bytes(grid, values)?),
            Exchange::Files => {
                self.program.write_image(&call.input("image", &self.image), grid, values)?;
                None
            }
        };
        let is_piped = input.is_some();
        let file = call.output("output", &self.output);
        let bytes = call.run(input, max_output_bytes(grid))?;
        let output = if is_piped { OutputFile::Bytes(&bytes) } else { OutputFile::File(&file) };
        match &self.reader {
            Reader::Labels(mask) => mask.merge(&self.program.labels(output, grid)?, grid),
            Reader::Folder(mask) => {
                let outputs = Outputs { folder: &call.outputs(), input: grid };
                mask.merge(&outputs, grid)
            }
        }
    }
}
