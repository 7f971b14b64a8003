"""Answered ETags against the MD5 of what was sent."""

from s3mount.store.integrity import LARGE, Md5Etags, digest_for

OTHER = "0" * 32


def test_etags_of_large_bodies_that_are_no_md5s_are_not_compared_for_ever() -> None:
    etags = Md5Etags(encrypted=False)
    small = digest_for(b"x", checks_crc32c=False)
    large = digest_for(bytes(LARGE + 1), checks_crc32c=False)
    assert small.md5 is not None
    assert etags.check("PutObject", small.md5, small, "", proven=True) == ""
    # The probing and small bodies show MD5s: that says nothing of large ones.
    assert etags.check("PutObject", OTHER, large, "", proven=True)
    assert etags.check("PutObject", OTHER, large, "", proven=True) == ""
    for _ in range(5):
        assert etags.check("PutObject", OTHER, small, "", proven=True)


def test_md5s_of_large_bodies_are_not_computed_once_they_prove_nothing() -> None:
    etags = Md5Etags(encrypted=False)
    large = digest_for(bytes(LARGE + 1), checks_crc32c=False)
    for _ in range(2):
        assert etags.may_tell("UploadPart")
        etags.check("UploadPart", OTHER, large, "", proven=True)
    assert not etags.may_tell("UploadPart")
    assert etags.may_tell("PutObject")
    assert digest_for(bytes(LARGE + 1), checks_crc32c=False, md5_tells=False).headers() == {}
    assert digest_for(bytes(LARGE), checks_crc32c=False, md5_tells=False).md5 is not None
    assert digest_for(bytes(LARGE + 1), checks_crc32c=True, md5_tells=False).crc32c is not None


def test_etags_that_were_once_right_are_always_worth_an_md5() -> None:
    etags = Md5Etags(encrypted=False)
    large = digest_for(bytes(LARGE + 1), checks_crc32c=False)
    assert large.md5 is not None
    etags.check("UploadPart", large.md5, large, "")
    for _ in range(5):
        assert etags.check("UploadPart", OTHER, large, "")
    assert etags.may_tell("UploadPart")
