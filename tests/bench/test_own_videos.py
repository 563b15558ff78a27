"""A user's own videos, by the README's words alone."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

README = Path(__file__).resolve().parents[2] / "README.md"
SMALL = [
    "models=[{name: svg, size: tiny, width: 2, features: 4, hidden: 6, latent: 2}]",
    "seeds=[0]",
    "training={steps: 3, batch: 8}",
    "evaluation={samples: 0, iwae: 2, features: none, rollouts: 2, clips: 3}",
]


def test_the_grid_of_the_readme_runs_on_videos_of_ones_own(tmp_path: Path) -> None:
    """With less training and a smaller network: every row, its predictions and their pictures."""
    section = README.read_text().split("## Your own images and videos\n")[1].split("\n## ")[0]
    printed = dict(re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL))
    array = np.random.default_rng(0).integers(0, 256, (60, 10, 32, 32, 3), np.uint8)
    saved = re.search(r'numpy\.savez\("(\S+)", (\w+)=array\)', section)
    assert saved is not None
    kept: dict[str, Any] = {saved[2]: array}
    np.savez(tmp_path / saved[1], **kept)
    (tmp_path / "clips.yaml").write_text(printed["yaml"])
    script, *command = shlex.split(printed["console"])
    assert script == "sigma-bench"
    done = subprocess.run(
        [sys.executable, "-m", "bench", *command, "--device", "cpu", "--jobs", "2"]
        + [word for setting in SMALL for word in ("--set", setting)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(README.parent)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    for label in ("gaussian", "beta (beta=0.1)", "shared (sigma_lr=20)", "optimal"):
        assert re.search(rf"^ {re.escape(label)} .*? 1 ", done.stdout, re.MULTILINE), done.stdout
    folders = [path.parent for path in tmp_path.glob("results/**/record.json")]
    records = [json.loads((folder / "record.json").read_text()) for folder in folders]
    assert [record["status"] for record in records] == ["completed"] * 4
    for folder, record in zip(folders, records, strict=True):
        assert {"neg_log_p_per_frame", "ssim_best_2", "prediction_crps"} <= record["metrics"].keys()
        assert len(record["curves"]["by_horizon"]["crps"]) == 5
        assert (folder / record["artifacts"]["rollouts"]).is_file()
