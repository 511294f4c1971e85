"""What scripts/benchmark.py measures, one file each.

HELP, UNIT ("images/s", "s", ...), BETTER ("more" or "less"), BASE (the contender that the others are compared with).
arguments(parser); --model, if there is one, takes several names, and each is measured by itself.
contenders(options): names. measure(name, options), in a process of its own: {"value": number, facts...}, or
{case: such a dict}.
Perhaps: environment(name), variables of that process; flops(ledger), of one image; finish(table), lines to print.
"""
