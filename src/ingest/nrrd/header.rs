//! The checked header of an NRRD file.

use std::io::BufRead;

use super::fields::Fields;
use crate::error::{Fault, FaultKind};
use crate::ingest::raster::{
    ByteOrder, DataFile, Datatype, Header, HeaderText, affine_of_lps, decimals, integers, shape_of,
};
use crate::volume::{Affine, Grid};

/// Names of types, in the order of the definition of the format.
const TYPES: [(Datatype, &[&str]); 10] = [
    (Datatype::I8, &["signed char", "int8", "int8_t"]),
    (Datatype::U8, &["uchar", "unsigned char", "uint8", "uint8_t"]),
    (Datatype::I16, &["short", "short int", "signed short", "signed short int", "int16", "int16_t"]),
    (Datatype::U16, &["ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"]),
    (Datatype::I32, &["int", "signed int", "int32", "int32_t"]),
    (Datatype::U32, &["uint", "unsigned int", "uint32", "uint32_t"]),
    (
        Datatype::I64,
        &["longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"],
    ),
    (Datatype::U64, &["ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"]),
    (Datatype::F32, &["float"]),
    (Datatype::F64, &["double"]),
];

/// Bytes to skip between the start of the data and the first voxel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skip {
    /// A number of bytes, counted after decompression.
    Bytes(u64),
    /// As many bytes as are before the voxels, which are at the end of the file.
    ToVoxelsAtEnd,
}

/// A checked NRRD header.
#[derive(Debug)]
pub(super) struct NrrdHeader {
    grid: Grid,
    datatype: Datatype,
    order: ByteOrder,
    /// Whether the voxels are gzip.
    pub is_gzip: bool,
    /// Lines to skip before the voxels, before anything is decompressed.
    pub line_skip: u64,
    pub byte_skip: Skip,
    /// The file of the voxels; `None` if they follow the header.
    pub data_file: Option<DataFile>,
}

impl NrrdHeader {
    /// Reads and checks a header.
    ///
    /// # Errors
    /// Returns `corrupt` if the header contradicts the format, `unsupported` if it does not describe one volume of numbers, `geometry` if
    /// the shape or the position in the patient is invalid or unknown.
    pub fn read<R: BufRead>(text: &mut HeaderText<R>) -> Result<Self, Fault> {
        let fields = Fields::read(text)?;
        let shape = shape(&fields)?;
        let datatype = datatype(fields.required("type")?)?;
        let is_gzip = is_gzip(fields.required("encoding")?)?;
        if fields.get("old min").is_some() || fields.get("old max").is_some() {
            return Err(unsupported("expected HU as voxels, got quantized values (`old min`, `old max`)"));
        }
        let line_skip = match fields.get("line skip") {
            None => 0,
            Some(text) => {
                let [lines] = integers(text, "line skip")?;
                u64::try_from(lines).map_err(|_| corrupt(format!("expected a `line skip` from 0, got {lines}")))?
            }
        };
        Ok(Self {
            grid: Grid { shape, affine: affine(&fields)? },
            datatype,
            order: byte_order(&fields, datatype)?,
            is_gzip,
            line_skip,
            byte_skip: byte_skip(&fields, is_gzip)?,
            data_file: fields.get("data file").map(data_file).transpose()?,
        })
    }

    /// Returns the bytes of all voxels.
    pub fn stored_bytes(&self) -> u64 {
        self.to_raster_header(0, 0).stored_bytes()
    }

    /// Converts the NRRD header to the header that all raster formats share; the first voxel is at byte `voxel_offset`.
    pub fn to_raster_header(&self, voxel_offset: u64, header_bytes: usize) -> Header {
        let Self { grid, datatype, order, .. } = *self;
        Header { grid, datatype, order, rescale: None, voxel_offset, header_bytes }
    }
}

fn shape(fields: &Fields) -> Result<[usize; 3], Fault> {
    let [dimension] = integers(fields.required("dimension")?, "dimension")?;
    let kinds = fields.get("kinds").unwrap_or_default();
    let is_spatial = |kind: &str| ["domain", "space", "none", "???"].contains(&&*kind.to_ascii_lowercase());
    if dimension != 3 || !kinds.split_whitespace().all(is_spatial) {
        return Err(unsupported(format!(
            "expected one volume of 3 dimensions, got an NRRD file of {dimension} dimension(s) with vectors, colours, layers or times"
        )));
    }
    shape_of(integers(fields.required("sizes")?, "sizes")?)
}

