//! What names a candidate, and what a changed pipeline leaves as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use freetumor::dataflow::{Progress, RunOptions, run};
use freetumor::graph::{GraphFile, Registry, Resources, check};
use freetumor::id::{CandidateDigest, SampleId};
use freetumor::ingest::nifti::{self, Datatype};
use freetumor::record::SampleRow;
use freetumor::record::parquet::read_part;
use freetumor::run::RunFolder;
use freetumor::score::Score;
use freetumor::volume::{Affine, Array3, Grid};

/// Two scans with a block of liver, below `ROOT/FOLDER`; `first_voxel` is the label of the first voxel.
fn archive(root: &Path, folder: &str, first_voxel: u8) {
    let grid = Grid { shape: [44, 40, 24], affine: Affine::from_spacing([1.5, 1.5, 2.5]) };
    for case in 0..2usize {
        let place = root.join(folder).join(format!("case-{case}"));
        std::fs::create_dir_all(&place).unwrap();
        let hu = Array3::from_fn(grid.shape, |[x, y, z]| ((x * 7 + y * 5 + z * 3 + case * 11) % 40) as i16 + 90);
        let mut labels = Array3::filled(grid.shape, 1u8);
        labels.as_mut_slice()[0] = first_voxel;
        let file =
            |datatype, voxels: Vec<u8>| [&nifti::encode_header(&grid, datatype, "").unwrap()[..], &voxels].concat();
        let voxels = hu.as_slice().iter().flat_map(|hu| hu.to_le_bytes()).collect();
        std::fs::write(place.join("ct.nii"), file(Datatype::I16, voxels)).unwrap();
        std::fs::write(place.join("labels.nii"), file(Datatype::U8, labels.into_vec())).unwrap();
    }
}

const GRAPH: &str = r#"
    [pipeline]
    name = "identities"
    seed = 5
    [sources.scans]
    kind = "folder"
    root = "ct"
    include = ["*/ct.nii"]
    [stages.organs]
    kind = "labels"
    inputs = ["scans"]
    pattern = "labels.nii"
    scheme = "custom"
    organs = { liver = { ids = [1] } }
    [stages.tumors]
    kind = "rules"
    inputs = ["organs"]
    variants = 2
    diameter_mm = [6, 14]
    [stages.contrast]
    kind = "intensity"
    inputs = ["tumors"]
    [stages.test]
    kind = "quality-test"
    inputs = ["contrast"]
    attempts = 4
    accept = ["delta_hu < -12"]
    [sinks.set]
    kind = "nnunet"
    inputs = ["test"]
"#;

/// The rows of a run of a graph below `root`.
fn rows(root: &Path, graph: &str) -> Vec<SampleRow> {
    std::fs::write(root.join("secret"), "a secret for tests only").unwrap();
    let machine = Resources { patient_secret: Some(root.join("secret")), ..Resources::default() };
    let checked = check(&GraphFile::new("test.toml", root, graph), &Registry::with_resources(&machine));
    let problems: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
    let plan = checked.plan.unwrap_or_else(|| panic!("{}", problems.join("\n")));
    let out = tempfile::tempdir_in(root).unwrap();
    run(plan, out.path(), &RunOptions::default(), &Arc::new(Progress::default())).unwrap();
    let folder = RunFolder::open(out.path()).unwrap();
    let parts = folder.files("samples", None).unwrap();
    parts.iter().flat_map(|file| read_part::<SampleRow>(folder.read_verified(file).unwrap()).unwrap()).collect()
}

type Candidates = BTreeMap<SampleId, (Option<CandidateDigest>, Option<String>)>;

/// Every candidate with its voxels and its contrast.
fn candidates(rows: &[SampleRow]) -> Candidates {
    let contrast = |row: &SampleRow| row.record.scores.get(Score::DeltaHu).map(|hu| hu.to_string());
    rows.iter().map(|row| (row.record.sample_id, (row.record.candidate_digest, contrast(row)))).collect()
}

