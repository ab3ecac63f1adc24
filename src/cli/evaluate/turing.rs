//! `freetumor evaluate --turing`: whether real and synthetic lesions can be told apart.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::measure::Problem;
use super::report::{bounds, print};
use super::{EvaluateArgs, files, make_folder, unprintable, write_file};
use crate::error::{Error, Result};
use crate::ingest::nifti;
use crate::random::Key;
use crate::train::metrics::MeasuredOrgan;
use crate::train::turing::{Auc, Judged, Specimen, describe, judge};

/// Judges, writes `turing.json`, prints, and gives the exit code: 1 where a pair could not be read.
///
/// # Errors
/// Where a folder cannot be read, or there are too few patients.
pub fn turing(
    args: &EvaluateArgs,
    real: &Path,
    synthetic: &Path,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<u8> {
    let [organ] = &args.organ[..] else {
        return Err(
            Error::new(format!("--turing looks at one organ, got {}", args.organ.len())).with_hint("give --organ once")
        );
    };
    let patients = args.patients.as_deref().map(files::patients).transpose()?.unwrap_or_default();
    let mut specimens = Vec::new();
    let mut problems = Vec::new();
    for (folder, is_real) in [(real, true), (synthetic, false)] {
        let images = files::list_images(&files::image_folder(folder)?)?;
        let labels = files::list(&files::label_folder(folder)?)?;
        for looked in looked_at(&images, &labels, organ) {
            match looked {
                Err(problem) => problems.push(problem),
                Ok((case, lesions)) => {
                    let patient = patients.get(&case).unwrap_or(&case);
                    specimens.extend(lesions.into_iter().map(|values| Specimen {
                        patient: patient.clone(),
                        is_real,
                        values,
                    }));
                }
            }
        }
    }
    for problem in &problems {
        writeln!(stderr, "problem: {problem}").map_err(unprintable)?;
    }
    let judged = judge(&specimens, args.resamples as usize, Key::root(args.seed).with("evaluate", "turing"))?;
    make_folder(&args.out)?;
    let json = serde_json::to_string_pretty(&judged)
        .map_err(|error| Error::new(format!("cannot write the verdict: {error}")).with_source(error))?;
    write_file(&args.out.join("turing.json"), format!("{json}\n").as_bytes())?;
    let text = if args.json { format!("{json}\n") } else { said(&judged) };
    print(stdout, &text)?;
    Ok(u8::from(!problems.is_empty()))
}

type Looked = Result<(String, Vec<Vec<f64>>), Problem>;

fn looked_at(
    images: &BTreeMap<String, PathBuf>,
    labels: &BTreeMap<String, PathBuf>,
    organ: &MeasuredOrgan,
) -> Vec<Looked> {
    let pair = |(case, path): (&String, &PathBuf)| {
        let problem = |message: String| Problem { case: case.clone(), network: None, message };
        let image = images.get(case).ok_or_else(|| problem("there is no image of this name".to_owned()))?;
        let look = || {
            let volume = nifti::read_volume(image)?;
            let labels = nifti::read_labels(path)?;
            let on_scan = if labels.grid.agrees_with(&volume.grid) { labels } else { labels.onto(&volume.grid)? };
            Ok(describe(&volume, &on_scan, organ.organ_id, organ.tumor_id))
        };
        let lesions = look().map_err(|fault: crate::error::Fault| problem(fault.message))?;
        Ok((case.clone(), lesions))
    };
    labels.par_iter().map(pair).collect()
}

fn said(judged: &Judged) -> String {
    let Judged { real, synthetic, patients, .. } = judged;
    let mut text = format!("{real} real and {synthetic} synthetic lesions of {patients} patients\n\n");
    text += "told apart by    AUC     95% interval (0.5: not at all)\n";
    for (name, Auc { auc, interval }) in
        [("everything", judged.all), ("looks", judged.looks), ("size and shape", judged.shape)]
    {
        text += &format!("{name:<15}  {auc:.4}  {}\n", bounds(interval));
    }
    if [judged.all, judged.looks, judged.shape].iter().any(|told| told.auc < 0.5) {
        text += "below 0.5 is chance too: trained on few patients, a classifier can be wrong about others more often than not\n";
    }
    text += "\nmost telling               real   synthetic   deviations\n";
    for telling in &judged.telling {
        let (name, real, synthetic, effect) = (telling.feature, telling.real, telling.synthetic, telling.effect);
        text += &format!("{name:<22}  {real:>8.3}  {synthetic:>10.3}  {effect:>+11.2}\n");
    }
    text
}
