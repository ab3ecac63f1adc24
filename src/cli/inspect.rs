//! `freetumor inspect`: describes one scan in numbers and as a picture.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Serialize, Serializer};

use super::print::{ignore_closed_pipe, print_json};
use super::scan::{read_error, read_scan, window};
use crate::error::{Error, Fault, Result};
use crate::export::scans::ScanReader;
use crate::export::select::SelectedSample;
use crate::graph::{GraphFile, Registry, check};
use crate::id::SampleId;
use crate::ingest::{Structures, dicom, is_tumor_name, known_label_names, volume_file};
use crate::mask::Alignment;
use crate::record::SampleRecord;
use crate::review::{SampleHistory, SampleView, window_of};
use crate::run::RunFolder;
use crate::volume::{Array3, HuWindow, Labels, Volume, Voxels, busiest_voxel, three_planes};

/// Describe a scan or a sample: geometry, HU, labels, a picture
///
/// The picture has an axial, a coronal and a sagittal plane through the tumor, the middle of the labels, or of the scan, in radiological
/// convention: the patient's right is on the left. Labels are named where their names are known: from the table in the header of the
/// labels, the dataset.json of their data set, or --pipeline.
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// A NIfTI, NRRD or MetaImage file or a DICOM folder; FOLDER#ID for one of several series; or a run folder, with a sample
    pub scan: PathBuf,
    /// The id of a sample of the run folder: its picture shows the tumor before, after, with its outline, and as a difference
    #[arg(value_name = "SAMPLE", conflicts_with = "labels")]
    pub sample: Option<SampleId>,
    /// A NIfTI, NRRD or MetaImage file of labels, on the scan's grid or any other, or a DICOM RT Structure Set or Segmentation
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Graph file whose mask stages name the labels; for a sample, with the sources of the run if these were moved
    #[arg(long, value_name = "FILE")]
    pub pipeline: Option<PathBuf>,
    /// Write a picture of three planes, labels overlaid
    #[arg(long, value_name = "OUT")]
    pub png: Option<PathBuf>,
    /// HU that are black and white in the picture [default: -175,250; for a sample in the lung -1000,500]
    #[arg(long, value_name = "LOW,HIGH", allow_hyphen_values = true, value_parser = window)]
    pub window: Option<HuWindow>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The description of a scan, which the command prints as JSON.
#[derive(Clone, Debug, Serialize)]
struct Inspection {
    /// Voxels along [x, y, z].
    shape: [usize; 3],
    spacing_mm: [f64; 3],
    /// Direction of the axes, such as LPS.
    orientation: String,
    /// Voxel index to RAS+ mm.
    affine: [[f64; 4]; 3],
    /// `i16` or `f32`.
    voxel_type: &'static str,
    /// Size in memory.
    volume_bytes: usize,
    hu: Hu,
    labels: Option<LabelMap>,
    /// Path of the picture.
    #[serde(serialize_with = "serialize_optional_path")]
    picture: Option<PathBuf>,
}

fn serialize_optional_path<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(serializer)
}

