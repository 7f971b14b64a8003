"""The way out: spool, upload plan, uploader, intents."""
