#!/usr/bin/env python3
"""Compares the logits and the speed of networks with PyTorch.

    pip install torch monai numpy safetensors einops
    python tests/peers/networks.py [--pairs 5] [--threads N] [--only NAME…] [--binary BENCH]

Both run the same network with the same weights on the same input, alternately and on the same number of threads. The script prints
the ratio of the medians with the required ratio, and the maximum difference of the logits. Peak memory is that of a process
without other work. Without --binary the benchmark is built with `cargo bench --no-run`. The exit code is 1 if logits differ by
more than 2e-4 or a ratio is below the required ratio.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MASK = (1 << 64) - 1

# Name: command of the benchmark, and the required ratio.
CASES = {
    "unet3d-forward": ("forward unet3d 96", 1.35),
    "swin_unetr-forward": ("forward swin_unetr 96", 1.0),
    "unet3d-step": ("step unet3d 64 32 1", 1.0),
    "narrow-step": ("step narrow 32 4 2", 1.3),
    "narrow-step-twice-as-wide": ("step narrow 32 8 2", 1.3),
}


def uniform(name, count, low, high):
    """Returns numbers derived from a name by FNV-1a and splitmix64, as `fill` of the crate."""
    import numpy as np

    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x100000001B3) & MASK
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(count, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (low + (high - low) * ((z >> np.uint64(40)).astype(np.float64) / (1 << 24))).astype(np.float32)


def fill(model):
    """Sets the weights of `fill` of the crate, by name and shape."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() >= 2:
                bound = (3.0 * weight.shape[0] / weight.numel()) ** 0.5
                low, high = -bound, bound
            else:
                low, high = (0.5, 1.5) if name.endswith("weight") else (-0.1, 0.1)
            weight.copy_(torch.from_numpy(uniform(name, weight.numel(), low, high)).reshape(weight.shape))
    return model


