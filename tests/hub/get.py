"""Download a model as a job does, in a process of its own: python get.py MANIFEST LOG HUB [REVISION]."""

import sys
from pathlib import Path

from expoflow.system.logs import job_log

target, log, repo, *revision = sys.argv[1:]
with job_log(log, offline=False) as say:
    from expoflow.config.sources import ModelConfig
    from expoflow.files.records import write_json
    from expoflow.hub import download, http

    http.WAITS = (0.1, 0.2, 0.4, 0.8)  # a test's patience
    source = ModelConfig(hub=repo, revision=revision[0] if revision else None)
    write_json(target, download.download("m", source, Path(target).with_name(".m.commit.json"), say))
