//! RT Structure Sets: structures as closed planar contours.
//!
//! # Source
//! PS3.3, sections C.8.8.5 (Structure Set Module) and C.8.8.6 (ROI Contour Module).

use dicom_dictionary_std::tags;

use super::contours::{Contour, for_each_voxel};
use super::dataset::{Dataset, corrupt, missing};
use super::structure::{FrameOfReference, Structure, check_frame};
use crate::error::{Fault, FaultKind};
use crate::volume::Grid;

/// The contours of each structure of a file.
pub(super) struct StructureSet {
    structures: Vec<Contours>,
}

/// The contours of one structure, or the fault of using the structure.
type Contours = Result<Vec<Contour>, Fault>;

impl StructureSet {
    /// Reads the structures with their names, and their contours. A structure that cannot be used has a fault, which is reported if the
    /// structure is selected.
    pub fn read(dataset: &Dataset<'_>, scan: Option<FrameOfReference>) -> Result<(Vec<Structure>, Self), Fault> {
        for (tag, name) in [
            (tags::STRUCTURE_SET_ROI_SEQUENCE, "StructureSetROISequence"),
            (tags::ROI_CONTOUR_SEQUENCE, "ROIContourSequence"),
        ] {
            if !dataset.contains(tag) {
                return Err(Fault::read(
                    FaultKind::Truncated,
                    format!(
                        "expected structures with contours, got an RT Structure Set without {name}: copy it again from its archive"
                    ),
                ));
            }
        }
        let mut structures = Vec::new();
        let mut contours: Vec<Contours> = Vec::new();
        for item in dataset.items(tags::STRUCTURE_SET_ROI_SEQUENCE)? {
            let number = item.integer(tags::ROI_NUMBER, "ROINumber")?;
            if structures.iter().any(|other: &Structure| other.number == number) {
                return Err(corrupt(format!("expected each ROINumber once, got {number} twice")));
            }
            let name = item.text(tags::ROI_NAME).map(|name| name.into_owned());
            structures.push(Structure { number, name });
            let frame = item.text(tags::REFERENCED_FRAME_OF_REFERENCE_UID);
            contours.push(check_frame(frame.as_deref(), scan).map(|()| Vec::new()));
        }
        for item in dataset.items(tags::ROI_CONTOUR_SEQUENCE)? {
            let number = item.integer(tags::REFERENCED_ROI_NUMBER, "ReferencedROINumber")?;
            let Some(index) = structures.iter().position(|structure| structure.number == number) else {
                return Err(corrupt(format!("expected contours of a structure of the file, got the number {number}")));
            };
            let read = contours_of(&item);
            if let Ok(all) = &mut contours[index] {
                match read {
                    Ok(read) => all.extend(read),
                    Err(fault) => contours[index] = Err(fault),
                }
            }
        }
        Ok((structures, Self { structures: contours }))
    }

    /// Calls `visit` with every voxel of a structure, as a linear index.
    pub fn for_each_voxel(&self, index: usize, scan: &Grid, visit: &mut dyn FnMut(usize)) -> Result<(), Fault> {
        for_each_voxel(self.structures[index].as_ref().map_err(Fault::clone)?, scan, visit)
    }
}

/// Returns the contours of one item; single points are skipped.
fn contours_of(item: &Dataset<'_>) -> Result<Vec<Contour>, Fault> {
    let mut contours = Vec::new();
    for contour in item.items(tags::CONTOUR_SEQUENCE)? {
        let kind = contour.text(tags::CONTOUR_GEOMETRIC_TYPE);
        match kind.as_deref() {
            Some("CLOSED_PLANAR" | "CLOSEDPLANAR_XOR") => {}
            Some("POINT") => continue,
            other => {
                let name = match other {
                    Some("OPEN_PLANAR") => "an open planar contour",
                    Some("OPEN_NONPLANAR") => "an open contour that is not planar",
                    Some(_) => "another type",
                    None => "none",
                };
                return Err(Fault::read(
                    FaultKind::Unsupported,
                    format!("expected contours of the type CLOSED_PLANAR, got {name}"),
                ));
            }
        }
        let numbers = contour.decimals(tags::CONTOUR_DATA, "ContourData")?.ok_or_else(|| missing("ContourData"))?;
        let (points, rest) = numbers.as_chunks::<3>();
        if !rest.is_empty() {
            return Err(corrupt("expected three numbers for each point in ContourData, got another count"));
        }
        if let Some(stated) = contour.text(tags::NUMBER_OF_CONTOUR_POINTS)
            && stated.trim().parse() != Ok(points.len())
        {
            return Err(corrupt(format!(
                "expected as many points in ContourData as NumberOfContourPoints states, got {}",
                points.len()
            )));
        }
        // Fewer than three points enclose no area.
        if points.len() >= 3 {
            contours.push(Contour::from_lps(points));
        }
    }
    Ok(contours)
}
