"""What a table says of data that are black and white."""

from tests.bench.report.conftest import Results


def test_a_table_says_how_images_were_drawn(results: Results) -> None:
    results.add("bernoulli", dataset="mnist5k", metrics={"neg_log_p": 1.0})
    assert not any("black and white" in sentence for sentence in results.table().caption)
    results.add("bernoulli", dataset="mnist5k@static", metrics={"neg_log_p": 1.0})
    results.add("bernoulli", dataset="mnist5k@resampled", metrics={"neg_log_p": 1.0})
    caption = results.table().caption
    assert "mnist5k@static: black and white, every image drawn once." in caption
    assert any(
        s.startswith("mnist5k@resampled: black and white, the images to train on") for s in caption
    )
