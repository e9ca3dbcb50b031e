"""HTTP client of one endpoint: replies are bounded in size and time, come from its own host, and hold no key."""

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai

from distill.core.errors import UserError
from distill.generation.api.client import QueryJob
from distill.generation.api.secrets import hide_key
from distill.params.teachers import ApiTeacher

MAX_REPLY_BYTES = 32 * 2**20  # of one reply: 100,000 tokens with log-probabilities
MAX_ERROR_BYTES = 16 * 2**10
MAX_FILE_BYTES = 2**30  # of a batch's result file
MIN_FILE_BYTES_PER_S = 10_000  # of a file in transfer, in addition to the teacher's timeout_s
GRACE_S = 1.0  # the time-outs of single reads come first
MAX_REDIRECTS = 5
FILE_PATHS = ("/files", "/content")
KEPT_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry", "x-request-id")
PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


class BoundedClient(httpx2.AsyncClient):
    """The client of a teacher's endpoint. Every byte of every reply passes `send`."""

    def __init__(self, teacher: ApiTeacher, key: str, has_proxy: bool) -> None:
        limits = openai.DEFAULT_CONNECTION_LIMITS
        # with a transport of its own, the client reads no proxies, which it would refuse even where none applies
        transport = None if has_proxy else httpx2.AsyncHTTPTransport(limits=limits)
        super().__init__(timeout=teacher.timeout_s, limits=limits, transport=transport)
        self._teacher, self._key = teacher, key
        self._origin = _origin(httpx2.URL(teacher.base_url))

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """The reply to a request, read to its end.

        Raises httpx2.ReadTimeout if it takes too long and UserError if it is a redirect to another host. A reply that
        is too large is replaced by a note, which is no JSON; of a long error its start is kept.
        """
        options |= {"stream": True, "follow_redirects": False}
        is_file = request.url.path.endswith(FILE_PATHS)
        seconds = self._teacher.timeout_s + GRACE_S
        try:
            async with asyncio.timeout(seconds + (MAX_FILE_BYTES / MIN_FILE_BYTES_PER_S if is_file else 0)):
                response = await super().send(request, **options)
                for _ in range(MAX_REDIRECTS):
                    if response.next_request is None:
                        break
                    await response.aclose()
                    self._require_own_host(response)
                    response = await super().send(response.next_request, **options)
                try:
                    content = await self._read(response, is_file)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise httpx2.ReadTimeout("the reply did not end in time", request=request) from None
        headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
        headers = {name: hide_key(value.encode(), self._key).decode() for name, value in headers.items()}
        content = hide_key(content, self._key)
        return httpx2.Response(response.status_code, headers=headers, content=content, request=request)

    async def _read(self, response: httpx2.Response, is_file: bool) -> bytes:
        limit = MAX_FILE_BYTES if is_file else MAX_REPLY_BYTES
        start, content = asyncio.get_running_loop().time(), bytearray()
        try:
            async for chunk in response.aiter_bytes():
                content += chunk
                if response.is_error and len(content) > MAX_ERROR_BYTES:
                    break
                if len(content) > limit:
                    return f"(more than {limit:,} bytes)".encode()
                late = asyncio.get_running_loop().time() - start - self._teacher.timeout_s
                if late > len(content) / MIN_FILE_BYTES_PER_S:
                    raise TimeoutError
        except httpx2.DecodingError:
            return b"(compressed, and broken)"
        return bytes(content[:MAX_ERROR_BYTES] if response.is_error else content)

    def _require_own_host(self, response: httpx2.Response) -> None:
        """Raises UserError if a redirect leads to another host: it would get the prompts, and answer as the teacher."""
        assert response.next_request is not None
        url = response.next_request.url
        upgraded = (self._origin[0], *_origin(url)) == ("http", "https", self._origin[1], 443)
        if _origin(url) != self._origin and not (upgraded and self._origin[2] == 80):
            teacher, place = self._teacher, f"{url.scheme}://{url.host}:{_origin(url)[2]}"
            raise UserError(
                f"{teacher.base_url} of teacher {teacher.name!r} redirects ({response.status_code}) to another host, "
                f"{place[:200]}, which gets no prompt. Set base_url to that host if you trust it; all responses so far "
                "are kept."
            )


def bounded_client(teacher: ApiTeacher, key: str, proxies: str) -> BoundedClient:
    """The client. Raises UserError if a proxy of the environment or the address cannot be used."""
    try:
        return BoundedClient(teacher, key, bool(proxies))
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        if isinstance(error, ImportError):
            reason = "a SOCKS proxy needs the package socksio, which is not installed"
        elif proxies:
            reason = f"{type(error).__name__}"
        where = f" through the proxy in {proxies}" if proxies else ""
        raise UserError(
            f"{teacher.base_url} of teacher {teacher.name!r} cannot be reached{where}: {reason}. "
            + (f"Set {proxies} to an http:// proxy, or NO_PROXY to the host, and run again. " if proxies else "")
            + "Nothing was sent."
        ) from None


def sdk_client(job: QueryJob) -> openai.AsyncOpenAI:
    """The SDK's client for a teacher's endpoint."""
    teacher = job.teacher
    return openai.AsyncOpenAI(
        api_key=job.key,
        base_url=teacher.base_url,
        timeout=teacher.timeout_s,
        max_retries=teacher.max_retries,
        http_client=bounded_client(teacher, job.key, job.proxies),
    )


def proxy_variables(teacher: ApiTeacher, environment: Mapping[str, str]) -> str:
    """The names of the environment's proxy variables that apply to the teacher's endpoint, joined; empty for none."""
    url = urlsplit(teacher.base_url)
    host = url.hostname or ""
    exempt = [name.strip().lstrip(".") for name in _variable(environment, "NO_PROXY").split(",") if name.strip()]
    if "*" in exempt or any(name in (host, url.netloc) or host.endswith(f".{name}") for name in exempt):
        return ""
    names = [name for name in PROXY_VARIABLES if name in (f"{url.scheme.upper()}_PROXY", "ALL_PROXY")]
    return " or ".join(name for name in names if _variable(environment, name))


def _variable(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name.lower(), environment.get(name, ""))


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)
