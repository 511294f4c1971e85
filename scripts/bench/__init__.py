"""The benchmarks of scripts/benchmark.py, one file each.

Each module has:

- HELP, UNIT ("images/s", "s", ...), BETTER ("more" or "less"), BASE (the contender that the others are compared with).
- arguments(parser): adds its options. --model, if it has one, takes several names, each of which is measured by itself.
- contenders(options): their names.
- measure(name, options): runs in a process of its own, and returns {"value": number, facts...} or {case: such a dict}.

It may have environment(name), the environment variables of that process; flops(ledger), the floating point operations
for one image; finish(table), lines to print at the end.
"""
