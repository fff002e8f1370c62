"""Push a converted data set to the Hub, private unless its licence allows otherwise.

python -m clear_par.datasets_scripts.publish FOLDER me/peta
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from huggingface_hub import HfApi

# Of the HTTP library that huggingface_hub uses, whichever that is: raised without a connection.
from huggingface_hub.errors import HTTPError

from .parquet_folder import Conversion, file_digest

_WARNING = (
    "the licence of {dataset} does not allow to publish its images again, and {repo_id} {is_public}"
)

# What a push can end in; RuntimeError comes from an upload that breaks off.
HUB_FAILURES = (OSError, RuntimeError, HTTPError)


class PublishError(RuntimeError):
    """A push that did not end well; the local folder is whole and the push can be repeated."""


def publish(
    folder: Path,
    repo_id: str,
    private: bool = True,
    may_publish: bool = False,
    api: HfApi | None = None,
) -> str:
    """Push the files of a conversion, and no others.

    Args:
        folder: Written by `convert`.
        private: Of a new repository; one that exists stays as it is.
        may_publish: You state that you may publish images whose licence does not allow it.
        api: None: the Hub with your own login.

    Returns:
        Address of the commit.

    Raises:
        ValueError: the folder is no conversion or was changed since, or the repository is public
            and the licence does not allow that.
        PublishError: the Hub did not take it.
    """
    api, folder = api or HfApi(), Path(folder)
    record = Conversion.read(folder)
    for name, digest in record.files.items():
        if file_digest(folder / name) != digest:
            raise ValueError(f"`folder` must be as converted, got a changed {name}. Convert again.")
    may_publish = may_publish or record.hub_license != "other"
    if not private:
        _require_permission(record, repo_id, may_publish, "would be public")
    try:
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        if not api.repo_info(repo_id, repo_type="dataset").private:
            _require_permission(record, repo_id, may_publish, "is public")
        commit = api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=record.own_files,
            commit_message=f"{record.dataset} {record.config_name} as Parquet",
        )
    except HUB_FAILURES as error:
        raise PublishError(
            f"the push to {repo_id} failed: {error}\n{folder} is whole; repeat with: "
            f"python -m clear_par.datasets_scripts.publish {folder} {repo_id}"
        ) from error
    return commit.commit_url


def _require_permission(
    record: Conversion, repo_id: str, may_publish: bool, is_public: str
) -> None:
    warning = _WARNING.format(dataset=record.dataset, repo_id=repo_id, is_public=is_public)
    if not may_publish:
        raise ValueError(
            f"`repo_id` must be private: {warning}. Make it private, or state with "
            "--i-may-publish that you have the owners' permission."
        )
    if record.hub_license == "other":
        print(f"WARNING: {warning}; you stated that you may.", file=sys.stderr)


def add_push_options(parser: argparse.ArgumentParser) -> None:
    """The options that decide who sees the repository."""
    visibility = parser.add_mutually_exclusive_group()
    visibility.add_argument("--private", action="store_true", help="the default")
    visibility.add_argument("--public", action="store_true", help="anyone may see the images")
    parser.add_argument(
        "--i-may-publish",
        action="store_true",
        help="you have the owners' permission, though the licence does not give it",
    )


def push_from(options: argparse.Namespace, folder: Path, repo_id: str) -> None:
    """Push as the command line says, and print the address."""
    url = publish(folder, repo_id, not options.public, options.i_may_publish)
    print(f"Pushed to {url}")


def main(arguments: list[str] | None = None) -> None:
    """Command line: push a folder that was converted before."""
    parser = argparse.ArgumentParser(
        prog="python -m clear_par.datasets_scripts.publish", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="written by convert")
    parser.add_argument("repo_id", help="owner/name of a data set on the Hub")
    add_push_options(parser)
    options = parser.parse_args(arguments)
    try:
        push_from(options, options.folder, options.repo_id)
    except (ValueError, PublishError) as error:
        raise SystemExit(f"publish: error: {error}") from None


__all__ = ["HUB_FAILURES", "PublishError", "add_push_options", "publish", "push_from"]

if __name__ == "__main__":
    main()
