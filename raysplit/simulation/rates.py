"""What machines of a simulated cluster are taken to be like, with where each number is from."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """What machines, storage and our own services are taken to be like; each default with where it is from."""

    mtbf_hours: float = 6300.0
    """Of one node: Llama 3's 2,048 nodes of eight H100s had 419 unexpected interruptions in 54 days (Meta, 2407.21783,
    section 3.3.4), one in 6,335 node hours."""
    spot_share: float = 0.0
    """Of the nodes; the others are kept until they fail."""
    spot_hours: float = 24.0
    """Until a spot node is taken away, in the mean: what Google's preemptible machines live at most. AWS's advisor had
    10 to 20 % a month for p5 in May 2025, which is far rarer."""
    notice_seconds: float = 120.0
    """Before that: AWS's; Google gives 30."""
    queue_minutes: float = 10.0
    """From asking for a node until it has joined, in the mean, exponential: an assumption."""
    idle_minutes: float = 5.0
    """After which a node without a lane is let go: the default of Ray's autoscaler."""
    price: float = 55.0
    """US dollars an hour of a node: AWS's p5.48xlarge at $98.32 (2023) less the 44 % of June 2025."""
    spot_price: float = 18.0
    """Likewise of a spot node: $2.0 to 2.5 a GPU hour for p5 in March 2026."""
    start_seconds: float = 60.0
    """Of a lane, until it trains: an assumption; 15 to 40 s on two cores (LOG 2026-11-30)."""
    storage_bytes_per_second: float = 10e9
    """That the shared storage takes from all nodes together: an assumption."""
    node_bytes_per_second: float = 2e9
    """Of it to one node: an assumption."""
    broker_calls_per_second: float = 5100.0
    law_calls_per_second: float = 4370.0
    """Of an actor that does nothing, and of advice: 8 clients in 1.57 ms and in 1.83 ms
    (benchmarks/results/2026-11-26-live/live_actor.txt)."""
