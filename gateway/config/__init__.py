"""The config file: `load_config` reads and checks it as a whole."""

from gateway.config.deployment import parse_listen
from gateway.config.load import load_config
from gateway.config.problems import ConfigError, Problem
from gateway.config.references import is_reference, resolve_secret
from gateway.config.routes import parse_upstream
from gateway.config.values import EMBEDDED, Config, GatewayConfig

__all__ = [
    "EMBEDDED",
    "Config",
    "ConfigError",
    "GatewayConfig",
    "Problem",
    "is_reference",
    "load_config",
    "parse_listen",
    "parse_upstream",
    "resolve_secret",
]
