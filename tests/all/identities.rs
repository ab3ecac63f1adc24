//! Sample ids of candidates: the pipeline changes that keep candidates unchanged, and those that do not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use freetumor::dataflow::{Progress, RunOptions, run};
use freetumor::graph::{GraphFile, Registry, Resources, check};
use freetumor::id::{CandidateDigest, SampleId};
use freetumor::ingest::nifti::{self, Datatype};
use freetumor::record::SampleRow;
use freetumor::record::parquet::decode_part;
use freetumor::run::RunFolder;
use freetumor::score::Score;
use freetumor::volume::{Affine, Array3, Grid};

/// Writes two scans with a block of liver to `ROOT/FOLDER`; `first_voxel` is the label of the first voxel.
fn archive(root: &Path, folder: &str, first_voxel: u8) {
    let grid = Grid { shape: [44, 40, 24], affine: Affine::from_spacing([1.5, 1.5, 2.5]) };
    for case in 0..2usize {
        let case_folder = root.join(folder).join(format!("case-{case}"));
        std::fs::create_dir_all(&case_folder).unwrap();
        let hu = Array3::from_fn(grid.shape, |[x, y, z]| ((x * 7 + y * 5 + z * 3 + case * 11) % 40) as i16 + 90);
        let mut labels = Array3::filled(grid.shape, 1u8);
        labels.as_mut_slice()[0] = first_voxel;
        let file =
            |datatype, voxels: Vec<u8>| [&nifti::encode_header(&grid, datatype, "").unwrap()[..], &voxels].concat();
        let voxels = hu.as_slice().iter().flat_map(|hu| hu.to_le_bytes()).collect();
        std::fs::write(case_folder.join("ct.nii"), file(Datatype::I16, voxels)).unwrap();
        std::fs::write(case_folder.join("labels.nii"), file(Datatype::U8, labels.into_vec())).unwrap();
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

/// Runs a graph in `root` and returns its rows.
fn rows(root: &Path, graph: &str) -> Vec<SampleRow> {
    std::fs::write(root.join("secret"), "a secret for tests only").unwrap();
    let resources = Resources { patient_secret: Some(root.join("secret")), ..Resources::default() };
    let checked = check(&GraphFile::new("test.toml", root, graph), &Registry::with_resources(&resources));
    let problems: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
    let plan = checked.plan.unwrap_or_else(|| panic!("{}", problems.join("\n")));
    let out = tempfile::tempdir_in(root).unwrap();
    run(plan, out.path(), &RunOptions::default(), &Arc::new(Progress::default())).unwrap();
    let folder = RunFolder::open(out.path()).unwrap();
    let parts = folder.files("samples", None).unwrap();
    parts.iter().flat_map(|file| decode_part::<SampleRow>(folder.read_verified(file).unwrap()).unwrap()).collect()
}

type Candidates = BTreeMap<SampleId, (Option<CandidateDigest>, Option<String>)>;

/// Returns the digest and the contrast of every candidate.
fn candidates(rows: &[SampleRow]) -> Candidates {
    let contrast = |row: &SampleRow| row.record.scores.get(Score::DeltaHu).map(|hu| hu.to_string());
    rows.iter().map(|row| (row.record.sample_id, (row.record.candidate_digest, contrast(row)))).collect()
}

/// Checks that the candidates that are in both runs are equal, and counts them.
fn shared(first: &Candidates, second: &Candidates) -> usize {
    let ids: Vec<_> = first.keys().filter(|id| second.contains_key(id)).collect();
    assert!(ids.iter().all(|id| first[id] == second[id]), "expected equal voxels and scores of equal ids");
    ids.len()
}

#[test]
fn candidates_do_not_depend_on_names_sinks_roots_and_thresholds() {
    let root = tempfile::tempdir().unwrap();
    archive(root.path(), "ct", 1);
    archive(root.path(), "moved/elsewhere", 1);
    let own = candidates(&rows(root.path(), GRAPH));
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
        assert_eq!(candidates(&rows(root.path(), &graph)), own, "{new}");
    }
    // A stricter or looser test has more or fewer attempts; those in both runs are equal.
    for threshold in ["delta_hu < -25", "delta_hu < 100"] {
        let other = candidates(&rows(root.path(), &GRAPH.replace("delta_hu < -12", threshold)));
        assert!(shared(&own, &other) >= 4, "{threshold}");
    }
    for more in ["variants = 3", "variants = 1"] {
        let other = candidates(&rows(root.path(), &GRAPH.replace("variants = 2", more)));
        assert_eq!(shared(&own, &other), own.len().min(other.len()), "{more}");
    }
}

#[test]
fn candidates_do_not_depend_on_score_stages() {
    let root = tempfile::tempdir().unwrap();
    archive(root.path(), "ct", 1);
    let first = rows(root.path(), GRAPH);
    let graph = GRAPH.replace("kind = \"intensity\"", "kind = \"intensity\"\n    visible_hu = 3.7");
    let second = rows(root.path(), &graph);
    let voxels = |rows: &[SampleRow]| -> BTreeMap<_, _> {
        rows.iter().map(|row| (row.record.sample_id, row.record.candidate_digest)).collect()
    };
    assert_eq!(voxels(&first), voxels(&second));
    let stages = |rows: &[SampleRow]| rows[0].record.score_stages.clone();
    assert_ne!(stages(&first), stages(&second), "expected rows with different score stages");
    assert_eq!(first[0].record.test_digest, second[0].record.test_digest);
}

#[test]
fn candidates_depend_on_settings_seed_salt_and_mask() {
    let root = tempfile::tempdir().unwrap();
    archive(root.path(), "ct", 1);
    let own = candidates(&rows(root.path(), GRAPH));
    for (old, new) in [
        ("seed = 5", "seed = 6"),
        ("diameter_mm = [6, 14]", "diameter_mm = [6, 13]"),
        ("variants = 2", "variants = 2\n    salt = \"second\""),
    ] {
        let other = candidates(&rows(root.path(), &GRAPH.replace(old, new)));
        assert_eq!(shared(&own, &other), 0, "{new}");
        let voxels = |all: &Candidates| all.values().filter_map(|(digest, _)| *digest).collect::<BTreeSet<_>>();
        assert!(voxels(&own).is_disjoint(&voxels(&other)), "{new}");
    }
    // One voxel of the mask is corrected.
    archive(root.path(), "ct", 0);
    assert_eq!(shared(&own, &candidates(&rows(root.path(), GRAPH))), 0);
}

#[test]
fn candidates_depend_on_merged_ids() {
    let root = tempfile::tempdir().unwrap();
    archive(root.path(), "ct", 1);
    let own = candidates(&rows(root.path(), GRAPH));
    // The nnU-Net sink requires ids without gaps.
    let graph = GRAPH.replace("[stages.tumors]", "    merged_ids = { liver = [1, 9] }\n    [stages.tumors]");
    let graph = graph.replace("kind = \"nnunet\"", "kind = \"decathlon\"");
    let other = candidates(&rows(root.path(), &graph));
    assert_eq!((own.len(), shared(&own, &other)), (other.len(), 0), "expected different ids for different labels");
}

#[test]
fn quality_tests_of_one_synthesis_share_candidates_and_files() {
    let root = tempfile::tempdir().unwrap();
    archive(root.path(), "ct", 1);
    let graph = GRAPH.replace("inputs = [\"test\"]", "inputs = [\"test\", \"strict\"]")
        + "[stages.strict]\nkind = \"quality-test\"\ninputs = [\"contrast\"]\nattempts = 6\naccept = [\"delta_hu < -14\"]\n";
    let rows = rows(root.path(), &graph);
    let keys: BTreeSet<_> = rows.iter().map(|row| (row.record.sample_id, row.record.branch.clone())).collect();
    assert_eq!(keys.len(), rows.len(), "expected unique rows by sample and branch");
    let of = |branch: &str| -> BTreeMap<_, _> {
        let own = rows.iter().filter(|row| row.record.branch == branch);
        own.map(|row| (row.record.sample_id, row)).collect()
    };
    let (test, strict) = (of("test"), of("strict"));
    let both: Vec<_> = test.keys().filter(|id| strict.contains_key(id)).collect();
    assert!(both.len() >= 4, "expected that both tests decide on the first attempt at each tumor");
    for id in both {
        let (first, second) = (&test[id], &strict[id]);
        assert_eq!(first.record.candidate_digest, second.record.candidate_digest);
        assert_eq!(first.record.scores, second.record.scores);
        assert_eq!(first.placement, second.placement, "expected one image and one patch");
        assert_ne!(first.record.test_digest, second.record.test_digest);
    }
    let paths: Vec<_> = rows.iter().filter_map(|row| row.placement.image_path.clone()).collect();
    assert!(!paths.is_empty());
    // Each branch alone has the same rows.
    let alone: Vec<SampleId> = self::rows(root.path(), GRAPH).iter().map(|row| row.record.sample_id).collect();
    assert_eq!(test.keys().copied().collect::<BTreeSet<_>>(), alone.into_iter().collect());
}

#[test]
fn check_rejects_equal_syntheses_without_salt() {
    let root = tempfile::tempdir().unwrap();
    archive(root.path(), "ct", 1);
    let second = "[stages.again]\nkind = \"rules\"\ninputs = [\"organs\"]\nvariants = 3\ndiameter_mm = [6, 14]\n";
    let graph = GRAPH.replace("inputs = [\"tumors\"]", "inputs = [\"tumors\", \"again\"]");
    let checked = |second: &str| {
        let file = GraphFile::new("test.toml", root.path(), format!("{graph}{second}"));
        check(&file, &Registry::standard())
    };
    let problems: Vec<String> = checked(second).problems.iter().map(ToString::to_string).collect();
    assert!(problems.join("\n").contains("`tumors` and `again` make the same tumors of the liver"), "{problems:?}");
    assert!(checked(&format!("{second}salt = \"again\"\n")).plan.is_some());
}
