import no_such_module


def never(payload):
    return no_such_module