/// The distribution of HU.
#[derive(Clone, Debug, Serialize)]
struct Hu {
    low: f32,
    high: f32,
    mean: f64,
    percentiles: Vec<Percentile>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Percentile {
    percent: f64,
    hu: f32,
}

/// The labels of the scan.
#[derive(Clone, Debug, Serialize)]
struct LabelMap {
    shape: [usize; 3],
    orientation: String,
    /// Whether the labels are on the scan's own grid.
    on_scan_grid: bool,
    /// Share of the voxels of the scan that the labels cover, 0 to 1.
    coverage: f64,
    /// Number of voxels of the scan that have a label.
    labelled_voxels: u64,
    /// The labeled voxels on the labels' own grid.
    ids: Vec<Label>,
}

#[derive(Clone, Debug, Serialize)]
struct Label {
    id: u16,
    /// Absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    voxels: u64,
    ml: f64,
}

/// Describes `args.scan`, writes its picture if requested, and returns the exit code.
///
/// # Errors
/// If the scan or its labels cannot be read, or the picture cannot be written.
pub fn inspect(args: &InspectArgs, registry: &Registry, stdout: &mut dyn Write) -> Result<u8> {
    if let Some(path) = &args.png {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return Err(Error::new(format!("--png {}: there is no folder {}", path.display(), folder.display()))
                .with_hint("create the folder first"));
        }
    }
    if let Some(sample) = args.sample {
        return inspect_sample(args, sample, registry, stdout);
    }
    let scan = read_scan(&args.scan)?;
    let names = label_names_of(args, registry)?;
    let labels = args.labels.as_deref().map(|path| read_labels(path, &scan, &names)).transpose()?;
    if let Some(path) = &args.png {
        let on_scan = labels.as_ref().map(|labels| &labels.on_scan);
        let middle = scan.grid.shape.map(|voxels| voxels / 2);
        let voxel = on_scan.and_then(|labels| voxel_to_show(&labels.ids, &names)).unwrap_or(middle);
        three_planes(&scan, on_scan, voxel, args.window.unwrap_or(HuWindow::ABDOMEN)).write_png(path)?;
    }
    let inspection = Inspection {
        shape: scan.grid.shape,
        spacing_mm: scan.grid.spacing_mm(),
        orientation: scan.grid.orientation().code(),
        affine: scan.grid.affine.0,
        voxel_type: match scan.voxels {
            Voxels::I16(_) => "i16",
            Voxels::F32(_) => "f32",
        },
        volume_bytes: scan.voxels.bytes(),
        hu: Hu::of(&scan.voxels),
        labels: labels.map(|labels| labels.map),
        picture: args.png.clone(),
    };
    if args.json {
        print_json(&inspection, stdout)?;
    } else {
        ignore_closed_pipe(write!(stdout, "{inspection}"))?;
    }
    Ok(0)
}

/// Describes a sample of a run folder, and returns the exit code.
fn inspect_sample(args: &InspectArgs, sample: SampleId, registry: &Registry, stdout: &mut dyn Write) -> Result<u8> {
    let folder = RunFolder::open(&args.scan)?;
    let SampleHistory { record, files, .. } = SampleHistory::read(&folder, sample, None)?;
    let Some((shard, offset_bytes, length_bytes)) = files.patch else {
        return Err(Error::new(format!("the run folder has no patch of sample {sample}, which was rejected"))
            .with_hint(
                "choose an accepted sample, or a rejected one whose patch was kept: its row has a patch_shard",
            ));
    };
    let window = args.window.unwrap_or_else(|| window_of(&record.organ));
    let sample = SelectedSample { record, others: Vec::new(), shard, offset_bytes, length_bytes };
    let reader = ScanReader::open(&folder, std::slice::from_ref(&sample), args.pipeline.as_deref(), registry)?;
    let view = SampleView::read(&folder, &reader, &sample)?;
    if let (Some(path), Some(picture)) = (&args.png, view.three_planes(window)) {
        picture.write_png(path)?;
    }
    let statistics = view.statistics();
    if args.json {
        print_json(&statistics, stdout)?;
        return Ok(0);
    }
    let SampleRecord { sample_id, organ, outcome, .. } = &sample.record;
    let text = match statistics {
        None => format!("sample      {sample_id}, a negative: it equals its scan\n"),
        Some(statistics) => format!(
            "sample      {sample_id}, {}\norgan       {organ}\ntumor       {} voxels, HU {:.1} before, {:.1} after\n\
             changed     {} voxels, by {:.0} to {:.0} HU\n",
            outcome.reason().map_or("accepted".to_owned(), |reason| format!("rejected: {reason}")),
            statistics.tumor_voxels,
            statistics.before_hu,
            statistics.after_hu,
            statistics.changed_voxels,
            statistics.lowest_difference_hu,
            statistics.highest_difference_hu,
        ),
    };
    let picture = args.png.as_ref().map(|path| format!("picture     {}\n", path.display())).unwrap_or_default();
    ignore_closed_pipe(write!(stdout, "{text}{picture}"))?;
    Ok(0)
}

