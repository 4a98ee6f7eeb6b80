"""An exported folder in the hands of transformers: one end of text in every file, texts that end, batches, modes."""

import json
import logging
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from raysplit.corpus import Corpus, build_corpus
from raysplit.design.lane_shapes import lane_shape_of
from raysplit.design.tree import Node
from raysplit.space import CorpusSpec, TokenizerSpec
from raysplit.train.card import HOW_TO_LOAD
from raysplit.train.engine import Engine
from raysplit.train.export import complete_export
from raysplit.train.saving import Save
from raysplit.train.storage import Storage
from tests.corpus.texts import files_source, write_files
from tests.train.conftest import CONTEXT, make_space

pytestmark = pytest.mark.usefixtures("one_rank")

TEXTS = [
    f"{who} {does} {what}."
    for who in ("Ann", "Bo", "Cy", "Di", "Ed", "Flo", "Gus", "Hal")
    for does in ("saw", "has", "met", "fed")
    for what in ("a cat", "a dog", "an owl", "a hen", "the ox", "the elk", "my fox", "my cow", "no ant", "no bee")
]
GIVEN = {"<s>": "bos_token", "</s>": "eos_token", "<pad>": "pad_token", "<unk>": "unk_token"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A model that has learned `TEXTS`, as it was exported."""

    folder: Path
    corpus: Corpus
    engine: Engine


def given_tokenizer(folder: Path, special: dict[str, str]) -> TokenizerSpec:
    """A tokenizer as people bring them: its own special tokens, which it puts around texts, and another context."""
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", *special], initial_alphabet=alphabet)
    )
    ends = [(token, backend.token_to_id(token)) for token in ("<s>", "</s>")]
    around = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=ends)
    backend.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), around])
    backend.enable_truncation(512)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=512,
        padding_side="right",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **{name: token for token, name in special.items()},
    )
    tokenizer.add_tokens(["owl"])  # beyond the vocabulary of the BPE itself
    tokenizer.save_pretrained(folder)
    return TokenizerSpec(kind="huggingface", name=str(folder))


@pytest.fixture(scope="module", params=["bpe", "given", "given without padding"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    home = tmp_path_factory.mktemp("exported")
    tokenizer = TokenizerSpec(vocab_size=280)
    if request.param != "bpe":
        special = {token: name for token, name in GIVEN.items() if name != "pad_token" or request.param == "given"}
        tokenizer = given_tokenizer(home / "tokenizer", special)
    source = files_source(write_files(home / "texts", TEXTS))
    corpus = build_corpus(
        CorpusSpec(domains={"notes": source}, tokenizer=tokenizer, validation_fraction=0.2), home / "corpus"
    )
    space = make_space(home)
    shape, lane = space.shape(14_000, corpus.vocab_size), lane_shape_of(space, 14_000)
    engine = Engine(shape, space.training, lane=lane, seed=0, device="cpu")
    for step in range(120):
        windows = corpus.batch(seed=0, context_length=CONTEXT, start_tokens=step * 8 * CONTEXT, n_sequences=8)
        engine.step(windows, learning_rate=1e-2 * min(1.0, (120 - step) / 50))
    engine.export(home / "expert", tokenizer_folder=corpus.tokenizer_path)
    yield Exported(folder=home / "expert", corpus=corpus, engine=engine)
    engine.close()


def loaded(exported: Exported) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoTokenizer.from_pretrained(exported.folder), AutoModelForCausalLM.from_pretrained(exported.folder)


def test_every_file_names_the_tokenizers_own_tokens(exported: Exported) -> None:
    tokenizer, model = loaded(exported)
    own = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    for config in (model.config, model.generation_config):
        assert {name: getattr(config, name) for name in own} == own
        assert config.use_cache
    assert own["eos_token_id"] == exported.corpus.manifest.tokenizer.end_of_text
    if exported.corpus.manifest.spec.tokenizer.kind == "bpe":
        assert own == dict.fromkeys(own, 0)
    else:
        assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == ("<s>", "</s>", "<unk>")
        assert own["bos_token_id"] != own["eos_token_id"]
    given = json.loads((exported.corpus.tokenizer_path / "tokenizer_config.json").read_text())
    assert tokenizer.pad_token == given.get("pad_token", tokenizer.eos_token)
    assert len(tokenizer) == model.get_input_embeddings().num_embeddings == exported.corpus.vocab_size
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert model.dtype == torch.float32


def test_text_is_encoded_as_it_was_for_training(exported: Exported) -> None:
    tokenizer, _ = loaded(exported)
    window = exported.corpus.validation("notes", context_length=CONTEXT, max_tokens=CONTEXT)[0].tolist()
    end = window.index(tokenizer.eos_token_id)
    text = tokenizer.decode(window[:end])
    assert text in TEXTS
    assert tokenizer(text).input_ids == window[:end], "nothing before it, nothing after it"
    assert tokenizer(text, text).input_ids == 2 * window[:end]
    for odd in ("Two .  Blanks, don't\n\n", "Bo saw…", f"a{tokenizer.eos_token}b"):
        assert tokenizer.decode(tokenizer(odd).input_ids) == odd


def test_it_generates_texts_that_end(exported: Exported) -> None:
    tokenizer, model = loaded(exported)
    torch.manual_seed(0)
    prompts = tokenizer([tokenizer.eos_token] * 24, return_tensors="pt")
    written = model.generate(**prompts, do_sample=True)[:, 1:].tolist()
    ended = [tokens for tokens in written if tokenizer.eos_token_id in tokens]
    assert len(ended) > 20
    assert sum(tokenizer.decode(tokens, skip_special_tokens=True) in TEXTS for tokens in ended) > 12
    for tokens in written:  # at the end of text and nowhere else
        *_, after = _parted(tokens, tokenizer.eos_token_id)
        assert set(after) <= {tokenizer.pad_token_id}
    assert max(map(len, written)) < CONTEXT


def _parted(tokens: list[int], end: int) -> tuple[list[int], list[int]]:
    at = tokens.index(end) if end in tokens else len(tokens)
    return tokens[:at], tokens[at + 1 :]


def test_a_text_begins_from_nothing_or_from_the_end_of_the_one_before(exported: Exported) -> None:
    tokenizer, model = loaded(exported)
    prompt = {} if tokenizer.bos_token == tokenizer.eos_token else tokenizer(tokenizer.eos_token, return_tensors="pt")
    torch.manual_seed(0)
    texts = [tokenizer.decode(model.generate(**prompt, do_sample=True)[0], skip_special_tokens=True) for _ in range(8)]
    assert sum(text in TEXTS for text in texts) > 3


def test_without_an_end_it_stops_at_the_context(exported: Exported) -> None:
    tokenizer, model = loaded(exported)
    endless = model.generate(**tokenizer("Ann", return_tensors="pt"), suppress_tokens=[tokenizer.eos_token_id])
    assert endless.shape[1] == CONTEXT
    asked = model.generate(**tokenizer("Ann saw", return_tensors="pt"), min_new_tokens=7, max_new_tokens=7)
    assert asked.shape[1] == tokenizer("Ann saw", return_length=True).length[0] + 7


def test_a_batch_says_what_each_of_its_prompts_does(exported: Exported) -> None:
    tokenizer, model = loaded(exported)
    prompts = ["Ann", "Bo saw a", "Cy has the el"]
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    assert batch.attention_mask[0, 0] == 0, "padded on the left"
    together = tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True)
    alone = [model.generate(**tokenizer(prompt, return_tensors="pt"))[0] for prompt in prompts]
    assert together == tokenizer.batch_decode(alone, skip_special_tokens=True)


def test_truncation_cuts_to_the_context(exported: Exported) -> None:
    tokenizer, model = loaded(exported)
    assert tokenizer.model_max_length == CONTEXT
    batch = tokenizer(["Ann saw the elk. " * 50, "Bo"], return_tensors="pt", truncation=True, padding="max_length")
    assert batch.input_ids.shape == (2, CONTEXT)
    assert torch.isfinite(model(**batch).logits).all()


def test_a_long_prompt_is_gone_on_from_its_end(exported: Exported) -> None:
    """As docs/experts.md and the card cut it."""
    from transformers import AutoTokenizer, pipeline

    tokenizer, model = loaded(exported)
    cut = {"truncation": True, "max_length": CONTEXT // 2}
    prompt = "Ann saw the elk. " * 50 + "Bo"
    left = AutoTokenizer.from_pretrained(exported.folder, truncation_side="left")
    tokens = left([prompt], return_tensors="pt", padding=True, **cut)
    assert tokenizer.decode(tokens.input_ids[0]).endswith("Bo")
    assert CONTEXT // 2 < model.generate(**tokens).shape[1] <= CONTEXT
    write = pipeline("text-generation", model=str(exported.folder))
    [said] = write(prompt, return_full_text=False, tokenizer_encode_kwargs=cut)
    assert 0 < len(tokenizer(said["generated_text"]).input_ids) <= CONTEXT // 2


def test_a_longest_text_can_be_asked_for_without_a_word(
    exported: Exported, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, model = loaded(exported)
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    assert model.generate(**tokenizer("Ann", return_tensors="pt"), max_length=9).shape[1] <= 9
    assert caplog.messages == []


def test_the_pipeline_needs_nothing_more(exported: Exported) -> None:
    from transformers import pipeline

    tokenizer, _ = loaded(exported)
    write = pipeline("text-generation", model=str(exported.folder))
    torch.manual_seed(0)
    found = write(["Ann", "Bo has a"] * 4, batch_size=4, do_sample=True, return_full_text=True)
    texts = [each[0]["generated_text"] for each in found]
    assert sum(text in TEXTS for text in texts) > 4
    assert max(len(tokenizer(text).input_ids) for text in texts) <= CONTEXT


def test_what_the_card_says_to_run_runs(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(exported.folder)
    exec(HOW_TO_LOAD.removeprefix("```python\n").removesuffix("```"), {})
    assert "In the beginning" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")  # of torch, without a GPU
def test_the_trainer_goes_on_from_it(exported: Exported, tmp_path: Path) -> None:
    from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

    tokenizer, model = loaded(exported)
    before = model.config.to_dict()
    examples = [{"input_ids": tokenizer(text).input_ids} for text in TEXTS]
    trainer = Trainer(
        model=model,
        args=TrainingArguments(str(tmp_path), max_steps=3, report_to=[], save_strategy="no", disable_tqdm=True),
        train_dataset=examples,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        processing_class=tokenizer,
    )
    assert 0 < trainer.train().training_loss < 2.5
    ids = ("bos_token_id", "eos_token_id", "pad_token_id")
    assert [model.config.to_dict()[name] for name in ids] == [before[name] for name in ids]


def test_where_the_end_of_text_pads_it_can_still_be_trained(exported: Exported) -> None:
    """As docs/experts.md says: one collator takes it out of the labels, another does not."""
    from transformers import AutoModelForCausalLM, DataCollatorForLanguageModeling, DataCollatorForSeq2Seq

    model = AutoModelForCausalLM.from_pretrained(exported.folder, pad_token_id=None)
    assert model.get_input_embeddings().padding_idx is None
    tokenizer, _ = loaded(exported)
    tokens = [*tokenizer("Ann saw").input_ids, tokenizer.eos_token_id]
    without = DataCollatorForLanguageModeling(tokenizer, mlm=False)([{"input_ids": tokens}])["labels"][0]
    assert (without[-1] == -100) == (tokenizer.pad_token == tokenizer.eos_token)
    kept = DataCollatorForSeq2Seq(tokenizer)([{"input_ids": tokens, "labels": tokens}])["labels"][0]
    assert kept.tolist() == tokens


def test_the_documentation_names_every_file(exported: Exported, repository: Path) -> None:
    text = (repository / "docs" / "experts.md").read_text()
    for path in exported.folder.iterdir():
        assert f"| `{path.name}` |" in text


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize(("mask", "files", "folders"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_files_have_the_modes_of_other_new_files(
    exported: Exported, tmp_path: Path, mask: int, files: int, folders: int
) -> None:
    tokenizer = exported.corpus.tokenizer_path
    with umask(mask):
        exported.engine.export(tmp_path / "experts" / "notes", tokenizer_folder=tokenizer)
        with ThreadPoolExecutor(1) as thread:
            node = Node(n_params=14_000, seed=0, pretrain_tokens=2048)
            Save(exported.engine, Storage(tmp_path / "checkpoints"), node, passing=False, writer=thread).finish()
    for name in ("experts", "checkpoints"):
        for path in [tmp_path / name, *(tmp_path / name).rglob("*")]:
            assert stat.S_IMODE(path.stat().st_mode) == (folders if path.is_dir() else files), path


def test_an_export_takes_the_place_of_an_older_one(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "README.md").write_text("of another model")
    (tmp_path / "notes.partial").mkdir()
    (tmp_path / "notes.partial" / "half").write_text("left by an interrupted export")

    def killed(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("raysplit.train.engine.complete_export", killed)
        with pytest.raises(OSError, match="full"):
            exported.engine.export(folder, tokenizer_folder=exported.corpus.tokenizer_path)
    assert [path.name for path in folder.iterdir()] == ["README.md"], "the old one is there until the new one is whole"
    exported.engine.export(folder, tokenizer_folder=exported.corpus.tokenizer_path)
    assert {path.name for path in folder.iterdir()} == {path.name for path in exported.folder.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == {"notes"}


def test_what_an_older_raysplit_exported_is_put_right_around_its_weights(exported: Exported, tmp_path: Path) -> None:
    """It had Llama's own token numbers, and the weights closed to others."""
    folder = tmp_path / "old"
    folder.mkdir()
    config = json.loads((exported.folder / "config.json").read_text())
    lies = {"bos_token_id": 1, "eos_token_id": 2, "use_cache": False}
    (folder / "config.json").write_text(json.dumps({**config, **lies, "pad_token_id": None}))
    (folder / "generation_config.json").write_text(json.dumps({"_from_model_config": True, **lies}))
    weights = (exported.folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "model.safetensors").chmod(0o600)
    with umask(0o022):
        complete_export(folder, tokenizer_folder=exported.corpus.tokenizer_path)
    for path in exported.folder.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()
        assert stat.S_IMODE((folder / path.name).stat().st_mode) == 0o644


def test_a_model_without_a_tokenizer_names_no_tokens(exported: Exported, tmp_path: Path) -> None:
    from transformers import AutoConfig, GenerationConfig

    exported.engine.export(tmp_path / "bare", tokenizer_folder=None)
    for config in (AutoConfig.from_pretrained(tmp_path / "bare"), GenerationConfig.from_pretrained(tmp_path / "bare")):
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (None, None, None)
