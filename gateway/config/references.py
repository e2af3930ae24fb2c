"""Secrets stay out of the config: a value may refer to the environment or to a file instead.

Owners of platforms have neither: their routes refer to secrets that they gave to the API.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from gateway.config.problems import ConfigError, Problem

ENV_PREFIX = "env:"
FILE_PREFIX = "file:"
SECRET_PREFIX = "secret:"  # noqa: S105 - what a reference begins with
SECRET_FILE_BYTES_MAX = 65_536
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VISIBLE = re.compile(r"[ -~]+")


def is_reference(value: str) -> bool:
    """Whether a value names a secret rather than being one."""
    return value.startswith((ENV_PREFIX, FILE_PREFIX))


def parse_reference(value: str, folder: Path) -> str:
    """A value with the path of a `file:` made absolute, starting from the config's folder.

    Raises: ValueError when a reference has no proper name, or is one of owners. Literals pass.
    """
    if value.startswith(SECRET_PREFIX):
        raise ValueError('"secret:" is for routes made by the API; write "env:NAME" or "file:PATH"')
    if value.startswith(ENV_PREFIX) and not _ENV_NAME.fullmatch(value.removeprefix(ENV_PREFIX)):
        raise ValueError(f'"{value}" needs the name of an environment variable after "env:"')
    if value.startswith(FILE_PREFIX):
        path = value.removeprefix(FILE_PREFIX)
        if not path:
            raise ValueError('"file:" needs a path after it')
        return f"{FILE_PREFIX}{(folder / path).absolute()}"
    return value


def secret_name(value: str) -> str | None:
    """The name of the owner's secret that a header's value refers to; None for a literal."""
    return value.removeprefix(SECRET_PREFIX) if value.startswith(SECRET_PREFIX) else None


def resolve_secret(value: str) -> str:
    """The secret that a reference names; a literal is returned as it is.

    Raises: ConfigError when it is not there, empty, or not one line of printable ASCII (it may
    become a header). The message has the reference, never the secret.
    """
    if value.startswith(ENV_PREFIX):
        secret = os.environ.get(value.removeprefix(ENV_PREFIX))
        if secret is None:
            raise ConfigError([Problem(value, "this environment variable is not set")])
    elif value.startswith(FILE_PREFIX):
        secret = _file_content(value)
    else:
        return value
    secret = secret.strip()
    if not _VISIBLE.fullmatch(secret):
        raise ConfigError([Problem(value, "must be one line of printable ASCII, not empty")])
    return secret


def _file_content(reference: str) -> str:
    path = Path(reference.removeprefix(FILE_PREFIX))
    try:
        with path.open("rb") as file:
            content = file.read(SECRET_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError([Problem(reference, f"can't be read: {error.strerror}")]) from None
    if len(content) > SECRET_FILE_BYTES_MAX:
        raise ConfigError([Problem(reference, f"is over {SECRET_FILE_BYTES_MAX} bytes")])
    return content.decode("latin-1")
