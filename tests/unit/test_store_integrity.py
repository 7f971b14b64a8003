"""Answered ETags against the MD5 of what was sent."""

from s3mount.store.base import LARGE_BODY, Capabilities
from s3mount.store.integrity import Md5Etags, digest_for

OTHER = "0" * 32
UNSEEN = Capabilities()
SEEN = Capabilities(md5_etags=True, large_md5_etags=True)


def test_etags_of_large_bodies_that_are_no_md5s_are_not_compared_for_ever() -> None:
    etags = Md5Etags(encrypted=False)
    small = digest_for(b"x", checks_crc32c=False)
    large = digest_for(bytes(LARGE_BODY + 1), checks_crc32c=False)
    assert small.md5 is not None
    assert etags.check("PutObject", small.md5, small, "", SEEN) == ""
    # The probing and small bodies show MD5s: that says nothing of large ones.
    assert etags.check("PutObject", OTHER, large, "", SEEN)
    assert etags.check("PutObject", OTHER, large, "", SEEN) == ""
    for _ in range(5):
        assert etags.check("PutObject", OTHER, small, "", SEEN)


def test_md5s_of_large_bodies_are_not_computed_once_they_prove_nothing() -> None:
    etags = Md5Etags(encrypted=False)
    large = digest_for(bytes(LARGE_BODY + 1), checks_crc32c=False)
    for _ in range(2):
        assert etags.may_tell("UploadPart", SEEN)
        etags.check("UploadPart", OTHER, large, "", SEEN)
    assert not etags.may_tell("UploadPart", SEEN)
    assert etags.may_tell("PutObject", SEEN)
    assert digest_for(bytes(LARGE_BODY + 1), checks_crc32c=False, md5_tells=False).headers() == {}
    assert digest_for(bytes(LARGE_BODY), checks_crc32c=False, md5_tells=False).md5 is not None
    assert digest_for(bytes(LARGE_BODY + 1), checks_crc32c=True, md5_tells=False).crc32c is not None


def test_etags_that_were_once_right_are_always_worth_an_md5() -> None:
    etags = Md5Etags(encrypted=False)
    large = digest_for(bytes(LARGE_BODY + 1), checks_crc32c=False)
    assert large.md5 is not None
    etags.check("UploadPart", large.md5, large, "", UNSEEN)
    for _ in range(5):
        assert etags.check("UploadPart", OTHER, large, "", UNSEEN)
    assert etags.may_tell("UploadPart", SEEN)


def test_what_the_probing_saw_of_large_bodies_is_not_found_out_again_by_sending_twice() -> None:
    etags = Md5Etags(encrypted=False)
    small_only = Capabilities(md5_etags=True)
    large = digest_for(bytes(LARGE_BODY + 1), checks_crc32c=False)
    assert not etags.may_tell("UploadPart", small_only)
    assert etags.check("UploadPart", OTHER, large, "", small_only) == ""
    assert etags.check("UploadPart", OTHER, digest_for(b"x", checks_crc32c=False), "", small_only)
    # Where nothing could be probed, nothing is known of either.
    assert etags.may_tell("UploadPart", UNSEEN)
    assert etags.check("UploadPart", OTHER, large, "", UNSEEN)
