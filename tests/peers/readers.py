"""Reads a run folder with common libraries: nibabel, SimpleITK (the reader of nnU-Net), MONAI and webdataset read the samples; DuckDB
and Polars run three queries on the tables. If nnU-Net is installed, its check of data sets runs too; otherwise the script prints that
the check was skipped.

    pip install nibabel SimpleITK monai webdataset duckdb polars pandas pyarrow nnunetv2
    python tests/peers/readers.py RUN

RUN is a run folder of `freetumor run`, with sinks of the kinds nnunet, decathlon and webdataset. The exit code is 0 if all readers
agree with each other and with the tables.
"""

import gzip
import hashlib
import io
import importlib.util
import json
import os
import pathlib
import sys

import duckdb
import monai.transforms as transforms
import nibabel
import numpy as np
import pandas
import polars
import pyarrow.parquet
import SimpleITK
import webdataset
from monai.data import load_decathlon_datalist

ACCEPTED_SHARE = """
    SELECT organ, size_class, count(*) AS attempts, avg((verdict = 'accepted')::INT) AS accepted_share
    FROM samples WHERE size_class IS NOT NULL GROUP BY ALL ORDER BY ALL"""
REJECTION_REASONS = """
    SELECT organ, reason, count(*) AS attempts
    FROM samples WHERE verdict = 'rejected' GROUP BY ALL ORDER BY ALL"""
CONTRAST = """
    SELECT dataset, count(*) AS tumors, avg(delta_hu) AS delta_hu, median(cnr) AS cnr
    FROM samples WHERE verdict = 'accepted' AND kind = 'synthetic' GROUP BY ALL ORDER BY ALL"""


def committed(run: pathlib.Path) -> dict[str, dict]:
    """Returns the committed files by replaying the commits, as `freetumor files` does."""
    files, epoch = {}, 0
    while (path := run / "epochs" / f"{epoch:012}.json").exists():
        commit = json.loads(path.read_bytes())
        assert commit["epoch"] == epoch
        for removed in commit["remove"]:
            del files[removed["path"]]
        files |= {added["path"]: added for added in commit["add"]}
        epoch += 1
    for path, file in files.items():
        assert hashlib.sha256((run / path).read_bytes()).hexdigest() == file["sha256"], path
    return files


def query_with_polars(samples: polars.DataFrame) -> list[polars.DataFrame]:
    with_site = samples.filter(polars.col("size_class").is_not_null())
    share = (polars.col("verdict") == "accepted").mean().alias("accepted_share")
    rejected = samples.filter(polars.col("verdict") == "rejected")
    accepted = samples.filter((polars.col("verdict") == "accepted") & (polars.col("kind") == "synthetic"))
    return [
        with_site.group_by("organ", "size_class").agg(polars.len().alias("attempts"), share).sort("organ", "size_class"),
        rejected.group_by("organ", "reason").agg(polars.len().alias("attempts")).sort("organ", "reason"),
        accepted.group_by("dataset")
        .agg(polars.len().alias("tumors"), polars.mean("delta_hu"), polars.median("cnr"))
        .sort("dataset"),
    ]


def check_tables(run: pathlib.Path, files: dict[str, dict]) -> polars.DataFrame:
    paths = [str(run / path) for path, file in files.items() if file["table"] == "samples"]
    connection = duckdb.connect()
    connection.from_parquet(paths).create_view("samples")
    samples = polars.read_parquet(paths)
    assert len(samples) == sum(file["rows"] for file in files.values() if file["table"] == "samples")
    for query, by_polars in zip([ACCEPTED_SHARE, REJECTION_REASONS, CONTRAST], query_with_polars(samples), strict=True):
        by_duckdb = connection.sql(query)
        print(query, by_duckdb, sep="\n")
        rows = by_duckdb.fetchall()
        assert len(rows) == len(by_polars) > 0
        for left, right in zip(rows, by_polars.rows(), strict=True):
            for a, b in zip(left, right, strict=True):
                assert a == b or abs(a - b) < 1e-9, (left, right)
    scans = [str(run / path) for path, file in files.items() if file["table"] == "scans"]
    organs = duckdb.from_parquet(scans).query("scans", "SELECT unnest(organs, recursive := true) FROM scans")
    assert organs.columns == ["organ", "volume_ml"]
    return samples.filter(polars.col("verdict") == "accepted")


def check_table_folders(run: pathlib.Path, files: dict[str, dict]) -> None:
    """Checks that every engine reads exactly the committed rows from the folder of a table."""
    for table in ["samples", "scans", "faults", "quality"]:
        folder = run / table
        expected = sum(file["rows"] for file in files.values() if file["table"] == table)
        counts = {
            "duckdb": duckdb.execute(f"SELECT count(*) FROM read_parquet('{folder}/*.parquet')").fetchone()[0],
            "polars": len(polars.read_parquet(folder)),
            "pandas": len(pandas.read_parquet(folder)),
            "pyarrow": pyarrow.parquet.read_table(folder).num_rows,
        }
        assert set(counts.values()) == {expected}, (table, expected, counts)
    attempts = duckdb.execute(f"SELECT sum(attempts) FROM read_parquet('{run}/quality/*.parquet')").fetchone()[0]
    rows = duckdb.execute(f"SELECT count(*) FROM read_parquet('{run}/samples/*.parquet')").fetchone()[0]
    tumors = duckdb.execute(f"SELECT count(*) FROM read_parquet('{run}/samples/*.parquet') WHERE kind = 'synthetic'").fetchone()[0]
    assert attempts == tumors, (attempts, tumors)
    print(f"duckdb, polars, pandas and pyarrow read {rows} rows of samples from the folder, and the same number of attempts in quality")


