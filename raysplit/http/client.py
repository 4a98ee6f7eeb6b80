"""A live law over HTTP, for jobs that are on no Ray cluster: the standard library is all it takes.

A law on this machine is asked directly. Any other is asked through the proxy that the environment names for it, as
curl does: http_proxy or https_proxy, but for the hosts in no_proxy.
"""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any

from raysplit import strict_json
from raysplit.errors import RunError, TableError
from raysplit.http.options import check_token, is_loopback
from raysplit.live.answers import Accepted, GoOn, LawStamp
from raysplit.runs import Observation

_SCHEMA_VERSION = 1


class HttpClient:
    """The part of a live law that a training job needs, at the address that `raysplit serve` prints."""

    def __init__(self, url: str, token: str | None = None, *, timeout_seconds: float = 10.0) -> None:
        """Nothing is asked yet.

        Args:
            url: of the server, such as ``http://127.0.0.1:8265``.
            token: that the server was started with; needed to report.
            timeout_seconds: of one request.

        Raises:
            RunError: the address is none of HTTP, or no header can carry the token.
        """
        if not is_url(url):
            raise RunError(f"url must begin with http:// or https://, got {url!r}")
        self._token = (token or "").strip() or None  # a file that it was read from ends with its line
        check_token(self._token)
        self._url, self._timeout = url.strip().rstrip("/"), timeout_seconds
        proxies = _proxies_to(self._url)
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies), _StayHere)
        self._way = _way_through(proxies, url)

    def observe(self, observations: Sequence[Observation]) -> Accepted:
        """Report observations; they are on disk when this returns.

        Raises:
            TableError: one is impossible, of an unknown domain or contradicts a known one; nothing was stored.
            RunError: the server cannot be reached, refuses the token, or could not store them.
        """
        rows = [_row(observation) for observation in observations]
        return Accepted(**self._post("/v1/observations", {"schema_version": _SCHEMA_VERSION, "observations": rows}))

    def should_go_on(self, observation: Observation) -> GoOn:
        """Whether a run is worth its next tokens; nothing is stored.

        Raises:
            TableError: the observation is impossible, or of an unknown domain.
            RunError: the server cannot be reached, or refuses the token.
        """
        said = self._post("/v1/should-go-on", _row(observation))
        stamp = said.get("law")
        law = LawStamp(**{**stamp, "forms": tuple(stamp["forms"])}) if stamp else None
        return GoOn(go_on=said["go_on"], why=said["why"], law=law)

    def _post(self, path: str, body: object) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self._url + path, strict_json.dumps(body).encode(), headers, method="POST")
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                said = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                message = f"{self._url}: {_message(error) or self._no_word(error)}"
            # What is wrong with the rows stays wrong; a server or a token may be mended.
            raise (TableError if error.code in (400, 409, 413, 422) else RunError)(message) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise RunError(f"{self._url}: the live law cannot be reached: {reason}{self._way}") from error
        if not isinstance(said, dict):
            raise RunError(f"{self._url}{path}: answers with no object; is this a live law?{self._way}")
        return said

    def _no_word(self, error: urllib.error.HTTPError) -> str:
        """What is said of an answer that no live law gave."""
        if to := error.headers.get("Location"):
            return f"leads to {to}; give the address where the law itself is{self._way}"
        return f"HTTP {error.code} {error.reason}{self._way or '; is this a live law?'}"


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follows nowhere: a report would become a question without a body, and the token go to somebody else."""

    def redirect_request(self, *_: object) -> None:
        return None


def is_url(text: str) -> bool:
    """Whether it is an address of HTTP rather than a path."""
    return text.strip().lower().startswith(("http://", "https://"))


def _row(observation: Observation) -> dict[str, object]:
    fields = ((name, getattr(observation, name)) for name in Observation.__dataclass_fields__)
    return {name: value for name, value in fields if value == value}  # JSON has no NaN


def _message(error: urllib.error.HTTPError) -> str:
    """The law's own word; empty where none comes from a law."""
    try:
        return str(json.load(error)["message"])
    except (ValueError, KeyError, TypeError, OSError):
        return ""


def _proxies_to(url: str) -> dict[str, str]:
    """The proxy by the scheme that is asked through it: none to this machine, nor where no_proxy says so."""
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy is None or is_loopback(parts.hostname or "") or urllib.request.proxy_bypass(parts.netloc):
        return {}
    return {parts.scheme: proxy}


def _way_through(proxies: dict[str, str], url: str) -> str:
    """Names the proxy that stands between, without its password; empty where there is none."""
    for scheme, proxy in proxies.items():
        shown = proxy.rpartition("@")[2].removeprefix(f"{scheme}://")
        host = urllib.parse.urlsplit(url).hostname
        return f" (through the proxy {shown} of {scheme}_proxy; no_proxy={host} asks it directly)"
    return ""
