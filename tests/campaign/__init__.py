"""Campaigns: a mount is killed, cut off or raced hundreds of times; what it acknowledged must be
there afterwards. Full size by `contrib/campaign`, small in the tests of this package."""
