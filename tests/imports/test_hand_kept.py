"""Tables that people keep: columns under other names and units, states, repeats and histories, each told apart."""

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysplit.errors import TableError
from raysplit.imports import Imported, import_runs
from raysplit.imports.units import split_unit
from raysplit.quantities import format_count
from raysplit.runs import loss_unit_of, read_runs
from raysplit.tables import is_well

HEADER = "n_params,pretrain_tokens,specialize_tokens,domain,loss"
NO_STATE = "no column says how runs ended (status, state): every row is taken as a finished run"


def table(folder: Path, text: str, name: str = "runs.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def losses(imported: Imported) -> list[float]:
    return imported.runs["loss"].tolist()


class TestUnits:
    @pytest.mark.parametrize(
        "header",
        [
            "params (M),pretrain tokens [B]",
            "n_params_M,pretrain_tokens_in_billions",
            "Params (in millions),Pretrain Tokens (billions)",
            "model_params (10^6),pretrain_tokens (1e9)",
            "million params,pretrain_tokens/B",
            "n_params (M params),pretrain_tokens (B tokens)",
        ],
    )
    def test_of_a_header_count(self, header: str, tmp_path: Path) -> None:
        source = table(tmp_path, f"{header},specialize_tokens,domain,loss\n8.2,0.4,0,law,3.1\n20M,1.6,0,law,2.9\n")
        imported = import_runs(source)
        assert imported.runs[["n_params", "pretrain_tokens"]].values.tolist() == [
            [8_200_000, 400_000_000],
            [20_000_000, 1_600_000_000],
        ]
        assert "in millions, as its name says" in imported.choices["n_params"].note
        assert imported.choices["pretrain_tokens"].note == "in billions, as its name says"

    def test_single_ones_below_a_unit_are_refused(self, tmp_path: Path) -> None:
        source = table(tmp_path, "params (M),pretrain_tokens,specialize_tokens,domain,loss\n20000000,1M,0,law,3\n")
        with pytest.raises(TableError, match=r"'20000000' in a column of millions by its name; rename the column"):
            import_runs(source)

    @pytest.mark.parametrize(
        "name", ["n_params", "tokens", "model", "eval/loss", "params_b", "items", "10", "(M)", "M"]
    )
    def test_other_names_have_none(self, name: str) -> None:
        assert split_unit(name) == (name, 0)

    @given(st.integers(1, 999_999), st.sampled_from("KMBT"))
    def test_a_count_is_the_same_in_the_cell_and_in_the_header(self, number: int, letter: str) -> None:
        power = split_unit(f"n_params ({letter})").power
        assert format_count(number * 10**power) == format_count(float(f"{number}e{power}"))


class TestNames:
    @pytest.mark.parametrize(
        "header",
        [
            "N_params,Pretrain_tokens,Specialize_Tokens,Domain,Loss",
            "nParams,pretrainTokens,specializeTokens,domain,evalLoss",
            "Parameter Count,Pretraining Tokens,CPT tokens,Target Domain,Validation Loss",
        ],
    )
    def test_in_any_case(self, header: str, tmp_path: Path) -> None:
        imported = import_runs(table(tmp_path, f"{header}\n1000,2000,0,law,3\n"))
        assert imported.runs.iloc[0][["n_params", "pretrain_tokens", "domain", "loss"]].tolist() == [
            1000,
            2000,
            "law",
            3,
        ]

    @pytest.mark.parametrize("header", ["N,D,D',domain,loss", "N (M),D (B),D_prime (B),domain,Loss (nats)"])
    def test_the_letters_of_the_law(self, header: str, tmp_path: Path) -> None:
        row = "20,1.5,0.5,law,3" if "(" in header else "20M,1.5B,0.5B,law,3"
        imported = import_runs(table(tmp_path, f"{header}\n{row}\n"))
        assert imported.runs.iloc[0].tolist()[:5] == [20_000_000, 1_500_000_000, 500_000_000, "law", 3.0]

    def test_one_letter_alone_is_no_field(self, tmp_path: Path) -> None:
        source = table(tmp_path, "N,pretrain_tokens,specialize_tokens,domain,loss\n1000,2000,0,law,3\n")
        with pytest.raises(TableError, match="no column for n_params"):
            import_runs(source)

    def test_bits_per_byte_may_be_told_and_bits_of_tokens_are_refused(self, tmp_path: Path) -> None:
        source = table(tmp_path, HEADER.replace("loss", "val_bpb") + "\n1000,2000,0,law,0.75\n")
        imported = import_runs(source, columns={"loss": "val_bpb"})
        assert loss_unit_of(imported.runs) == "bits/byte"
        assert imported.choices["loss"].note == "bits per byte, as all losses of this table then are"
        source = table(tmp_path, HEADER.replace("loss", "loss_bits") + "\n1000,2000,0,law,4.5\n")
        with pytest.raises(TableError, match=r"bits by its name; .* bits per token times ln 2"):
            import_runs(source, columns={"loss": "loss_bits"})

    def test_a_best_loss_is_doubted(self, tmp_path: Path) -> None:
        imported = import_runs(table(tmp_path, HEADER.replace("loss", "best_val_loss") + "\n1000,2000,0,law,3\n"))
        assert imported.choices["loss"].note.startswith("the lowest along the run?")

    @pytest.mark.parametrize(
        "name", ["eval/perplexity", "std_val_loss", "val_ppl", "accuracy", "test_loss_bits", "Val BPB"]
    )
    def test_another_measure_is_no_loss(self, name: str, tmp_path: Path) -> None:
        source = table(tmp_path, f"n_params,pretrain_tokens,specialize_tokens,domain,{name}\n1000,2000,0,law,0.5\n")
        with pytest.raises(TableError, match=rf"no column for loss.*by their names no such: '{name}'"):
            import_runs(source)

    def test_another_measure_is_refused_where_it_is_told_as_the_loss(self, tmp_path: Path) -> None:
        source = table(tmp_path, HEADER.replace("loss", "val_ppl") + "\n1000,2000,0,law,20\n")
        with pytest.raises(TableError, match=r"--column loss=val_ppl: ppl by its name; .* a perplexity's logarithm"):
            import_runs(source, columns={"loss": "val_ppl"})

    def test_a_loss_and_a_domain_are_asked_for_without_a_traceback(self, tmp_path: Path) -> None:
        source = table(tmp_path, "n_params,pretrain_tokens,specialize_tokens\n1000,2000,0\n")
        with pytest.raises(TableError, match=r"no column for domain\. .* --column loss='eval/\{domain\}_loss'"):
            import_runs(source)


class TestColumnADomain:
    def test_where_runs_have_no_domain_of_their_own(self, tmp_path: Path) -> None:
        runs = [
            {"name": "a", "state": "finished", "config": {"n_params": 1000, "pretrain_tokens": 2000},
             "summary": {"eval/law_loss": 3.5, "eval/code_loss": 2.5}},
            {"name": "b", "state": "finished", "config": {"n_params": 1000, "pretrain_tokens": 4000},
             "summary": {"eval/law_loss": 3.25}},
            {"name": "c", "state": "finished", "config": {"n_params": 1000, "pretrain_tokens": 8000}, "summary": {}},
        ]  # fmt: skip
        source = table(tmp_path, "\n".join(map(json.dumps, runs)), "runs.jsonl")
        imported = import_runs(source, columns={"loss": "eval/{domain}_loss"}, constants={"specialize_tokens": "0"})
        assert imported.runs[["domain", "loss"]].values.tolist() == [["code", 2.5], ["law", 3.5], ["law", 3.25]]
        assert imported.choices["loss"].note == "domains code, law"
        assert imported.skipped == {"without a value for loss (summary.eval/{domain}_loss)": ["c"]}

    def test_of_training_and_of_several_domains_are_none(self, tmp_path: Path) -> None:
        text = "n_params,pretrain_tokens,specialize_tokens,law_loss,train_loss,avg_loss\n1000,2000,0,3,1,2\n"
        imported = import_runs(table(tmp_path, text), columns={"loss": "{domain}_loss"})
        assert imported.runs[["domain", "loss"]].values.tolist() == [["law", 3]]
        assert imported.choices["loss"].note == "domains law; no domains by their names: avg, train"

    def test_of_another_domain_is_counted(self, tmp_path: Path) -> None:
        text = "n_params,pretrain_tokens,specialize_tokens,domain,law_loss\n1000,1,2000,law,3\n1000,1,2000,math,2\n"
        imported = import_runs(table(tmp_path, text), columns={"loss": "{domain}_loss"})
        assert losses(imported) == [3]
        assert imported.skipped == {"without a value for loss ({domain}_loss)": ["row 2"]}


class TestStates:
    def test_bad_ends_are_left_out_and_unknown_ones_named(self, tmp_path: Path) -> None:
        words = [
            "done",
            "crashed",
            "OOM at step 3",
            "COMPLETED",
            "PRUNED",
            "fine?",
            "",
            "CANCELLED by 1000",
            "not finished",
        ]
        rows = [f"r{i},{word},1000,{2000 + i},0,law,3" for i, word in enumerate(words)]
        imported = import_runs(table(tmp_path, "\n".join([f"run,Status,{HEADER}", *rows])))
        assert imported.runs["trial"].tolist() == ["r0", "r3", "r5", "r6"]
        assert imported.skipped == {f"with Status {words[i]}": [f"r{i}"] for i in (1, 2, 4, 7, 8)}
        assert imported.notes == [
            "1 row without a Status: taken as finished",
            "the Status of 1 row is not known ('fine?'): taken as finished",
        ]  # fmt: skip

    def test_a_table_without_states_says_so(self, tmp_path: Path) -> None:
        assert import_runs(table(tmp_path, f"{HEADER}\n1000,2000,0,law,3\n")).notes == [NO_STATE]

    @pytest.mark.parametrize(
        ("word", "expected"),
        [
            ("FINISHED", True),
            ("TERMINATED", True),
            ("Complete", True),
            ("ok", True),
            ("OUT_OF_MEMORY", False),
            ("NODE_FAIL", False),
            ("RunState.failed", False),
            ("diverged (NaN)", False),
            ("time-out", False),
            ("finished with error", False),
            ("TrialState.COMPLETE", True),
            ("JOB_STATE_SUCCEEDED", True),
            ("OUT_OF_ME+", False),
            ("OOMKilled", False),
            ("In Progress", False),
            ("CD", True),
            ("TO", False),
            ("✅", True),
            ("❌ at 3k", False),
            ("blue", None),
            ("", None),
        ],
    )
    def test_words(self, word: str, expected: bool | None) -> None:
        assert is_well(word) is expected

    @pytest.mark.parametrize(
        ("column", "well", "bad"),
        [
            ("State", "done", "Failed"),
            ("sys/failed", "False", "True"),
            ("exit_code", "0", "137"),
            ("ExitCode", "0:0", "0:9"),
            ("finished", "yes", "no"),
            ("has_diverged", "0", "1"),
        ],
    )
    def test_other_columns_that_tell(self, column: str, well: str, bad: str, tmp_path: Path) -> None:
        text = f"Name,{column},{HEADER}\na,{well},1000,2000,0,law,3\nb,{bad},1000,4000,0,law,9\n"
        imported = import_runs(source := table(tmp_path, text))
        assert imported.skipped == {f"with {column} {bad}": ["b"]}
        assert not imported.notes
        with pytest.raises(TableError, match=rf"row 2 \(line 3\): {column} = '{bad}': no finished run"):
            read_runs(source)

    @pytest.mark.parametrize(("column", "cell"), [("success", "0.75"), ("exit_code", "CUDA"), ("failed", "2")])
    def test_other_things_are_no_end(self, column: str, cell: str, tmp_path: Path) -> None:
        assert losses(import_runs(table(tmp_path, f"{column},{HEADER}\n{cell},1000,2000,0,law,3\n"))) == [3]

    def test_a_word_in_place_of_the_loss(self, tmp_path: Path) -> None:
        rows = [f"1000,{2000 + i},0,law,{loss}" for i, loss in enumerate(("3", "OOM", "diverged", "nan"))]
        imported = import_runs(table(tmp_path, "\n".join([HEADER, *rows])))
        assert list(imported.skipped) == [
            "with 'OOM' in place of a loss",
            "with 'diverged' in place of a loss",
            "diverged: the loss is no finite number",
        ]

    def test_the_fit_refuses_what_did_not_end_well(self, tmp_path: Path) -> None:
        source = table(tmp_path, f"status,{HEADER}\ndone,1000,2000,0,law,3\nkilled,1000,4000,0,law,9\n")
        with pytest.raises(TableError, match=r"row 2 \(line 3\): status = 'killed': no finished run; drop it, or let"):
            read_runs(source)


def test_trials_of_optuna_as_it_exports_them(tmp_path: Path) -> None:
    """Columns of ``study.trials_dataframe()``, seen with Optuna 5.0."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_categorical("n_params", [1000])
        trial.set_user_attr("domain", "law")
        trial.set_user_attr("pretrain_tokens", 2000 * (trial.number + 1))
        if trial.number == 1:
            raise optuna.TrialPruned
        return 3.5 - trial.number

    study.optimize(objective, n_trials=3)
    study.trials_dataframe().to_csv(tmp_path / "trials.csv")
    imported = import_runs(tmp_path / "trials.csv", constants={"specialize_tokens": "0"})
    assert imported.runs[["trial", "pretrain_tokens", "loss"]].values.tolist() == [["0", 2000, 3.5], ["2", 6000, 1.5]]
    assert imported.choices["loss"].note == "the objective: a loss on held-out text?"
    assert imported.skipped == {"with state PRUNED": ["1"]}


class TestHistories:
    def test_the_last_row_of_each_run(self, tmp_path: Path) -> None:
        frame = pd.DataFrame(
            [
                {"run": run, "_step": step, "n_params": n_params, "tokens": 10 * step, "eval/loss": loss}
                for run, n_params in (("a", 1000), ("b", 2000))
                for step, loss in ((100, 5.0), (200, None), (300, 4.0))
            ]
        )
        frame.to_csv(source := tmp_path / "history.csv", index=False)
        told = {"columns": {"pretrain_tokens": "tokens"}, "constants": {"specialize_tokens": "0", "domain": "law"}}
        imported = import_runs(source, **told)  # type: ignore[arg-type]
        assert imported.runs[["trial", "pretrain_tokens", "loss"]].values.tolist() == [["a", 3000, 4], ["b", 3000, 4]]
        assert {reason.partition(";")[0]: list(runs) for reason, runs in imported.skipped.items()} == {
            "an earlier step of the same run, before its cooldown": ["a", "b"],
            "without a value for loss (eval/loss)": ["a", "b"],
        }
        assert len(import_runs(source, all_points=True, **told).runs) == 4  # type: ignore[arg-type]

    def test_runs_without_names_begin_where_the_step_falls(self, tmp_path: Path) -> None:
        """Rows of training and evaluation of one step, as Lightning's logger writes them."""
        rows = ["step,train_loss,val_loss,pretrain_tokens"]
        for last in (3.0, 2.5):
            for step in (1, 2, 3):
                rows += [f"{step},4,,{step}000", f"{step},,{last + 3 - step},{step}000", f"{step},4,,{step}000"]
        imported = import_runs(
            table(tmp_path, "\n".join(rows)), constants={"n_params": "1M", "specialize_tokens": "0", "domain": "law"}
        )
        assert sorted(losses(imported)) == [2.5, 3.0]
        assert len(next(names for reason, names in imported.skipped.items() if "earlier step" in reason)) == 4

    def test_a_loss_from_before_the_end_is_doubted(self, tmp_path: Path) -> None:
        text = f"step,{HEADER}\n1,1000,2000,0,law,4\n2,1000,4000,0,law,3\n3,1000,6000,0,law,\n"
        notes = import_runs(table(tmp_path, text)).notes
        assert notes[-1].startswith("the last loss of 1 (row 2) is of an earlier step than the last row of its run")

    def test_tokens_that_rise_through_a_whole_table_are_steps(self, tmp_path: Path) -> None:
        rows = [f"1000,{1000 * i},0,law,{5 - i / 100}" for i in range(1, 101)]
        assert losses(import_runs(table(tmp_path, "\n".join([HEADER, *rows])))) == [4.0]
        assert len(import_runs(table(tmp_path, "\n".join([HEADER, *rows[:20]]))).runs) == 20, (
            "a grid, as far as one sees"
        )

    @pytest.mark.parametrize(
        ("columns", "rows"),
        [
            ("step", ["1000", "2000", "4000"]),
            ("epoch", ["1", "2", "3"]),
            ("name,step", ["gpt,1000", "gpt,2000", "gpt,4000"]),
            ("step", ["4000", "2000", "1000"]),
        ],
        ids=["steps", "epochs", "a model's name", "the newest first"],
    )
    def test_steps_that_may_be_of_finished_runs_are_asked_about(
        self, columns: str, rows: list[str], tmp_path: Path
    ) -> None:
        """Three runs of one size, or three evaluations of one."""
        text = "\n".join(f"{row},1000,{1000 * int(row.rpartition(',')[2])},0,law,3.{i}" for i, row in enumerate(rows))
        source = table(tmp_path, f"{columns},{HEADER}\n{text}\n")
        with pytest.raises(TableError, match=r"3 rows, row . .* steps that rise: .*--last-points\), .*--all-points"):
            import_runs(source)
        assert len(import_runs(source, all_points=True).runs) == 3
        [loss] = losses(import_runs(source, all_points=False))
        assert loss == (3.0 if rows[0] == "4000" else 3.2)
        notes: list[str] = []
        read_runs(source, note=notes.append)
        assert "is not read; where rows are steps of one run" in notes[0]

    @pytest.mark.parametrize(
        ("columns", "rows"),
        [
            ("step,lr", ["1000,3e-4", "2000,2e-4", "4000,3e-5"]),
            ("run_id,step", ["a,1000", "a,2000", "a,4000"]),
            ("step,lr", [f"{500 * i},3e-4" for i in range(1, 13)]),
            ("trainer/global_step,train", ["1000,3.9", "2000,3.8", "4000,3.7"]),
        ],
        ids=["the rate falls", "a run's own name", "many at even distances", "rows of training in between"],
    )
    def test_a_history_shows_in_other_ways(self, columns: str, rows: list[str], tmp_path: Path) -> None:
        lines = [f"{row},1000,2000,0,law,{4 - i / 10}" for i, row in enumerate(rows)]
        if columns.endswith("train"):
            lines.insert(1, "1500,3.85,1000,2000,0,law,")
        imported = import_runs(table(tmp_path, "\n".join([f"{columns},{HEADER}", *lines])))
        assert losses(imported) == [4 - (len(rows) - 1) / 10]
        assert (
            len(next(names for reason, names in imported.skipped.items() if "earlier step" in reason)) == len(rows) - 1
        )

    def test_runs_of_other_settings_and_other_trunks_are_none(self, tmp_path: Path) -> None:
        text = f"step,max_steps,{HEADER}\n10,10,1000,2000,0,law,4\n20,20,1000,4000,0,law,3\n"
        assert len(import_runs(table(tmp_path, text)).runs) == 2
        text = f"step,{HEADER}\n10,1000,2000,100,law,4\n20,1000,4000,100,law,3\n"
        assert len(import_runs(table(tmp_path, text)).runs) == 2

    def test_finished_runs_with_names_are_none(self, tmp_path: Path) -> None:
        rows = [f"r{i},{i},1000,{1000 * i},0,law,{5 - i}" for i in (1, 2, 3)]
        assert len(import_runs(table(tmp_path, "\n".join([f"run,step,{HEADER}", *rows]))).runs) == 3


class TestRepeats:
    def test_without_seeds_are_numbered(self, tmp_path: Path) -> None:
        rows = ["1000,2000,0,law,3.5", "1000,2000,0,law,3.25", "1000,2000,0,law,3.5", "1000,4000,0,law,3"]
        imported = import_runs(table(tmp_path, "\n".join([HEADER, *rows])))
        assert imported.runs[["pretrain_tokens", "seed", "loss"]].values.tolist() == [
            [2000, 0, 3.5],
            [2000, 1, 3.25],
            [4000, 0, 3.0],
        ]
        assert imported.skipped == {"the same as another": ["row 3"]}
        assert imported.notes[-1] == "no column is the seed: 2 runs of 1 point are numbered as seeds 0, 1, ..."

    def test_seeds_may_be_called_so(self, tmp_path: Path) -> None:
        source = table(tmp_path, f"{HEADER},seed\n1000,2000,0,law,3.5,seed_7\n1000,2000,0,law,3.25,S8\n")
        assert import_runs(source).runs["seed"].tolist() == [7, 8]

    def test_that_differ_in_a_setting_are_doubted(self, tmp_path: Path) -> None:
        text = f"{HEADER},lr,depth\n1000,2000,0,law,3.5,0.1,3\n1000,2000,0,law,3.25,0.2,3\n"
        assert import_runs(table(tmp_path, text)).notes[-1].startswith("they differ in 'lr': keep the best setting")

    def test_with_one_seed_for_all_are_refused(self, tmp_path: Path) -> None:
        source = table(tmp_path, f"{HEADER}\n1000,2000,0,law,3.5\n1000,2000,0,law,3.25\n")
        with pytest.raises(TableError, match=r"row 2 \(line 3\): loss = 3\.25 .* 'row 1' says 3\.5; give .* seeds"):
            import_runs(source, constants={"seed": "0"})


class TestContinuedPretraining:
    """Runs that start from models that exist, where shares of replayed text are no repeats of one another."""

    def test_bases_shares_and_general_losses_are_kept(self, tmp_path: Path) -> None:
        rows = ["q,440M,0,law,3,,2.5", "q,440M,20M,law,2.5,0,2.75", "q,440M,20M,law,2.625,5 %,2.625"]
        header = "Base Model,params,cpt_tokens,domain,eval_loss,replay_share,eval/general_loss"
        imported = import_runs(table(tmp_path, "\n".join([header, *rows])))
        told = imported.runs[["base", "specialize_tokens", "seed", "replay_share", "loss", "general_loss"]]
        assert told.values.tolist() == [
            ["q", 0, 0, 0.0, 3.0, 2.5],
            ["q", 20_000_000, 0, 0.0, 2.5, 2.75],
            ["q", 20_000_000, 0, 0.05, 2.625, 2.625],
        ]
        imported.runs.to_csv(tmp_path / "imported.csv", index=False)
        assert read_runs(tmp_path / "imported.csv")[list(imported.runs)].equals(imported.runs)

    def test_the_general_loss_is_no_domains(self, tmp_path: Path) -> None:
        text = "base,n_params,specialize_tokens,eval/law_loss,eval/code_loss,eval/general_loss\nq,1000,0,3,2,2.5\n"
        imported = import_runs(table(tmp_path, text), columns={"loss": "eval/{domain}_loss"})
        assert imported.runs["domain"].tolist() == ["code", "law"]
        assert imported.runs["general_loss"].tolist() == [2.5, 2.5]
        text = (
            text.replace("base,", "note,").replace("n_params", "n_params,pretrain_tokens").replace("1000", "1000,2000")
        )
        imported = import_runs(table(tmp_path, text), columns={"loss": "eval/{domain}_loss"})
        assert imported.runs["domain"].tolist() == ["code", "general", "law"]

    def test_a_base_that_is_a_number_is_no_model(self, tmp_path: Path) -> None:
        runs = [{"config": {"base": 10000, "n_params": 1000, "pretrain_tokens": 2000, "specialize_tokens": 0,
                            "domain": "law"}, "summary": {"eval_loss": 3.0}, "state": "finished"}]  # fmt: skip
        path = table(tmp_path, json.dumps(runs), name="runs.json")
        assert "base" not in import_runs(path).choices

    def test_what_is_told_without_a_base_is_refused(self, tmp_path: Path) -> None:
        source = table(tmp_path, f"{HEADER},p\n1000,2000,0,law,3,0.1\n")
        with pytest.raises(TableError, match="replay_share: is read beside a base; say --column base=COLUMN too"):
            import_runs(source, columns={"replay_share": "p"})


def test_fractions_of_tokens_are_rounded_and_counted(tmp_path: Path) -> None:
    imported = import_runs(table(tmp_path, f"{HEADER}\n57334197.0,17441597725.699375,0,law,3\n1000,2000.0,0,law,4\n"))
    assert imported.runs["pretrain_tokens"].tolist() == [2000, 17_441_597_726]
    assert imported.notes[-1] == "1 value of pretrain_tokens with a fraction: rounded to whole ones"


def test_domains_are_read_without_blanks(tmp_path: Path) -> None:
    source = table(tmp_path, f"{HEADER}\n1000,2000,0,law ,3\n1000,4000,0, law,2\n")
    assert import_runs(source).runs["domain"].unique().tolist() == ["law"]
    assert import_runs(source, constants={"domain": " code "}).runs["domain"].unique().tolist() == ["code"]


def test_no_value_is_written_in_many_ways(tmp_path: Path) -> None:
    rows = [f"1000,{2000 + i},0,law,{value}" for i, value in enumerate(("3", "NA", "#N/A", "null", "None", "-", ""))]
    imported = import_runs(table(tmp_path, "\n".join([HEADER, *rows])))
    assert losses(imported) == [3]
    assert [len(names) for names in imported.skipped.values()] == [6]


def test_nothing_is_told_of_cells_that_stand_for_those_below(tmp_path: Path) -> None:
    imported = import_runs(table(tmp_path, f"{HEADER}\n1000,2000,0,law,3\n,4000,0,law,2\n"))
    assert imported.skipped == {"without a value for n_params (n_params)": ["row 2"]}
    assert imported.notes[-1].startswith("'n_params' is empty below filled cells: ")


def test_no_name_is_no_domain(tmp_path: Path) -> None:
    runs = [{"n_params": 1000, "pretrain_tokens": 2000 + i, "specialize_tokens": 0, "loss": 3} for i in (1, 2)]
    text = json.dumps([{**runs[0], "domain": float("nan")}, {**runs[1], "domain": "law"}])
    imported = import_runs(table(tmp_path, text, "runs.json"))
    assert imported.runs["domain"].tolist() == ["law"]
    assert imported.skipped == {"without a value for domain (domain)": ["row 1"]}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Wall time,Step,Value\n1.5,10,4.1\n", "one curve of TensorBoard, .* give the folder of event files"),
        ("Step,a - eval/loss,a - eval/loss__MIN\n1,4,4\n", "a chart of W&B, .* give the table of runs"),
        (
            "My runs,,a,b,c\n" + HEADER + "\n1,2,0,law,3\n",
            r"row 1 \(line 2\) looks like the header; delete what stands",
        ),
    ],
)
def test_what_is_no_table_of_runs_is_called_by_its_name(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=complaint):
        import_runs(table(tmp_path, text))


def test_a_log_likelihood_is_told_from_a_loss(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"must be positive, got '-3'; of a log-likelihood, bring the negative"):
        import_runs(table(tmp_path, f"{HEADER}\n1000,2000,0,law,-3\n"))


def test_fit_reads_the_same_files(tmp_path: Path) -> None:
    text = "N_PARAMS; pretrain_tokens; specialize_tokens; domain; Loss; bits_per_byte\n1000;2000;0;law;3,5;NA\n"
    runs = read_runs(table(tmp_path, text, "RUNS.CSV"))
    assert runs[["n_params", "domain", "loss"]].values.tolist() == [[1000, "law", 3.5]]
    with pytest.raises(TableError, match=r"no column 'n_params'.*Found: size, loss\. `raysplit import .*other names"):
        read_runs(table(tmp_path, "size,loss\n1,2\n"))