/// The candidates of two runs that are in both, which have to be equal; at least one of each tumor.
fn shared(one: &Candidates, other: &Candidates) -> usize {
    let ids: Vec<_> = one.keys().filter(|id| other.contains_key(id)).collect();
    assert!(ids.iter().all(|id| one[id] == other[id]), "equal ids have equal voxels and scores");
    ids.len()
}

#[test]
fn names_sinks_roots_and_thresholds_leave_candidates_unchanged() {
    let place = tempfile::tempdir().unwrap();
    archive(place.path(), "ct", 1);
    archive(place.path(), "moved/elsewhere", 1);
    let own = candidates(&rows(place.path(), GRAPH));
    assert!(own.len() >= 4);
    for (old, new) in [
        ("root = \"ct\"", "root = \"moved/elsewhere\""),
        ("[sources.scans]", "[sources.archive]\ndataset = \"other\""),
        ("stages.tumors", "stages.lesions"),
        ("stages.organs", "stages.livers"),
        ("kind = \"nnunet\"", "kind = \"webdataset\""),
        ("[sinks.set]\n    kind = \"nnunet\"\n    inputs = [\"test\"]", ""),
        ("name = \"identities\"", "name = \"renamed\"\nepoch_scans = 1"),
    ] {
        let mut graph = GRAPH.replace(old, new);
        for (old, new) in [("scans", "archive"), ("tumors", "lesions"), ("organs", "livers")] {
            if graph.contains(&format!("s.{new}]")) {
                graph = graph.replace(&format!("[\"{old}\"]"), &format!("[\"{new}\"]"));
            }
        }
        assert_eq!(candidates(&rows(place.path(), &graph)), own, "{new}");
    }
    // A stricter or looser test makes more or fewer attempts; those in both are equal.
    for threshold in ["delta_hu < -25", "delta_hu < 100"] {
        let other = candidates(&rows(place.path(), &GRAPH.replace("delta_hu < -12", threshold)));
        assert!(shared(&own, &other) >= 4, "{threshold}");
    }
    for more in ["variants = 3", "variants = 1"] {
        let other = candidates(&rows(place.path(), &GRAPH.replace("variants = 2", more)));
        assert_eq!(shared(&own, &other), own.len().min(other.len()), "{more}");
    }
}

#[test]
fn another_score_stage_leaves_candidates_unchanged() {
    let place = tempfile::tempdir().unwrap();
    archive(place.path(), "ct", 1);
    let first = rows(place.path(), GRAPH);
    let graph = GRAPH.replace("kind = \"intensity\"", "kind = \"intensity\"\n    visible_hu = 3.7");
    let second = rows(place.path(), &graph);
    let voxels = |rows: &[SampleRow]| -> BTreeMap<_, _> {
        rows.iter().map(|row| (row.record.sample_id, row.record.candidate_digest)).collect()
    };
    assert_eq!(voxels(&first), voxels(&second));
    let stages = |rows: &[SampleRow]| rows[0].record.score_stages.clone();
    assert_ne!(stages(&first), stages(&second), "a row names the stage that scored it");
    assert_eq!(first[0].record.test_digest, second[0].record.test_digest);
}

#[test]
fn settings_seeds_salts_and_corrected_masks_give_other_candidates() {
    let place = tempfile::tempdir().unwrap();
    archive(place.path(), "ct", 1);
    let own = candidates(&rows(place.path(), GRAPH));
    for (old, new) in [
        ("seed = 5", "seed = 6"),
        ("diameter_mm = [6, 14]", "diameter_mm = [6, 13]"),
        ("variants = 2", "variants = 2\n    salt = \"second\""),
    ] {
        let other = candidates(&rows(place.path(), &GRAPH.replace(old, new)));
        assert_eq!(shared(&own, &other), 0, "{new}");
        let voxels = |all: &Candidates| all.values().filter_map(|(digest, _)| *digest).collect::<BTreeSet<_>>();
        assert!(voxels(&own).is_disjoint(&voxels(&other)), "{new}");
    }
    // One voxel of the mask is corrected.
    archive(place.path(), "ct", 0);
    assert_eq!(shared(&own, &candidates(&rows(place.path(), GRAPH))), 0);
}

