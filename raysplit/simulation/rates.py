"""Assumptions about the machines of a simulated cluster, each number with its source."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """Assumptions about machines, storage and raysplit's own services; each default with its source."""

    mtbf_hours: float = 6300.0
    """Mean time between failures of one node. Llama 3's 2,048 nodes of eight H100s had 419 unexpected interruptions in
    54 days (Meta, 2407.21783, section 3.3.4): one in 6,335 node hours."""
    spot_share: float = 0.0
    """Share of spot nodes; the others stay until they fail."""
    spot_hours: float = 24.0
    """Mean time until a spot node is given notice: the most that Google's preemptible machines live. AWS's advisor had
    10 to 20 % a month for p5 in May 2025, which is far rarer."""
    notice_seconds: float = 120.0
    """Notice before a spot node is taken away: that of AWS. Google gives 30 s."""
    queue_minutes: float = 10.0
    """Mean time from asking for a node until it has joined, exponential: an assumption."""
    idle_minutes: float = 5.0
    """Time after which a node without a lane is let go: the default of Ray's autoscaler."""
    price: float = 55.0
    """US dollars an hour of a node: AWS's p5.48xlarge at $98.32 (2023) less the 44 % of June 2025."""
    spot_price: float = 18.0
    """US dollars an hour of a spot node: $2.0 to 2.5 a GPU hour for p5 in March 2026."""
    start_seconds: float = 60.0
    """Time from opening a lane until it trains: an assumption. On two cores it took 15 to 40 s (LOG 2026-11-30)."""
    starts_at_once: float = 16.0
    """Lanes that start on one node as fast together as one alone. A start keeps about one core busy, so more of them
    share the node's cores: an assumption, for a node that leaves two cores to each of eight GPUs."""
    turn_seconds: float = 0.2
    """Time from an outcome until the trial's next task is handed in (LOG 2026-11-23)."""
    storage_bytes_per_second: float = 10e9
    """What the shared storage takes from all nodes together: an assumption."""
    node_bytes_per_second: float = 2e9
    """What it takes from one node: an assumption."""
    broker_calls_per_second: float = 5100.0
    """Calls that the broker answers, as measured with an actor that does nothing: 8 clients in 1.57 ms
    (benchmarks/results/2026-11-26-live/live_actor.txt)."""
    law_calls_per_second: float = 4370.0
    """Calls that the law actor answers, as measured with advice: 8 clients in 1.83 ms (the same file)."""
