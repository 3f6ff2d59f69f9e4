"""What the comparisons share: our side by `ornstein bench --suite peers`, and the table of ratios.

Both sides are measured in turns, so that a machine that changes its speed changes it for both.
"""
import json
import re
import statistics
import subprocess


def bench(binary, device, dtype, processor_time, ops):
    """Seconds and variant of each of our right rows, by (kind, shape), and the device's facts."""
    command = [binary, "bench", *ops, "--suite", "peers", "--json", "--device", device, "--dtype", dtype]
    command += ["--processor-time"] if processor_time else []
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    rows = {}
    for row in report["rows"]:
        if row["verdict"] == "right":
            rows[key(row)] = (row["median"], row["variant"])
    return rows, report["device"]


def key(row):
    """(kind, shape) as the peers' scripts name them, from a row of ours."""
    shapes = row["shapes"]
    if row["op"] == "matmul":
        (m, k), (_, n) = shapes[:2]
        return "linear", (m, n, k)
    if row["op"] == "conv2d":
        (batch, height, _, channels), w = shapes[:2]
        return "conv3x3", (batch, channels, w[3], height)
    (batch, queries, width), (_, keys, _) = shapes[:2]
    heads = int(re.search(r"heads: (\d+)", row["attributes"])[1])
    return "attention", (batch, heads, queries, keys, width // heads)


def flops(kind, shape):
    if kind == "linear":
        return 2 * shape[0] * shape[1] * shape[2]
    if kind == "conv3x3":
        batch, channels, out, size = shape
        return 18 * batch * channels * out * size * size
    batch, heads, queries, keys, d = shape
    return 4 * batch * heads * queries * keys * d


def compare(rounds, ours, theirs, peer):
    """Alternates `ours()` and `theirs(shapes)`, and prints each shape's medians and their ratio, theirs / ours: above 1
    we are faster. The spread is that of the rounds' ratios."""
    collected = {}
    variants = {}
    for _ in range(rounds):
        mine = ours()
        for what, seconds in theirs(list(mine)).items():
            collected.setdefault(what, []).append((mine[what][0], seconds))
            variants[what] = mine[what][1]
    print(f"{'':<44} {'ours':>22} {peer:>20}   ratio (theirs / ours)")
    for (kind, shape), pairs in collected.items():
        ratios = sorted(their / our for our, their in pairs)
        our, their = (statistics.median(side) for side in zip(*pairs))
        rate = lambda seconds: f"{seconds * 1e3:9.2f} ms {flops(kind, shape) / seconds / 1e9:8.1f}"
        name = f"{kind} {'x'.join(map(str, shape))} ({variants[kind, shape]})"
        print(f"{name:<44} {rate(our)} {rate(their)}   {statistics.median(ratios):5.2f}  [{ratios[0]:.2f}, {ratios[-1]:.2f}]")
    print("rates in GFLOP/s; the bracket holds the rounds' least and largest ratio")