fn datatype(name: &str) -> Result<Datatype, Fault> {
    let name = name.to_ascii_lowercase();
    match TYPES.iter().find(|(_, names)| names.contains(&&*name)) {
        Some((datatype, _)) => Ok(*datatype),
        None if name == "block" => Err(unsupported("expected integers or floats as voxels, got blocks")),
        None => Err(corrupt("expected a type of NRRD such as `short` in `type`, got another value")),
    }
}

fn is_gzip(name: &str) -> Result<bool, Fault> {
    let name = match &*name.to_ascii_lowercase() {
        "raw" => return Ok(false),
        "gzip" | "gz" => return Ok(true),
        "bzip2" | "bz2" => "bzip2",
        "ascii" | "text" | "txt" => "text",
        "hex" => "hex",
        "zrl" => "zrl",
        _ => return Err(corrupt("expected the encoding `raw` or `gzip`, got another value")),
    };
    Err(unsupported(format!("expected the encoding `raw` or `gzip`, got {name}: convert the file first")))
}

fn byte_order(fields: &Fields, datatype: Datatype) -> Result<ByteOrder, Fault> {
    match fields.get("endian").map(str::to_ascii_lowercase).as_deref() {
        Some("little") => Ok(ByteOrder::Little),
        Some("big") => Ok(ByteOrder::Big),
        None if datatype.bytes() == 1 => Ok(ByteOrder::Little),
        None => Err(corrupt("expected `endian`, because a voxel has several bytes, got none")),
        Some(_) => Err(corrupt("expected `endian: little` or `endian: big`, got another value")),
    }
}

fn byte_skip(fields: &Fields, is_gzip: bool) -> Result<Skip, Fault> {
    let Some(text) = fields.get("byte skip") else { return Ok(Skip::Bytes(0)) };
    let [bytes] = integers(text, "byte skip")?;
    match u64::try_from(bytes) {
        Ok(bytes) => Ok(Skip::Bytes(bytes)),
        Err(_) if bytes == -1 && !is_gzip => Ok(Skip::ToVoxelsAtEnd),
        Err(_) => Err(unsupported(format!("expected a `byte skip` from 0, or -1 for raw voxels, got {bytes}"))),
    }
}

fn data_file(name: &str) -> Result<DataFile, Fault> {
    if name.contains('%') || name == "LIST" || name.starts_with("LIST ") {
        return Err(unsupported("expected the voxels in one data file, got several: convert the file first"));
    }
    DataFile::new(name, "data file")
}

/// Returns the affine to RAS+ millimetres.
fn affine(fields: &Fields) -> Result<Affine, Fault> {
    let unknown = |field: &str| {
        geometry(format!(
            "expected `space`, `space directions` and `space origin`, got no `{field}`: the position in the patient is unknown"
        ))
    };
    let space = fields.get("space").ok_or_else(|| unknown("space"))?;
    // The signs that convert each axis of the space to Left, Posterior, Superior.
    let signs = match &*space.to_ascii_lowercase() {
        "left-posterior-superior" | "lps" => [1.0, 1.0, 1.0],
        "left-anterior-superior" | "las" => [1.0, -1.0, 1.0],
        "right-anterior-superior" | "ras" => [-1.0, -1.0, 1.0],
        _ => {
            return Err(geometry(
                "expected the space right-anterior-superior, left-anterior-superior or left-posterior-superior, got another one".to_owned(),
            ));
        }
    };
    check_units(fields)?;
    let directions = fields.get("space directions").ok_or_else(|| unknown("space directions"))?;
    let origin = fields.get("space origin").ok_or_else(|| unknown("space origin"))?;
    let directions = <[[f64; 3]; 3]>::try_from(vectors(directions, "space directions")?)
        .map_err(|found| corrupt(format!("expected 3 vectors in `space directions`, got {}", found.len())))?;
    let origin = <[[f64; 3]; 1]>::try_from(vectors(origin, "space origin")?)
        .map_err(|found| corrupt(format!("expected 1 vector in `space origin`, got {}", found.len())))?;
    let lps = |vector: [f64; 3]| [0, 1, 2].map(|axis| signs[axis] * vector[axis]);
    let length = |vector: [f64; 3]| vector.iter().map(|part| part * part).sum::<f64>().sqrt();
    let spacing_mm = directions.map(length);
    if spacing_mm.contains(&0.0) {
        return Err(geometry(
            "expected three independent axes in `space directions`, got a vector of zeros".to_owned(),
        ));
    }
    let unit = [0, 1, 2].map(|axis| lps(directions[axis]).map(|part| part / spacing_mm[axis]));
    affine_of_lps(unit, spacing_mm, lps(origin[0]), "space directions")
}

