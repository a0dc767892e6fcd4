"""One client of a store in each process, where Beam's filesystems make a new one for every call.

A client of S3 costs 70 to 300 ms of a processor, and each client opens connections of its own (docs/stores.md). Threads
may share the clients of either library; processes may not, so a forked one makes its own.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

from apache_beam.io.aws.clients.s3 import boto3_client
from apache_beam.options.pipeline_options import PipelineOptions, S3Options

# Who asks, and whom, may stand in the environment.
_ENVIRONMENT = ("AWS_", "GOOGLE_", "STORAGE_")


def share() -> None:
    """Lets Beam's filesystems for S3 and GCS share their clients from now on; nothing else about them changes."""
    make_s3 = boto3_client.Client.__init__
    kept = _kept(_s3)

    def take_s3(self: boto3_client.Client, options: Any) -> None:
        if isinstance(options, PipelineOptions):
            vars(self).update(vars(kept(make_s3, options)))
        else:
            make_s3(self, options)

    boto3_client.Client.__init__ = take_s3  # type: ignore[method-assign]
    try:
        from apache_beam.io.gcp import gcsio
    except ImportError:
        return  # there is no gs:// without the extra
    gcsio.create_storage_client = _kept(gcsio.create_storage_client)


def _s3(make: Callable[..., None], options: PipelineOptions) -> boto3_client.Client:
    """Beam's client as it is before its first call: what it holds for a download is no other's to share.

    Raises:
      OSError: nobody asks. Beam itself would try for ten minutes.
    """
    if boto3_client.boto3 is None:
        raise OSError('s3:// needs boto3, which is not installed: pip install "camboxes[aws]"')
    given = options.view_as(S3Options).s3_access_key_id
    if given is None and boto3_client.boto3.session.Session().get_credentials() is None:
        raise OSError(
            "there are no credentials for s3://: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    client = boto3_client.Client.__new__(boto3_client.Client)
    make(client, options)
    return client


def _kept(make: Callable[..., Any]) -> Callable[..., Any]:
    """`make`, whose result is kept for the same arguments in the same process and environment."""

    @functools.lru_cache(maxsize=8)
    def made(process: int, environment: frozenset[tuple[str, str]], *arguments: Any, **keywords: Any) -> Any:
        return make(*arguments, **keywords)

    @functools.wraps(make)
    def kept(*arguments: Any, **keywords: Any) -> Any:
        environment = frozenset(item for item in os.environ.items() if item[0].startswith(_ENVIRONMENT))
        return made(os.getpid(), environment, *arguments, **keywords)

    return kept
