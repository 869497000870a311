"""`make fuzz N=…`: that many cases, from the seed after the last run's on; `CASE=…` repeats one."""

from __future__ import annotations

import argparse
import collections
import sys
import time

from tests.fuzz.run_cases import Failure, Fuzzer, draw_case, parse_case


def main() -> None:
    """Run cases, print those that fail, and how many of each kind were run."""
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("--seed", type=int, default=int(time.time()) * 1000, help="of the first case")
    parser.add_argument("--case", action="append", default=[], help="repeat this one")
    parser.add_argument("--kind", action="append", default=[], help="only this kind of file")
    options = parser.parse_args()
    with Fuzzer() as fuzzer:
        if options.case:
            failures = [fuzzer.run(parse_case(case)) for case in options.case]
            print("\n\n".join(str(failure or "no fault") for failure in failures))
            sys.exit(any(failures))
        print(f"from seed {options.seed} on")
        run_all(fuzzer, options.seed, options.count, tuple(options.kind))


def run_all(fuzzer: Fuzzer, first_seed: int, count: int, kinds: tuple[str, ...]) -> None:
    """All cases from a seed on; ends with 1 where one fails."""
    began, of_kind = time.monotonic(), collections.Counter[str]()
    failures: list[Failure] = []
    for seed in range(first_seed, first_seed + count):
        case = draw_case(seed, kinds)
        of_kind[case.kind] += 1
        if failure := fuzzer.run(case):
            failures.append(failure)
            print(f"\n{failure}", flush=True)
    print()
    failed = collections.Counter(failure.case.kind for failure in failures)
    for name, number in sorted(of_kind.items()):
        print(f"{number:6} {name}" + (f": {failed[name]} failed" if failed[name] else ""))
    print(
        f"{count} cases in {time.monotonic() - began:.0f} s, {len(failures)} failed; next seed {first_seed + count}"
    )
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