/// Parses vectors such as `(1,0,0) (0,1,0)`.
fn vectors(text: &str, field: &str) -> Result<Vec<[f64; 3]>, Fault> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let Some((vector, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) else {
            return Err(match rest.starts_with("none") {
                true => unsupported(format!("expected a vector for each axis in `{field}`, got `none`")),
                false => corrupt(format!("expected vectors such as (1,0,0) in `{field}`, got another value")),
            });
        };
        found.push(decimals(&vector.replace(',', " "), field)?);
        rest = after.trim_start();
    }
    Ok(found)
}

/// Checks that lengths are in millimetres.
fn check_units(fields: &Fields) -> Result<(), Fault> {
    let units = fields.get("space units").unwrap_or_default();
    let known = ["", "mm", "millimeter", "millimeters", "millimetre", "millimetres", "???"];
    // Each unit is in quotation marks: every second part is between two units.
    if units.split('"').skip(1).step_by(2).all(|unit| known.contains(&unit.trim())) {
        return Ok(());
    }
    Err(unsupported("expected millimetres in `space units`, got another unit"))
}

fn corrupt(message: impl Into<String>) -> Fault {
    Fault::read(FaultKind::Corrupt, message)
}

fn unsupported(message: impl Into<String>) -> Fault {
    Fault::read(FaultKind::Unsupported, message)
}

