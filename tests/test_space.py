"""Search spaces: every file here is read and written back; a mistake is refused by file, field, value and choices."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from raysplit.discover.spaces import expected_space
from raysplit.errors import SpaceError
from raysplit.space import Space, dump_space, load_space, parse_space

FILES = sorted((Path(__file__).parent.parent / "search_spaces").glob("*.yaml"))

SMALL: dict[str, Any] = {
    "name": "small",
    "corpus": {
        "domains": {
            "code": {"kind": "package", "package": "python-stdlib"},
            "law": {"kind": "files", "path": "texts"},
        }
    },
    "model": {"sizes": ["14k", "28k"], "context_length": 128},
    "training": {
        "batch_tokens": 4096,
        "micro_batch_sequences": 32,
        "learning_rate": {"reference": "1e-2", "reference_params": "14k"},
        "warmup_tokens": 0,
        "validation_tokens": 4096,
    },
    "sweep": {"pretrain_tokens": [0, "125k"], "specialize_tokens": ["62500", "125k"]},
    "target": {"budget_flops": "1e12"},
}


LAW = {"kind": "files", "path": "texts"}


def changed(where: str, value: object) -> dict[str, Any]:
    """The small space with one field set, or taken out where the value is ``...``."""
    raw: dict[str, Any] = yaml.safe_load(yaml.safe_dump(SMALL))
    *parents, last = where.split(".")
    section = raw
    for parent in parents:
        section = section.setdefault(parent, {})
    if value is ...:
        del section[last]
    else:
        section[last] = value
    return raw


def refusal(raw: dict[str, Any]) -> str:
    with pytest.raises(SpaceError) as caught:
        parse_space(raw, origin="space.yaml")
    return str(caught.value)


def test_there_are_files_to_check() -> None:
    assert {"quickstart", "smoke", "single_gpu", "cluster_8x8"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_read_and_round_trips(path: Path, tmp_path: Path) -> None:
    space = load_space(path)
    copy = tmp_path / "resolved.yaml"
    copy.write_text(dump_space(space), encoding="utf-8")
    assert load_space(copy) == space
    assert space.name == path.stem


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_target_affords_each_of_its_sizes_more_than_the_smallest_trunk(path: Path) -> None:
    space = expected_space(load_space(path))
    for n_params in space.target.model_sizes or space.model.sizes:
        tokens = space.target.budget_flops / space.shape(n_params, space.corpus.tokenizer.vocab_size).flops_per_token
        assert tokens > min(filter(None, space.pretrain_grid)) + len(space.domains) * min(space.specialize_grid)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_sweep_is_cheaper_than_its_own_grid(path: Path) -> None:
    """Else the adaptive policy of the file has nothing to choose."""
    space = expected_space(load_space(path))
    if space.sweep.policy == "grid":
        pytest.skip("measures its whole grid")
    if space.model.checkpoints:
        pytest.skip("its sizes are those of models that a script makes first")
    tokens = max(space.pretrain_grid)
    tokens += len(space.domains) * sum(d > 0 for d in space.pretrain_grid) * max(space.specialize_grid)
    grid_flops = sum(
        tokens * space.shape(n_params, space.corpus.tokenizer.vocab_size).flops_per_token
        for n_params in space.model.sizes
    )
    assert space.sweep.budget_flops is not None
    assert space.sweep.budget_flops < grid_flops


@pytest.mark.parametrize(
    ("where", "value", "sentences"),
    [
        (
            "training.zero_stge",
            1,
            ["unknown key 'training.zero_stge'", "did you mean 'training.zero_stage'?", "Known: "],
        ),
        ("modle", {}, ["unknown key 'modle'", "did you mean 'model'?"]),
        ("corpus.domains.law.pth", "x", ["unknown key 'corpus.domains.law.pth'", "corpus.domains.law.path"]),
        ("training.zero_stage", 4, ["training.zero_stage", "unknown ZeRO stage '4'", "Known: 0, 1, 2, 3"]),
        ("corpus.sources", {"all": LAW}, ["has both domains and sources"]),
        ("corpus.discover", {"k": 4}, ["corpus: discover finds domains in `sources`"]),
        ("corpus", {"sources": {"all": LAW}}, ["corpus: sources are text without labels", "`discover: {k: 8}`"]),
        (
            "corpus",
            {"sources": {"all": LAW}, "discover": {"k": 1}},
            ["corpus.discover.k", "greater than or equal to 2"],
        ),
        ("corpus", {"sources": {"all": LAW}, "discover": {"k": "many"}}, ["corpus.discover.k", "'many'"]),
        ("corpus", {"sources": {"all": LAW}, "discover": {"k": 4, "balance": 1}}, ["discover.balance", "1.05"]),
        (
            "corpus",
            {"sources": {"all": LAW}, "discover": {"k": 4}, "mixture": {"all": 1}},
            ["mixture: the domains are yet to be found", "corpus.discover"],
        ),
        ("target.domain_weights", {"lgal": 1}, ["unknown domain 'lgal'", "Known: code, law"]),
        ("corpus.mixture", {"code": 1, "lwa": 2}, ["unknown domain 'lwa' (did you mean 'law'?)", "Known: code, law"]),
        ("sweep.pretrain_tokens", [0], ["sweep.pretrain_tokens", "at least one D must be above 0"]),
        ("corpus.mixture", {"code": 1}, ["no share for domain 'law'"]),
        ("corpus.domains.code.package", "numpi", ["unknown package 'numpi'", "python-stdlib"]),
        ("corpus.domains.code.kind", "parquet", ["corpus.domains.code.kind", "'parquet'", "'table'"]),
        ("corpus.domains.law.path", ..., ["corpus.domains.law", "'files' needs a path"]),
        (
            "corpus.domains.law.split_on",
            "12",
            ["corpus.domains.law.split_on", "documents of 12 characters", "100 or more"],
        ),
        ("corpus.domains.law.split_on", "", ["corpus.domains.law.split_on", "a separator such as", "64k"]),
        ("corpus.domains.law.encoding", "klingon", ["corpus.domains.law.encoding", "'klingon'", "latin-1"]),
        ("corpus.domains.law.on_bad", "ignore", ["corpus.domains.law.on_bad", "'few', 'skip' or 'fail'"]),
        ("corpus.domains.law.encoding", "idna", ["corpus.domains.law.encoding", "unknown encoding 'idna'"]),
        ("corpus.domains.law.path", "", ["corpus.domains.law", "'files' needs a path"]),
        ("corpus.domains.law.path", "s3://bucket/texts", ["corpus.domains.law", "is a URL", "copy it to one"]),
        ("corpus.domains.law.text_column", "body", ["text_column = 'body' means nothing to kind 'files'", "table"]),
        ("corpus.domains.law", {"kind": "table", "path": "a", "label": "x"}, ["label = 'x' needs label_column"]),
        ("corpus.domains.law", None, ["corpus.domains.law: expected keys with values, got None"]),
        ("corpus.domains", {}, ["corpus.domains", "at least 1"]),
        ("corpus.domains", {"Seed": LAW}, ["corpus.domains: domain 'Seed': the pretrained model is called that"]),
        ("corpus.domains", {"Law": LAW, "law": LAW}, ["domains 'Law' and 'law' differ only in case", "rename one"]),
        ("corpus.domains", {"loi française": LAW}, ["corpus.domains.loi française: a name has", "digits, - and _"]),
        ("training.validation_tokens", 4, ["training.validation_tokens = 4 is less than one context"]),
        ("corpus.tokenizer", {"kind": "huggingface"}, ["corpus.tokenizer", "needs a name"]),
        ("sweep.pretrain_tokens", ["250k", "125k"], ["sweep.pretrain_tokens", "must rise", "[250000, 125000]"]),
        ("sweep.specialize_tokens", ["125k", "125k"], ["sweep.specialize_tokens", "without repeats"]),
        ("sweep.specialize_tokens", [0, "125k"], ["sweep.specialize_tokens.0", "greater than 0"]),
        ("sweep.pretrain_tokens", [0, 4096], ["sweep.pretrain_tokens: 4096 tokens", "cooldown"]),
        ("sweep.pretrain_tokens", [], ["sweep.pretrain_tokens", "at least 1"]),
        (
            "sweep.repeats",
            [{"n_params": "14k", "pretrain_tokens": "125k", "specialize_tokens": "1M"}],
            ["sweep.repeats: unknown specialize_tokens '1000000'", "Known: 62500, 125000"],
        ),
        (
            "training.batch_tokens",
            5000,
            ["training.batch_tokens = 5000 is not a multiple", "= 4096", "models of 14k", "nearest are 4096 and 8192"],
        ),
        ("training.batch_tokens", "four thousand", ["training.batch_tokens", "'four thousand'", "250k"]),
        ("training.batch_tokens", 4096.5, ["training.batch_tokens", "whole number"]),
        ("training.cooldown_fraction", 1.5, ["training.cooldown_fraction", "less than 1", "1.5"]),
        ("target.budget_flops", -1, ["target.budget_flops", "greater than 0", "-1"]),
        ("target.budget_flops", float("nan"), ["target.budget_flops"]),
        ("target.budget_flops", ..., ["target.budget_flops is missing"]),
        ("schema_version", 2, ["schema_version", "2"]),
        ("name", "my sweep", ["name", "'my sweep'"]),
        ("training.replay_share", 1, ["training.replay_share", "less than 1", "1"]),
        ("training.replay_share", -0.1, ["training.replay_share", "greater than or equal to 0", "-0.1"]),
        ("training.learning_rate.token_exponent", -0.1, ["training.learning_rate", "needs reference_tokens"]),
        ("tuning.sizes", ["14k", "56k"], ["tuning.sizes: unknown size '56000'", "Known: 14000, 28000"]),
        ("tuning.learning_rate", [0.1, 0.01], ["tuning.learning_rate", "lower one first", "[0.1, 0.01]"]),
        ("tuning.learning_rate", [0, 0.1], ["tuning.learning_rate.0", "greater than 0"]),
        (
            "tuning.learning_rates",
            [0, 0.1],
            ["unknown key 'tuning.learning_rates'", "did you mean 'tuning.learning_ra"],
        ),
        ("tuning.replay_share", [0, 1], ["tuning.replay_share.1", "less than 1"]),
        ("tuning.batch_tokens", [4096, 5000], ["tuning.batch_tokens = 5000 is not a multiple", "= 4096"]),
        ("tuning.batch_tokens", [4096, 40960], ["sweep.pretrain_tokens under tuning.batch_tokens: 125000", "40960"]),
        ("tuning.pretrain_tokens", [4096], ["tuning.pretrain_tokens: 4096 tokens", "cooldown"]),
        ("tuning.pretrain_tokens", ["250k", "125k"], ["tuning.pretrain_tokens", "must rise"]),
        ("tuning.n_trials", 2, ["tuning.n_trials", "greater than or equal to 4"]),
    ],
)
def test_names_field_value_and_choices(where: str, value: object, sentences: list[str]) -> None:
    message = refusal(changed(where, value))
    for sentence in ["space.yaml: ", *sentences]:
        assert sentence in message


GPUS: dict[str, Any] = {"device": "cuda", "gpus_per_node": 8, "nodes": 2, "device_memory": "80G", "gpu": "H100"}


@pytest.mark.parametrize(
    ("compute", "sentences"),
    [
        ({"shapes": [{"up_to": "30k"}, {"up_to": "14k"}]}, ["compute.shapes", "must rise", "[30000, 14000]"]),
        ({"shapes": [{"workers": 2}]}, ["compute.shapes.0.up_to is missing"]),
        (
            {"shapes": [{"up_to": "1M", "worker": 2}]},
            ["unknown key 'compute.shapes.0.worker'", "compute.shapes.0.workers"],
        ),
        ({"shapes": [{"up_to": "1M", "zero_stage": 4}]}, ["compute.shapes.0.zero_stage", "Known: 0, 1, 2, 3"]),
        ({"shapes": [{"up_to": "1M", "workers": 6, "nodes": 4}]}, ["6 workers", "over 4 nodes", "[1, 2, 3, 6]"]),
        ({"shapes": [{"up_to": "1M", "gpus_per_worker": 0.5}]}, ["gpus_per_worker means nothing to device 'cpu'"]),
        ({"shapes": [{"up_to": "1M", "workers": 3, "micro_batch_sequences": 1}]}, ["4096 is not a multiple", "= 384"]),
        (GPUS | {"shapes": [{"up_to": "1M", "gpus_per_worker": 2}]}, ["gpus_per_worker", "less than or equal to 1"]),
        (GPUS | {"shapes": [{"up_to": "1M", "gpus_per_worker": 0.5, "workers": 2}]}, ["cannot share a GPU", "NCCL"]),
        (GPUS | {"shapes": [{"up_to": "1M", "workers": 16, "nodes": 1}]}, ["16 workers a node", "give it 2 nodes"]),
        (GPUS | {"shapes": [{"up_to": "1M", "workers": 32}]}, ["32 workers are more than the 16 GPUs"]),
        (GPUS | {"gpu": "H10"}, ["compute.gpu", "unknown GPU 'H10' (did you mean 'H100'?)"]),
        (GPUS | {"utilization": 40}, ["compute.utilization", "less than 1"]),
        ({"device_memory": "80G"}, ["device_memory = 80000000000 means nothing to device 'cpu'"]),
        ({"save_minutes": 0}, ["compute.save_minutes", "greater than 0"]),
        ({"storage": "ftp://host/x"}, ["compute.storage", "unknown kind of storage 'ftp'", "s3, gs, abfs, file"]),
        ({"storage": "s3://me:secret-word@host/x"}, ["compute.storage", "the URL holds a password"]),
    ],
)
def test_machines_that_cannot_be_had_are_refused(compute: dict[str, Any], sentences: list[str]) -> None:
    message = refusal(changed("compute", compute))
    for sentence in ["space.yaml: ", *sentences]:
        assert sentence in message
    assert "secret-word" not in message


def test_a_size_takes_the_first_shape_that_is_for_it() -> None:
    """The ladder meets 20k with 27,792, which is a model of 20k for all that."""
    shapes = [{"up_to": "20k"}, {"up_to": "30k", "workers": 2, "micro_batch_sequences": 16}]
    compute = parse_space(changed("compute", {"shapes": shapes}), origin="space.yaml").compute
    found = [compute.shape_for(n) for n in (9_000, 20_000, 27_792, 27_793, 30_000, 10**6)]
    assert [shape and shape.up_to for shape in found] == [20_000, 20_000, 20_000, 30_000, 30_000, None]


def test_a_batch_has_whole_passes_of_every_size() -> None:
    shapes = [{"up_to": "14k", "workers": 3, "micro_batch_sequences": 4}, {"up_to": "30k", "micro_batch_sequences": 8}]
    raw = changed("compute", {"shapes": shapes, "workers_per_lane": 2})
    raw["training"]["batch_tokens"] = 6144
    assert parse_space(raw, origin="space.yaml").micro_step_tokens == 48 * 128
    raw["training"]["batch_tokens"] = 4096
    assert "workers = 1536, as models of 14k are trained; the nearest are 3072 and 4608" in refusal(raw)


def test_storage_is_a_url_or_starts_at_the_file(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    for written, meant in (("s3://bucket/x", "s3://bucket/x"), ("kept", str(tmp_path.resolve() / "kept"))):
        path.write_text(yaml.safe_dump(changed("compute", {"storage": written})), encoding="utf-8")
        assert load_space(path).compute.storage == meant


def test_names_every_mistake_at_once() -> None:
    raw = changed("training.zero_stage", 7) | {"extra": 1}
    assert len(refusal(raw).splitlines()) == 2


def test_refuses_a_key_written_twice(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("name: one\nname: two\n", encoding="utf-8")
    with pytest.raises(SpaceError, match=r"(?s)twice\.yaml.*key 'name' is written twice.*line 2"):
        load_space(path)


@pytest.mark.parametrize(
    ("twice", "named"),
    [
        ("    no: {kind: files, path: a}\n    no: {kind: files, path: b}", "no"),
        ("    no: {kind: files, path: a}\n    'no': {kind: files, path: b}", "no"),
        ("    no: {kind: files, path: a, path: b}", "path"),
        ("    a: {kind: files, path: a}\n    b: &b {kind: files, kind: table, path: a}", "kind"),
    ],
)
def test_refuses_a_domain_written_twice(tmp_path: Path, twice: str, named: str) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text(f"name: twice\ncorpus:\n  domains:\n{twice}\n", encoding="utf-8")
    with pytest.raises(SpaceError, match=rf"twice\.yaml.*key '{named}' is written twice"):
        load_space(path)


PLAIN = ["no", "on", "yes", "null", "true", "1e3", "010", "0x10", "2024-01-01", "12", "1_000", "Off"]


@pytest.mark.parametrize("name", PLAIN)
def test_a_name_is_what_is_written(tmp_path: Path, name: str) -> None:
    """Norwegian is `no`, and YAML 1.1 would have it false."""
    path = tmp_path / "space.yaml"
    small = yaml.safe_dump(SMALL, sort_keys=False)  # ends with the target
    small = small.replace("    law:", f"    {name}:").replace("path: texts", f"path: texts\n      licence: {name}")
    path.write_text(small + f"  domain_weights: {{code: 1, {name}: 2}}\n", encoding="utf-8")
    space = load_space(path)
    assert space.domains == ("code", name)
    assert space.corpus.domains[name].licence == (None if name == "null" else name)
    assert space.weights()[name] == pytest.approx(2 / 3)
    path.write_text(dump_space(space), encoding="utf-8")
    assert load_space(path) == space


def test_sections_may_be_merged(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    small = yaml.safe_load(yaml.safe_dump(SMALL))
    del small["corpus"]
    domains = """corpus:
  domains:
    a: &a {kind: table, path: /a.csv, licence: MIT}
    b: &b {<<: *a, path: /b.csv}
    c: {<<: *b, path: /c.csv, text_column: b}
