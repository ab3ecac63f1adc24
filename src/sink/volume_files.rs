//! Image and label files of a sample: the unchanged scan with the boxes of its tumors patched in.
//!
//! Nothing is resampled and no volume is copied: voxels are compressed from the scan, one slab of slices at a time. Slabs without
//! tumor voxels are compressed once per scan and cached for its other samples.

use std::io::{self, Write};
use std::sync::OnceLock;

use super::gzip::{Chunk, Member};

use crate::compose::Overlay;
use crate::error::{Fault, FaultKind, Stage};
use crate::ingest::nifti::{Datatype, NIFTI1_BYTES, encode_header};
use crate::mask::MaskedScan;
use crate::volume::{Array3, Voxels};

/// The default compression level, of levels 1 to 9. On CT, files of level 2 are 4% larger than files of level 6 and take about half
/// the time; they are a quarter smaller than files of level 1 (see `tests/bench/encode.rs`).
pub const DEFAULT_GZIP_LEVEL: u32 = 2;

/// The descriptions in the headers of images with and without a synthetic tumor.
const IMAGE_DESCRIPTIONS: [&str; 2] = ["CT with a synthetic tumor, freetumor", "CT, freetumor"];
const LABEL_DESCRIPTIONS: [&str; 2] = ["labels with a synthetic tumor, freetumor", "labels, freetumor"];

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

/// An encoder of the samples of one scan as `.nii.gz`.
///
/// # Units
/// Images contain HU, as i16 if the scan is i16, else as f32; labels contain merged ids as u8. Both are on the grid of the scan and
/// equal the scan and its mask bit for bit outside the boxes of the tumors; a sample without boxes is the scan itself.
///
/// The encoder caches the compressed slabs of the scan: at most the size of the scan and of its mask.
pub struct Encoder<'scan> {
    masked: &'scan MaskedScan,
    level: u32,
    image_headers: Headers,
    label_headers: Headers,
    image_slabs: Slabs,
    label_slabs: Slabs,
}

