//! Image and label files of a sample: the scan as it is, with the tumor's box patched in.
//!
//! Nothing is resampled and no volume is copied: voxels go from the scan through the compressor, a slab of slices at a
//! time. Slabs that the tumor does not reach are compressed once for a scan and kept for its other samples.

use std::io::{self, Write};
use std::sync::OnceLock;

use super::gzip::{Chunk, Member};

use crate::error::{Fault, FaultKind, Stage};
use crate::ingest::nifti::{Datatype, NIFTI1_BYTES, encode_header};
use crate::mask::MaskedScan;
use crate::synth::Candidate;
use crate::volume::{Array3, Region, Voxels};

/// The compression level where a sink names none: the second of nine. On CT its files are 4% larger than those of level 6
/// in about half the time, and a quarter smaller than those of level 1; see `tests/bench/encode.rs`.
pub const DEFAULT_GZIP_LEVEL: u32 = 2;

/// Says in the file itself that its tumor is not real.
const IMAGE_DESCRIPTION: &str = "CT with a synthetic tumor, freetumor";
const LABEL_DESCRIPTION: &str = "labels with a synthetic tumor, freetumor";

/// Slabs hold at most this many bytes before compression, or one slice: large enough to compress as well as a whole
/// volume, small enough that a small tumor touches few of them.
const SLAB_BYTES: usize = 1 << 18;

/// One gzip member of the given pieces, with the same bytes for the same pieces.
///
/// # Errors
/// Where compression fails.
pub(super) fn gzip_member(pieces: &[&[u8]], level: u32) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut member = Member::new(&mut bytes)?;
    for piece in pieces {
        member.push(&Chunk::new(piece, level)?)?;
    }
    member.finish()?;
    Ok(bytes)
}

/// What a sample changes of its scan: a box on the scan's grid.
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

/// Writes the samples of one scan as `.nii.gz`.
///
/// # Units
/// Images hold HU, as i16 where the scan does, else as f32; labels hold merged ids as u8. Both lie on the scan's own
/// grid and equal the scan and its mask outside the tumor's box, bit by bit.
///
/// It keeps the compressed slabs of the scan: at most the scan's own size and that of its mask once more.
pub struct Encoder<'scan> {
    masked: &'scan MaskedScan,
    level: u32,
    image_header: [u8; NIFTI1_BYTES + 4],
    label_header: [u8; NIFTI1_BYTES + 4],
    image_slabs: Slabs,
    label_slabs: Slabs,
}

/// The untouched slabs of one file, compressed when first needed.
struct Slabs {
    slices_each: usize,
    chunks: Vec<OnceLock<Chunk>>,
}

impl Slabs {
    fn new([nx, ny, nz]: [usize; 3], voxel_bytes: usize) -> Self {
        let slices_each = (SLAB_BYTES / (nx * ny * voxel_bytes).max(1)).max(1);
        Self { slices_each, chunks: (0..nz.div_ceil(slices_each)).map(|_| OnceLock::new()).collect() }
    }
}

impl<'scan> Encoder<'scan> {
    /// An encoder for one scan; `level` is gzip's, 1 to 9.
    ///
    /// # Errors
    /// A fault of stage `sink` where NIfTI-1 cannot hold the scan.
    pub fn new(masked: &'scan MaskedScan, level: u32) -> Result<Self, Fault> {
        let volume = &masked.scan.volume;
        let datatype = match volume.voxels {
            Voxels::I16(_) => Datatype::I16,
            Voxels::F32(_) => Datatype::F32,
        };
        if volume.grid.shape != volume.voxels.shape() || masked.mask.labels.shape() != volume.voxels.shape() {
            let shapes = [volume.grid.shape, volume.voxels.shape(), masked.mask.labels.shape()];
            return Err(mismatch(format!("grid, voxels and mask need one shape, got {shapes:?}")));
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

    /// [`check_fit`] with the scan of this encoder.
    ///
    /// # Errors
    /// As for [`check_fit`].
    pub fn check<'a>(&self, overlay: impl Into<Overlay<'a>>) -> Result<(), Fault> {
        check_fit(self.masked, overlay)
    }

    /// Writes the image with the tumor: a whole `.nii.gz`.
    ///
    /// # Errors
    /// Where `out` fails. The candidate or patch must have passed [`Encoder::check`].
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

    /// Writes the merged labels with the tumor: a whole `.nii.gz`.
    ///
    /// # Errors
    /// As for [`Encoder::write_image`].
    pub fn write_label<'a>(&self, overlay: impl Into<Overlay<'a>>, out: &mut dyn Write) -> io::Result<()> {
        let array = &self.masked.mask.labels;
        let to_bytes = |label: u8| [label];
        let Overlay { region, labels, .. } = overlay.into();
        self.write(out, &self.label_header, &self.label_slabs, array, to_bytes, region, labels, to_bytes)
    }

    #[expect(clippy::too_many_arguments, reason = "the three files differ in each of them")]
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
        let touched = z0..region.end()[2];
        let mut member = Member::new(out)?;
        member.push(&Chunk::new(header, self.level)?)?;
        let mut bytes = Vec::new();
        for (index, kept) in slabs.chunks.iter().enumerate() {
            let first = index * slabs.slices_each;
            let slices = first..(first + slabs.slices_each).min(nz);
            let patched = slices.start < touched.end && touched.start < slices.end;
            if let (false, Some(chunk)) = (patched, kept.get()) {
                member.push(chunk)?;
                continue;
            }
            bytes.clear();
            for &voxel in &array.as_slice()[nx * ny * slices.start..nx * ny * slices.end] {
                bytes.extend_from_slice(&to_bytes(voxel));
            }
            if !patched {
                let chunk = Chunk::new(&bytes, self.level)?;
                member.push(kept.get_or_init(|| chunk))?;
                continue;
            }
            for z in touched.start.max(slices.start)..touched.end.min(slices.end) {
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

/// Whether the files of a candidate or patch can be written exactly.
///
/// # Errors
/// A fault of stage `sink` where the box does not fit into the scan, or where the scan holds whole HU and those of the box are
/// fractions or beyond i16.
pub fn check_fit<'a>(masked: &MaskedScan, overlay: impl Into<Overlay<'a>>) -> Result<(), Fault> {
    let Overlay { region, after, labels } = overlay.into();
    let shape = masked.scan.volume.voxels.shape();
    let fits =
        (0..3).all(|axis| region.start[axis].checked_add(region.shape[axis]).is_some_and(|end| end <= shape[axis]));
    if !fits || after.shape() != region.shape || labels.shape() != region.shape {
        return Err(mismatch(format!(
            "a tumor's box {region:?} (HU {:?}, labels {:?}) has to lie in its scan of {shape:?} voxels",
            after.shape(),
            labels.shape()
        )));
    }
    let whole = |hu: f32| hu == hu.round() && (f32::from(i16::MIN)..=f32::from(i16::MAX)).contains(&hu);
    let wrong = match masked.scan.volume.voxels {
        Voxels::I16(_) => after.as_slice().iter().find(|hu| !whole(**hu)),
        Voxels::F32(_) => after.as_slice().iter().find(|hu| !hu.is_finite()),
    };
    match wrong {
        Some(hu) => Err(mismatch(format!("a scan of whole HU takes whole HU in the range of i16, got {hu}"))),
        None => Ok(()),
    }
}
