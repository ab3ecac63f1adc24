//! Image and label files of a sample: the unchanged scan with the tumor's box patched in.
//!
//! Nothing is resampled and no volume is copied: voxels are compressed from the scan, one slab of slices at a time. Slabs without
//! tumor voxels are compressed once per scan and cached for its other samples.

use std::io::{self, Write};
use std::sync::OnceLock;

use super::gzip::{Chunk, Member};

use crate::error::{Fault, FaultKind, Stage};
use crate::ingest::nifti::{Datatype, NIFTI1_BYTES, encode_header};
use crate::mask::MaskedScan;
use crate::synth::Candidate;
use crate::volume::{Array3, Region, Voxels};

/// The default compression level, of levels 1 to 9. On CT, files of level 2 are 4% larger than files of level 6 and take about half
/// the time; they are a quarter smaller than files of level 1 (see `tests/bench/encode.rs`).
pub const DEFAULT_GZIP_LEVEL: u32 = 2;

/// Marks the tumor as synthetic in the file header.
const IMAGE_DESCRIPTION: &str = "CT with a synthetic tumor, freetumor";
const LABEL_DESCRIPTION: &str = "labels with a synthetic tumor, freetumor";

/// Maximum size of a slab before compression, or one slice: large enough for the compression ratio of a whole volume, small enough
/// that a small tumor changes few slabs.
const SLAB_BYTES: usize = 1 << 18;

/// Compresses pieces to one gzip member, with equal bytes for equal pieces.
///
/// # Errors
/// If compression fails.
pub(super) fn gzip_member(pieces: &[&[u8]], level: u32) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut member = Member::new(&mut bytes)?;
    for piece in pieces {
        member.push(&Chunk::new(piece, level)?)?;
    }
    member.finish()?;
    Ok(bytes)
}

/// The change of a scan by a sample: a box on the grid of the scan.
#[derive(Clone, Copy, Debug)]
pub struct Overlay<'a> {
    /// The box.
    pub region: Region,
    /// HU of the box with the tumor.
    pub after: &'a Array3<f32>,
    /// Merged labels of the box with the tumor.
    pub labels: &'a Array3<u8>,
}

impl<'a> From<&'a Candidate> for Overlay<'a> {
    fn from(candidate: &'a Candidate) -> Self {
        Self { region: candidate.region, after: &candidate.after, labels: &candidate.labels }
    }
}

/// An encoder of the samples of one scan as `.nii.gz`.
///
/// # Units
/// Images contain HU, as i16 if the scan is i16, else as f32; labels contain merged ids as u8. Both are on the grid of the scan and
/// equal the scan and its mask bit for bit outside the tumor's box.
///
/// The encoder caches the compressed slabs of the scan: at most the size of the scan and of its mask.
pub struct Encoder<'scan> {
    masked: &'scan MaskedScan,
    level: u32,
    image_header: [u8; NIFTI1_BYTES + 4],
    label_header: [u8; NIFTI1_BYTES + 4],
    image_slabs: Slabs,
    label_slabs: Slabs,
}

/// The unchanged slabs of one file, compressed on first use.
struct Slabs {
    slab_slices: usize,
    chunks: Vec<OnceLock<Chunk>>,
}

impl Slabs {
    fn new([nx, ny, nz]: [usize; 3], voxel_bytes: usize) -> Self {
        let slab_slices = (SLAB_BYTES / (nx * ny * voxel_bytes).max(1)).max(1);
        Self { slab_slices, chunks: (0..nz.div_ceil(slab_slices)).map(|_| OnceLock::new()).collect() }
    }
}

impl<'scan> Encoder<'scan> {
    /// Creates an encoder for one scan with gzip level `level`, 1 to 9.
    ///
    /// # Errors
    /// A fault of stage `sink` if NIfTI-1 cannot store the scan.
    pub fn new(masked: &'scan MaskedScan, level: u32) -> Result<Self, Fault> {
        let volume = &masked.scan.volume;
        let datatype = match volume.voxels {
            Voxels::I16(_) => Datatype::I16,
            Voxels::F32(_) => Datatype::F32,
        };
        if volume.grid.shape != volume.voxels.shape() || masked.mask.labels.shape() != volume.voxels.shape() {
            let shapes = [volume.grid.shape, volume.voxels.shape(), masked.mask.labels.shape()];
            return Err(mismatch(format!("expected grid, voxels and mask of one shape, got {shapes:?}")));
        }
        Ok(Self {
            masked,
            level,
            image_header: encode_header(&volume.grid, datatype, IMAGE_DESCRIPTION)?,
            label_header: encode_header(&volume.grid, Datatype::U8, LABEL_DESCRIPTION)?,
            image_slabs: Slabs::new(volume.grid.shape, datatype.bytes()),
            label_slabs: Slabs::new(volume.grid.shape, 1),
        })
    }

