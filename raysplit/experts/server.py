"""The endpoint of the experts, from a thread of this process."""

from collections.abc import Sequence

from raysplit.experts.app import make_app
from raysplit.experts.expert_set import ExpertSet
from raysplit.http.hosts import Hosts, OwnHosts
from raysplit.http.serving import Server, serve_app

_LINGER_SECONDS = 30
"""For completions under way."""


def serve_experts(
    expert_set: ExpertSet, *, host: str, port: int, token: str | None, allowed_hosts: Sequence[str] = ()
) -> Server:
    """Serve experts until the handle is closed; OpenAI's clients take its url and ``/v1``.

    Args:
        expert_set: what is served.
        host: what to bind to.
        port: 0 for any that is free.
        token: that every request must bear; None for none.
        allowed_hosts: names by which it may be asked beside its own, so that a page in somebody's browser cannot reach
            it by a name that it has pointed here.

    Raises:
        RunError: the address cannot be bound.
    """
    app = OwnHosts(make_app(expert_set, token=token), Hosts(host, allowed_hosts))
    return serve_app(app, host=host, port=port, linger_seconds=_LINGER_SECONDS)
