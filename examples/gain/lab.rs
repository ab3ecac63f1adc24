//! Where everything of the experiment lies, and what its pieces share.

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
use freetumor::store::write_whole;
use freetumor::volume::Preprocess;
use serde::Serialize;

use super::config::Experiment;
use super::world::{LIVER, TUMOR};

/// The world's patients are nobody: their keys need no secret, and are the same everywhere.
const PATIENT_KEY: &str = "patients of a world of phantoms\n";

/// The experiment and its folder.
pub struct Lab {
    pub out: PathBuf,
    pub experiment: Experiment,
    pub organs: Arc<[Organ]>,
    /// Trainings at a time.
    pub jobs: usize,
    place: DeviceKind,
}

impl Lab {
    /// The folder, new or as it was left.
    ///
    /// # Errors
    /// Returns an error if it belongs to another experiment, or cannot be written.
    pub fn open(out: &Path, experiment: Experiment, place: DeviceKind, jobs: usize) -> Result<Self> {
        let organs = [Organ { name: "liver".to_owned(), label: LIVER, tumor_label: TUMOR }].into();
        let lab = Self { out: out.to_owned(), experiment, organs, jobs, place };
        lab.make_folder(out)?;
        let path = out.join("experiment.json");
        if let Ok(there) = std::fs::read(&path) {
            let there: Result<Experiment> = canonical::parse(&there, &path.display().to_string());
            if !there.and_then(|there| lab.experiment.goes_on_from(&there)).unwrap_or(false) {
                let message = format!("{} holds an experiment of other settings", out.display());
                return Err(Error::new(message).with_hint(
                    "arms may be added; other settings, and arms that changed, are another experiment: --out DIR",
                ));
            }
        }
        lab.write_json(&path, &lab.experiment)?;
        lab.write(&lab.patient_key(), PATIENT_KEY.as_bytes())?;
        Ok(lab)
    }

    /// The file behind patient keys.
    pub fn patient_key(&self) -> PathBuf {
        self.out.join("patient-key.txt")
    }

    /// Makes a folder, and those that it lies in.
    ///
    /// # Errors
    /// Returns an error if it cannot be made.
    pub fn make_folder(&self, path: &Path) -> Result<()> {
        std::fs::create_dir_all(path).map_err(|cause| Error::io("cannot make the folder", path, cause))
    }

    /// Writes a file whole or not at all.
    ///
    /// # Errors
    /// Returns an error if it cannot be written.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        if let Some(folder) = path.parent() {
            self.make_folder(folder)?;
        }
        write_whole(path, |out| out.write_all(bytes)).map_err(|cause| Error::io("cannot write", path, cause))
    }

    /// Writes JSON.
    ///
    /// # Errors
    /// Returns an error if it cannot be written.
    pub fn write_json(&self, path: &Path, value: &impl Serialize) -> Result<()> {
        self.write(path, &canonical::pretty(value)?)
    }

    /// The device that trains.
    ///
    /// # Errors
    /// Returns an error if there is none.
    pub fn device(&self) -> Result<Device> {
        self.place.device()
    }

    /// Which kernels compute.
    pub fn kernel_class(&self) -> String {
        match self.place {
            DeviceKind::Cpu => Class::current().name().to_owned(),
            DeviceKind::Cuda => "cuda".to_owned(),
        }
    }

    /// The kinds of stages, with networks on the device.
    pub fn registry(&self) -> Registry {
        let batch = if self.place == DeviceKind::Cpu { 1 } else { 4 };
        Registry::on(&Resources {
            decoder: Decoder::in_process(),
            patient_secret: Some(self.patient_key()),
            networks: Networks::new(Service::new(self.place, batch)),
        })
    }

    /// What every network sees of a scan.
    ///
    /// # Errors
    /// Returns an error if the settings are none.
    pub fn preprocess(&self) -> Result<Preprocess> {
        self.experiment.segmentation.preprocess.build().map_err(|complaints| refused("preprocess", complaints))
    }
}

/// The first of several complaints as an error.
pub fn refused(what: &str, complaints: Vec<ConfigError>) -> Error {
    let said: Vec<String> = complaints.into_iter().map(|it| format!("{}: {}", it.field, it.message)).collect();
    Error::new(format!("{what}: {}", said.join("; ")))
}

/// Says on standard error what is going on; nobody needs to listen.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
