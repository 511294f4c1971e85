"""Speed, measured fairly: every contender in a process of its own, in turn, several rounds; medians, bests, ratios.

    python scripts/benchmark.py train --model mnist_cnn resnet20
    python scripts/benchmark.py infer --model resnet50 --batch 1 32 --rounds 5 --json infer.json

The machine may be shared and noisy: only ratios within one run count, and where medians and bests tell different
stories, it was. Peers are measured where they are installed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

WHAT = ("train", "infer", "finetune", "style", "export", "data", "startup")


def worker(bench, options):
    import resource

    if options.worker == "machine":
        return print("RESULT", json.dumps(machine(bench, options)))
    found = bench.measure(options.worker, options)
    found = {"": found} if "value" in found else found
    held = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    mib = held / (1 << 20 if sys.platform == "darwin" else 1 << 10)  # bytes on macOS, KiB elsewhere
    print("RESULT", json.dumps({case: {"peak_mib": round(mib), **values} for case, values in found.items()}))


def ask(name, models, environment=()):
    """What a worker answers; None, and a word on stderr, if it fails or takes ten minutes."""
    command = [sys.executable, __file__, *sys.argv[1:], "--worker", name]
    command += ["--model", *models] if models else []
    # PyTorch's threads would spin while they wait, and be ten times slower where others use the cores, too.
    env = {"OMP_WAIT_POLICY": "passive", **os.environ, **dict(environment)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=600)
    except subprocess.TimeoutExpired:
        return print(f"{name}: left out: ten minutes were not enough", file=sys.stderr)
    line = next((x for x in done.stdout.splitlines() if x.startswith("RESULT ")), None)
    if line is None:
        return print(f"{name}: left out: {(done.stderr.strip().splitlines() or ['no word'])[-1]}", file=sys.stderr)
    return json.loads(line[7:])


def share_of_peak(table, flops, peak):
    """Adds to each row the share that it reaches of the machine's measured matrix product, in its faster precision."""
    for row in table.values():
        row["of_peak"] = f"{row['best'] * flops / max(peak.values()) / 1e9:.0%}"


def machine(bench, options):
    """What it is; for networks its GFLOP/s of matrix products, and the floating point operations of each network."""
    import kzoo
    from kzoo.hardware import describe

    found = {"hardware": describe()}
    if hasattr(bench, "flops"):
        from bench.common import peak

        found["peak"] = peak()

        def built(name):
            return kzoo.load_run(name).model if os.path.isdir(name) else kzoo.build(name)

        found["flops"] = {m: bench.flops(kzoo.ledger(built(m))) for m in options.model}
    return found


def rounds(bench, options, model):
    """{case: {contender: [result of each round]}}"""
    results, failed = {}, set()
    for turn in range(options.rounds):
        for name in bench.contenders(options):
            if name in failed:
                continue
            answer = ask(name, [model] if model else [], getattr(bench, "environment", lambda name: {})(name))
            if answer is None:
                failed.add(name)
                continue
            for case, found in answer.items():
                label = " ".join(filter(None, (model, case)))
                results.setdefault(label, {}).setdefault(name, []).append(found)
                print(f"round {turn + 1}: {label} {name}: {found['value']:,.2f} {bench.UNIT}", file=sys.stderr)
    return results


def summary(bench, found):
    """{contender: {"median", "best", "peak_mib", "ratio" and "ratio_of_bests" to BASE (above 1: better), facts}}"""
    best = max if bench.BETTER == "more" else min
    table = {}
    for name, results in found.items():
        values = [r["value"] for r in results]
        facts = {k: v for k, v in results[-1].items() if k not in ("value", "peak_mib")}
        table[name] = {
            "median": statistics.median(values),
            "best": best(values),
            "peak_mib": max(r["peak_mib"] for r in results),
            **facts,
        }
    if bench.BASE in table:
        for row in table.values():
            for key, of in (("ratio", "median"), ("ratio_of_bests", "best")):
                ratio = row[of] / table[bench.BASE][of]
                row[key] = round(ratio if bench.BETTER == "more" else 1 / ratio, 2)
    return table


def show(title, bench, table):
    print(f"\n{title}")
    print(f"{'':24}{'median':>10}{'best':>10}{'peak MiB':>10}   times {bench.BASE} (of bests)")
    digits = 0 if bench.UNIT == "images/s" and max(r["best"] for r in table.values()) > 100 else 2
    for name, row in table.items():
        known = ("median", "best", "peak_mib", "ratio", "ratio_of_bests")
        facts = ", ".join(f"{k} {v}" for k, v in row.items() if k not in known and not isinstance(v, list))
        ratios = f"{row['ratio']:6.2f} ({row['ratio_of_bests']:.2f})" if "ratio" in row else ""
        numbers = f"{row['median']:10,.{digits}f}{row['best']:10,.{digits}f}{row['peak_mib']:10,}"
        print(f"{name:24}{numbers}   {ratios:16}{facts}".rstrip())
    print("\n".join(getattr(bench, "finish", lambda table: [])(table)), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for what in WHAT:
        bench = import_module(f"bench.{what}")
        p = commands.add_parser(
            what, help=bench.HELP, description=bench.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        bench.arguments(p)
        p.add_argument("--only", nargs="+", metavar="NAME", help="these contenders only")
        p.add_argument("--rounds", type=int, default=3)
        p.add_argument("--json", metavar="FILE")
        p.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    bench = import_module(f"bench.{options.command}")
    if options.worker:
        return worker(bench, options)
    every = bench.contenders
    bench.contenders = lambda o: [n for n in every(o) if not o.only or n in o.only]

    models = getattr(options, "model", None) or [None]
    # Not in this process: what it holds would count as the peak memory of those that it starts.
    known = ask("machine", models if models[0] else [])
    record = {
        "command": "python scripts/benchmark.py " + " ".join(sys.argv[1:]),
        "unit": bench.UNIT,
        "load_before": os.getloadavg()[0],
        **known,
        "results": {},
    }
    print(f"{record['hardware']}; load {record['load_before']:.1f}; {options.rounds} rounds; {bench.UNIT}")
    if "peak" in record:
        print("Matrix product: {float32:,} GFLOP/s in float32, {bfloat16:,} in bfloat16".format(**record["peak"]))
    for model in models:
        for label, found in rounds(bench, options, model).items():
            record["results"][label] = table = summary(bench, found)
            if "peak" in record:
                share_of_peak(table, record["flops"][model], record["peak"])
            show(label, bench, table)
    if options.json:
        Path(options.json).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
