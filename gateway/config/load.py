"""Reads a config file as a whole: frozen values, or all of its mistakes at once."""

from __future__ import annotations

import tomllib
from pathlib import Path

from gateway.config.deployment import read_gateway
from gateway.config.problems import ConfigError, Problem
from gateway.config.routes import read_routes
from gateway.config.section import Section
from gateway.config.selling import read_packs, read_plans, read_platform
from gateway.config.stripe import read_stripe
from gateway.config.values import Config


def load_config(path: str | Path) -> Config:
    """The config in a TOML file.

    Raises: ConfigError with every mistake in it, unknown keys included.
    """
    file = Path(path)
    problems: list[Problem] = []
    root = Section(_toml(file), "", problems)
    folder = file.absolute().parent
    config = Config(
        gateway=read_gateway(root.table("gateway"), folder),
        platform=read_platform(root.table("platform")),
        plans=read_plans(root.tables("plans", named_by="slug")),
        packs=read_packs(root.tables("packs", named_by="slug")),
        stripe=read_stripe(root.table("stripe"), folder) if "stripe" in root else None,
        routes=read_routes(root.tables("routes", named_by="name"), folder),
    )
    root.close()
    if problems:
        raise ConfigError(problems)
    return config


def _toml(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        raise ConfigError([Problem(str(file), f"can't be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise ConfigError([Problem(str(file), "is not UTF-8 text")]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([Problem(str(file), f"is not valid TOML: {error}")]) from None
