//! Patient keys: keyed hashes that identify a patient without a name.
//!
//! A plain hash of a patient number can be reversed by trying all numbers. A keyed hash cannot be reversed without the
//! secret, which is stored outside of every run folder and is never logged.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::error::{ConfigError, Error, Result};
use crate::id::{PatientKey, ScanId, Tombstone};

/// The environment variable that holds the secret.
const VARIABLE: &str = "FREETUMOR_PATIENT_KEY";
/// The minimum length of a secret: a shorter secret can be guessed.
const SHORTEST_BYTES: usize = 16;
/// The maximum length of a secret: a longer file was probably named by mistake.
const LONGEST_BYTES: usize = 4096;

/// The rule that derives the patient of a scan from its key or its header. At most one of the fields is set; by default the first
/// component of the path is the patient.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    deny_unknown_fields,
    default,
    expecting = "a table such as { dicom = true }, { path_component = 0 } or { pattern = \"{patient}/*\" }"
)]
pub struct PatientConfig {
    /// Index of the path component that names the patient, counted from 0: `site-3/patient-17/ct.nii.gz` has the patient
    /// at 1. The last component is used without its file extension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_component: Option<usize>,
    /// A path pattern in which the placeholder `{patient}` represents the patient's name, and `*` for any characters within one path
    /// component: `imagesTr/{patient}_*.nii.gz`. The shortest name that matches is used; a name does not contain `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Whether the PatientID of the DICOM header is the patient.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dicom: bool,
}

/// A checked [`PatientConfig`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatientRule {
    /// A component of the path, counted from 0.
    PathComponent(usize),
    /// The `{patient}` in a pattern.
    Pattern(PatientPattern),
    /// The PatientID of the DICOM header.
    Dicom,
}

impl PatientRule {
    /// Creates the rule from its settings; `field` is the path of these settings in the node's table, for error messages.
    ///
    /// # Errors
    /// Returns every error in the settings.
    pub fn new(config: &PatientConfig, field: &str) -> Result<Self, Vec<ConfigError>> {
        let settings = [
            ("`path_component`", config.path_component.is_some()),
            ("`pattern`", config.pattern.is_some()),
            ("`dicom`", config.dicom),
        ];
        let present: Vec<&str> = settings.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect();
        if present.len() > 1 {
            let message = format!(
                "expected at most one of `path_component`, `pattern` and `dicom`, got {}",
                present.join(" and ")
            );
            let hint = "keep the setting that names the patient, and remove the others";
            return Err(vec![ConfigError::new(field, message).with_hint(hint)]);
        }
        match (&config.pattern, config.dicom) {
            (Some(pattern), _) => PatientPattern::new(pattern)
                .map(Self::Pattern)
                .map_err(|message| vec![ConfigError::new(format!("{field}.pattern"), message)]),
            (None, true) => Ok(Self::Dicom),
            (None, false) => Ok(Self::PathComponent(config.path_component.unwrap_or(0))),
        }
    }

    /// Returns the patient that a path below the root names; `None` if the rule does not match the path, or reads a header of DICOM.
    /// `path` is the key of the scan without the `#UID` of a DICOM series.
    pub fn of_path<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self {
            Self::PathComponent(index) => {
                let mut components = path.split('/').skip(*index);
                let component = components.next()?;
                Some(if components.next().is_none() { super::file::stem(component) } else { component })
            }
            Self::Pattern(pattern) => pattern.patient_in(path),
            Self::Dicom => None,
        }
    }
}

/// A path pattern with `{patient}` and `*`.
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
        boundaries().filter(|&start| matches(&self.before, &path[..start])).find_map(|start| {
            let patients =
                boundaries().filter(move |&end| end > start).take_while(|&end| !path[start..end].contains('/'));
            patients.into_iter().find(|&end| matches(&self.after, &path[end..])).map(|end| &path[start..end])
        })
    }
}

/// Returns whether a string matches a pattern in which `*` matches any characters but `/`.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(head) else { return false };
    let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    ends.take_while(|&end| !rest[..end].contains('/')).any(|end| matches(tail, &rest[end..]))
}

/// The secret of patient keys.
#[derive(Clone, PartialEq, Eq)]
pub struct PatientSecret(Vec<u8>);

impl PatientSecret {
    /// The environment variable that holds the secret; it is not passed to other programs.
    pub const VARIABLE: &'static str = VARIABLE;

