"""The Python runner, started by an agent with the channel on descriptor 3:

    python3 -I -B skep_runner.py FOLDER FILE.py:FUNCTION

A handler is a function of one payload, or of a payload and a context:

    def resize(payload): ...
    def resize(payload: bytes, context): ...
    async def resize(payload): ...

The payload is the input decoded from JSON (None when it is empty), or the input's bytes when it is
not JSON; always bytes when the parameter is annotated with `bytes`. A second parameter without a
default, or any parameter called `context`, gets the Context. bytes, bytearray and memoryview
results are the output as they are; everything else is encoded as JSON. An exception makes the
invocation fail with its type, its message and the lines of the function's own code; the whole
traceback goes to the log.

A module may define skep_restored(entropy: bytes, unix_us: int): it is called after a restore from a
memory snapshot, before any further invocation, to reseed generators of its own. random, ssl and
numpy.random's global state are reseeded already.

Standard library only, Python 3.11. The protocol is common/runner_protocol.h. With one invocation at
a time the handler runs on the main thread; with more (SKEP_CONCURRENCY), on that many threads, or,
when it is `async def`, all on one event loop.
"""

import json
import os
import signal
import socket
import struct
import sys
import threading
import time

READY, INVOKE, RESULT, CANCEL, PARK, RESTORED, STOP = 1, 2, 3, 4, 5, 6, 7
FLAG_FIRST, FLAG_MORE = 1, 2
# Wire numbers of enum status_code (common/status.h).
OK, INVALID, LIMIT, TIMEOUT, CANCELED, FAILED = 0, 1, 4, 7, 8, 14

RUNNER_FD = 3
HEADER = struct.Struct("<BBHIQQ")
PACKET_DATA_MAX = 32 << 10
FRAME_BYTES_MAX = 4 << 20
FRAMES_OPEN_MAX = 8
CONCURRENCY_MAX = 1024
ENTROPY_BYTES = 48
ERROR_BYTES_MAX = 4096
ERROR_LINES_MAX = 5
EXIT_STOPPED, EXIT_CHANNEL, EXIT_USAGE, EXIT_LOAD = 0, 1, 2, 3

CO_VARARGS = 0x04
CO_COROUTINE = 0x80