def check_image(path: pathlib.Path, label_path: pathlib.Path) -> None:
    """Checks that nibabel and SimpleITK read the same voxels at the same positions."""
    image, label = nibabel.load(path), nibabel.load(label_path)
    assert label.get_data_dtype() == np.uint8 and image.shape == label.shape
    assert np.array_equal(image.affine, label.affine) and image.header.get_xyzt_units()[0] == "mm"
    values, ids = np.asanyarray(image.dataobj), np.asanyarray(label.dataobj)
    by_itk = SimpleITK.ReadImage(str(path))
    assert np.array_equal(SimpleITK.GetArrayFromImage(by_itk).T, values)
    assert np.array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(label_path))).T, ids)
    for corner in [(0, 0, 0), tuple(length - 1 for length in image.shape)]:
        # World coordinates of ITK are LPS.
        left, posterior, superior = by_itk.TransformIndexToPhysicalPoint(corner)
        expected = image.affine @ [*corner, 1]
        assert np.allclose([-left, -posterior, superior], expected[:3], atol=1e-3), (corner, expected)


def check_layouts(run: pathlib.Path, accepted: polars.DataFrame) -> None:
    read = transforms.Compose(
        [
            transforms.LoadImaged(["image", "label"]),
            transforms.EnsureChannelFirstd(["image", "label"]),
            transforms.Orientationd(["image", "label"], axcodes="RAS"),
        ]
    )
    for path in sorted(run.glob("layouts/*/dataset.json")):
        ids = []
        for key in ["training", "validation", "test"]:
            for pair in load_decathlon_datalist(str(path), True, key, str(path.parent)):
                check_image(pathlib.Path(pair["image"]), pathlib.Path(pair["label"]))
                loaded = read(pair)
                assert loaded["image"].shape == loaded["label"].shape
                assert not set(np.unique(loaded["label"])) - {int(id) for id in json.loads(path.read_text())["labels"]}
                ids.append(pathlib.Path(pair["image"]).name.removesuffix(".nii.gz"))
        assert not set(ids) - set(accepted["sample_id"]) and len(set(ids)) == len(ids)
        print(f"{path.parent.name}: nibabel, SimpleITK and MONAI read {len(ids)} pairs")
    for path in sorted(run.glob("layouts/*/Dataset*/dataset.json")):
        dataset = json.loads(path.read_text())
        assert sorted(dataset["labels"].values()) == list(range(len(dataset["labels"])))
        cases = {image.name.removesuffix("_0000.nii.gz") for image in path.parent.glob("imagesTr/*")}
        folds = json.loads((path.parent / "splits_final.json").read_text())
        assert cases == set(folds[0]["train"]) | set(folds[0]["val"]) and len(cases) == dataset["numTraining"]
        assert cases == {label.name.removesuffix(".nii.gz") for label in path.parent.glob("labelsTr/*")}
        print(f"{path.parent.name}: {len(cases)} training cases")


def check_integrity(run: pathlib.Path) -> None:
    """Runs the first check of `nnUNetv2_plan_and_preprocess --verify_dataset_integrity`."""
    folders = sorted(run.glob("layouts/*/Dataset*"))
    if folders and not importlib.util.find_spec("nnunetv2"):
        print("nnU-Net is not installed: its check was skipped")
        return
    for folder in folders:
        # nnU-Net requires these variables before the import; it does not write to the folders.
        for name in ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"]:
            os.environ.setdefault(name, str(folder.parent))
        from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

        verify_dataset_integrity(str(folder), num_processes=2)
        print(f"{folder.name}: the check of nnU-Net passes")


def check_shards(run: pathlib.Path, accepted: polars.DataFrame) -> None:
    digests = dict(accepted.select("sample_id", "image_sha256").iter_rows())
    for folder in sorted({path.parent for path in run.glob("layouts/*/train.json")}):
        ids = []
        for split in ["train", "validation", "test"]:
            shards = json.loads((folder / f"{split}.json").read_text())["shardlist"]
            urls = [str(folder / shard["url"]) for shard in shards]
            count = 0
            for sample in webdataset.WebDataset(urls, shardshuffle=False, empty_check=False) if urls else []:
                record = json.loads(sample["json"])
                name = "image.nii.gz" if "image.nii.gz" in sample else "after.nii.gz"
                if name == "image.nii.gz":
                    assert hashlib.sha256(sample[name]).hexdigest() == digests[sample["__key__"]]
                    assert record["split"] == split
                assert record["sample_id"] == sample["__key__"]
                ids.append(sample["__key__"])
                count += 1
                if name not in sample:
                    assert record["boxes"] == [], "only the patch of a negative has no image"
                    continue
                image = nibabel.Nifti1Image.from_stream(io.BytesIO(gzip.decompress(sample[name])))
                label = nibabel.Nifti1Image.from_stream(io.BytesIO(gzip.decompress(sample["label.nii.gz"])))
                assert image.get_fdata().shape == label.get_fdata().shape
            assert count == sum(shard["nsamples"] for shard in shards)
        assert not set(ids) - set(accepted["sample_id"]) and len(set(ids)) == len(ids)
        print(f"{folder.name}: webdataset reads {len(ids)} samples")


def main() -> None:
    run = pathlib.Path(sys.argv[1])
    files = committed(run)
    accepted = check_tables(run, files)
    check_table_folders(run, files)
    check_layouts(run, accepted)
    check_integrity(run)
    check_shards(run, accepted)


if __name__ == "__main__":
    main()