def unet3d(width, classes, norm):
    """Returns the U-Net with the parameter names of the published one, and the given normalization layers."""
    import torch
    from torch import nn

    class ConvNorm(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.conv1 = nn.Conv3d(inputs, outputs, 3, padding=1)
            self.bn1 = norm(outputs)

        def forward(self, x):
            return torch.relu(self.bn1(self.conv1(x)))

    class Down(nn.Module):
        def __init__(self, inputs, features):
            super().__init__()
            self.ops = nn.Sequential(ConvNorm(inputs, features // 2), ConvNorm(features // 2, features))

        def forward(self, x):
            return self.ops(x)

    class Up(nn.Module):
        def __init__(self, inputs, features):
            super().__init__()
            self.up_conv = nn.ConvTranspose3d(inputs, inputs, 2, stride=2)
            self.ops = nn.Sequential(ConvNorm(inputs + features, features), ConvNorm(features, features))

        def forward(self, x, skip):
            return self.ops(torch.cat([self.up_conv(x), skip], 1))

    class Out(nn.Module):
        def __init__(self):
            super().__init__()
            self.final_conv = nn.Conv3d(2 * width, classes, 1)

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.down_tr64, self.down_tr128 = Down(1, 2 * width), Down(2 * width, 4 * width)
            self.down_tr256, self.down_tr512 = Down(4 * width, 8 * width), Down(8 * width, 16 * width)
            self.up_tr256, self.up_tr128 = Up(16 * width, 8 * width), Up(8 * width, 4 * width)
            self.up_tr64, self.out_tr = Up(4 * width, 2 * width), Out()

        def forward(self, x):
            pool = torch.nn.functional.max_pool3d
            a = self.down_tr64(x)
            b = self.down_tr128(pool(a, 2))
            c = self.down_tr256(pool(b, 2))
            d = self.down_tr512(pool(c, 2))
            return self.out_tr.final_conv(self.up_tr64(self.up_tr128(self.up_tr256(d, c), b), a))

    return fill(UNet())


class Theirs:
    """A command of the benchmark in PyTorch."""

    def __init__(self, command, threads):
        import torch

        torch.set_num_threads(threads)
        arguments = command.split()
        self.trains, model, side = arguments[0] == "step", arguments[1], int(arguments[2])
        batch = int(arguments[4]) if self.trains else 1
        if model == "swin_unetr":
            from monai.networks.nets import SwinUNETR

            self.network = fill(SwinUNETR(in_channels=1, out_channels=7, feature_size=48, use_v2=True)).eval()
        elif model == "narrow":
            self.network = unet3d(int(arguments[3]), 2, lambda n: torch.nn.InstanceNorm3d(n, affine=True))
        else:
            self.network = unet3d(32, 3, lambda n: torch.nn.BatchNorm3d(n, track_running_stats=False))
        values = uniform(f"bench.{batch}.{side}", batch * side**3, 0.0, 1.0)
        self.x = torch.from_numpy(values).reshape(batch, 1, side, side, side)
        self.adam = torch.optim.Adam(self.network.parameters(), 1e-4) if self.trains else None

    def run(self):
        import torch

        if not self.trains:
            with torch.no_grad():
                return self.network(self.x)
        self.adam.zero_grad()
        self.network(self.x).square().mean().backward()
        self.adam.step()

    def timed(self):
        start = time.perf_counter()
        self.run()
        return time.perf_counter() - start


class Ours:
    """A benchmark process that serves commands."""

    def __init__(self, binary, threads):
        environment = os.environ | {"RAYON_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [binary, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def request(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def build_benchmark():
    """Builds the benchmark and returns its path."""
    command = ["cargo", "bench", "--bench", "networks", "--no-run", "--message-format", "json"]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    messages = (json.loads(line) for line in lines if line.startswith("{"))
    found = [m["executable"] for m in messages if m.get("target", {}).get("name") == "networks" and m.get("executable")]
    return Path(found[-1])


def peak_of_theirs(command, threads):
    """Returns the peak bytes of a process that runs the command twice in PyTorch, before the first run and in total."""
    line = [sys.executable, __file__, "--measure", command, "--threads", str(threads)]
    return json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measure(args):
    import torch  # noqa: F401

    theirs = Theirs(args.measure, args.threads)
    before = peak_bytes()
    theirs.timed(), theirs.timed()
    print(json.dumps({"before": before, "peak": peak_bytes()}))


def peak_bytes():
    """Returns the peak memory of this process in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="runs of each, alternately")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--binary", type=Path, help="the built benchmark")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        return measure(args)
    import numpy as np
    from safetensors.numpy import load_file

    binary = (args.binary or build_benchmark()).resolve()
    good = True
    for name in args.only:
        command, required = CASES[name]
        theirs, ours = Theirs(command, args.threads), Ours(binary, args.threads)
        theirs.timed(), ours.request(command)
        seconds = {"PyTorch": [], "freetumor": []}
        for _ in range(args.pairs):
            seconds["PyTorch"].append(theirs.timed())
            seconds["freetumor"].append(ours.request(command)["seconds"])
        peak = ours.request(command)["peak_bytes"]
        medians = {peer: statistics.median(values) for peer, values in seconds.items()}
        ratio = medians["PyTorch"] / medians["freetumor"]
        good &= ratio >= required
        print(f"{name}: PyTorch {medians['PyTorch']:.4f} s, freetumor {medians['freetumor']:.4f} s, "
              f"ratio of medians {ratio:.2f} on {args.threads} threads, required {required}")
        if command.startswith("forward"):
            with tempfile.TemporaryDirectory() as folder:
                file = f"{folder}/logits.safetensors"
                ours.request(command.replace("forward", "write") + " " + file)
                difference = float(np.abs(load_file(file)["output"] - theirs.run().numpy()).max())
            good &= difference < 2e-4
            print(f"  maximum difference of logits {difference:.1e}")
        ours.close()
        del theirs
        memory = peak_of_theirs(command, args.threads)
        print(f"  peak memory: freetumor {peak / 2**20:.0f} MiB, PyTorch {memory['peak'] / 2**20:.0f} MiB, "
              f"of them {memory['before'] / 2**20:.0f} MiB before the first run", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
