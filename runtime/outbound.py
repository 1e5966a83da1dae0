"""HTTP requests to other servers. Neither the server nor its response is trusted."""

from __future__ import annotations

import urllib.request
from http.client import HTTPMessage
from typing import IO
from urllib.parse import urlsplit

from runtime.settings import is_loopback


def opener(url: str) -> urllib.request.OpenerDirector:
    """An opener for the URL. It bypasses the environment's proxy for loopback and refuses redirects from https to
    http."""
    handlers: list[urllib.request.BaseHandler] = [_Redirects()]
    if is_loopback(urlsplit(url).hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """The redirected request. Raises OSError if the redirect leaves https."""
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise OSError("a redirect leads from https to another scheme")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
