"""Functions for the tests of the Python runner."""

import asyncio
import functools
import os
import random
import signal
import sys
import threading
import time

MEETING = threading.Barrier(8)


def echo(payload: bytes):
    return payload


def same(payload):
    return payload


def kind(payload):
    return type(payload).__name__


def nothing():
    return "called"


def about(payload, context):
    left = context.remaining_ms
    return [context.invocation_id, left is None or 0 < left <= 3_600_000, context.canceled]


def about_by_name(payload, scale=2, *, context=None):
    return [scale, context.invocation_id]


def fails(payload):
    print("about to fail")
    raise ValueError("no such thing")


def inner():
    raise KeyError("deep")


def fails_deep(payload):
    inner()


def leaves(payload):
    sys.exit(3)


def crashes(payload):
    os.kill(os.getpid(), signal.SIGSEGV)
    os.kill(os.getpid(), signal.SIGKILL)  # a handler in process 1's place would return


def dies(payload):
    os._exit(9)


def unfit(payload):
    return object()


def too_much(payload):
    return b"x" * ((4 << 20) + 1)


def exactly(payload):
    return b"x" * (4 << 20)


def meets(payload):
    MEETING.wait(60)
    return "met"


def waits(payload, context):
    print("waiting")
    while not context.canceled:
        time.sleep(0.001)
    return "gave up"


def draws(payload):
    return random.getrandbits(64)


def skep_restored(entropy, unix_us):
    print(f"restored with {entropy[47]} at {unix_us}")


def decorated(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        return function(*args, **kwargs)

    return call


@decorated
def wrapped(payload: bytes, context):
    return f"{type(payload).__name__} {context.invocation_id}"


class Thing:
    def method(self, payload):
        return ["method", payload]

    @staticmethod
    def fixed(payload):
        return ["fixed", payload]


thing = Thing()


async def async_echo(payload: bytes):
    await asyncio.sleep(0)
    return payload


async def async_fails(payload):
    raise ValueError("no such thing")


MET = []


async def async_meets(payload):
    MET.append(payload)
    while len(MET) < 8:
        await asyncio.sleep(0.001)
    return "met"


async def async_waits(payload):
    print("waiting", flush=True)
    await asyncio.Event().wait()
