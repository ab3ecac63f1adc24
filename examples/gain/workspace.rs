//! The folder of the experiment, and its shared settings.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use freetumor::error::{ConfigError, Error, Result};
use freetumor::graph::{Registry, Resources};
use freetumor::inference::Networks;
use freetumor::ingest::dicom::Decoder;
use freetumor::mask::Organ;
use freetumor::nn::device::DeviceKind;
use freetumor::nn::service::Service;
use freetumor::simd::Class;
use freetumor::store::canonical;
use freetumor::store::write_atomic;
use freetumor::volume::Preprocess;
use serde::Serialize;

use super::config::Experiment;
use super::population::{LIVER, TUMOR};

/// The patients of the population are not real: their keys need no secret, and are the same on all machines.
const PATIENT_KEY: &str = "patients of a world of phantoms\n";

/// The folder of the experiment with its settings.
pub struct Workspace {
    pub out: PathBuf,
    pub experiment: Experiment,
    pub organs: Arc<[Organ]>,
    /// The number of parallel trainings.
    pub jobs: usize,
    device: DeviceKind,
}

impl Workspace {
    /// Creates the folder, or opens an existing one.
    ///
    /// # Errors
    /// Returns an error if the folder belongs to another experiment, or cannot be written.
    pub fn open(out: &Path, experiment: Experiment, device: DeviceKind, jobs: usize) -> Result<Self> {
        let organs = [Organ { name: "liver".to_owned(), label: LIVER, tumor_label: TUMOR }].into();
        let workspace = Self { out: out.to_owned(), experiment, organs, jobs, device };
        workspace.create_folder(out)?;
        let path = out.join("experiment.json");
        if let Ok(bytes) = std::fs::read(&path) {
            let existing: Result<Experiment> = canonical::parse(&bytes, &path.display().to_string());
            if !existing.and_then(|existing| workspace.experiment.extends(&existing)).unwrap_or(false) {
                let message = format!("{} contains an experiment with other settings", out.display());
                return Err(Error::new(message).with_hint(
                    "use another folder with `--out` for other settings or changed arms; only new arms can be added",
                ));
            }
        }
        workspace.write_json(&path, &workspace.experiment)?;
        workspace.write(&workspace.patient_key(), PATIENT_KEY.as_bytes())?;
        Ok(workspace)
    }

    /// Returns the file with the secret of patient keys.
    pub fn patient_key(&self) -> PathBuf {
        self.out.join("patient-key.txt")
    }

    /// Creates a folder and its parents.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be created.
    pub fn create_folder(&self, path: &Path) -> Result<()> {
        std::fs::create_dir_all(path).map_err(|cause| Error::io("cannot create the folder", path, cause))
    }

    /// Writes a file atomically.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        if let Some(folder) = path.parent() {
            self.create_folder(folder)?;
        }
        write_atomic(path, |out| out.write_all(bytes)).map_err(|cause| Error::io("cannot write", path, cause))
    }

    /// Writes a value as JSON.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write_json(&self, path: &Path, value: &impl Serialize) -> Result<()> {
        self.write(path, &canonical::pretty(value)?)
    }

    /// Opens the device for trainings.
    ///
    /// # Errors
    /// Returns an error if the device is not available.
    pub fn device(&self) -> Result<Device> {
        self.device.device()
    }

    /// Returns the class of the compute kernels.
    pub fn kernel_class(&self) -> String {
        match self.device {
            DeviceKind::Cpu => Class::current().name().to_owned(),
            DeviceKind::Cuda => "cuda".to_owned(),
        }
    }

    /// Returns the kinds of stages, with networks on the device.
    pub fn registry(&self) -> Registry {
        let batch = if self.device == DeviceKind::Cpu { 1 } else { 4 };
        Registry::with_resources(&Resources {
            decoder: Decoder::in_process(),
            patient_secret: Some(self.patient_key()),
            networks: Networks::new(Service::new(self.device, batch)),
        })
    }

    /// Returns the preprocessing of all networks.
    ///
    /// # Errors
    /// Returns an error if the settings are invalid.
    pub fn preprocess(&self) -> Result<Preprocess> {
        self.experiment.segmentation.preprocess.build().map_err(|errors| settings_error("preprocess", errors))
    }
}

/// Joins errors in settings to one error.
pub fn settings_error(table: &str, errors: Vec<ConfigError>) -> Error {
    let messages: Vec<String> = errors.into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
    Error::new(format!("{table}: {}", messages.join("; ")))
}

/// Prints a status line to standard error, and ignores a closed stream.
pub fn print_status(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
