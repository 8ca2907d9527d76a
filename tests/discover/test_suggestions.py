"""The rules on curves whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rootflow.discover.suggestions import (
    RULES,
    find_fall,
    measure_noise,
    minimum,
    slide,
    smooth,
    steep,
    valley,
)

LRS = [10 ** (-6 + 7 * number / 99) for number in range(100)]
DECADES = np.log10(LRS)


def curve(middle: float = -2.0, explosion: float = -1.0, level: float = 2.3) -> list[float]:
    """A loss that falls by 2 around a rate, and explodes from another on; decades."""
    fall = 2 / (1 + np.exp(-6 * (DECADES - middle)))
    return list(level - fall + 10 ** (4 * (DECADES - explosion)))


def noisy(losses: list[float], size: float = 0.03) -> list[float]:
    return list(np.asarray(losses) + size * np.random.default_rng(0).normal(size=len(losses)))


def test_the_steepest_point_is_where_the_loss_falls_the_fastest_per_logarithm_of_the_rate() -> None:
    found = steep(LRS, curve(middle=-2.5))
    assert found is not None
    assert math.log10(found) == pytest.approx(-2.5, abs=0.1)


def test_the_minimum_rule_takes_a_tenth_of_the_rate_of_the_lowest_loss() -> None:
    losses = curve()
    found = minimum(LRS, losses)
    assert found is not None
    assert found == LRS[int(np.argmin(smooth(losses)))] / 10


def test_the_valley_is_taken_at_half_of_its_length() -> None:
    losses = [2.0] * 40 + [2.0 - 0.05 * number for number in range(40)] + [9.0] * 20
    found = valley(LRS, losses)
    assert found is not None
    assert abs(LRS.index(found) - 60) <= 3


def test_the_slide_ends_between_the_beginning_and_the_end_of_the_fall() -> None:
    found, fall = slide(LRS, curve()), find_fall(curve())
    assert found is not None
    assert fall is not None
    assert LRS[fall.start] <= found <= LRS[fall.lowest]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
@pytest.mark.parametrize("level", [2.3, -7.0])
def test_no_rule_depends_on_the_size_of_the_loss(rule: str, scale: float, level: float) -> None:
    losses = noisy(curve())
    scaled = [scale * (loss - 2.3) + level for loss in losses]
    assert RULES[rule](LRS, scaled) == RULES[rule](LRS, losses)


@pytest.mark.parametrize("rule", RULES)
def test_a_spike_at_the_beginning_and_nan_at_the_end_change_nothing(rule: str) -> None:
    losses = noisy(curve())
    spiked = [9.0, *losses[1:-10], *[math.nan] * 10]
    assert RULES[rule](LRS, spiked) == pytest.approx(RULES[rule](LRS, losses), rel=0.3)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_stays_out_of_the_untouched_and_of_the_exploded_part(rule: str) -> None:
    found = RULES[rule](LRS, noisy(curve(middle=-2.0, explosion=-1.0)))
    assert found is not None
    assert 10**-3.2 <= found <= 10**-1.0


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "losses",
    [[2.3] * 100, noisy([2.3] * 100), list(np.linspace(1, 3, 100)), [math.nan] * 100, [2.0, 1.0], []],
    ids=["flat", "noise", "rising", "nan", "two points", "nothing"],
)
def test_where_nothing_falls_nothing_is_suggested(rule: str, losses: list[float]) -> None:
    assert RULES[rule](LRS[: len(losses)], losses) is None


@pytest.mark.parametrize("rule", RULES)
def test_a_loss_that_only_falls_has_suggestions_too(rule: str) -> None:
    assert RULES[rule](LRS, list(2.3 - 1 / (1 + np.exp(-6 * (DECADES + 1))))) is not None


def test_the_size_of_an_explosion_moves_no_point() -> None:
    losses = [2.0 - 0.02 * number for number in range(60)]
    assert find_fall([*losses, *[1e12] * 20]) == find_fall([*losses, *[5.0] * 20])


def test_the_noise_of_a_curve_is_that_of_its_points_not_of_its_shape() -> None:
    losses = noisy([*np.linspace(3, 1, 300), *np.linspace(1, 9, 20)], size=0.1)
    assert measure_noise(losses) == pytest.approx(0.1, rel=0.2)
