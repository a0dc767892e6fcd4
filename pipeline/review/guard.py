"""Whom the App's server answers: its own pages. And with which files: the photographs of data sets.

Every page that is open in the same browser reaches this machine's servers too. It can send what FiftyOne takes for an
operator's call, and under a name of its own that it lets point to 127.0.0.1 (DNS rebinding) it can read the answers.
"""

from typing import Any

import anyio
from starlette.datastructures import Headers, QueryParams
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

_HOSTS = ["127.0.0.1", "localhost"]  # at any port: ssh may forward another one
# What a page may send to any server without asking that server first; the App itself sends JSON.
_UNASKED = ("", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded")


def guarded(app: Any) -> Any:
    """An ASGI application that hands to another one only what the App's own pages, or programs, ask of it.

    Refused with 400 is a Host other than this machine's loopback names, with 403 a page of another origin, with 415 a
    POST whose content a foreign page can send, and with 404 a file that no data set holds.
    """
    return TrustedHostMiddleware(_OwnPages(_OwnFiles(app)), allowed_hosts=_HOSTS, www_redirect=False)


class _OwnPages:
    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        app = self._app
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            if _is_foreign(headers, scope.get("method", "")):
                app = PlainTextResponse("camboxes review answers its own pages alone", 403)
            elif scope.get("method") == "POST" and _content_type(headers) in _UNASKED:
                app = PlainTextResponse("camboxes review takes JSON; expected its Content-Type", 415)
        await app(scope, receive, send)


def _is_foreign(headers: Headers, method: str) -> bool:
    """Whether a page of another origin asks: by Origin, which comes with all but plain GETs, or by Fetch Metadata."""
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers["host"]:
        return True
    # A link to the App may stand anywhere; to follow it gives the page that holds it nothing.
    follows_a_link = (method, headers.get("sec-fetch-dest")) == ("GET", "document")
    return headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not follows_a_link


def _content_type(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


class _OwnFiles:
    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        app = self._app
        if scope["type"] == "http" and scope["path"] == "/media":
            path = QueryParams(scope["query_string"]).get("filepath", "")
            if not await anyio.to_thread.run_sync(_is_in_a_dataset, path):
                app = PlainTextResponse("no data set in FiftyOne holds this file", 404)
        await app(scope, receive, send)


def _is_in_a_dataset(path: str) -> bool:
    """Whether a sample of any of the database's data sets is of a file; FiftyOne keeps an index by that."""
    import fiftyone.core.odm as foo

    database = foo.get_db_conn()
    held = database["datasets"].distinct("sample_collection_name")
    return any(database[samples].find_one({"filepath": path}, ["_id"]) is not None for samples in held if samples)
