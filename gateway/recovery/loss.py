"""Whether a shard has lost data, by what somebody knows of it and what Redis has."""

from __future__ import annotations

from policies.decision import ShardLost


def loss_of(known: tuple[int, int], epoch: int, seq: int | None) -> ShardLost | None:
    """What is wrong with a shard that is found with this epoch (0: none) and seq (None: closed).

    `known` is the newest epoch and seq that were seen before it was looked at. None: nothing is
    wrong, or it has never been used, or somebody opened it again under a newer epoch.
    """
    if not epoch:
        return ShardLost("STALE", 0, 0) if known[0] else None
    if epoch < known[0]:
        return ShardLost("STALE", epoch, seq or 0)
    if seq is None:
        return ShardLost("CLOSED", epoch, 0)
    if (epoch, seq) < known:
        return ShardLost("REGRESSED", epoch, seq)
    return None


def is_healed(lost: ShardLost, known: tuple[int, int], epoch: int, seq: int | None) -> bool:
    """Whether a shard that was found lost is open again, and not only has grown since.

    An older Redis that calls have gone on with reaches the seq that was missed, so nothing but a
    newer epoch heals what has regressed.
    """
    oldest = lost.epoch if lost.kind == "CLOSED" else lost.epoch + 1
    return seq is not None and epoch >= oldest and (epoch, seq) >= known
