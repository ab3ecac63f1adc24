//! DICOM series: folders of slices, read as volumes.
//!
//! [`list_folder`] reads headers only and separates the series in a folder; [`read_series`] decodes one of them. Slices
//! are ordered by their position along the slice normal, never by name or number, and the spacing between slices is computed
//! from these positions.
//!
//! # Supported files
//! CT images, one file per slice, single-sample MONOCHROME2 of 8 or 16 bits, signed or unsigned, in implicit and explicit
//! little-endian, explicit big-endian, deflated, RLE, JPEG lossless (processes 14 and 14 SV1), JPEG 2000 and HTJ2K. Any other
//! file of a series is a [`Fault`](crate::error::Fault) that names the reason.
//!
//! Deviations that leave one meaning are read: a file without preamble or group 2, numbers in another value representation, compressed
//! pixels without offset table or end mark, and a compressed image of fewer bits than BitsStored, whose highest bit is the sign of signed
//! pixels. A deviation with two meanings is a fault.
//!
//! # Units
//! HU = slope × stored + intercept, slice by slice. Pixels that the scanner padded outside its field of view keep the
//! HU of this formula (often −2000 or −3024): the volume is bit-exact, and HU windows clip such values. Whole
//! numbers are stored as `i16`; a fractional slope, or a value beyond 16 bits, makes the volume `f32`.
//!
//! # Tolerances
//! A slice may deviate by a tenth of a voxel from its position on the even grid; cosines may differ by 1e-4 and pixel spacings by
//! a relative 1e-4; the stacking direction may deviate by half a degree from the normal, and the affine of the volume is perpendicular. A
//! gap of a whole number of steps is a missing slice, any other gap is uneven spacing, a larger angle is a tilted gantry.
//!
//! # Patients
//! Names of patients are not parsed. Slices with another PatientID, study or frame of reference are another scan; these identifiers are
//! compared in memory as hashes, and identifiers of series and slices leave this module only as hashes. The exception is [`patient_id`],
//! for keyed hashing.
//!
//! # Scans of a series
//! One series may contain several scans: phases, reconstructions, patients. Elements and instance numbers propose a separation, which is
//! accepted if it turns slices that contradict each other into even stacks. An even stack stays one scan, unless a setting such as
//! ConvolutionKernel shows two. Slices with two possible assignments, and a scan that other slices continue by one step, are faults.
//!
//! # Structures
//! [`StructureFile`] reads RT Structure Sets and Segmentations, which belong to a scan as its labels.
//!
//! # Hostile files
//! Lengths are checked against the size of the file. The decoder of JPEG 2000 can crash on bad input:
//! [`Decoder::in_child_process`] runs decoders in a child process.

mod acquisition;
mod acquisitions;
mod codec;
mod codestream;
mod continuation;
mod contours;
mod copies;
mod dataset;
mod decoder;
mod elements;
mod encoding;
mod extent;
mod folder;
mod fragments;
mod frame;
mod geometry;
pub mod jpeg;
mod keys;
mod numbering;
mod object;
mod passes;
mod pixels;
mod rle;
mod samples;
mod segmentation;
mod series;
mod slice;
mod stack;
mod stacks;
mod start;
mod stream;
mod structure;
mod structure_set;
mod structures;
mod syntax;
mod value;
mod worker;

pub use acquisition::acquisition;
pub use decoder::Decoder;
pub use extent::SeriesExtent;
pub use folder::{DicomFolder, FolderFilter, Separation, list_folder, list_series};
pub use series::{Series, frame_of_reference, patient_id, read_header, read_series};
pub use structure::FrameOfReference;
pub use structures::{StructureFile, is_structure_file};
pub use worker::serve;

/// Limits on the size of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum bytes of a decoded volume.
    pub volume_bytes: u64,
}

impl Default for Limits {
    /// Returns a limit of 8 GiB, far above any CT scan.
    fn default() -> Self {
        Self { volume_bytes: 8 << 30 }
    }
}
