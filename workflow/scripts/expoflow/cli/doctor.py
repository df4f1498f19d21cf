"""`expoflow doctor`: what this machine can do."""

import argparse
from pathlib import Path

from expoflow.cli.arguments import folder_of, project_arguments


def doctor_arguments(parser: argparse.ArgumentParser) -> None:
    project_arguments(parser)
    parser.add_argument("--offline", action="store_true", help="do not contact the hub")


def doctor(arguments: argparse.Namespace) -> int:
    from expoflow.project.doctor import examine, lines

    findings = []
    for finding in examine(folder_of(arguments) or Path(), online=not arguments.offline):
        findings.append(finding)
        print("\n".join(lines([finding])), flush=True)
    return 1 if any(finding.broken for finding in findings) else 0
