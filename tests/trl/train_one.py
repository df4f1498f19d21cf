"""Train one miniature model by TRL in this process and its children: train_one.py FOLDER NAME RECIPE-JSON."""

import json
import sys
from pathlib import Path

from expoflow.config.sources import ModelConfig
from expoflow.files.records import read_json
from expoflow.results import Manifest
from expoflow.system.installed import accelerate_config
from expoflow.system.logs import job_log
from expoflow.training.train import Launch, train

if __name__ == "__main__":
    folder, name, recipe = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    with job_log(str(folder / f"{name}.log")):
        source = ModelConfig.model_validate({"train": {"data": "miniature", "trainer": "trl", **recipe}})
        needed = {
            role: read_json(folder / f"{model}.json", Manifest) for role, model in source.needed().items()
        }
        launch = Launch(accelerate_config(source.train))
        train(name, source, needed, 3, folder / f"{name}.json", launch=launch)
