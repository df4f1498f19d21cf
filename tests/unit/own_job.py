"""A job for test_own_host.py, as a rule's script is one: no main guard, all output into a log; it prints the rows of its tasks."""

import json
import os
import sys
import time

from expoflow.system.logs import job_log

with job_log("log"):
    from expoflow.hosts import client, task

    print("the job begins")
    task.KINDS = {
        name: f"host_tasks:{name}" for name in ("ask", "count", "crash", "fail", "generate", "spread")
    }
    for kind, key, arguments in json.loads(sys.argv[1]):
        asked = task.Task(kind=kind, key=key, arguments=arguments)
        for rows in client.run(lambda: asked):  # noqa: B023
            with open("rows", "a") as file:
                file.writelines(json.dumps({"job": os.getpid(), **row}) + "\n" for row in rows)
    print("the job ends")
    while os.path.exists("stay"):
        time.sleep(0.01)
