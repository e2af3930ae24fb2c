"""Queries are files: sql/{entity}_{operation}.sql, one statement each, a why-comment first."""

from __future__ import annotations

from importlib.resources import files


def load_queries() -> dict[str, str]:
    """Every query by its name, such as "key_find".

    Raises: ValueError when a file does not open with a why-comment.
    """
    queries = {}
    for entry in files(__package__).joinpath("sql").iterdir():
        if not entry.name.endswith(".sql"):
            continue
        text = entry.read_text(encoding="utf-8")
        if not text.startswith("-- "):
            raise ValueError(f"{entry.name} does not say why it exists")
        queries[entry.name.removesuffix(".sql")] = text
    return queries
