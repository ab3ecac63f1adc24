//! `freetumor withdraw`: removes scans from a run permanently.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::print::{ignore_closed_pipe, pluralize, print_json};
use super::recorded::{RecordedArgs, send_request};
use crate::dataflow::{Progress, Receipt, WithdrawalRequest, withdraw};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Registry;
use crate::id::{PatientKey, ScanId};
use crate::run::RunFolder;
use crate::run::requests::Request;
use crate::store::serialize_path;
use crate::train::used_samples::trainings_with;

/// Remove scans from a run folder permanently
///
/// One commit removes the rows and samples of the scans. Tombstones, which do not contain the ids of the scans, prevent that a later run
/// ingests the scans again. With `--scan`, a duplicate of the scan is processed in place of the scan; with `--patient` and `--list`, all
/// scans of equal content are removed. Earlier states can be read until `--purge` or `freetumor vacuum` deletes them. The receipt lists
/// the changed files.
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct WithdrawArgs {
    /// The run folder
    pub run: PathBuf,
    /// Withdraw this scan
    #[arg(long = "scan", value_name = "ID", group = "what")]
    pub scans: Vec<ScanId>,
    /// Withdraw all scans of this patient, and all that are added later
    #[arg(long = "patient", value_name = "KEY", group = "what")]
    pub patients: Vec<PatientKey>,
    /// Withdraw the scans of this file: a scan id or the path of a scan below its source in each line
    #[arg(long, value_name = "FILE", group = "what")]
    pub list: Option<PathBuf>,
    /// Delete the earlier states of the run folder, so that nothing of the scans remains
    #[arg(long)]
    pub purge: bool,
    /// Write the receipt as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub receipt: Option<PathBuf>,
    /// Folder of training runs: the receipt names those that used samples of the withdrawn scans; may be repeated
    #[arg(long, value_name = "DIR")]
    pub trainings: Vec<PathBuf>,
    /// Print the receipt as JSON
    #[arg(long)]
    pub json: bool,
    /// Graph file, threads and secret.
    #[command(flatten)]
    pub recorded: RecordedArgs,
}

