//! Real DICOM series, and series in every encoding.

use std::path::Path;
use std::time::Instant;

use freetumor::ingest::dicom::{Decoder, Limits, list_series, patient_id, read_header, read_series};

use crate::common;

#[test]
fn smoke() {
    for folder in ["ct/totalseg_liver_dicom/dicom", "ct/crlm_1004/dicom"] {
        let Some(path) = common::shared(folder) else { return };
        let begun = Instant::now();
        let series = list_series(Path::new(&path)).unwrap();
        eprintln!("{:?} listed in {:?}", series, begun.elapsed());
        for decoder in [Decoder::in_process(), Decoder::child(env!("CARGO_BIN_EXE_freetumor").into())] {
            let begun = Instant::now();
            let header = read_header(&series[0]).unwrap();
            let volume = read_series(&series[0], &decoder, &Limits::default()).unwrap();
            eprintln!("{header:?} read in {:?} {:?}", begun.elapsed(), patient_id(&series[0]).map(|id| id.is_some()));
            assert_eq!(volume.grid, header.grid);
        }
    }
}
