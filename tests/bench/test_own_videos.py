"""A user's own videos, by the README's words alone."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from tests.readme import blocks, run_printed, section

TITLE = "Your own images and videos"
SMALL = [
    "models=[{name: svg, size: tiny, width: 2, features: 4, hidden: 6, latent: 2}]",
    "seeds=[0]",
    "training={steps: 3, batch: 8}",
    "evaluation={samples: 0, iwae: 2, features: none, rollouts: 2, clips: 3}",
]


def test_the_grid_of_the_readme_runs_on_videos_of_ones_own(tmp_path: Path) -> None:
    """With less training and a smaller network: every row, its predictions and their pictures."""
    printed = blocks(TITLE)
    array = np.random.default_rng(0).integers(0, 256, (60, 10, 32, 32, 3), np.uint8)
    saved = re.search(r'numpy\.savez\("(\S+)", (\w+)=array\)', section(TITLE))
    assert saved is not None
    kept: dict[str, Any] = {saved[2]: array}
    np.savez(tmp_path / saved[1], **kept)
    (tmp_path / "clips.yaml").write_text(printed["yaml"])
    done = run_printed(printed, tmp_path, SMALL)
    for label in ("gaussian", "beta (beta=0.1)", "shared (sigma_lr=20)", "optimal"):
        assert re.search(rf"^ {re.escape(label)} .*? 1 ", done.stdout, re.MULTILINE), done.stdout
    folders = [path.parent for path in tmp_path.glob("results/**/record.json")]
    records = [json.loads((folder / "record.json").read_text()) for folder in folders]
    assert [record["status"] for record in records] == ["completed"] * 4
    for folder, record in zip(folders, records, strict=True):
        assert {"neg_log_p_per_frame", "ssim_best_2", "prediction_crps"} <= record["metrics"].keys()
        assert len(record["curves"]["by_horizon"]["crps"]) == 5
        assert (folder / record["artifacts"]["rollouts"]).is_file()
