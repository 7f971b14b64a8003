"""Whether a bucket can be used at all, told to a user before anything is begun."""

import trio

from s3mount.core.config import StoreConfig
from s3mount.core.errors import ConfigurationError
from s3mount.store import errors
from s3mount.store.base import ListPage, ObjectStore

CHECK_TIMEOUT = 25.0  # the first request to the bucket


async def require_bucket(
    store: ObjectStore, config: StoreConfig, prefix: str, *, max_keys: int = 1
) -> ListPage:
    """The first request, a LIST of one level of `prefix`: raises ConfigurationError with the remedy
    if it is refused."""
    bucket = config.bucket
    where = config.endpoint_url or "AWS"
    try:
        with trio.fail_after(CHECK_TIMEOUT):
            return await store.check_bucket(prefix, max_keys=max_keys)
    except errors.NoSuchBucket:
        raise ConfigurationError(
            f"the bucket {bucket!r} does not exist at {where}; check its name and"
            f" --endpoint-url, or create it: aws s3 mb s3://{bucket}"
        ) from None
    except errors.ClockSkewed:
        raise ConfigurationError(
            f"{where} refuses requests because the clock of this machine is wrong; set it,"
            " e.g. by: timedatectl set-ntp true"
        ) from None
    except errors.BadCredentials as error:
        what = "there are no usable" if error.status is None else f"{where} refuses the"
        raise ConfigurationError(
            f"{what} credentials ({error}); check AWS_PROFILE, AWS_ACCESS_KEY_ID,"
            " ~/.aws/credentials or -o passwd_file"
        ) from None
    except errors.AccessDenied as error:
        raise ConfigurationError(
            f"no permission to list the bucket {bucket!r} ({error}); the credentials need"
            f" s3:ListBucket for it, or --no-sign-request for a public bucket"
        ) from None
    except errors.CorruptAnswer as error:
        raise ConfigurationError(
            f"{where} does not answer as S3 does ({error}); check --endpoint-url"
        ) from None
    except (errors.TransientError, trio.TooSlowError) as error:
        reason = str(error) or f"no answer for {CHECK_TIMEOUT:.0f} s"
        raise ConfigurationError(
            f"{where} is not reachable ({reason}); check --endpoint-url and the network"
        ) from None
    except errors.StoreError as error:
        raise ConfigurationError(
            f"the bucket {bucket!r} at {where} cannot be used: {error}; check --endpoint-url,"
            " --region and the bucket's name"
        ) from None
