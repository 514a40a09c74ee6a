"""Private files with atomic, durable writes."""

import os
import re
import secrets
import threading
from pathlib import Path


def write_private(path: Path, content: bytes) -> None:
    """Write `content` to `path` with mode 0600 from the first byte on, regardless of the umask.

    The write is atomic: after a crash the file has the old or the new content. A missing parent directory is created
    with mode 0700. When this returns, the content survives a power failure.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_abandoned(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(8)}")
    with _being_written:
        _own.add(temporary)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
        with _being_written:
            _own.discard(temporary)


_own: set[Path] = set()  # temporary files that this process is writing
_being_written = threading.Lock()


def _remove_abandoned(path: Path) -> None:
    """Remove temporary files of `path` whose process has ended. Their names contain the process id."""
    name = re.compile(rf"\.{re.escape(path.name)}\.(\d+)(\.[0-9a-f]+)?")
    for each in path.parent.iterdir():
        if (found := name.fullmatch(each.name)) is None:
            continue
        with _being_written:
            in_use = each in _own if int(found[1]) == os.getpid() else _is_running(int(found[1]))
            if not in_use:
                each.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def sync_folder(path: Path) -> None:
    """Make files created, renamed or removed in a directory survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def version_of(file: Path) -> tuple[int, int, int] | None:
    """A value that changes with a file's content, also if a mounted ConfigMap or Secret swaps a symbolic link.

    None if the file cannot be read.
    """
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def make_private_folder(path: Path) -> None:
    """Create `path` and its parents; `path` itself gets mode 0700."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
