"""What serves a law from its own process to those who cannot ask an actor, such as HTTP. Rooms above implement it."""

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from raysplit.live.questions import AnsweringLaw


class Served(Protocol):
    """A law that is being served."""

    @property
    def url(self) -> str: ...

    def close(self) -> None: ...


class Face(Protocol):
    """How a law is to be served. It is pickled, and the cluster remembers it for a restart of the law's process."""

    def serve(self, law: "AnsweringLaw") -> Served:
        """Begin to serve.

        Raises:
            RunError: the address cannot be bound, or is open to others without a token.
        """
        ...

    def at(self, url: str) -> "Face":
        """The same face at the address that was found, without secrets, for the cluster to remember."""
        ...

    def lacks(self, asked: Any) -> list[str]:
        """What somebody asks for that a law served like this does not give."""
        ...