#[test]
fn merged_ids_are_part_of_a_candidate() {
    let place = tempfile::tempdir().unwrap();
    archive(place.path(), "ct", 1);
    let own = candidates(&rows(place.path(), GRAPH));
    // nnU-Net needs ids without gaps.
    let graph = GRAPH.replace("[stages.tumors]", "    merged_ids = { liver = [1, 9] }\n    [stages.tumors]");
    let graph = graph.replace("kind = \"nnunet\"", "kind = \"decathlon\"");
    let other = candidates(&rows(place.path(), &graph));
    assert_eq!((own.len(), shared(&own, &other)), (other.len(), 0), "equal HU, other labels");
}

#[test]
fn two_tests_of_one_synthesis_share_candidates_and_files() {
    let place = tempfile::tempdir().unwrap();
    archive(place.path(), "ct", 1);
    let graph = GRAPH.replace("inputs = [\"test\"]", "inputs = [\"test\", \"strict\"]")
        + "[stages.strict]\nkind = \"quality-test\"\ninputs = [\"contrast\"]\nattempts = 6\naccept = [\"delta_hu < -14\"]\n";
    let rows = rows(place.path(), &graph);
    let keys: BTreeSet<_> = rows.iter().map(|row| (row.record.sample_id, row.record.branch.clone())).collect();
    assert_eq!(keys.len(), rows.len(), "rows are unique by sample and branch");
    let of = |branch: &str| -> BTreeMap<_, _> {
        let own = rows.iter().filter(|row| row.record.branch == branch);
        own.map(|row| (row.record.sample_id, row)).collect()
    };
    let (test, strict) = (of("test"), of("strict"));
    let both: Vec<_> = test.keys().filter(|id| strict.contains_key(id)).collect();
    assert!(both.len() >= 4, "both tests decide on the first attempt at each tumor");
    for id in both {
        let (one, other) = (&test[id], &strict[id]);
        assert_eq!(one.record.candidate_digest, other.record.candidate_digest);
        assert_eq!(one.record.scores, other.record.scores);
        assert_eq!(one.placement, other.placement, "one image, one patch");
        assert_ne!(one.record.test_digest, other.record.test_digest);
    }
    let paths: Vec<_> = rows.iter().filter_map(|row| row.placement.image_path.clone()).collect();
    assert!(!paths.is_empty());
    // Each branch alone ends with the same rows.
    let alone: Vec<SampleId> = self::rows(place.path(), GRAPH).iter().map(|row| row.record.sample_id).collect();
    assert_eq!(test.keys().copied().collect::<BTreeSet<_>>(), alone.into_iter().collect());
}

#[test]
fn equal_syntheses_without_a_salt_are_refused() {
    let place = tempfile::tempdir().unwrap();
    archive(place.path(), "ct", 1);
    let second = "[stages.again]\nkind = \"rules\"\ninputs = [\"organs\"]\nvariants = 3\ndiameter_mm = [6, 14]\n";
    let graph = GRAPH.replace("inputs = [\"tumors\"]", "inputs = [\"tumors\", \"again\"]");
    let checked = |second: &str| {
        let file = GraphFile::new("test.toml", place.path(), format!("{graph}{second}"));
        check(&file, &Registry::standard())
    };
    let problems: Vec<String> = checked(second).problems.iter().map(ToString::to_string).collect();
    assert!(problems.join("\n").contains("`tumors` and `again` make the same tumors of the liver"), "{problems:?}");
    assert!(checked(&format!("{second}salt = \"again\"\n")).plan.is_some());
}
