"""Single numbers that challenges rank by; each comes with the parts that it is made of."""

from collections.abc import Mapping


def harmonic_mean(first: float, second: float) -> float:
    """2 first second / (first + second), for numbers of at least 0; 0 where both are 0.

    >>> harmonic_mean(0.5, 1.0)
    0.6666666666666666
    """
    return 2 * first * second / (first + second) if first + second else 0.0


def upar_track1_score(recognition: Mapping[str, float]) -> dict[str, float]:
    """Rank recognition as the UPAR-2024 challenge does: harmonic mean of mA and instance F1.

    Source: the challenge's rules from memory, not checked; so its two parts are always given too.

    Args:
        recognition: result of `recognition_metrics`.

    Returns: `upar_track1_score`, `mean_accuracy`, `instance_f1`, in [0, 1].
    """
    parts = {name: recognition[name] for name in ("mean_accuracy", "instance_f1")}
    return {"upar_track1_score": harmonic_mean(*parts.values()), **parts}


def upar_track2_score(retrieval: Mapping[str, float]) -> dict[str, float]:
    """Rank retrieval as the UPAR-2024 challenge does: harmonic mean of mAP and Rank-1.

    Source: the challenge's rules from memory, not checked; so its two parts are always given too.
    Which average precision the challenge takes is not known: this is the rectangular one.

    Args:
        retrieval: result of `retrieval_metrics`.

    Returns: `upar_track2_score`, `mean_average_precision`, `rank_1`, in [0, 1].
    """
    parts = {name: retrieval[name] for name in ("mean_average_precision", "rank_1")}
    return {"upar_track2_score": harmonic_mean(*parts.values()), **parts}


__all__ = ["harmonic_mean", "upar_track1_score", "upar_track2_score"]
