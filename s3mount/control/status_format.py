"""What `status` answers has a number, for the command may be of another version than the mount."""

# Of what the man page says of `s3mount status --json`: a new one only if a name is taken away or
# gets another meaning.
FORMAT = 1
