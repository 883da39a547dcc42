"""A file with the name of a standard module."""


def named(payload):
    return __file__.rpartition("/")[2]
