//! Columns of `scans`.

use super::{access, descriptors, optional};
use crate::record::ScanRecord as Row;
use crate::record::column::{Access, Column, ColumnType, Descriptor};

fn shape(axis: usize) -> Access<Row> {
    Access::U32(
        Box::new(move |row| row.shape.map(|shape| shape[axis])),
        Box::new(move |row, value| {
            row.shape.get_or_insert_default()[axis] = value;
            Ok(())
        }),
    )
}

fn spacing(axis: usize) -> Access<Row> {
    Access::F64(
        Box::new(move |row| row.spacing_mm.map(|spacing| spacing[axis])),
        Box::new(move |row, value| {
            row.spacing_mm.get_or_insert_default()[axis] = value;
            Ok(())
        }),
    )
}

fn organs() -> Access<Row> {
    Access::Organs(
        Box::new(|row| Some(row.organs.clone())),
        Box::new(|row, value| {
            row.organs = value;
            Ok(())
        }),
    )
}

/// Returns the access to `contrast`, a text of yes or no.
fn contrast() -> Access<Row> {
    Access::Text(
        Box::new(|row| {
            row.acquisition.has_contrast.map(|has_contrast| (if has_contrast { "yes" } else { "no" }).to_owned())
        }),
        Box::new(|row, value| {
            row.acquisition.has_contrast = Some(value == "yes");
            Ok(())
        }),
    )
}

pub(in crate::record) fn descriptors() -> Vec<Descriptor<Row>> {
    descriptors! {
        1 "scan_id" Text always "" "Id of the scan: a keyed hash of source and path; RUN/private maps the id to the path." => access!(parsed scan_id);
        2 "scan_digest" Text maybe "" "SHA-256 of the scan's voxels, shape and spacing; absent if the scan could not be read." => access!(optional_parsed scan_digest);
        3 "patient_key" Text always "" "Keyed hash of the patient." => access!(parsed patient_key);
        4 "dataset" Text always "" "Name of the data set." => access!(text dataset);
        5 "source" Text always "" "Name of the source in the graph file." => access!(text source);
        6 "epoch" U64 always "" "The commit that added the row." => access!(U64 epoch);
        7 "split" Text always "" "train, validation or test: the same for all scans of a patient." => access!(parsed split);
        8 "status" Text always "" "done, fault or duplicate." => access!(parsed status);
        9 "duplicate_of" Text maybe "" "For a duplicate, the scan of equal content that was processed." => access!(optional_parsed duplicate_of);
        10 "bytes" U64 always "byte" "Size on disk." => access!(U64 bytes);
        11 "shape_x_voxels" U32 maybe "voxel" "Number of voxels along the first axis." => shape(0);
        12 "shape_y_voxels" U32 maybe "voxel" "Number of voxels along the second axis." => shape(1);
        13 "shape_z_voxels" U32 maybe "voxel" "Number of voxels along the third axis." => shape(2);
        14 "spacing_x_mm" F64 maybe "mm" "Distance between neighbouring voxels along the first axis." => spacing(0);
        15 "spacing_y_mm" F64 maybe "mm" "Distance between neighbouring voxels along the second axis." => spacing(1);
        16 "spacing_z_mm" F64 maybe "mm" "Distance between neighbouring voxels along the third axis." => spacing(2);
        17 "orientation" Text maybe "" "Directions of the axes, such as LPS: left, posterior, superior." => access!(optional_text orientation);
        18 "hu_min" F64 maybe "HU" "Lowest HU of the scan." => optional!(F64 hu_min);
        19 "hu_max" F64 maybe "HU" "Highest HU of the scan." => optional!(F64 hu_max);
        20 "organs" Organs always "" "Organs in the mask, sorted by name." => organs();
        21 "accepted" U32 always "" "Number of accepted tumors." => access!(U32 accepted);
        22 "rejected" U32 always "" "Number of rejected attempts." => access!(U32 rejected);
        23 "mask_coverage" F64 maybe "" "Share of the scan's voxels that the label files cover, the smallest of all masks; absent if the scan has no mask. An empty list of organs at full coverage is a mask without its organs." => optional!(F64 mask_coverage);
        24 "manufacturer" Text maybe "" "Manufacturer of the scanner (DICOM 0008,0070); absent for other formats, as all columns of the acquisition." => access!(optional_text acquisition.manufacturer);
        25 "scanner_model" Text maybe "" "Model of the scanner (0008,1090)." => access!(optional_text acquisition.scanner_model);
        26 "kernel" Text maybe "" "Convolution kernel of the reconstruction (0018,1210)." => access!(optional_text acquisition.kernel);
        27 "tube_voltage_kv" F64 maybe "kV" "Tube voltage (0018,0060)." => optional!(F64 acquisition.tube_voltage_kv);
        28 "exposure_mas" F64 maybe "mAs" "Exposure (0018,1152)." => optional!(F64 acquisition.exposure_mas);
        29 "slice_thickness_mm" F64 maybe "mm" "Slice thickness (0018,0050); the distance of the slices is spacing_z_mm." => optional!(F64 acquisition.slice_thickness_mm);
        30 "contrast" Text maybe "" "Whether a contrast agent was given, yes or no (0018,0010)." => contrast();
        31 "patient_position" Text maybe "" "Position of the patient (0018,5100), such as HFS." => access!(optional_text acquisition.patient_position);
        32 "acquisition_year" U32 maybe "" "Year of the acquisition (0008,0022), if the source sets `acquisition_year`." => optional!(U32 acquisition.acquisition_year);
    }
}