"""
    path.write_text(yaml.safe_dump(small) + domains, encoding="utf-8")
    sources = load_space(path).corpus.domains
    assert [(source.path, source.licence) for source in sources.values()] == [
        ("/a.csv", "MIT"),
        ("/b.csv", "MIT"),
        ("/c.csv", "MIT"),
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"\r\n\r\n", "\n\n"),
        ("64k", 64_000),
        ("1000", 1000),
        (r"\n\n", "\n\n"),
        (r"'\t'", "\t"),
        (r'"\n\n"', "\n\n"),
        ("<|end|>", "<|end|>"),
    ],
)
def test_text_is_cut_at_a_separator_or_a_size(tmp_path: Path, written: str, meant: int | str) -> None:
    path = tmp_path / "space.yaml"
    small = yaml.safe_dump(SMALL).replace("path: texts", f"path: texts\n      split_on: {written}")
    path.write_text(small, encoding="utf-8")
    space = load_space(path)
    assert space.corpus.domains["law"].split_on == meant
    path.write_text(dump_space(space), encoding="utf-8")
    assert load_space(path) == space


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(SMALL), encoding="utf-8-sig")
    assert load_space(path).name == "small"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- a\n- b\n", "mapping of sections, got list"),
        ("name: [", "not valid YAML"),
        ("", "got nothing"),
        ("[" * 1500, "not valid YAML"),
        ("name: !!timestamp 2024-99-99", "not valid YAML"),
    ],
)
def test_refuses_what_is_no_space(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpaceError, match=sentence):
        load_space(path)


def test_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_bytes("name: café".encode("latin-1"))
    with pytest.raises(SpaceError, match=r"space\.yaml: is not UTF-8 \(byte 0xe9\); save it as UTF-8"):
        load_space(path)


def test_names_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"absent\.yaml: cannot be read: No such file"):
        load_space(tmp_path / "absent.yaml")


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    assert load_space(path).corpus.domains["law"].path == str(tmp_path.resolve() / "texts")


@pytest.mark.parametrize("path", ["~nobody-of-this-name/texts", "a\0b"])
def test_what_cannot_be_a_path_is_named(tmp_path: Path, path: str) -> None:
    with pytest.raises(SpaceError, match=r"space\.yaml: corpus\.domains\.law\.path: .* is no path"):
        parse_space(changed("corpus.domains.law.path", path), origin="space.yaml", base=tmp_path)


def test_a_tokenizer_s_path_starts_at_the_file_too(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name, found in (("mine", str(tmp_path / "mine")), ("gpt2", "gpt2")):
        raw = changed("corpus.tokenizer", {"kind": "huggingface", "name": name})
        assert parse_space(raw, origin="space.yaml", base=tmp_path).corpus.tokenizer.name == found


@pytest.fixture
def small() -> Space:
    return parse_space(SMALL, origin="small")


def test_token_grids_fall_on_whole_steps(small: Space) -> None:
    assert small.pretrain_grid == (0, 31 * 4096)
    assert small.specialize_grid == (15 * 4096, 31 * 4096)
    assert small.round_tokens(1) == 4096
    for tokens in (*small.pretrain_grid[1:], *small.specialize_grid):
        start = small.cooldown_start(tokens)
        assert start % 4096 == 0
        assert 0 < start < tokens


def test_shares_and_weights_sum_to_one(small: Space) -> None:
    assert small.corpus.shares == {"code": 0.5, "law": 0.5}
    weighted = parse_space(changed("target.domain_weights", {"law": 3}), origin="small")
    assert weighted.weights() == {"code": 0.25, "law": 0.75}


def test_the_learning_rate_falls_with_size(small: Space) -> None:
    rate = small.training.learning_rate
    for horizon_tokens in (1, 10**9):
        assert rate.peak(14_000, horizon_tokens) == pytest.approx(1e-2), "as before there was a term for tokens"
    assert rate.peak(16 * 14_000, 1) == pytest.approx(0.5e-2)


def test_the_learning_rate_may_follow_the_tokens_of_the_longest_trunk() -> None:
    rule = {"reference": "1e-2", "reference_params": "14k", "reference_tokens": "1M", "token_exponent": -0.5}
    rate = parse_space(changed("training.learning_rate", rule), origin="small").training.learning_rate
    assert rate.peak(14_000, 1_000_000) == pytest.approx(1e-2)
    assert rate.peak(14_000, 4_000_000) == pytest.approx(0.5e-2)


def test_hyperparameters_can_be_set_and_are_checked_again(small: Space) -> None:
    assert small.with_training(batch_tokens=8192).specialize_grid == (8 * 8192, 15 * 8192)
    assert small.with_training() == small
    with pytest.raises(ValidationError, match="is not a multiple"):
        small.with_training(batch_tokens=5000)
