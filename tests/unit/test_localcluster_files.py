"""Private files and locks of a local cluster, and what is reported while one waits."""

import io
import os
import shutil
import socket
import stat

import pytest
from driftwatch.file_lock import LockHeldError, locked
from driftwatch.files import write_private
from driftwatch.localcluster.errors import PortTakenError, StateError
from driftwatch.localcluster.layout import Component, Layout, choose_ports, require_free
from driftwatch.tools.progress import console_progress


def ignore():
    """Do nothing."""


def test_private_file_is_private_whatever_the_umask(tmp_path):
    """A key is never readable by others, even where a lax umask would have it so."""
    before = os.umask(0)
    try:
        write_private(tmp_path / "key", b"secret")
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["key"]


def test_lock_that_is_held_is_waited_for_and_given_up(tmp_path):
    """Waiting is announced once, and bounded."""
    told = []
    with locked(tmp_path / "lock", 1.0, ignore), pytest.raises(LockHeldError):  # noqa: SIM117
        with locked(tmp_path / "lock", 0.3, lambda: told.append(True)):
            pytest.fail("two held the lock")

    assert told == [True]


def test_lock_survives_the_removal_of_its_file(tmp_path):
    """Who waited for a lock whose file was removed by its holder does not get in on the removed file."""
    path = tmp_path / "lock"
    with locked(path, 1.0, ignore):
        path.unlink()
        with locked(path, 1.0, ignore), pytest.raises(LockHeldError):  # noqa: SIM117
            with locked(path, 0.2, ignore):
                pytest.fail("two held the lock")


def test_lock_in_a_folder_that_is_gone_is_refused(tmp_path):
    """Nobody makes the folder again: another command has deleted it, at once or while we waited for the lock."""
    folder = tmp_path / "cluster"
    with pytest.raises(FileNotFoundError), locked(folder / "lock", 1.0, ignore):
        pytest.fail("there is no such folder")
    folder.mkdir()
    with locked(folder / "lock", 1.0, ignore), pytest.raises(FileNotFoundError):  # noqa: SIM117
        with locked(folder / "lock", 5.0, lambda: shutil.rmtree(folder)):
            pytest.fail("the folder has gone")
    assert not folder.exists()


def test_taken_port_is_named_with_a_remedy():
    """The operator learns which port, whose, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        port = somebody.getsockname()[1]
        with pytest.raises(PortTakenError, match=rf"port {port} .*kube-apiserver.*taken.*--port"):
            require_free(Component.APISERVER, (port,))


def test_ports_stay_clear_of_those_for_outgoing_connections():
    """A port from the kernel's range could be taken by any connection while its cluster is down."""
    ports = choose_ports(12345)

    assert ports.apiserver == 12345
    others = {ports.etcd, ports.etcd_peer, ports.controller_manager}
    assert len(others) == 3
    assert all(20000 <= port < 30000 for port in others)


def test_damaged_memory_is_named(tmp_path):
    """A cluster.json that cannot be read is an error with its path, not a new cluster over the old one."""
    layout = Layout(tmp_path)
    layout.state.write_text('{"ports": 1}')

    with pytest.raises(StateError, match=r"cluster\.json"):
        layout.load()


def test_progress_without_a_terminal_is_a_line_now_and_then():
    """A log shows the first advance and the last, not each of thousands."""
    stream = io.StringIO()
    with console_progress(stream) as progress:
        progress.note("Begin.")
        for done in range(1, 1001):
            progress.advance("Work", done, 1000)

    assert stream.getvalue().splitlines() == ["Begin.", "Work: 1 of 1000 (0 %)", "Work: 1000 of 1000 (100 %)"]


def test_progress_on_a_terminal_is_a_bar():
    """A person sees the name of the work and how far it is."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    with console_progress(stream) as progress:
        progress.note("Begin [sic].")
        progress.advance("Work", 1, 2)
        progress.advance("Work", 2, 2)

    assert "Begin [sic]." in stream.getvalue()
    assert "Work" in stream.getvalue()
