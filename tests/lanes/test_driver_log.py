"""What Ray says of its machines goes to the command's log, and not between a user's lines."""

import logging
from pathlib import Path

import pytest
from ray._private import worker

from raysplit.lanes.cluster import from_raylets
from raysplit.lanes.lanes import _log_to
from raysplit.ray_private import told_of_machines


def test_a_raylet_s_end_is_told_to_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "print_to_stdstream" in worker.listen_error_messages.__code__.co_names, "Ray says it in another way now"
    _log_to(tmp_path / "ray" / "driver.log")
    said = {"lines": ["Raylet is terminated.", "    [state-dump] a"], "pid": "raylet", "is_err": False}
    try:
        with told_of_machines(from_raylets.warning):
            worker.print_to_stdstream(said, ignore_prefix=False)
    finally:
        for logger in (logging.getLogger("ray"), from_raylets):
            for handler in [known for known in logger.handlers if isinstance(known, logging.FileHandler)]:
                logger.removeHandler(handler)
                handler.close()
    assert capsys.readouterr() == ("", "")
    assert "[state-dump] a" in (tmp_path / "ray" / "driver.log").read_text()
    worker.print_to_stdstream(said, ignore_prefix=False)
    assert "Raylet is terminated." in capsys.readouterr().out
