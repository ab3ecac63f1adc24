//! Patients without their names: which files are of the same person, said with a keyed hash.
//!
//! A plain hash of a patient's number can be undone by trying all numbers. The key makes that impossible without the
//! secret, which lies outside of every run folder and is never logged.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::error::{ConfigError, Error, Result};
use crate::id::{PatientKey, ScanId};

/// The environment variable that holds the secret's text.
const VARIABLE: &str = "FREETUMOR_PATIENT_KEY";
/// Shorter secrets can be guessed.
const SHORTEST_BYTES: usize = 16;
/// Nobody means a file longer than this.
const LONGEST_BYTES: usize = 4096;

/// How a scan's patient is told from its key or its header. At most one of the fields is set; without any, the first
/// part of the path is the patient.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PatientConfig {
    /// Which part of the scan's path names the patient, counted from 0: in `site-3/patient-17/ct.nii.gz` it is 1. The
    /// last part counts without its file extension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_component: Option<usize>,
    /// A path with `{patient}` where the patient's name stands and `*` for anything within one part of the path:
    /// `imagesTr/{patient}_*.nii.gz`. The name is the shortest that fits and does not cross a `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Whether the patient is the PatientID of the DICOM header.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dicom: bool,
}

/// A checked [`PatientConfig`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatientRule {
    /// A part of the path, counted from 0.
    PathComponent(usize),
    /// The `{patient}` of a pattern.
    Pattern(PatientPattern),
    /// The PatientID of the DICOM header.
    Dicom,
}

impl PatientRule {
    /// Checks the settings; `field` is where they stand in the stage's table.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn new(config: &PatientConfig, field: &str) -> Result<Self, Vec<ConfigError>> {
        let given = [config.path_component.is_some(), config.pattern.is_some(), config.dicom];
        if given.into_iter().filter(|&given| given).count() > 1 {
            let message = "expected one of `path_component`, `pattern` and `dicom`, got several";
            return Err(vec![ConfigError::new(field, message)]);
        }
        match (&config.pattern, config.dicom) {
            (Some(pattern), _) => PatientPattern::new(pattern)
                .map(Self::Pattern)
                .map_err(|message| vec![ConfigError::new(format!("{field}.pattern"), message)]),
            (None, true) => Ok(Self::Dicom),
            (None, false) => Ok(Self::PathComponent(config.path_component.unwrap_or(0))),
        }
    }

    /// The patient that a key names; `None` where the rule does not fit it, or asks for a header.
    pub fn of_key<'a>(&self, key: &'a str) -> Option<&'a str> {
        let path = key.split_once('#').map_or(key, |(path, _)| path);
        match self {
            Self::PathComponent(index) => {
                let mut parts = path.split('/').skip(*index);
                let part = parts.next()?;
                Some(if parts.next().is_none() { super::file::stem(part) } else { part })
            }
            Self::Pattern(pattern) => pattern.patient_in(path),
            Self::Dicom => None,
        }
    }
}

/// A path with `{patient}` and `*` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatientPattern {
    before: String,
    after: String,
}

impl PatientPattern {
    fn new(pattern: &str) -> Result<Self, String> {
        match pattern.split("{patient}").collect::<Vec<_>>()[..] {
            [before, after] => Ok(Self { before: before.to_owned(), after: after.to_owned() }),
            _ => Err(format!("expected `{{patient}}` once, got `{pattern}`")),
        }
    }

    fn patient_in<'a>(&self, path: &'a str) -> Option<&'a str> {
        let boundaries = || path.char_indices().map(|(at, _)| at).chain([path.len()]);
        boundaries().filter(|&start| fits(&self.before, &path[..start])).find_map(|start| {
            let patients =
                boundaries().filter(move |&end| end > start).take_while(|&end| !path[start..end].contains('/'));
            patients.into_iter().find(|&end| fits(&self.after, &path[end..])).map(|end| &path[start..end])
        })
    }
}

/// Whether a text is a pattern in which `*` stands for anything but `/`.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(head) else { return false };
    let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    ends.take_while(|&end| !rest[..end].contains('/')).any(|end| fits(tail, &rest[end..]))
}

/// The secret behind patient keys.
#[derive(Clone, PartialEq, Eq)]
pub struct PatientSecret(Vec<u8>);

impl PatientSecret {
    /// The environment variable that holds the secret's text; no other program may see it.
    pub const VARIABLE: &'static str = VARIABLE;

    /// A secret of at least 16 bytes.
    ///
    /// # Errors
    /// Where it is shorter, or longer than 4096 bytes.
    pub fn new(secret: impl Into<Vec<u8>>) -> Result<Self> {
        let secret = secret.into();
        if (SHORTEST_BYTES..=LONGEST_BYTES).contains(&secret.len()) {
            return Ok(Self(secret));
        }
        let message =
            format!("expected a patient key of {SHORTEST_BYTES} to {LONGEST_BYTES} bytes, got {}", secret.len());
        Err(Error::new(message).with_hint("make one with: head -c 32 /dev/urandom | base64"))
    }

