"""The journal on S3: the client that it uses against a server on this machine."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import boto3
import pytest

from raysplit.errors import RunError
from raysplit.journal import Journal, has_journal
from raysplit.journal.storage import open_storage
from tests.journal.test_journal import numbers

BUCKET = "runs"


@pytest.fixture
def location(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a journal that nobody used before."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "who")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ever")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    boto3.client("s3", endpoint_url=f"http://{s3_endpoint}", region_name="us-east-1").create_bucket(Bucket=BUCKET)
    return f"s3://{BUCKET}/{uuid4().hex}/journal?scheme=http&endpoint_override={s3_endpoint}&region=us-east-1"


def test_what_was_acknowledged_is_there(location: str) -> None:
    assert not has_journal(location)
    journal = Journal(location)
    for number in range(3):
        journal.append("note", {"number": number})
    assert numbers(location) == [0, 1, 2], "while it is open"
    journal.close()
    assert has_journal(location)
    assert numbers(location) == [0, 1, 2]


def test_a_later_opening_takes_over_and_the_earlier_one_cannot_write(location: str) -> None:
    first = Journal(location)
    first.append("note", {"number": 0})
    second = Journal(location)
    assert [record.data["number"] for record in second.records] == [0]
    with pytest.raises(RunError, match="taken over"):
        first.append("note", {"number": 1})
    second.append("note", {"number": 2})
    assert numbers(location) == [0, 2]
    second.close()


def test_many_batches(location: str) -> None:
    journal = Journal(location)
    for number in range(80):
        journal.append("note", {"number": number})
    journal.close()
    reopened = Journal(location)
    reopened.append("note", {"number": 80})
    reopened.close()
    assert numbers(location) == list(range(81))


def test_of_many_that_write_at_once_each_number_has_one(location: str) -> None:
    """What all rests on: that the store puts only if absent, also when many ask for it at the same time."""
    storage = open_storage(location)
    with ThreadPoolExecutor(max_workers=8) as pool:
        for number in range(10):
            won = list(pool.map(lambda i, n=number: storage.create(f"{n}", f"{i}".encode()), range(8)))
            assert won.count(True) == 1
            assert storage.read([f"{number}"]) == [f"{won.index(True)}".encode()]


def test_a_bucket_that_is_not_there_is_named(location: str) -> None:
    with pytest.raises(RunError, match="nosuch"):
        Journal(location.replace(f"//{BUCKET}/", "//nosuch/"))
