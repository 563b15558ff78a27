import pandas as pd
import pytest

from bench.report.figures import learning_curves


def history(decoders: int, epochs: int) -> pd.DataFrame:
    return pd.DataFrame(
        {"decoder": f"d{d}", "epoch": epoch, "loss": 10.0 * seed + epoch, "sigma": 0.1 + seed}
        for d in range(decoders)
        for seed in (1, 2, 6)
        for epoch in range(epochs)
    )


def test_a_line_is_the_mean_over_seeds_and_counts_epochs_from_one() -> None:
    axes = learning_curves(history(1, 4)).axes[0]
    line = axes.get_lines()[0]
    assert list(line.get_xdata()) == [1, 2, 3, 4]
    assert list(line.get_ydata()) == pytest.approx([30, 31, 32, 33])


def test_the_band_reaches_from_the_smallest_to_the_largest_seed() -> None:
    axes = learning_curves(history(1, 4)).axes[0]
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (10, 63)


@pytest.mark.parametrize(("decoders", "epochs"), [(1, 1), (12, 1), (20, 3)])
def test_any_number_of_decoders_and_epochs_is_drawn_apart(decoders: int, epochs: int) -> None:
    figure = learning_curves(history(decoders, epochs))
    styles = {
        (line.get_color(), str(line._unscaled_dash_pattern))
        for line in figure.legends[0].get_lines()
    }
    assert len(styles) == decoders
