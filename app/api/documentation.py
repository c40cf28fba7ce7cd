"""`/docs`: the API in Swagger UI, all of it from here, for people whose browsers reach nothing else.

The files are those of a package that is never imported (decision 24).
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from starlette.responses import FileResponse, HTMLResponse, Response

_PACKAGE: Final = "fastapi_swagger"
_SCRIPT: Final = "/docs/swagger-ui-bundle.js"
_STYLE: Final = "/docs/swagger-ui.css"
_START: Final = "/docs/start.js"
PATHS: Final = frozenset({"/docs", _SCRIPT, _STYLE, _START})
"""All that belongs to the page; open to everybody, as it is."""

# Addresses are relative, for a gateway that a proxy serves below a path of its own. Swagger UI draws its icons from
# `data:`, and pictures that were tried out from `blob:`.
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Darkroom API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"><noscript>This page needs scripts. The API is described in <a href="openapi.json">openapi.json</a>.
</noscript></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A key that was typed in is forgotten with the page, and no document is sent to Swagger's validator.
_START_SCRIPT: Final = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: null,
});
"""
_KEPT: Final = {"cache-control": "public, max-age=86400"}


def router() -> APIRouter:
    """Build the page and what it loads."""
    routes = APIRouter(include_in_schema=False)
    folder = _folder()

    @routes.api_route("/docs", methods=["GET", "HEAD"])
    async def page() -> Response:
        return HTMLResponse(_PAGE, headers={"content-security-policy": _POLICY})

    @routes.api_route(_START, methods=["GET", "HEAD"])
    async def start() -> Response:
        return Response(_START_SCRIPT, media_type="text/javascript", headers=_KEPT)

    @routes.api_route(_SCRIPT, methods=["GET", "HEAD"])
    async def script() -> Response:
        return FileResponse(folder / "swagger-ui-bundle.js", media_type="text/javascript", headers=_KEPT)

    @routes.api_route(_STYLE, methods=["GET", "HEAD"])
    async def style() -> Response:
        return FileResponse(folder / "swagger-ui.css", media_type="text/css", headers=_KEPT)

    return routes


def _folder() -> Path:
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"The package {_PACKAGE!r} is not installed.")
    return Path(spec.submodule_search_locations[0]) / "resources"
