"""Limits on paper: the planning figures of Vicuna-7B come out of them."""

import pytest

from instructblip.limits import CHIPS, Work, chip_named, decode_limit

WEIGHTS, CACHE = 13.2e9, 500 * 0.52e6  # bytes: Vicuna-7B in bf16; keys and values of 500 tokens


@pytest.mark.parametrize(
    ("name", "figures"),
    [("NVIDIA H100 80GB HBM3", (249, 1750, 4960)), ("Ascend910B3", (119, 836, 2370))],
)
def test_decode_of_vicuna_7b(name: str, figures: tuple[int, ...]) -> None:
    chip = chip_named(name)
    assert chip is not None
    limits = [decode_limit(chip, WEIGHTS, CACHE, rows) for rows in (1, 8, 32)]
    assert limits == pytest.approx(figures, rel=0.005)


def test_prefill_is_bound_by_the_rate_and_a_short_one_by_the_weights() -> None:
    chip = chip_named("910B3")
    assert chip is not None
    assert Work(WEIGHTS, WEIGHTS * 300).seconds(chip) == pytest.approx(11e-3, rel=0.01)
    assert Work(WEIGHTS, WEIGHTS * 30).seconds(chip) == WEIGHTS / 1.6e12


@pytest.mark.parametrize(
    ("name", "chip"),
    [
        ("Ascend910B2C", "Ascend 910B"), ("910B1", "Ascend 910B"), ("Ascend310P3", "Ascend 310P"),
        ("NVIDIA H200", "NVIDIA H200"), ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB"),
    ],
)  # fmt: skip
def test_a_drivers_name_is_recognised(name: str, chip: str) -> None:
    found = chip_named(name)
    assert found is not None
    assert found.name == chip


@pytest.mark.parametrize("name", ["", "cpu", "Ascend910B4", "Ascend910A", "NVIDIA H100 PCIe"])
def test_a_chip_of_other_figures_has_none(name: str) -> None:
    assert chip_named(name) is None


def test_no_name_fits_two() -> None:
    assert len({chip.name for chip in CHIPS}) == len(CHIPS)