/// Returns the names of the labels, by id: those of the mask stages of the graph file, or those that the label file comes with.
fn label_names_of(args: &InspectArgs, registry: &Registry) -> Result<BTreeMap<u16, String>> {
    let Some(path) = &args.pipeline else {
        return Ok(args.labels.as_deref().map(known_label_names).unwrap_or_default());
    };
    let masks = check(&GraphFile::open(path)?, registry).scans.masks;
    let mut names = BTreeMap::new();
    for node in &masks {
        for (id, name) in node.mask.label_names() {
            names.entry(id).or_insert(name);
        }
    }
    if names.is_empty() {
        // No mask reads label files: the merged ids of a run.
        for organ in masks.iter().flat_map(|node| node.mask.organs().to_vec()) {
            names.insert(u16::from(organ.tumor_label), format!("{}_tumor", organ.name));
            names.insert(u16::from(organ.label), organ.name);
        }
    }
    if names.is_empty() {
        return Err(Error::new(format!("{} has no mask stage that names labels", path.display()))
            .with_hint("check the file with `freetumor validate`"));
    }
    Ok(names)
}

/// Returns the voxel to show: in the middle of the tumors, if their ids are known, or of all labels.
fn voxel_to_show(ids: &Array3<u16>, names: &BTreeMap<u16, String>) -> Option<[usize; 3]> {
    let is_tumor = |id: &u16| names.get(id).is_some_and(|name| is_tumor_name(name));
    busiest_voxel(&ids.map(|id| if is_tumor(id) { *id } else { 0 })).or_else(|| busiest_voxel(ids))
}

/// Statistics of stored labels, and the labels on the scan's grid.
struct ScanLabels {
    map: LabelMap,
    on_scan: Labels,
}

fn read_labels(path: &Path, scan: &Volume, names: &BTreeMap<u16, String>) -> Result<ScanLabels> {
    if dicom::is_structure_file(path) {
        return read_structures(path, scan).map_err(|fault| read_error(path, &fault));
    }
    let read = || {
        let labels = volume_file::read_labels(path)?;
        let coverage = Alignment::new(&labels.grid, &scan.grid, 0.0)?.coverage();
        let on_scan = labels.onto(&scan.grid)?;
        let labelled_voxels = on_scan.ids.as_slice().iter().filter(|id| **id > 0).count() as u64;
        let map = LabelMap { coverage, labelled_voxels, ..LabelMap::of(&labels, scan, names) };
        Ok(ScanLabels { map, on_scan })
    };
    read().map_err(|fault| read_error(path, &fault))
}

/// Reads the structures of a DICOM file on the grid of the scan. A voxel of several structures has the last one.
fn read_structures(path: &Path, scan: &Volume) -> Result<ScanLabels, Fault> {
    let file = dicom::StructureFile::read(path, None, dicom::Limits::default().volume_bytes)?;
    let mut ids = Array3::filled(scan.grid.shape, 0u16);
    let mut names = BTreeMap::new();
    for (index, (number, name)) in file.names().enumerate() {
        let Ok(id) = u16::try_from(number) else { continue };
        names.insert(id, name.unwrap_or_default().to_owned());
        file.for_each_voxel(index, &scan.grid, &mut |voxel| ids.as_mut_slice()[voxel] = id)?;
    }
    let on_scan = Labels { grid: scan.grid, ids };
    let map = LabelMap::of(&on_scan, scan, &names);
    let labelled_voxels = map.ids.iter().map(|label| label.voxels).sum();
    Ok(ScanLabels { map: LabelMap { labelled_voxels, ..map }, on_scan })
}

impl Hu {
    fn of(voxels: &Voxels) -> Self {
        const PERCENTS: [f64; 7] = [0.5, 5.0, 25.0, 50.0, 75.0, 95.0, 99.5];
        let ends = voxels.percentiles(&[0.0, 1.0]);
        let hu = voxels.percentiles(&PERCENTS.map(|percent| percent / 100.0));
        let sum: f64 = match voxels {
            Voxels::I16(array) => array.as_slice().iter().map(|hu| f64::from(*hu)).sum(),
            Voxels::F32(array) => array.as_slice().iter().map(|hu| f64::from(*hu)).sum(),
        };
        Self {
            low: ends.first().copied().unwrap_or(f32::NAN),
            high: ends.last().copied().unwrap_or(f32::NAN),
            mean: sum / voxels.shape().iter().product::<usize>() as f64,
            percentiles: PERCENTS.into_iter().zip(hu).map(|(percent, hu)| Percentile { percent, hu }).collect(),
        }
    }
}