/// Withdraws scans and returns the exit code.
///
/// # Errors
/// If a scan is not in the run, or files cannot be written.
pub fn run(args: &WithdrawArgs, registry: &Registry, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<u8> {
    let mut request = WithdrawalRequest {
        scans: args.scans.iter().copied().collect(),
        patients: args.patients.iter().copied().collect(),
        by_content: args.list.is_some() || !args.patients.is_empty(),
    };
    if let Some(list) = &args.list {
        request.scans.extend(listed_scans(list, &RunFolder::open(&args.run)?)?);
    }
    // The receipt must not be lost: its file is created before anything changes.
    let file = args.receipt.as_ref().map(|path| {
        std::fs::File::create_new(path).map_err(|e| {
            Error::io("cannot create the receipt", path, e).with_hint("choose a new file with `--receipt`")
        })
    });
    let file = file.transpose()?;
    let plan = args.recorded.plan(&args.run, registry, stderr)?;
    let progress = Arc::new(Progress::default());
    let receipt = match withdraw(plan, &args.run, &request, args.purge, &args.recorded.options()?, &progress) {
        Err(error) if error.kind() == ErrorKind::Locked => {
            let WithdrawalRequest { scans, patients, by_content } = request;
            let request = Request::Withdraw { scans, patients, by_content, purge: args.purge };
            let scans = request_scans(&request);
            let mut receipt = send_request(&args.run, &request, stderr)?;
            // After a purge, the answer does not name the scans.
            let named =
                receipt["scans"].as_array().into_iter().flatten().filter_map(|scan| scan.as_str()?.parse().ok());
            let scans: BTreeSet<ScanId> = named.chain(scans).collect();
            receipt["trainings"] = serde_json::json!(trainings_of(args, &scans)?);
            write_receipt(file, args, &receipt)?;
            print_json(&receipt, stdout)?;
            return Ok(0);
        }
        receipt => receipt?,
    };
    let receipt = FullReceipt { trainings: trainings_of(args, &receipt.scans)?, receipt };
    write_receipt(file, args, &receipt)?;
    if args.json {
        print_json(&receipt, stdout)?
    } else {
        ignore_closed_pipe(print(&receipt, args, stdout))?
    }
    Ok(0)
}

/// A receipt with the training runs that used samples of the withdrawn scans.
#[derive(Serialize)]
struct FullReceipt {
    #[serde(flatten)]
    receipt: Receipt,
    trainings: Vec<TrainingWithSamples>,
}

/// A training run that used samples of withdrawn scans.
#[derive(Serialize)]
struct TrainingWithSamples {
    #[serde(serialize_with = "serialize_path")]
    folder: PathBuf,
    samples: usize,
}

/// Returns the training runs in the folders of the arguments that used samples of scans.
fn trainings_of(args: &WithdrawArgs, scans: &BTreeSet<ScanId>) -> Result<Vec<TrainingWithSamples>> {
    if args.trainings.is_empty() {
        return Ok(Vec::new());
    }
    let run = RunFolder::open(&args.run)?;
    let found = trainings_with(&args.trainings, run.manifest_sha256(), scans)?;
    Ok(found.into_iter().map(|(folder, samples)| TrainingWithSamples { folder, samples }).collect())
}

/// Returns the scans that a request names.
fn request_scans(request: &Request) -> Vec<ScanId> {
    match request {
        Request::Withdraw { scans, .. } => scans.iter().copied().collect(),
        _ => Vec::new(),
    }
}

fn write_receipt(file: Option<std::fs::File>, args: &WithdrawArgs, receipt: &impl Serialize) -> Result<()> {
    let Some((mut file, path)) = file.zip(args.receipt.as_ref()) else { return Ok(()) };
    let text = serde_json::to_string_pretty(receipt).map_err(std::io::Error::from);
    text.and_then(|text| writeln!(file, "{text}").and_then(|()| file.sync_all()))
        .map_err(|e| Error::io("cannot write the receipt", path, e))
}

fn print(full: &FullReceipt, args: &WithdrawArgs, out: &mut dyn Write) -> std::io::Result<()> {
    let (receipt, run) = (&full.receipt, args.run.display());
    match receipt.epoch {
        None => writeln!(out, "nothing to do: the scans were withdrawn before")?,
        Some(epoch) => {
            let scans = pluralize(receipt.scans.len(), "scan");
            writeln!(out, "withdrew {scans} in epoch {epoch}")?;
            let (removed, rewritten) = (receipt.removed.len(), receipt.rewritten.len());
            writeln!(out, "{} removed, {} rewritten", pluralize(removed, "file"), pluralize(rewritten, "file"))?;
        }
    }
    if !receipt.processed_duplicates.is_empty() {
        let scans = pluralize(receipt.processed_duplicates.len(), "duplicate");
        writeln!(out, "processed {scans} of withdrawn scans")?;
    }
    for TrainingWithSamples { folder, samples } in &full.trainings {
        writeln!(out, "{} used {} of these scans", folder.display(), pluralize(*samples, "sample"))?;
    }
    match receipt.is_purged {
        true => writeln!(out, "deleted {} of earlier states", pluralize(receipt.purged.len(), "file")),
        false => writeln!(out, "earlier states remain readable; freetumor vacuum {run} --keep-epochs 0 deletes them"),
    }
}

/// Returns the scans that a list names by id or by path.
fn listed_scans(list: &Path, run: &RunFolder) -> Result<BTreeSet<ScanId>> {
    let text = std::fs::read_to_string(list).map_err(|e| Error::io("cannot read", list, e))?;
    let lines: Vec<&str> =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let mut by_key: HashMap<String, Vec<ScanId>> = HashMap::new();
    if lines.iter().any(|line| line.parse::<ScanId>().is_err()) {
        run.for_each_entry(run.next_ingest()?, &mut |entry| {
            // A path of a DICOM folder names all series in it.
            if let Some((folder, _)) = entry.key.rsplit_once('#') {
                by_key.entry(folder.to_owned()).or_default().push(entry.scan_id);
            }
            by_key.entry(entry.key).or_default().push(entry.scan_id);
        })?;
    }
    let mut scans = BTreeSet::new();
    for line in lines {
        match (line.parse::<ScanId>(), by_key.get(line)) {
            (Ok(scan), _) => _ = scans.insert(scan),
            (Err(_), Some(found)) => scans.extend(found),
            (Err(_), None) => {
                let message =
                    format!("{}: expected a scan id or the path of a scan of the run, got {line:?}", list.display());
                return Err(Error::new(message).with_hint("`freetumor scans RUN --paths` lists ids and paths"));
            }
        }
    }
    Ok(scans)
}