    /// Creates a secret of 16 to 4096 bytes.
    ///
    /// # Errors
    /// Returns an error if the secret is shorter or longer.
    pub fn new(secret: impl Into<Vec<u8>>) -> Result<Self> {
        let secret = secret.into();
        if (SHORTEST_BYTES..=LONGEST_BYTES).contains(&secret.len()) {
            return Ok(Self(secret));
        }
        let message =
            format!("expected a patient key of {SHORTEST_BYTES} to {LONGEST_BYTES} bytes, got {}", secret.len());
        Err(Error::new(message).with_hint("create a key with: head -c 32 /dev/urandom | base64"))
    }

    /// Loads the secret of this machine: the value of `$FREETUMOR_PATIENT_KEY`, else the content of `file`, else the content of
    /// `freetumor/patient.key` in the user's configuration folder, which is created on first use.
    ///
    /// # Errors
    /// Returns an error if the secret cannot be read or has the wrong length, or if the file cannot be created.
    pub fn load(file: Option<&Path>) -> Result<Self> {
        let folder = |variable: &str| std::env::var_os(variable).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let configuration = folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")));
        Self::load_from(std::env::var_os(VARIABLE), file, configuration)
    }

    fn load_from(text: Option<OsString>, file: Option<&Path>, configuration: Option<PathBuf>) -> Result<Self> {
        if let Some(text) = text {
            let text = text.to_string_lossy();
            return Self::new(text.trim_ascii()).map_err(|error| error.with_hint(format!("check ${VARIABLE}")));
        }
        if let Some(file) = file {
            return Self::read(file).map_err(|error| Error::io("cannot read the patient key", file, error))?;
        }
        let Some(folder) = configuration else {
            let hint = format!("set ${VARIABLE} or name a file that contains the key");
            return Err(Error::new("cannot locate the patient key: $HOME is not set").with_hint(hint));
        };
        let file = folder.join("freetumor").join("patient.key");
        match Self::read(&file) {
            Ok(secret) => secret,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::create(&file).map_err(|error| Error::io("cannot create the patient key", &file, error))?;
                Self::read(&file).map_err(|error| Error::io("cannot read the patient key", &file, error))?
            }
            Err(error) => Err(Error::io("cannot read the patient key", &file, error)),
        }
    }

    fn read(file: &Path) -> io::Result<Result<Self>> {
        let mut text = Vec::new();
        // One byte above the limit detects a file that is too long.
        io::Read::read_to_end(&mut io::Read::take(std::fs::File::open(file)?, LONGEST_BYTES as u64 + 1), &mut text)?;
        Ok(Self::new(text.trim_ascii()))
    }

    /// Creates a file of 64 random hexadecimal digits that only its owner can read. If another process has created the
    /// file in the meantime, that file is kept.
    fn create(file: &Path) -> io::Result<()> {
        let Some(folder) = file.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
        std::fs::create_dir_all(folder)?;
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let text = hex::encode(random);
        // Temporary files have mode 0600 and keep it when they are renamed.
        let mut staged = tempfile::NamedTempFile::new_in(folder)?;
        writeln!(staged, "{text}")?;
        staged.as_file().sync_all()?;
        match staged.persist_noclobber(file) {
            Ok(_) => {
                tracing::info!(file = %file.display(), "created a secret for patient keys; keep it as long as the runs")
            }
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.error),
        }
        Ok(())
    }

    /// Returns the key of a patient: the first 8 bytes of HMAC-SHA256. `scope` is the set in which the name is unique, such as
    /// a data set.
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

    /// Returns the id of a scan: without the secret its path or number cannot be found by trial.
    ///
    /// ```
    /// use freetumor::ingest::PatientSecret;
    /// let [first, second] = ["correct horse battery staple", "another horse battery staple"].map(PatientSecret::new);
    /// assert_ne!(first?.scan_id("archive", "case-7/ct.nii.gz"), second?.scan_id("archive", "case-7/ct.nii.gz"));
    /// # Ok::<(), freetumor::error::Error>(())
    /// ```
    pub fn scan_id(&self, source: &str, key: &str) -> ScanId {
        ScanId::from_hash(&self.mac("scan", &[source, key]))
    }

    /// Returns the digest of the settings of a pipeline, 64 hexadecimal digits. The digest is keyed because settings contain paths, which
    /// could be found by trial from a plain hash.
    pub fn pipeline_digest(&self, settings: &str) -> String {
        hex::encode(self.mac("pipeline", &[settings]))
    }

    /// Returns the digest of one setting, 16 hexadecimal digits: it replaces a path that must not be readable.
    pub fn setting_digest(&self, setting: &str) -> String {
        hex::encode(&self.mac("setting", &[setting])[..8])
    }

    /// Returns the tombstone of a withdrawn scan, patient or content digest; `kind` names which.
    pub(crate) fn tombstone(&self, kind: &str, id: &str) -> Tombstone {
        Tombstone::from_hash(&self.mac("withdrawn", &[kind, id]))
    }

    /// Returns a hash that identifies the secret.
    pub fn fingerprint(&self) -> String {
        hex::encode(&self.mac("fingerprint", &[])[..8])
    }

    /// Computes the HMAC-SHA256 over the purpose and the parts, each with its length as a prefix, so that different inputs are different
    /// bytes.
    fn mac(&self, purpose: &str, parts: &[&str]) -> [u8; 32] {
        // HMAC accepts keys of any length.
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
    fn path_component_names_patient() {
        let first = rule(PatientConfig::default());
        assert_eq!(first.of_path("case-7/2019/ct.nii.gz"), Some("case-7"));
        assert_eq!(first.of_path("liver_017.nii.gz"), Some("liver_017"));
        assert_eq!(first.of_path("LIVER_017.NII.GZ"), Some("LIVER_017"));
        assert_eq!(first.of_path("case#7/ct.nii"), Some("case#7"));
        let second = rule(PatientConfig { path_component: Some(1), ..PatientConfig::default() });
        assert_eq!(second.of_path("site/case-7/ct.nii.gz"), Some("case-7"));
        assert_eq!(second.of_path("ct.nii.gz"), None);
    }

    #[test]
    fn pattern_matches_shortest_patient_name() {
        assert_eq!(pattern("imagesTr/{patient}_*.nii.gz").of_path("imagesTr/liver-3_0000.nii.gz"), Some("liver-3"));
        assert_eq!(pattern("imagesTr/{patient}_*.nii.gz").of_path("imagesTs/liver-3_0000.nii.gz"), None);
        assert_eq!(pattern("*/{patient}/ct.nii.gz").of_path("a/b/ct.nii.gz"), Some("b"));
        assert_eq!(pattern("*/{patient}/ct.nii.gz").of_path("a/b/c/ct.nii.gz"), None);
        assert_eq!(pattern("{patient}.nii.gz").of_path("é/x.nii.gz"), None);
        assert_eq!(pattern("volume-{patient}.nii").of_path("volume-é.nii"), Some("é"));
        assert_eq!(pattern("volume-{patient}.nii").of_path("volume-.nii"), None);
    }

    #[test]
    fn contradicting_rules_are_errors() {
        let both = PatientConfig { path_component: Some(1), dicom: true, pattern: None };
        assert_eq!(PatientRule::new(&both, "patient").unwrap_err()[0].field, "patient");
        let nameless = PatientConfig { pattern: Some("*/ct.nii".into()), ..PatientConfig::default() };
        assert_eq!(PatientRule::new(&nameless, "patient").unwrap_err()[0].field, "patient.pattern");
    }

    #[test]
    fn patient_key_is_documented_hmac() {
        // python: parts = b"".join(len(s).to_bytes(8, "little") + s for s in (b"patient", b"LiTS", b"17"))
        //         hmac.new(b"k" * 16, parts, "sha256").hexdigest()[:16]
        let secret = PatientSecret::new([b'k'; 16]).unwrap();
        assert_eq!(secret.patient_key("LiTS", "17").to_string(), "39129452a83fdb44");
        assert_eq!(format!("{secret:?}"), "PatientSecret(…)");
        // No data set name makes a patient key equal to the id of a scan or the digest of a setting.
        for scope in ["scan", "setting", "scan of archive", ""] {
            assert_ne!(secret.patient_key(scope, "17").to_string(), secret.scan_id("archive", "17").to_string());
            assert_ne!(secret.patient_key(scope, "17").to_string(), secret.setting_digest("17"));
        }
    }

    #[test]
    fn secret_is_loaded_from_environment_then_file_then_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "0123456789abcdef0\n").unwrap();
        let configuration = Some(folder.path().to_owned());
        let text = || Some(OsString::from("fedcba9876543210"));
        let load = |text, file| PatientSecret::load_from(text, file, configuration.clone()).unwrap();
        assert_eq!(load(text(), Some(&file)), PatientSecret::new("fedcba9876543210").unwrap());
        assert_eq!(load(None, Some(&file)), PatientSecret::new("0123456789abcdef0").unwrap());
        let created = load(None, None);
        assert_eq!(created, load(None, None), "created once");
        assert_ne!(created, load(None, Some(&file)));
        let short = PatientSecret::load_from(Some("short".into()), None, configuration).unwrap_err();
        assert!(!short.to_string().contains("short"), "the message must not contain the secret: {short}");
    }

    #[cfg(unix)]
    #[test]
    fn created_secret_is_readable_by_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        PatientSecret::load_from(None, None, Some(folder.path().to_owned())).unwrap();
        let file = folder.path().join("freetumor/patient.key");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(file).unwrap().trim_ascii().len(), 64);
    }
}
