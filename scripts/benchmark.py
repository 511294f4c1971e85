"""Benchmarks of speed: every contender in a process of its own, in turn, for several rounds; medians, bests, ratios.

    python scripts/benchmark.py train --model mnist_cnn resnet20
    python scripts/benchmark.py infer --model resnet50 --batch 1 32 --rounds 5 --json infer.json
    python scripts/benchmark.py sweep --model all --rounds 1 --json sweep.json

The machine may be shared and noisy: compare only ratios within one run. If medians and bests disagree, the run was
noisy. Peers are measured if they are installed.
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

BENCHMARKS = ("train", "infer", "sweep", "finetune", "style", "visualize", "export", "data", "fit", "serve", "startup")


def worker(bench, options):
    """Measure one contender in this process, and print the result as a line for `run_worker`."""
    import resource

    if options.worker == "machine":
        return print("RESULT", json.dumps(machine(bench, options)))
    found = bench.measure(options.worker, options)
    found = {"": found} if "value" in found else found
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    mib = peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)  # bytes on macOS, KiB elsewhere
    print("RESULT", json.dumps({case: {"peak_mib": round(mib), **values} for case, values in found.items()}))


def run_worker(name, models, environment=()):
    """The result of a worker process; None, with a message on stderr, if it fails or takes more than ten minutes."""
    command = [sys.executable, __file__, *sys.argv[1:], "--worker", name]
    command += ["--model", *models] if models else []
    # PyTorch's threads would spin while they wait, which is ten times slower if other processes use the cores.
    env = {"OMP_WAIT_POLICY": "passive", **os.environ, **dict(environment)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=600)
    except subprocess.TimeoutExpired:
        return print(f"{name}: left out: it took more than ten minutes", file=sys.stderr)
    line = next((x for x in done.stdout.splitlines() if x.startswith("RESULT ")), None)
    if line is None:
        return print(f"{name}: left out: {(done.stderr.strip().splitlines() or ['no message'])[-1]}", file=sys.stderr)
    return json.loads(line[7:])


def share_of_peak(table, flops, peak):
    """Add to each row its speed as a share of the machine's matrix product in the faster precision."""
    for row in table.values():
        row["of_peak"] = f"{row['best'] * flops / max(peak.values()) / 1e9:.0%}"


def machine(bench, options):
    """The hardware; for networks also the GFLOP/s of its matrix product and the operations of each network."""
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
            answer = run_worker(name, [model] if model else [], getattr(bench, "environment", lambda name: {})(name))
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
    """Print the table of one case."""
    print(f"\n{title}")
    against = f"times {bench.BASE} (of bests)" if bench.BASE else bench.UNIT
    print(f"{'':24}{'median':>10}{'best':>10}{'peak MiB':>10}   {against}")
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
    for name in BENCHMARKS:
        bench = import_module(f"bench.{name}")
        p = commands.add_parser(
            name, help=bench.HELP, description=bench.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        bench.arguments(p)
        p.add_argument("--only", nargs="+", metavar="NAME", help="measure these contenders only")
        p.add_argument("--rounds", type=int, default=3, help="how often each contender is measured")
        p.add_argument("--json", metavar="FILE", help="write all results to FILE")
        p.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    bench = import_module(f"bench.{options.command}")
    if options.worker:
        return worker(bench, options)
    all_contenders = bench.contenders
    bench.contenders = lambda o: [n for n in all_contenders(o) if not o.only or n in o.only]

    models = getattr(options, "model", None) or [None]
    if models == ["all"]:
        from kzoo.catalog import list_models, spec

        models = [name for name in list_models() if len(spec(name).input_shape) == 3]
    # In a process of its own: the memory of this one would count as the peak memory of its workers.
    facts = run_worker("machine", models if models[0] else [])
    record = {
        "command": "python scripts/benchmark.py " + " ".join(sys.argv[1:]),
        "unit": bench.UNIT,
        "load_before": os.getloadavg()[0],
        **facts,
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
