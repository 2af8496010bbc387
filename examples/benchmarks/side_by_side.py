"""Measure Quorate and a peer in turn on one machine.

Absolute figures drift with the machine; the ratio of neighbouring runs does not. The peer's command comes after `--`;
it must measure once and print a JSON line with `ops_per_s` and `p99_us` last, in the format of `quorate bench --json`.

    python side_by_side.py --rounds 5 --concurrency 64 -- peerload run --peer etcd --endpoints http://127.0.0.1:23790 \
        --op write -c 64 --secs 3 --warmup 1 --value 100 --keys 100000 --conns 8
"""

import argparse
import json
import statistics
import subprocess
import sys
from typing import Any

import quorate


def last_line(command: list[str]) -> dict[str, Any]:
    """Run a measurement and return its last line."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def main() -> None:
    """Alternate; print every pair and the median of the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--operation", default="write", choices=("write", "read"))
    parser.add_argument("--concurrency", default="64")
    parser.add_argument("--duration", default="3")
    parser.add_argument("--mode", default="quorum", choices=("quorum", "consensus"))
    parser.add_argument("--consistency", help="QUORUM, or linearizable in consensus mode, unless given")
    parser.add_argument("peer", nargs="+", help="the peer's command, after --")
    arguments = parser.parse_args()
    ratios = []
    with quorate.Cluster(nodes=3) as cluster:
        ours = [sys.executable, "-m", "quorate", "bench", "--json", "--endpoints", cluster.endpoints]
        ours += ["--operations", arguments.operation, "--concurrency", arguments.concurrency]
        usual = "QUORUM" if arguments.mode == "quorum" else "linearizable"
        ours += ["--duration", arguments.duration, "--mode", arguments.mode]
        ours += ["--consistency", arguments.consistency or usual]
        for number in range(arguments.rounds):
            first, second = (ours, arguments.peer) if number % 2 == 0 else (arguments.peer, ours)
            rows = {id(command): last_line(command) for command in (first, second)}
            own, peer = rows[id(ours)], rows[id(arguments.peer)]
            ratios.append(own["ops_per_s"] / peer["ops_per_s"])
            print(
                f"quorate {own['ops_per_s']:8.0f}/s p99 {own['p99_us']:6} us   {peer.get('peer', 'peer')} "
                f"{peer['ops_per_s']:8.0f}/s p99 {peer['p99_us']:6} us   ratio {ratios[-1]:.2f}",
                flush=True,
            )
    print(f"median ratio {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
