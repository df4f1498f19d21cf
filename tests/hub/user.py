"""A user of the hub: a cache and a token of one's own, and downloads in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

from expoflow.files.records import read_json
from expoflow.results import Manifest
from server import Hub

MARKER = "hf_MARKERmarkerMARKERmarker"


class User:
    """A folder for manifest and log, a cache, and a token that must turn up nowhere."""

    def __init__(self, folder: Path, hub: Hub):
        self.folder, self.hub, self.cache = folder, hub, folder / "hf"
        self.manifest, self.log = folder / "m.json", folder / "m.log"
        folder.mkdir()

    def environment(self, **more: str) -> dict[str, str]:
        mine = {
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.cache),
            "HF_TOKEN": MARKER,
            "HF_HUB_DOWNLOAD_TIMEOUT": "5",
        }
        ours = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
        return {**ours, **mine, **more}

    def begin(self, repo: str = "org/model", *revision: str, **environment: str) -> subprocess.Popen:
        command = [sys.executable, str(Path(__file__).with_name("get.py")), self.manifest, self.log]
        return subprocess.Popen(
            [*map(str, command), repo, *revision],
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def get(self, repo: str = "org/model", *revision: str, **environment: str) -> Manifest:
        """Download; it must succeed, and every file must be the hub's."""
        process = self.begin(repo, *revision, **environment)
        process.communicate(timeout=60)
        assert process.returncode == 0, self.log.read_text()
        manifest = read_json(self.manifest, Manifest)
        for name in manifest.files:
            content = (Path(manifest.folder) / name).read_bytes()
            assert content == self.hub.repos[repo].commits[manifest.revision][name], name
        return manifest

    def refused(self, repo: str = "org/model", *revision: str, **environment: str) -> str:
        """Download; it must fail in one line, without manifest or traceback. Returns that line."""
        process = self.begin(repo, *revision, **environment)
        process.communicate(timeout=60)
        text = self.log.read_text()
        assert process.returncode == 1, text
        assert "Traceback" not in text
        assert not self.manifest.exists()
        return next(line for line in text.splitlines() if line.startswith("error: "))

    def blobs(self) -> list[str]:
        return sorted(path.name for path in self.cache.glob("hub/models--*/blobs/*"))
