"""`expoflow publish`: upload an exported model to the hub."""

import argparse
from pathlib import Path

from expoflow.cli.arguments import folder_of, project_arguments, repository


def publish_arguments(parser: argparse.ArgumentParser) -> None:
    project_arguments(parser, "or results/pairs/PAIR/expo in it; default: the current folder")
    parser.add_argument(
        "--repo",
        type=repository,
        required=True,
        metavar="ORG/NAME",
        help="the repository on the Hugging Face hub",
    )
    parser.add_argument("--pair", metavar="NAME", help="the pair; needed if the run has several")
    parser.add_argument(
        "--license",
        metavar="ID",
        help="the license, by the hub's name (apache-2.0, mit, ...); default: the license of both parents",
    )
    parser.add_argument("--private", action="store_true", help="make the repository private")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="replace another model that the repository holds",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, and show the files and the card; the hub is not contacted",
    )


def publish(arguments: argparse.Namespace) -> int:
    from expoflow.project.publication import CARD, publication

    repo, folder = arguments.repo, folder_of(arguments) or Path()
    uploads = publication(
        folder, repo, arguments.pair, arguments.config, arguments.license, draft=arguments.dry_run
    )
    if arguments.dry_run:
        width = max(len(upload.name) for upload in uploads)
        print("\n".join(f"{each.name:{width}}  {each.size:>15,}  {each.sha256}" for each in uploads))
        total = sum(upload.size for upload in uploads)
        print(f"{len(uploads)} files, {total:,} bytes to {repo}; {CARD}:\n")
        print(next(upload.content.decode() for upload in uploads if upload.name == CARD))
        return 0
    from expoflow.hub import http
    from expoflow.project.upload import publish

    commit = publish(repo, uploads, private=arguments.private, replace=arguments.replace)
    print(f"{http.ENDPOINT}/{repo} at {commit}: {len(uploads)} files, each with the same sha256 as here")
