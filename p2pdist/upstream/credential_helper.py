"""Docker's credential helpers: ``docker-credential-NAME get`` with the server's key on stdin, JSON on stdout.

Rules: the helper's name is checked before it is run; time and output are bounded; it is always dead and reaped when
``run_helper`` returns or is cancelled; nothing it wrote is ever shown, since that may hold a secret.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal

from p2pdist.errors import P2PDistError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
MAX_OUTPUT = 64 * 1024
# The protocol has no code for "nothing stored"; this text is what github.com/docker/docker-credential-helpers prints.
_NOT_FOUND = b"credentials not found in native keychain"


class HelperError(P2PDistError):
    """The helper is missing, failed, or answered nonsense."""


async def run_helper(name: str, server: str, timeout: float) -> tuple[str, str] | None:
    """The user name and secret that helper ``name`` keeps for ``server``; None when it keeps none.

    Raises HelperError, also after ``timeout`` seconds.
    """
    if not _NAME.match(name):
        raise HelperError(f"credential helper {name[:64]!r} in Docker's config.json is not a program's name")
    program = f"docker-credential-{name}"
    try:
        async with asyncio.timeout(timeout):
            code, output = await _run(program, f"{server}\n".encode())
    except TimeoutError as error:
        raise HelperError(f"credential helper {program} did not answer in {timeout:g} s") from error
    except OSError as error:
        reason = error.strerror or "cannot be started"
        raise HelperError(
            f"credential helper {program} cannot be run ({reason}); install it, or log in again"
        ) from error
    if len(output) > MAX_OUTPUT:
        raise HelperError(f"credential helper {program} wrote more than {MAX_OUTPUT} bytes")
    if code != 0:
        if _NOT_FOUND in output:
            return None
        raise HelperError(f"credential helper {program} failed for {server} with exit code {code}")
    return _parse(program, output)


def _parse(program: str, output: bytes) -> tuple[str, str]:
    try:
        document = json.loads(output)
        user, secret = document["Username"], document["Secret"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise HelperError(
            f"credential helper {program} did not answer in JSON with Username and Secret"
        ) from error
    if not isinstance(user, str) or not isinstance(secret, str):
        raise HelperError(f"credential helper {program} answered with something other than text")
    return user, secret


async def _run(program: str, text: bytes) -> tuple[int, bytes]:
    process = await asyncio.create_subprocess_exec(
        program,
        "get",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=MAX_OUTPUT,
        # Its own group, so that what it starts in turn dies with it.
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(text)
            await process.stdin.drain()
        process.stdin.close()
        output = await _read(process.stdout)
        if len(output) > MAX_OUTPUT:
            return 0, output
        return await process.wait(), output
    finally:
        await _end(process)


async def _read(stream: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    size = 0
    while size <= MAX_OUTPUT and (part := await stream.read(MAX_OUTPUT)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # Killed, so the wait is short; should it be cancelled, the loop's child watcher still reaps.
    await process.wait()
