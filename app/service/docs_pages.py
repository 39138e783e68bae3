"""The pages at /docs and /redoc.

They load nothing from other hosts: the bundles are in static/, and the Content-Security-Policy
forbids anything else.
"""

from pathlib import Path

STATIC = Path(__file__).parents[1] / "static"
VERSIONS = {"swagger-ui": "5.35.0", "redoc": "2.5.4"}

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # both bundles write style elements
        "img-src 'self' data: blob:",  # images that the service answers with are blobs
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src blob:",  # redoc's search
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


def swagger_page(title: str) -> str:
    bundle = f"static/swagger-ui/{{}}?v={VERSIONS['swagger-ui']}"
    return _page(
        title,
        head='<meta name="color-scheme" content="light dark">\n'
        f'<link rel="stylesheet" href="{bundle.format("swagger-ui.css")}">',
        body='<div id="swagger-ui"></div>\n'
        f'<script src="{bundle.format("swagger-ui-bundle.js")}"></script>\n'
        '<script src="static/docs.js"></script>',
    )


def redoc_page(title: str) -> str:
    bundle = f"static/redoc/redoc.standalone.js?v={VERSIONS['redoc']}"
    return _page(
        title,
        head="<style>body { margin: 0 }</style>",
        body=f'<redoc spec-url="openapi.json"></redoc>\n<script src="{bundle}"></script>',
    )


def _page(title: str, head: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="static/swagger-ui/favicon-32x32.png">
{head}
</head>
<body>
{body}
</body>
</html>
"""