/// The headers of files with and without a synthetic tumor.
type Headers = [[u8; NIFTI1_BYTES + 4]; 2];

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
        let headers = |datatype, [with, without]: [&str; 2]| -> Result<Headers, Fault> {
            Ok([encode_header(&volume.grid, datatype, with)?, encode_header(&volume.grid, datatype, without)?])
        };
        Ok(Self {
            masked,
            level,
            image_headers: headers(datatype, IMAGE_DESCRIPTIONS)?,
            label_headers: headers(Datatype::U8, LABEL_DESCRIPTIONS)?,
            image_slabs: Slabs::new(volume.grid.shape, datatype.bytes()),
            label_slabs: Slabs::new(volume.grid.shape, 1),
        })
    }

    /// Calls [`check_fit`] with the scan of this encoder.
    ///
    /// # Errors
    /// The same errors as [`check_fit`].
    pub fn check(&self, boxes: &[Overlay<'_>]) -> Result<(), Fault> {
        check_fit(self.masked, boxes)
    }

    /// Writes the image with the tumors of a sample as a complete `.nii.gz` file.
    ///
    /// # Errors
    /// If `out` fails. The boxes must have passed [`Encoder::check`].
    pub fn write_image(&self, boxes: &[Overlay<'_>], out: &mut dyn Write) -> io::Result<()> {
        let header = &self.image_headers[usize::from(boxes.is_empty())];
        let after = |overlay: &Overlay<'_>, y: usize, z: usize, row: &mut [u8]| match &self.masked.scan.volume.voxels {
            Voxels::I16(_) => set_row(row, overlay.after.row(y, z), |hu| (hu as i16).to_le_bytes()),
            Voxels::F32(_) => set_row(row, overlay.after.row(y, z), f32::to_le_bytes),
        };
        match &self.masked.scan.volume.voxels {
            Voxels::I16(array) => self.write(out, header, &self.image_slabs, array, i16::to_le_bytes, boxes, after),
            Voxels::F32(array) => self.write(out, header, &self.image_slabs, array, f32::to_le_bytes, boxes, after),
        }
    }

    /// Writes the merged labels with the tumors of a sample as a complete `.nii.gz` file.
    ///
    /// # Errors
    /// The same errors as [`Encoder::write_image`].
    pub fn write_label(&self, boxes: &[Overlay<'_>], out: &mut dyn Write) -> io::Result<()> {
        let header = &self.label_headers[usize::from(boxes.is_empty())];
        let after = |overlay: &Overlay<'_>, y: usize, z: usize, row: &mut [u8]| {
            row.copy_from_slice(overlay.labels.row(y, z));
        };
        self.write(out, header, &self.label_slabs, &self.masked.mask.labels, u8::to_le_bytes, boxes, after)
    }

    /// Writes a file; `set` writes the bytes of a row of a box.
    #[expect(clippy::too_many_arguments, reason = "the kinds of files differ in every argument")]
    fn write<T: Copy, const N: usize>(
        &self,
        out: &mut dyn Write,
        header: &[u8],
        slabs: &Slabs,
        array: &Array3<T>,
        to_bytes: impl Fn(T) -> [u8; N],
        boxes: &[Overlay<'_>],
        set: impl Fn(&Overlay<'_>, usize, usize, &mut [u8]),
    ) -> io::Result<()> {
        let [nx, ny, nz] = array.shape();
        let mut member = Member::new(out)?;
        member.push(&Chunk::new(header, self.level)?)?;
        let mut bytes = Vec::new();
        for (index, cached) in slabs.chunks.iter().enumerate() {
            let first = index * slabs.slab_slices;
            let slices = first..(first + slabs.slab_slices).min(nz);
            let in_slab =
                |overlay: &&Overlay<'_>| slices.start < overlay.region.end()[2] && overlay.region.start[2] < slices.end;
            let patched = boxes.iter().any(|overlay| in_slab(&overlay));
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
            for overlay in boxes.iter().filter(in_slab) {
                let (region, [x0, y0, z0]) = (overlay.region, overlay.region.start);
                for z in z0.max(slices.start)..region.end()[2].min(slices.end) {
                    for y in 0..region.shape[1] {
                        let start = N * (x0 + nx * (y0 + y + ny * (z - slices.start)));
                        set(overlay, y, z - z0, &mut bytes[start..start + N * region.shape[0]]);
                    }
                }
            }
            member.push(&Chunk::new(&bytes, self.level)?)?;
        }
        member.finish()
    }
}

fn set_row<const N: usize>(row: &mut [u8], values: &[f32], to_bytes: impl Fn(f32) -> [u8; N]) {
    for (voxel, &value) in row.chunks_exact_mut(N).zip(values) {
        voxel.copy_from_slice(&to_bytes(value));
    }
}

fn mismatch(message: String) -> Fault {
    Fault::new(Stage::Sink, FaultKind::Mismatch, message)
}

/// Checks that the files of a sample can be written exactly.
///
/// # Errors
/// A fault of stage `sink` if a box is not inside the scan, or if the scan has integer HU and the HU of the box are fractional or
/// outside the range of i16.
pub fn check_fit(masked: &MaskedScan, boxes: &[Overlay<'_>]) -> Result<(), Fault> {
    boxes.iter().try_for_each(|overlay| check_box(masked, overlay))
}

fn check_box(masked: &MaskedScan, overlay: &Overlay<'_>) -> Result<(), Fault> {
    let Overlay { region, before, after, labels } = overlay;
    let shape = masked.scan.volume.voxels.shape();
    let is_inside =
        (0..3).all(|axis| region.start[axis].checked_add(region.shape[axis]).is_some_and(|end| end <= shape[axis]));
    if !is_inside || [before.shape(), after.shape(), labels.shape()].iter().any(|shape| *shape != region.shape) {
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