    /// The secret of this machine: the text of `$FREETUMOR_PATIENT_KEY`, else the content of `file`, else that of
    /// `freetumor/patient.key` in the user's configuration folder, which is made the first time.
    ///
    /// # Errors
    /// Where what is there cannot be read or is too short, or nothing is there and nothing can be made.
    pub fn load(file: Option<&Path>) -> Result<Self> {
        let folder = |variable: &str| std::env::var_os(variable).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let configuration = folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")));
        Self::load_from(std::env::var_os(VARIABLE), file, configuration)
    }

    fn load_from(text: Option<OsString>, file: Option<&Path>, configuration: Option<PathBuf>) -> Result<Self> {
        if let Some(text) = text {
            let text = text.to_string_lossy();
            return Self::new(text.trim_ascii()).map_err(|error| error.with_hint(format!("look at ${VARIABLE}")));
        }
        if let Some(file) = file {
            return Self::read(file).map_err(|error| Error::io("cannot read the patient key", file, error))?;
        }
        let Some(folder) = configuration else {
            let hint = format!("set ${VARIABLE}, or name a file that holds the key");
            return Err(Error::new("there is no place for the patient key: $HOME is not set").with_hint(hint));
        };
        let file = folder.join("freetumor").join("patient.key");
        match Self::read(&file) {
            Ok(secret) => secret,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::make(&file).map_err(|error| Error::io("cannot make the patient key", &file, error))?;
                Self::read(&file).map_err(|error| Error::io("cannot read the patient key", &file, error))?
            }
            Err(error) => Err(Error::io("cannot read the patient key", &file, error)),
        }
    }

    fn read(file: &Path) -> io::Result<Result<Self>> {
        let mut text = Vec::new();
        // One byte more than is allowed shows that there is more.
        io::Read::read_to_end(&mut io::Read::take(std::fs::File::open(file)?, LONGEST_BYTES as u64 + 1), &mut text)?;
        Ok(Self::new(text.trim_ascii()))
    }

    /// Makes a file of 64 random hexadecimal digits that only its owner can read. Where another process was first, its
    /// file stays.
    fn make(file: &Path) -> io::Result<()> {
        let Some(folder) = file.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
        std::fs::create_dir_all(folder)?;
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let text = hex::encode(random);
        // Temporary files belong to their owner alone (0600), and stay so when they get their name.
        let mut staged = tempfile::NamedTempFile::new_in(folder)?;
        writeln!(staged, "{text}")?;
        staged.as_file().sync_all()?;
        match staged.persist_noclobber(file) {
            Ok(_) => {
                tracing::info!(file = %file.display(), "made a secret for patient keys; keep it as long as the runs")
            }
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.error),
        }
        Ok(())
    }

    /// The key of a patient: the first 8 bytes of HMAC-SHA256. `scope` is what the name is unique in, such as a
    /// data set.
    ///
    /// ```
    /// use freetumor::ingest::PatientSecret;
    /// let secret = PatientSecret::new("correct horse battery staple")?;
    /// assert_eq!(secret.patient_key("LiTS", "17"), secret.patient_key("LiTS", "17"));
    /// assert_ne!(secret.patient_key("LiTS", "17"), secret.patient_key("KiTS", "17"));
    /// # Ok::<(), freetumor::error::Error>(())
    /// ```
    pub fn patient_key(&self, scope: &str, patient: &str) -> PatientKey {
        PatientKey::from_hash(&self.mac("patient", &[scope, patient]))
    }

    /// The id of a scan: without the secret the path or number behind it cannot be found by trial.
    ///
    /// ```
    /// use freetumor::ingest::PatientSecret;
    /// let [one, other] = ["correct horse battery staple", "another horse battery staple"].map(PatientSecret::new);
    /// assert_ne!(one?.scan_id("archive", "case-7/ct.nii.gz"), other?.scan_id("archive", "case-7/ct.nii.gz"));
    /// # Ok::<(), freetumor::error::Error>(())
    /// ```
    pub fn scan_id(&self, source: &str, key: &str) -> ScanId {
        ScanId::from_hash(&self.mac("scan", &[source, key]))
    }

    /// The digest of a pipeline's settings, 64 hexadecimal digits: they hold paths, which could be found by trial without the secret.
    pub fn pipeline_digest(&self, settings: &str) -> String {
        hex::encode(self.mac("pipeline", &[settings]))
    }

    /// The digest of one setting, 16 hexadecimal digits: it stands for a path where the setting itself must not be readable.
    pub fn setting_digest(&self, setting: &str) -> String {
        hex::encode(&self.mac("setting", &[setting])[..8])
    }

    /// A hash by which two secrets are told apart.
    pub fn fingerprint(&self) -> String {
        hex::encode(&self.mac("fingerprint", &[])[..8])
    }

    /// HMAC-SHA256 over the purpose and the parts, each with its length before it, so that no two inputs are the same bytes.
    fn mac(&self, purpose: &str, parts: &[&str]) -> [u8; 32] {
        // HMAC takes keys of every length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { unreachable!("HMAC refused a key") };
        for part in [&[purpose], parts].concat() {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for PatientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PatientSecret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(config: PatientConfig) -> PatientRule {
        PatientRule::new(&config, "patient").unwrap()
    }

    fn pattern(pattern: &str) -> PatientRule {
        rule(PatientConfig { pattern: Some(pattern.into()), ..PatientConfig::default() })
    }

    #[test]
    fn parts_of_a_path_name_the_patient() {
        let first = rule(PatientConfig::default());
        assert_eq!(first.of_key("case-7/2019/ct.nii.gz"), Some("case-7"));
        assert_eq!(first.of_key("liver_017.nii.gz"), Some("liver_017"));
        assert_eq!(first.of_key("case-7#0123456789abcdef"), Some("case-7"));
        let second = rule(PatientConfig { path_component: Some(1), ..PatientConfig::default() });
        assert_eq!(second.of_key("site/case-7/ct.nii.gz"), Some("case-7"));
        assert_eq!(second.of_key("ct.nii.gz"), None);
    }

    #[test]
    fn patterns_find_the_shortest_name() {
        assert_eq!(pattern("imagesTr/{patient}_*.nii.gz").of_key("imagesTr/liver-3_0000.nii.gz"), Some("liver-3"));
        assert_eq!(pattern("imagesTr/{patient}_*.nii.gz").of_key("imagesTs/liver-3_0000.nii.gz"), None);
        assert_eq!(pattern("*/{patient}/ct.nii.gz").of_key("a/b/ct.nii.gz"), Some("b"));
        assert_eq!(pattern("*/{patient}/ct.nii.gz").of_key("a/b/c/ct.nii.gz"), None);
        assert_eq!(pattern("{patient}.nii.gz").of_key("é/x.nii.gz"), None);
        assert_eq!(pattern("volume-{patient}.nii").of_key("volume-é.nii"), Some("é"));
        assert_eq!(pattern("volume-{patient}.nii").of_key("volume-.nii"), None);
    }

    #[test]
    fn contradicting_rules_are_complaints() {
        let both = PatientConfig { path_component: Some(1), dicom: true, pattern: None };
        assert_eq!(PatientRule::new(&both, "patient").unwrap_err()[0].field, "patient");
        let nameless = PatientConfig { pattern: Some("*/ct.nii".into()), ..PatientConfig::default() };
        assert_eq!(PatientRule::new(&nameless, "patient").unwrap_err()[0].field, "patient.pattern");
    }

    #[test]
    fn the_key_is_the_documented_hmac() {
        // python: parts = b"".join(len(s).to_bytes(8, "little") + s for s in (b"patient", b"LiTS", b"17"))
        //         hmac.new(b"k" * 16, parts, "sha256").hexdigest()[:16]
        let secret = PatientSecret::new([b'k'; 16]).unwrap();
        assert_eq!(secret.patient_key("LiTS", "17").to_string(), "39129452a83fdb44");
        assert_eq!(format!("{secret:?}"), "PatientSecret(…)");
        // No data set's name makes a patient's key that of a scan or of a setting.
        for scope in ["scan", "setting", "scan of archive", ""] {
            assert_ne!(secret.patient_key(scope, "17").to_string(), secret.scan_id("archive", "17").to_string());
            assert_ne!(secret.patient_key(scope, "17").to_string(), secret.setting_digest("17"));
        }
    }

    #[test]
    fn the_environment_precedes_the_file_and_the_file_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "0123456789abcdef0\n").unwrap();
        let configuration = Some(folder.path().to_owned());
        let text = || Some(OsString::from("fedcba9876543210"));
        let load = |text, file| PatientSecret::load_from(text, file, configuration.clone()).unwrap();
        assert_eq!(load(text(), Some(&file)), PatientSecret::new("fedcba9876543210").unwrap());
        assert_eq!(load(None, Some(&file)), PatientSecret::new("0123456789abcdef0").unwrap());
        let made = load(None, None);
        assert_eq!(made, load(None, None), "made once");
        assert_ne!(made, load(None, Some(&file)));
        let short = PatientSecret::load_from(Some("short".into()), None, configuration).unwrap_err();
        assert!(!short.to_string().contains("short"), "the secret stays out of messages: {short}");
    }

    #[cfg(unix)]
    #[test]
    fn a_made_secret_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        PatientSecret::load_from(None, None, Some(folder.path().to_owned())).unwrap();
        let file = folder.path().join("freetumor/patient.key");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(file).unwrap().trim_ascii().len(), 64);
    }
}