fn geometry(message: String) -> Fault {
    Fault::read(FaultKind::Geometry, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "NRRD0004\n# Complete NRRD file format specification at:\ntype: short\ndimension: 3\n\
        space: left-posterior-superior\nsizes: 4 3 2\nspace directions: (0,2,0) (-3,0,0) (0,0,4)\n\
        kinds: domain domain domain\nendian: little\nencoding: gzip\nspace origin: (10,20,30)\nname:=of: another\n\n";

    fn read(text: &str) -> Result<NrrdHeader, Fault> {
        NrrdHeader::read(&mut HeaderText::new(text.as_bytes()))
    }

    #[test]
    fn axes_of_each_space_become_ras() {
        // Left, Posterior, Superior: 4 columns run towards Posterior, 3 rows towards Right.
        let header = read(VALID).unwrap();
        assert_eq!(header.grid.shape, [4, 3, 2]);
        let affine = Affine([[0.0, 3.0, 0.0, -10.0], [-2.0, 0.0, 0.0, -20.0], [0.0, 0.0, 4.0, 30.0]]);
        assert_eq!(header.grid.affine, affine);
        let of_space = |name: &str| read(&VALID.replace("left-posterior-superior", name)).map(|read| read.grid.affine);
        let ras = Affine([[0.0, -3.0, 0.0, 10.0], [2.0, 0.0, 0.0, 20.0], [0.0, 0.0, 4.0, 30.0]]);
        assert_eq!([of_space("RAS"), of_space("right-anterior-superior")], [Ok(ras), Ok(ras)]);
        let las = Affine([[0.0, 3.0, 0.0, -10.0], [2.0, 0.0, 0.0, 20.0], [0.0, 0.0, 4.0, 30.0]]);
        assert_eq!(of_space("Left-Anterior-Superior"), Ok(las));
        for other in ["scanner-xyz", "3D-right-handed", "LAST"] {
            assert_eq!(of_space(other).unwrap_err().kind, FaultKind::Geometry, "{other}");
        }
    }

    #[test]
    fn every_name_of_type_is_known() {
        for (datatype, names) in TYPES {
            for name in names {
                let header = read(&VALID.replace("short", &name.to_uppercase())).unwrap();
                assert_eq!(header.datatype, datatype, "{name}");
            }
        }
    }

    #[test]
    fn faults_name_field_but_not_its_value() {
        use FaultKind::{Corrupt, Geometry, Truncated, Unsupported};
        for (from, to, kind, message) in [
            ("NRRD0004", "NRRD0006", Unsupported, "1 to 5, got 6"),
            ("NRRD0004", "NRRDfour", Corrupt, "first line"),
            ("type: short", "type: secret", Corrupt, "`type`"),
            ("type: short", "type: block", Unsupported, "blocks"),
            ("type: short\n", "", Corrupt, "field `type`"),
            ("dimension: 3", "dimension: 4", Unsupported, "4 dimension(s)"),
            ("kinds: domain", "kinds: vector", Unsupported, "vectors"),
            ("sizes: 4 3 2", "sizes: 4 3", Corrupt, "3 integer(s) in `sizes`"),
            ("sizes: 4 3 2", "sizes: 4 0 2", Geometry, "at least one voxel"),
            ("sizes: 4 3 2", "sizes: 4000000000 4000000000 4000000000", Geometry, "fits into memory"),
            ("gzip", "bzip2", Unsupported, "got bzip2"),
            ("gzip", "ASCII", Unsupported, "got text"),
            ("gzip", "secret", Corrupt, "encoding"),
            ("endian: little\n", "", Corrupt, "expected `endian`"),
            ("endian: little", "endian: middle", Corrupt, "endian: big"),
            ("space: left-posterior-superior\n", "", Geometry, "no `space`"),
            ("space origin: (10,20,30)\n", "", Geometry, "no `space origin`"),
            ("space directions: (0,2,0) (-3,0,0) (0,0,4)\n", "spacings: 2 3 4\n", Geometry, "no `space directions`"),
            ("(0,0,4)", "none", Unsupported, "got `none`"),
            ("(0,0,4)", "(0,0,nan)", Corrupt, "`space directions`"),
            ("(0,0,4)", "(0,0,0)", Geometry, "zeros"),
            ("(0,0,4)", "(0,2,0)", Geometry, "independent"),
            ("(0,0,4)", "(0,2,4)", Geometry, "sheared"),
            ("(0,0,4)", "(0,0,4000)", Geometry, "mm between voxels"),
            ("(0,0,4)", "(0,0,4", Corrupt, "vectors such as"),
            ("(10,20,30)", "(1e9,20,30)", Geometry, "mm of the origin"),
            ("kinds:", "space units: \"cm\" \"cm\" \"cm\"\nkinds:", Unsupported, "millimetres"),
            ("kinds:", "old min: -1000\nkinds:", Unsupported, "quantized"),
            ("kinds:", "byte skip: -1\nkinds:", Unsupported, "got -1"),
            ("kinds:", "line skip: -1\nkinds:", Corrupt, "got -1"),
            ("kinds:", "data file: ../secret.raw\nkinds:", Unsupported, "folder of its header"),
            ("kinds:", "data file: s%03d.raw 1 9 1\nkinds:", Unsupported, "one data file"),
            ("kinds:", "data file: LIST\nkinds:", Unsupported, "one data file"),
            ("kinds:", "dimension: 3\nkinds:", Corrupt, "line 8 of the header repeats"),
            ("kinds:", "patient: secret\nkinds:", Corrupt, "line 8"),
            ("another\n\n", "another\n", Truncated, "empty line"),
        ] {
            let changed = VALID.replacen(from, to, 1);
            assert_ne!(changed, VALID, "{from}");
            let fault = read(&changed).unwrap_err();
            assert_eq!(fault.kind, kind, "{to}: {fault}");
            assert!(fault.message.contains(message) && !fault.message.contains("secret"), "{to}: {fault}");
        }
    }

    #[test]
    fn millimetres_and_names_without_spaces_are_accepted() {
        let header = VALID.replace("kinds:", "space units: \"mm\" \"mm\" \"mm\"\ndatafile: a.raw\nbyteskip: 5\nkinds:");
        let header = read(header.trim_end_matches('\n')).unwrap();
        assert_eq!(header.data_file.unwrap().name(), "a.raw");
        assert_eq!(header.byte_skip, Skip::Bytes(5));
        assert!(read(&VALID.replace("gzip", "raw\nbyte skip: -1")).unwrap().byte_skip == Skip::ToVoxelsAtEnd);
        assert!(read(&VALID.replace('\n', "\r\n")).is_ok());
    }
}