def log(text):
    """One line on standard error, which is the instance's log."""
    try:
        sys.stderr.write(f"skep-runner: {text}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # A log that cannot be written has nobody to be told.


class ProtocolError(Exception):
    """A packet that cannot be used; the text says why."""


class Frames:
    """Assembles frames from packets: the twin of common/runner_frames.c."""

    def __init__(self):
        self.open = {}  # (type, id) -> [status, arg, bytearray]; oldest first

    def take(self, packet):
        """Takes one packet; (type, status, id, arg, data) when it ends a frame, else None."""
        if len(packet) < HEADER.size:
            raise ProtocolError(f"{len(packet)} bytes are shorter than the header")
        kind, flags, status, size, ident, arg = HEADER.unpack_from(packet)
        data = packet[HEADER.size:]
        if not READY <= kind <= STOP:
            raise ProtocolError(f"packet has unknown type {kind}")
        if flags & ~(FLAG_FIRST | FLAG_MORE):
            raise ProtocolError(f"packet has unknown flags {flags:#x}")
        if size > PACKET_DATA_MAX or size != len(data):
            raise ProtocolError(f"packet says {size} data bytes and has {len(data)}")
        key = (kind, ident)
        if flags & FLAG_FIRST:
            self.open.pop(key, None)
            if not flags & FLAG_MORE:
                return kind, status, ident, arg, bytes(data)
            if len(self.open) == FRAMES_OPEN_MAX:
                del self.open[next(iter(self.open))]
            self.open[key] = [status, arg, bytearray()]
        frame = self.open.get(key)
        if frame is None:
            raise ProtocolError(f"packet goes on with frame {ident}, which was not begun")
        if len(frame[2]) + size > FRAME_BYTES_MAX:
            del self.open[key]
            raise ProtocolError(f"frame {ident} is over the limit of {FRAME_BYTES_MAX} bytes")
        frame[2] += data
        if flags & FLAG_MORE:
            return None
        del self.open[key]
        return kind, frame[0], ident, frame[1], bytes(frame[2])

    def drop(self, kind, ident):
        return self.open.pop((kind, ident), None) is not None


class Channel:
    """Whole frames in and out of descriptor 3. One thread receives; any may send."""

    def __init__(self, fd):
        self.sock = socket.socket(fileno=fd)
        if self.sock.type != socket.SOCK_SEQPACKET:
            raise OSError(f"descriptor {fd} is not a SOCK_SEQPACKET socket")
        self.sock.setblocking(True)
        self.sock.set_inheritable(False)
        self.frames = Frames()
        self.lock = threading.Lock()
        # One byte more than a packet may have, so that a longer one shows.
        self.packet = memoryview(bytearray(HEADER.size + PACKET_DATA_MAX + 1))

    def _ended(self):
        """An empty packet and the end of the channel look alike to recv."""
        import select

        poller = select.poll()
        poller.register(self.sock, select.POLLRDHUP)
        return bool(poller.poll(0))

    def receive(self, flags=0):
        """The next frame; None at the end of the channel.

        With MSG_DONTWAIT, BlockingIOError when there is none.
        """
        while True:
            try:
                size = self.sock.recv_into(self.packet, 0, flags)
            except ConnectionError:
                return None
            if size == 0 and self._ended():
                return None
            try:
                frame = self.frames.take(self.packet[:size])
            except ProtocolError as error:
                log(f"packet ignored: {error}")
                continue
            if frame is not None:
                return frame

    def send(self, kind, ident=0, arg=0, status=OK, data=b""):
        with self.lock:
            if len(data) <= PACKET_DATA_MAX:
                header = HEADER.pack(kind, FLAG_FIRST, status, len(data), ident, arg)
                self._send_packet(header, data)
                return
            view = memoryview(data)
            for at in range(0, len(view), PACKET_DATA_MAX):
                part = view[at : at + PACKET_DATA_MAX]
                flags = FLAG_FIRST if at == 0 else 0
                if at + len(part) < len(view):
                    flags |= FLAG_MORE
                self._send_packet(HEADER.pack(kind, flags, status, len(part), ident, arg), part)

    def _send_packet(self, header, data):
        try:
            self.sock.sendmsg((header, data))
        except (BrokenPipeError, ConnectionError):
            self.interrupt()

    def interrupt(self):
        """Makes receive answer None once what had arrived is read."""
        try:
            self.sock.shutdown(socket.SHUT_RD)
        except OSError:
            pass


class Context:
    """What a handler may know about its invocation."""

    __slots__ = ("invocation_id", "deadline", "_canceled")

    def __init__(self, ident, left_ms):
        self.invocation_id = ident
        # On time.monotonic()'s clock; None without a timeout.
        self.deadline = time.monotonic() + left_ms / 1000 if 0 < left_ms < 1 << 62 else None
        self._canceled = False

    @property
    def remaining_ms(self):
        """Milliseconds left, 0 when the timeout has passed; None without one."""
        if self.deadline is None:
            return None
        return max(0, int((self.deadline - time.monotonic()) * 1000))

    @property
    def canceled(self):
        """True once the caller has given up. Handlers that run long may ask now and then."""
        return self._canceled


class Handler:
    """The user's function and how to call it."""

    def __init__(self, function, folder):
        self.function = function
        self.folder = folder
        self.restored = getattr(sys.modules.get(function.__module__), "skep_restored", None)
        plain = function
        while hasattr(plain, "__wrapped__"):
            plain = plain.__wrapped__
        if not hasattr(plain, "__code__") and not isinstance(plain, type):
            plain = getattr(type(plain), "__call__", plain)  # an object that can be called
        plain = getattr(plain, "__func__", plain)
        code = getattr(plain, "__code__", None)
        self.is_async = bool(code and code.co_flags & CO_COROUTINE)
        self.takes_payload, self.takes_context, self.context_by_name = True, False, False
        self.wants_bytes = False
        if code is not None:
            self._read_parameters(plain, code)

    def _read_parameters(self, plain, code):
        names = list(code.co_varnames[: code.co_argcount])
        if names and (hasattr(self.function, "__self__") or names[0] == "self"):
            names.pop(0)
        required = len(names) - len(plain.__defaults__ or ())
        keywords = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
        self.takes_payload = bool(names) or bool(code.co_flags & CO_VARARGS)
        self.context_by_name = "context" in names[1:] or "context" in keywords
        self.takes_context = self.context_by_name or (len(names) >= 2 and required >= 2)
        if names:
            annotation = getattr(plain, "__annotations__", {}).get(names[0])
            self.wants_bytes = annotation is bytes or annotation == "bytes"

    def decode(self, data):
        if self.wants_bytes:
            return data
        if not data:
            return None
        try:
            return json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
            return data

    def call(self, data, context):
        """What the function returns: a coroutine when it is async."""
        if not self.takes_payload:
            return self.function(context=context) if self.takes_context else self.function()
        payload = self.decode(data)
        if self.context_by_name:
            return self.function(payload, context=context)
        if self.takes_context:
            return self.function(payload, context)
        return self.function(payload)

    def describe(self, error):
        """The error text: type and message, then the innermost lines of the function's own code."""
        import traceback

        text = "".join(traceback.format_exception_only(error)).strip()
        frames = [
            f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__
        ]
        own = [f for f in frames if f.filename.startswith(self.folder + "/")] or frames
        lines = [
            f"  {f.filename.removeprefix(self.folder + '/')}:{f.lineno} in {f.name}: {f.line or ''}"
            for f in own[-ERROR_LINES_MAX:]
        ]
        return cut("\n".join([text, *lines]))


def cut(text):
    """The text's bytes, at most ERROR_BYTES_MAX."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= ERROR_BYTES_MAX:
        return data
    return data[: ERROR_BYTES_MAX - 3].decode("utf-8", "ignore").encode() + b"..."


def encode(value):
    """The output's bytes, or an error (status, text)."""
    if isinstance(value, memoryview):
        value = value.tobytes()
    if not isinstance(value, (bytes, bytearray)):
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            value = text.encode("utf-8")
        except (TypeError, ValueError, RecursionError) as error:
            return FAILED, cut(f"the result is neither bytes nor JSON: {error}")
    if len(value) > FRAME_BYTES_MAX:
        text = f"the output of {len(value)} bytes is over the limit of {FRAME_BYTES_MAX} bytes"
        return LIMIT, cut(text)
    return OK, value


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass


def print_error(error):
    import traceback

    try:
        traceback.print_exception(error)
    except Exception as second:  # a traceback that cannot be printed is no reason to end
        log(f"the traceback cannot be printed: {second!r}")


class Runner:
    def __init__(self, channel, handler, concurrency):
        self.channel = channel
        self.handler = handler
        self.concurrency = concurrency
        self.running = {}  # id -> Context
        self.lock = threading.Lock()
        self.pool = None

    def result(self, ident, status, data=b""):
        flush()
        self.channel.send(RESULT, ident, 0, status, data)

    def finish(self, ident, context, value=None, error=None):
        """Answers: a result on success, the error's text otherwise."""
        if error is None:
            status, data = encode(value)
        else:
            print_error(error)
            try:
                status, data = FAILED, self.handler.describe(error)
            except Exception as second:
                status, data = FAILED, cut(f"{type(error).__name__} (no text: {second!r})")
        with self.lock:
            if self.running.get(ident) is context:
                del self.running[ident]
        self.result(ident, status, data)

    def begin(self, ident, left_ms):
        """The invocation's Context, or None when it is running already."""
        context = Context(ident, left_ms)
        with self.lock:
            if ident in self.running:
                log(f"invocation {ident} is already running")
                return None
            self.running[ident] = context
        return context

    def refuse(self, ident, context):
        """Answers an invocation that need not begin; False when it must run."""
        if context.canceled:
            status, text = CANCELED, b"canceled before it began"
        elif context.remaining_ms == 0:
            status, text = TIMEOUT, b"the deadline passed before it began"
        else:
            return False
        with self.lock:
            self.running.pop(ident, None)
        self.result(ident, status, text)
        return True

    def run_sync(self, ident, context, data):
        """Runs one invocation on the calling thread."""
        if self.refuse(ident, context):
            return
        try:
            value = self.handler.call(data, context)
            if hasattr(value, "__await__"):
                import asyncio

                value = asyncio.run(self._await(value))
        except BaseException as error:  # SystemExit ends an invocation, not the runner
            self.finish(ident, context, error=error)
        else:
            self.finish(ident, context, value)

    @staticmethod
    async def _await(value):
        return await value

    def on_invoke(self, ident, left_ms, data):
        context = self.begin(ident, left_ms)
        if context is None:
            return
        if self.concurrency == 1:
            self.run_sync(ident, context, data)
            return
        if self.pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self.pool = ThreadPoolExecutor(self.concurrency, "invocation")
        if len(self.running) > self.concurrency:
            with self.lock:
                del self.running[ident]
            self.result(ident, LIMIT, b"more invocations at once than the runner offered")
            return
        self.pool.submit(self.run_sync, ident, context, data)

    def on_cancel(self, ident):
        if self.channel.frames.drop(INVOKE, ident):
            self.result(ident, CANCELED, b"canceled before it began")
            return
        with self.lock:
            context = self.running.get(ident)
        if context is not None:
            context._canceled = True

    def on_restored(self, ident, unix_us, entropy):
        status = OK
        if len(entropy) != ENTROPY_BYTES:
            log(f"RESTORED without {ENTROPY_BYTES} bytes of entropy")
            status = INVALID
        else:
            try:
                reseed(entropy)
                if self.handler.restored is not None:
                    self.handler.restored(entropy, unix_us)
            except BaseException as error:
                print_error(error)
                status = FAILED
        flush()
        self.channel.send(RESTORED, ident, 0, status)

    def dispatch(self, frame):
        """Handles one frame; False when it says stop."""
        kind, _, ident, arg, data = frame
        if kind == INVOKE:
            self.on_invoke(ident, arg, data)
        elif kind == CANCEL:
            self.on_cancel(ident)
        elif kind == RESTORED:
            self.on_restored(ident, arg, data)
        elif kind == STOP:
            return False
        else:
            log(f"frame of type {kind} ignored")
        return True

    def serve(self):
        while True:
            frame = self.channel.receive()
            if frame is None or not self.dispatch(frame):
                break
        if self.pool is not None:
            self.pool.shutdown(wait=True)


class AsyncRunner(Runner):
    """Runs `async def` handlers on one event loop, on the main thread."""

    def __init__(self, channel, handler, concurrency):
        super().__init__(channel, handler, concurrency)
        self.tasks = {}
        self.stopped = None

    def on_invoke(self, ident, left_ms, data):
        import asyncio

        context = self.begin(ident, left_ms)
        if context is None or self.refuse(ident, context):
            return
        if len(self.running) > self.concurrency:
            del self.running[ident]
            self.result(ident, LIMIT, b"more invocations at once than the runner offered")
            return
        task = asyncio.get_running_loop().create_task(self.run_async(ident, context, data))
        self.tasks[ident] = task
        task.add_done_callback(lambda _: self.on_done(ident, context, task))

    def on_done(self, ident, context, task):
        if self.tasks.get(ident) is task:
            del self.tasks[ident]
        if self.running.get(ident) is context:  # canceled before its first step
            self.end(ident, CANCELED, b"canceled before it began")

    async def run_async(self, ident, context, data):
        import asyncio

        try:
            left = None if context.deadline is None else context.deadline - time.monotonic()
            async with asyncio.timeout(left) as limit:
                value = await self.handler.call(data, context)
        except BaseException as error:
            if context.canceled and isinstance(error, asyncio.CancelledError):
                self.end(ident, CANCELED, b"canceled")
            elif isinstance(error, TimeoutError) and limit.expired():
                self.end(ident, TIMEOUT, b"deadline exceeded")
            else:
                self.finish(ident, context, error=error)
        else:
            self.finish(ident, context, value)

    def end(self, ident, status, text):
        self.running.pop(ident, None)
        self.result(ident, status, text)

    def on_cancel(self, ident):
        super().on_cancel(ident)
        task = self.tasks.get(ident)
        if task is not None:
            task.cancel()

    def on_readable(self):
        import asyncio

        try:
            frame = self.channel.receive(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        if frame is None or not self.dispatch(frame):
            asyncio.get_running_loop().remove_reader(self.channel.sock)
            self.stopped.set()

    async def main(self):
        import asyncio

        self.stopped = asyncio.Event()
        asyncio.get_running_loop().add_reader(self.channel.sock, self.on_readable)
        await self.stopped.wait()
        while self.tasks:
            await asyncio.wait(list(self.tasks.values()))
            await asyncio.sleep(0)  # let on_done run

    def serve(self):
        import asyncio

        asyncio.run(self.main())


def reseed(entropy):
    """Gives this clone of a memory snapshot random numbers of its own."""
    import random

    random.seed(entropy)
    if "ssl" in sys.modules or "_ssl" in sys.modules:
        import ssl

        ssl.RAND_add(entropy, float(len(entropy)))
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed(struct.unpack(f"<{len(entropy) // 4}I", entropy))


def load(folder, spec):
    """Imports FILE.py from folder and returns the Handler of FUNCTION (which may have dots).

    The module's name is the file's own, unless the standard library has it.
    """
    import importlib
    import importlib.util

    path, _, name = spec.rpartition(":")
    if not path.endswith(".py") or not name:
        raise ValueError(f"handler {spec!r} is not FILE.py:FUNCTION")
    path = os.path.normpath(path)
    full = os.path.join(folder, path)
    if path.startswith(("/", "..")):
        raise ValueError(f"handler {spec!r} is not inside the code")
    if not os.path.isfile(full):
        raise FileNotFoundError(f"no file {path} in the code")
    module_name = path[:-3].replace("/", ".")
    taken = module_name.partition(".")[0]
    if taken in sys.modules or taken in sys.stdlib_module_names or "-" in module_name:
        module_name = "skep_function"
        module_spec = importlib.util.spec_from_file_location(module_name, full)
        module = importlib.util.module_from_spec(module_spec)
        sys.modules[module_name] = module
        module_spec.loader.exec_module(module)
    else:
        module = importlib.import_module(module_name)
    function = module
    for part in name.split("."):
        function = getattr(function, part, None)
    if not callable(function):
        raise AttributeError(f"{path} has no function {name}")
    return Handler(function, folder)


def open_log():
    """Lines go to the log at once, whatever they hold."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    import faulthandler

    try:
        faulthandler.enable()
    except (RuntimeError, ValueError, OSError):
        pass  # without a standard error there is nobody to tell


def concurrency_of(environ):
    try:
        wanted = int(environ.get("SKEP_CONCURRENCY", "1"))
    except ValueError:
        wanted = 1
    return min(max(wanted, 1), CONCURRENCY_MAX)


def leave(code):
    """Ends without waiting for threads that a function left behind."""
    import atexit

    try:
        atexit._run_exitfuncs()
    except BaseException as error:
        print_error(error)
    flush()
    os._exit(code)


def main(argv):
    open_log()
    if len(argv) != 3:
        log("usage: skep_runner.py FOLDER FILE.py:FUNCTION")
        return EXIT_USAGE
    try:
        channel = Channel(RUNNER_FD)
    except OSError as error:
        log(f"no runner channel, an agent starts this program: {error}")
        return EXIT_USAGE
    folder = os.path.abspath(argv[1])
    sys.path[:0] = [folder, *filter(None, os.environ.get("PYTHONPATH", "").split(":"))]
    sys.argv = [os.path.join(folder, argv[2].rpartition(":")[0])]
    # Process 1 of a pid namespace gets no signal that it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: channel.interrupt())
    signal.signal(signal.SIGINT, lambda *_: channel.interrupt())
    try:
        handler = load(folder, argv[2])
    except BaseException as error:
        print_error(error)
        log(f"load {argv[2]}: {type(error).__name__}: {error}")
        return EXIT_LOAD
    concurrency = concurrency_of(os.environ)
    runner = (AsyncRunner if handler.is_async else Runner)(channel, handler, concurrency)
    flush()
    channel.send(READY, arg=concurrency)
    if os.environ.get("SKEP_SNAPSHOT") == "memory":
        channel.send(PARK)  # Nothing has run and no thread was made: the moment for a snapshot.
    try:
        runner.serve()
    except BaseException as error:
        print_error(error)
        return EXIT_CHANNEL
    return EXIT_STOPPED


if __name__ == "__main__":
    leave(main(sys.argv))