    /// Calls [`check_fit`] with the scan of this encoder.
    ///
    /// # Errors
    /// The same errors as [`check_fit`].
    pub fn check<'a>(&self, overlay: impl Into<Overlay<'a>>) -> Result<(), Fault> {
        check_fit(self.masked, overlay)
    }

    /// Writes the image with the tumor as a complete `.nii.gz` file.
    ///
    /// # Errors
    /// If `out` fails. The candidate or patch must have passed [`Encoder::check`].
    pub fn write_image<'a>(&self, overlay: impl Into<Overlay<'a>>, out: &mut dyn Write) -> io::Result<()> {
        let Overlay { region, after, .. } = overlay.into();
        match &self.masked.scan.volume.voxels {
            Voxels::I16(array) => {
                let to_bytes = |hu: f32| (hu as i16).to_le_bytes();
                self.write(
                    out,
                    &self.image_header,
                    &self.image_slabs,
                    array,
                    |hu| hu.to_le_bytes(),
                    region,
                    after,
                    to_bytes,
                )
            }
            Voxels::F32(array) => {
                let to_bytes = |hu: f32| hu.to_le_bytes();
                self.write(out, &self.image_header, &self.image_slabs, array, to_bytes, region, after, to_bytes)
            }
        }
    }

    /// Writes the merged labels with the tumor as a complete `.nii.gz` file.
    ///
    /// # Errors
    /// The same errors as [`Encoder::write_image`].
    pub fn write_label<'a>(&self, overlay: impl Into<Overlay<'a>>, out: &mut dyn Write) -> io::Result<()> {
        let array = &self.masked.mask.labels;
        let to_bytes = |label: u8| [label];
        let Overlay { region, labels, .. } = overlay.into();
        self.write(out, &self.label_header, &self.label_slabs, array, to_bytes, region, labels, to_bytes)
    }

    #[expect(clippy::too_many_arguments, reason = "the kinds of files differ in every argument")]
    fn write<T: Copy, P: Copy, const N: usize>(
        &self,
        out: &mut dyn Write,
        header: &[u8],
        slabs: &Slabs,
        array: &Array3<T>,
        to_bytes: impl Fn(T) -> [u8; N],
        region: Region,
        patch: &Array3<P>,
        patch_to_bytes: impl Fn(P) -> [u8; N],
    ) -> io::Result<()> {
        let [nx, ny, nz] = array.shape();
        let [x0, y0, z0] = region.start;
        let changed_slices = z0..region.end()[2];
        let mut member = Member::new(out)?;
        member.push(&Chunk::new(header, self.level)?)?;
        let mut bytes = Vec::new();
        for (index, cached) in slabs.chunks.iter().enumerate() {
            let first = index * slabs.slab_slices;
            let slices = first..(first + slabs.slab_slices).min(nz);
            let patched = slices.start < changed_slices.end && changed_slices.start < slices.end;
            if let (false, Some(chunk)) = (patched, cached.get()) {
                member.push(chunk)?;
                continue;
            }
            bytes.clear();
            for &voxel in &array.as_slice()[nx * ny * slices.start..nx * ny * slices.end] {
                bytes.extend_from_slice(&to_bytes(voxel));
            }
            if !patched {
                let chunk = Chunk::new(&bytes, self.level)?;
                member.push(cached.get_or_init(|| chunk))?;
                continue;
            }
            for z in changed_slices.start.max(slices.start)..changed_slices.end.min(slices.end) {
                for y in 0..region.shape[1] {
                    let start = N * (x0 + nx * (y0 + y + ny * (z - slices.start)));
                    let row = bytes[start..start + N * region.shape[0]].chunks_exact_mut(N);
                    for (voxel, &value) in row.zip(patch.row(y, z - z0)) {
                        voxel.copy_from_slice(&patch_to_bytes(value));
                    }
                }
            }
            member.push(&Chunk::new(&bytes, self.level)?)?;
        }
        member.finish()
    }
}

fn mismatch(message: String) -> Fault {
    Fault::new(Stage::Sink, FaultKind::Mismatch, message)
}

/// Checks that the files of a candidate or patch can be written exactly.
///
/// # Errors
/// A fault of stage `sink` if the box is not inside the scan, or if the scan has integer HU and the HU of the box are fractional or
/// outside the range of i16.
pub fn check_fit<'a>(masked: &MaskedScan, overlay: impl Into<Overlay<'a>>) -> Result<(), Fault> {
    let Overlay { region, after, labels } = overlay.into();
    let shape = masked.scan.volume.voxels.shape();
    let is_inside =
        (0..3).all(|axis| region.start[axis].checked_add(region.shape[axis]).is_some_and(|end| end <= shape[axis]));
    if !is_inside || after.shape() != region.shape || labels.shape() != region.shape {
        return Err(mismatch(format!(
            "expected a box inside the scan of {shape:?} voxels, got {region:?} (HU {:?}, labels {:?})",
            after.shape(),
            labels.shape()
        )));
    }
    let is_integer = |hu: f32| hu == hu.round() && (f32::from(i16::MIN)..=f32::from(i16::MAX)).contains(&hu);
    let invalid = match masked.scan.volume.voxels {
        Voxels::I16(_) => after.as_slice().iter().find(|hu| !is_integer(**hu)),
        Voxels::F32(_) => after.as_slice().iter().find(|hu| !hu.is_finite()),
    };
    match invalid {
        Some(hu) => {
            Err(mismatch(format!("expected integer HU in the range of i16 for a scan of integer HU, got {hu}")))
        }
        None => Ok(()),
    }
}