impl LabelMap {
    fn of(labels: &Labels, scan: &Volume, names: &BTreeMap<u16, String>) -> Self {
        let mut counts = BTreeMap::new();
        for id in labels.ids.as_slice().iter().filter(|id| **id > 0) {
            *counts.entry(*id).or_insert(0u64) += 1;
        }
        let voxel_ml = labels.grid.voxel_volume_mm3() / 1000.0;
        let label = |(id, voxels)| Label { id, name: names.get(&id).cloned(), voxels, ml: voxels as f64 * voxel_ml };
        let ids = counts.into_iter().map(label);
        Self {
            shape: labels.grid.shape,
            orientation: labels.grid.orientation().code(),
            on_scan_grid: labels.grid.agrees_with(&scan.grid),
            coverage: 1.0,
            labelled_voxels: 0,
            ids: ids.collect(),
        }
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.shape;
        let mm = self.spacing_mm.map(|mm| format!("{mm:.4}").trim_end_matches('0').trim_end_matches('.').to_owned());
        let box_mm = [0, 1, 2].map(|axis| self.shape[axis] as f64 * self.spacing_mm[axis]);
        writeln!(f, "shape        {x} x {y} x {z} voxels, {}", self.orientation)?;
        writeln!(
            f,
            "spacing      {} mm, total {:.0} x {:.0} x {:.0} mm",
            mm.join(" x "),
            box_mm[0],
            box_mm[1],
            box_mm[2]
        )?;
        for (name, row) in ["right", "anterior", "superior"].into_iter().zip(self.affine) {
            let [i, j, k, origin] = row;
            writeln!(f, "{name:<12} {i:>10.4} i {j:>+10.4} j {k:>+10.4} k {origin:>+11.3} mm")?;
        }
        writeln!(f, "voxels       {}, {:.1} MB", self.voxel_type, self.volume_bytes as f64 / 1e6)?;
        writeln!(f, "HU           {} to {}, mean {:.1}", self.hu.low, self.hu.high, self.hu.mean)?;
        for Percentile { percent, hu } in &self.hu.percentiles {
            writeln!(f, "{:>11}% {hu:>8}", percent)?;
        }
        if let Some(labels) = &self.labels {
            let [x, y, z] = labels.shape;
            let grid = if labels.on_scan_grid { "the scan's grid" } else { "another grid" };
            writeln!(f, "labels       {} of {x} x {y} x {z} voxels, {}, {grid}", labels.ids.len(), labels.orientation)?;
            let percent = (100.0 * labels.coverage).floor();
            match (labels.labelled_voxels, labels.coverage) {
                (_, 0.0) => writeln!(
                    f,
                    "             none of the scan's voxels is within the labels: they belong to another scan"
                )?,
                (0, _) => {
                    writeln!(f, "             no voxel of the scan has a label; the labels cover {percent}% of it")?
                }
                (_, coverage) if coverage < 1.0 => {
                    writeln!(f, "             the labels cover {percent}% of the scan's voxels")?
                }
                _ => {}
            }
            let is_named = labels.ids.iter().any(|label| label.name.is_some());
            writeln!(f, "          id     voxels         ml{}", if is_named { "  name" } else { "" })?;
            for Label { id, name, voxels, ml } in &labels.ids {
                let name = name.as_ref().map(|name| format!("  {name}")).unwrap_or_default();
                writeln!(f, "{id:>12} {voxels:>10} {ml:>10.2}{name}")?;
            }
        }
        if let Some(path) = &self.picture {
            writeln!(f, "picture      {}", path.display())?;
        }
        Ok(())
    }
}
