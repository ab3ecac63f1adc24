#!/usr/bin/env python3
"""Compares the speed of synthesis and scoring by networks with the published implementation in PyTorch.

    pip install torch monai numpy safetensors
    python tests/peers/generate.py [--binary freetumor] [--policies centred reaching] [--threads N]

The published implementation infers on every 96³ window of the box of the organ at an overlap of 0.75, in groups of four, with the generator
and the segmentor, for each attempt. This script times PyTorch on three windows of each network and multiplies by the number of windows of
two boxes (129×123×95 voxels: 9 windows; 200×170×150: 120). freetumor runs `pipelines/liver-networks.toml` with the same weights (by
`fill`) on `../shared/ct/totalseg_abdomen`, and reports the time of each network per attempt. The exit code is 1 if `centred` is less than
9 times as fast on the small box or less than 80 times on the large one.
"""
import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import networks as peers  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
BOXES = {"129×123×95": (129, 123, 95), "200×170×150": (200, 170, 150)}
REQUIRED = {"129×123×95": 9.0, "200×170×150": 80.0}


def windows(box, roi=96, step=24):
    """Returns the number of windows that cover a box at an overlap of 0.75."""
    return math.prod(math.ceil(max(side - roi, 0) / step) + 1 for side in box)


def models():
    import torch
    from monai.networks.nets import SwinUNETR

    generator = peers.fill(peers.unet3d(32, 3, torch.nn.BatchNorm3d))
    discriminator = peers.fill(peers.unet3d(32, 3, torch.nn.BatchNorm3d))
    segmentor = peers.fill(SwinUNETR(in_channels=1, out_channels=7, feature_size=48, use_v2=True))
    return generator, discriminator, segmentor


def save(folder, generator, discriminator, segmentor):
    from safetensors.torch import save_file

    both = {f"module.netG.{name}": weight.detach().contiguous() for name, weight in generator.named_parameters()}
    both |= {f"module.netD.{name}": weight.detach().contiguous() for name, weight in discriminator.named_parameters()}
    save_file(both, folder / "TGAN.pt")
    weights = {name: weight.detach().contiguous() for name, weight in segmentor.named_parameters()}
    save_file(weights, folder / "model_baseline_segmentor.pt")


def torch_seconds(model, count=3):
    """Returns the seconds per window, for `count` windows at once, the better of two runs."""
    import torch

    model.train() if any("bn" in name for name, _ in model.named_parameters()) else model.eval()
    x = torch.rand(count, 1, 96, 96, 96)
    seconds = []
    with torch.no_grad():
        for _ in range(2):
            start = time.perf_counter()
            model(x)
            seconds.append((time.perf_counter() - start) / count)
    return min(seconds)


def ours(binary, folder, policy, threads):
    """Returns the report of freetumor for one scan, one tumor, and two attempts at one site."""
    out = folder / f"run-{policy}"
    command = [binary, "run", ROOT / "pipelines/liver-networks.toml", "--out", out, "--limit", "1", "--json"]
    if threads:
        command += ["--threads", str(threads)]
    for stage in ("synthesize", "segmentor", "discriminator"):
        command += ["--set", f'stages.{stage}.network.windows="{policy}"']
    command += ["--set", "stages.synthesize.rules.variants=1", "--set", "stages.quality.attempts=2"]
    command += ["--set", 'sources.totalseg.include=["totalseg_abdomen/ct.nii.gz"]']
    import os

    environment = os.environ | {"FREETUMOR_WEIGHTS": str(folder), "FREETUMOR_PATIENT_KEY": "a key for measurements only"}
    done = subprocess.run([str(argument) for argument in command], env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--binary", default=None, help="a release build [default: build it]")
    arguments.add_argument("--policies", nargs="+", default=["centred", "reaching"])
    arguments.add_argument("--threads", type=int, default=0)
    args = arguments.parse_args()
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    binary = args.binary
    if binary is None:
        subprocess.run(["cargo", "build", "--release"], cwd=ROOT, check=True)
        text = subprocess.run(["cargo", "metadata", "--format-version", "1", "--no-deps"], cwd=ROOT, check=True, capture_output=True, text=True)
        binary = Path(json.loads(text.stdout)["target_directory"]) / "release" / "freetumor"
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        generator, discriminator, segmentor = models()
        save(folder, generator, discriminator, segmentor)
        g, s = torch_seconds(generator), torch_seconds(segmentor)
        print(f"PyTorch, per window: generator {g:.2f} s, segmentor {s:.2f} s, on {torch.get_num_threads()} threads")
        for policy in args.policies:
            report = ours(binary, folder, policy, args.threads)
            use = {(network["node"], network["phase"]): network for network in report["networks"]}
            attempts = report["new_attempts"]
            print(f"\nfreetumor, {policy}: {attempts} attempts at one site, {report['accepted']} accepted")
            for (node, phase), network in use.items():
                seconds, count = network["device_seconds"], network["windows"]
                per_window = seconds / max(count, 1)
                print(f"  {node:<14}{phase:<10}{network['looks']:>3} inferences {count:>4} windows {seconds:>8.2f} s, {per_window:.2f} s per window")
            networks = sum(network["device_seconds"] for network in use.values())
            print(f"  other work {report['other_seconds']:.2f} s, {100 * report['other_seconds'] / networks:.1f}% of the networks; the device was busy {100 * report['device_busy_share']:.0f}%, the processors {100 * report['processors_busy_share']:.0f}%")
            generated, after = use[("synthesize", "generate")], use[("segmentor", "after")]
            # The cost of one attempt at a new site; a second attempt at the same site needs no inference of the generator.
            each = generated["device_seconds"] / generated["looks"] + after["device_seconds"] / after["looks"]
            for name, box in BOXES.items():
                count = windows(box)
                if policy != "centred" and count != generated["windows"] / generated["looks"]:
                    # The number of windows that reach a tumor depends on the box, so that the count of this scan is not valid for others.
                    continue
                reference = count * (g + s)
                ratio = reference / each
                saved = 2 * count / (generated["windows"] / generated["looks"] + after["windows"] / after["looks"])
                print(f"  {name}: published {reference:.0f} s ({count} windows, 3 of them timed), freetumor {each:.1f} s: {ratio:.0f} times as fast, {saved:.1f} times fewer windows")
                failed |= policy == "centred" and ratio < REQUIRED[name]
    sys.exit(failed)


if __name__ == "__main__":
    main()
