"""Restricts the App's server to its own pages, and to the files of FiftyOne's datasets.

Every page that is open in the same browser can send requests to this machine's servers. It could call FiftyOne's
operators; with a host name that points to 127.0.0.1 (DNS rebinding) it could read the answers, too.
"""

from typing import Any

import anyio
from starlette.datastructures import Headers, QueryParams
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

_HOSTS = ["127.0.0.1", "localhost"]  # at any port: ssh may forward another one
# The content types that a page may send to any server without a preflight request; the App sends JSON.
_UNASKED = ("", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded")


def guarded(app: Any) -> Any:
    """Wraps an ASGI application so that it answers only the App's own pages and programs on this machine.

    It refuses a Host other than this machine's loopback names (400), pages of another origin (403), a POST with a
    content type that foreign pages can send (415), and files that are in no dataset (404).
    """
    return TrustedHostMiddleware(_Guard(app), allowed_hosts=_HOSTS, www_redirect=False)


class _Guard:
    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await (await _refusal(scope) or self._app)(scope, receive, send)


async def _refusal(scope: Any) -> PlainTextResponse | None:
    """The answer to a request that is refused; None if it is not."""
    if scope["type"] not in ("http", "websocket"):
        return None
    headers = Headers(scope=scope)
    if _is_foreign(headers, scope.get("method", "")):
        return PlainTextResponse("camboxes review answers its own pages alone", 403)
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if scope.get("method") == "POST" and content_type in _UNASKED:
        return PlainTextResponse("camboxes review takes JSON; expected its Content-Type", 415)
    if scope["type"] == "http" and scope["path"] == "/media":
        path = QueryParams(scope["query_string"]).get("filepath", "")
        if not await anyio.to_thread.run_sync(_is_in_a_dataset, path):
            return PlainTextResponse("no data set in FiftyOne holds this file", 404)
    return None


def _is_foreign(headers: Headers, method: str) -> bool:
    """Whether a page of another origin sent the request, by Origin (absent in plain GETs) or by Fetch Metadata."""
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers["host"]:
        return True
    # Any page may link to the App; it learns nothing when somebody follows the link.
    follows_a_link = (method, headers.get("sec-fetch-dest")) == ("GET", "document")
    return headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not follows_a_link


def _is_in_a_dataset(path: str) -> bool:
    """Whether a file belongs to a sample of any dataset in the database; FiftyOne has an index for that."""
    import fiftyone.core.odm as foo

    database = foo.get_db_conn()
    held = database["datasets"].distinct("sample_collection_name")
    return any(database[samples].find_one({"filepath": path}, ["_id"]) is not None for samples in held if samples)
