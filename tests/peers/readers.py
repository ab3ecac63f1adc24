"""Reads a run folder with the programs that people have, unchanged: nibabel, SimpleITK (nnU-Net's reader), MONAI and
webdataset read the samples; DuckDB and Polars answer three questions on the tables. Where nnU-Net is installed, its own
check of a dataset's integrity runs too; where it is not, that is said.

    pip install nibabel SimpleITK monai webdataset duckdb polars pandas pyarrow nnunetv2
    python tests/peers/readers.py RUN

RUN is what `freetumor run` wrote, with sinks of the kinds nnunet, decathlon and webdataset. Exit code 0 means that every
reader agreed with every other and with the tables.
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
WHY_REJECTED = """
    SELECT organ, reason, count(*) AS attempts
    FROM samples WHERE verdict = 'rejected' GROUP BY ALL ORDER BY ALL"""
CONTRAST = """
    SELECT dataset, count(*) AS tumors, avg(delta_hu) AS delta_hu, median(cnr) AS cnr
    FROM samples WHERE verdict = 'accepted' GROUP BY ALL ORDER BY ALL"""


def committed(run: pathlib.Path) -> dict[str, dict]:
    """The files that count, by replaying the commits: what `freetumor files` prints."""
    files, epoch = {}, 0
    while (place := run / "epochs" / f"{epoch:012}.json").exists():
        commit = json.loads(place.read_bytes())
        assert commit["epoch"] == epoch
        for removed in commit["remove"]:
            del files[removed["path"]]
        files |= {added["path"]: added for added in commit["add"]}
        epoch += 1
    for path, file in files.items():
        assert hashlib.sha256((run / path).read_bytes()).hexdigest() == file["sha256"], path
    return files


def polars_answers(samples: polars.DataFrame) -> list[polars.DataFrame]:
    sited = samples.filter(polars.col("size_class").is_not_null())
    share = (polars.col("verdict") == "accepted").mean().alias("accepted_share")
    rejected = samples.filter(polars.col("verdict") == "rejected")
    accepted = samples.filter(polars.col("verdict") == "accepted")
    return [
        sited.group_by("organ", "size_class").agg(polars.len().alias("attempts"), share).sort("organ", "size_class"),
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
    for question, by_polars in zip([ACCEPTED_SHARE, WHY_REJECTED, CONTRAST], polars_answers(samples), strict=True):
        by_duckdb = connection.sql(question)
        print(question, by_duckdb, sep="\n")
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
    """Every engine reads the folder of a table as the head of the run, and nothing else."""
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
    assert attempts == rows, (attempts, rows)
    print(f"duckdb, polars, pandas and pyarrow read {rows} rows of samples from the folder, and as many in quality")


def check_image(path: pathlib.Path, label_path: pathlib.Path) -> None:
    """nibabel and SimpleITK see the same voxels at the same places."""
    image, label = nibabel.load(path), nibabel.load(label_path)
    assert label.get_data_dtype() == np.uint8 and image.shape == label.shape
    assert np.array_equal(image.affine, label.affine) and image.header.get_xyzt_units()[0] == "mm"
    values, ids = np.asanyarray(image.dataobj), np.asanyarray(label.dataobj)
    by_itk = SimpleITK.ReadImage(str(path))
    assert np.array_equal(SimpleITK.GetArrayFromImage(by_itk).T, values)
    assert np.array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(label_path))).T, ids)
    for corner in [(0, 0, 0), tuple(length - 1 for length in image.shape)]:
        # ITK's world is LPS.
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
    for place in sorted(run.glob("layouts/*/dataset.json")):
        seen = []
        for key in ["training", "validation", "test"]:
            for pair in load_decathlon_datalist(str(place), True, key, str(place.parent)):
                check_image(pathlib.Path(pair["image"]), pathlib.Path(pair["label"]))
                loaded = read(pair)
                assert loaded["image"].shape == loaded["label"].shape
                assert not set(np.unique(loaded["label"])) - {int(id) for id in json.loads(place.read_text())["labels"]}
                seen.append(pathlib.Path(pair["image"]).name.removesuffix(".nii.gz"))
        assert not set(seen) - set(accepted["sample_id"]) and len(set(seen)) == len(seen)
        print(f"{place.parent.name}: nibabel, SimpleITK and MONAI read {len(seen)} pairs")
    for place in sorted(run.glob("layouts/*/Dataset*/dataset.json")):
        dataset = json.loads(place.read_text())
        assert sorted(dataset["labels"].values()) == list(range(len(dataset["labels"])))
        cases = {path.name.removesuffix("_0000.nii.gz") for path in place.parent.glob("imagesTr/*")}
        folds = json.loads((place.parent / "splits_final.json").read_text())
        assert cases == set(folds[0]["train"]) | set(folds[0]["val"]) and len(cases) == dataset["numTraining"]
        assert cases == {path.name.removesuffix(".nii.gz") for path in place.parent.glob("labelsTr/*")}
        print(f"{place.parent.name}: {len(cases)} training cases")


def check_integrity(run: pathlib.Path) -> None:
    """What `nnUNetv2_plan_and_preprocess --verify_dataset_integrity` does first."""
    places = sorted(run.glob("layouts/*/Dataset*"))
    if places and not importlib.util.find_spec("nnunetv2"):
        print("nnU-Net is not installed: its own check was left out")
        return
    for place in places:
        # nnU-Net wants these named before it is imported; nothing is written there.
        for name in ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"]:
            os.environ.setdefault(name, str(place.parent))
        from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

        verify_dataset_integrity(str(place), num_processes=2)
        print(f"{place.name}: nnU-Net's own check of the dataset passes")


def check_shards(run: pathlib.Path, accepted: polars.DataFrame) -> None:
    digests = dict(accepted.select("sample_id", "image_sha256").iter_rows())
    for place in sorted({path.parent for path in run.glob("layouts/*/train.json")}):
        seen = []
        for split in ["train", "validation", "test"]:
            shards = json.loads((place / f"{split}.json").read_text())["shardlist"]
            urls = [str(place / shard["url"]) for shard in shards]
            count = 0
            for sample in webdataset.WebDataset(urls, shardshuffle=False, empty_check=False) if urls else []:
                record = json.loads(sample["json"])
                name = "image.nii.gz" if "image.nii.gz" in sample else "after.nii.gz"
                if name == "image.nii.gz":
                    assert hashlib.sha256(sample[name]).hexdigest() == digests[sample["__key__"]]
                    assert record["split"] == split
                image = nibabel.Nifti1Image.from_stream(io.BytesIO(gzip.decompress(sample[name])))
                label = nibabel.Nifti1Image.from_stream(io.BytesIO(gzip.decompress(sample["label.nii.gz"])))
                assert image.get_fdata().shape == label.get_fdata().shape
                assert record["sample_id"] == sample["__key__"]
                seen.append(sample["__key__"])
                count += 1
            assert count == sum(shard["nsamples"] for shard in shards)
        assert not set(seen) - set(accepted["sample_id"]) and len(set(seen)) == len(seen)
        print(f"{place.name}: webdataset reads {len(seen)} samples")


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
