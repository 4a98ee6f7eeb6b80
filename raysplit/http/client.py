"""A live law over HTTP, for jobs that are on no Ray cluster: the standard library is all it takes.

A law on this machine is asked directly. Any other is asked through the proxy that the environment names for it, as
curl does: http_proxy or https_proxy, but for the hosts in no_proxy.
"""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from pydantic import TypeAdapter, ValidationError

from raysplit import strict_json
from raysplit.errors import RunError
from raysplit.http.options import check_token, is_loopback
from raysplit.live.questions import A, AnsweringLaw, AskEvents, Question, to_query

_REFUSED = (400, 404, 409, 413, 422)


class HttpClient(AnsweringLaw):
    """A live law at the address that `raysplit serve` prints: its methods are the questions that go over HTTP."""

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

    def ask(self, question: Question[A]) -> A:
        """Ask and wait for the answer.

        Raises:
            RaysplitError: as the question's `error`: the law refuses it; of observations nothing was stored.
            RunError: the server cannot be reached, refuses the token, or could not store them.
        """
        if not question.path or type(question) is AskEvents:
            raise RunError(f"{question.name}: is not asked over HTTP; `raysplit.connect` asks on the cluster")
        said = self._exchanged(question)
        try:
            answer: A = TypeAdapter(question.answer).validate_python(said)
        except ValidationError as error:
            raise RunError(
                f"{self._url}{question.path}: answers something else; is this a live law?{self._way}"
            ) from error
        return answer

    def _exchanged(self, question: Question[Any]) -> Any:
        headers = {"Accept": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        url, body = self._url + question.path, None
        if question.body is not None:
            body = strict_json.dumps(question.body.of(question)).encode()  # type: ignore[arg-type]
            headers["Content-Type"] = "application/json"
        elif pairs := to_query(question):
            url += "?" + urllib.parse.urlencode(pairs)
        request = urllib.request.Request(url, body, headers, method="POST" if body else "GET")
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                message = f"{self._url}: {_message(error) or self._no_word(error)}"
            # What is wrong with a question stays wrong; a server or a token may be mended.
            raise (question.error if error.code in _REFUSED else RunError)(message) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise RunError(f"{self._url}: the live law cannot be reached: {reason}{self._way}") from error

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
