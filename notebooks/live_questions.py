# %% [markdown]
# # Five questions to a sweep that is running
#
# A notebook as a script: run the cells in an editor that knows `# %%`, turn it into a notebook with `jupytext`, or run
# it whole:
#
#     RUN=runs/quickstart .venv/bin/python notebooks/live_questions.py
#
# `RUN` is the folder of a sweep that runs now. For one without training: `benchmarks/live/live_replay.py`.

# %%
import os
from pathlib import Path

import raysplit
from raysplit.pictures import curve_picture
from raysplit.pictures.images import png_of
from raysplit.quantities import format_count, format_flops
from raysplit.runs import Observation
from raysplit.split import render_advice

RUN = Path(os.environ.get("RUN", "runs/quickstart"))
PICTURE = Path(os.environ.get("PICTURE", RUN / "live.png"))
law = raysplit.connect(RUN)

status = law.status()
spent = f"{format_flops(status.spent_flops)} of {format_flops(status.budget_flops)}"
print(f"round {status.round}, {status.n_observations} observations, {spent}; {status.finished or 'still running'}")

# %% [markdown]
# ## 1. What would you do with the budget now?
# Every answer carries the law that it rests on: its version, age, and how many observations it knows.

# %%
now = law.advise()
print(render_advice(now.advice))
stamp = now.law
print(f"\nlaw {stamp.version}: {stamp.n_observations} of {stamp.n_known} observations, {stamp.age_seconds:.1f} s old")

# %% [markdown]
# ## 2. And with four times as much?

# %%
budget_flops = 4 * now.advice.budget_flops
more = law.advise(budget_flops=budget_flops).advice
share = f"{more.pretrain_share.mean:.0%} of the tokens in pretraining"
print(f"at {format_flops(budget_flops)}: N = {format_count(more.split.n_params)}, {share}")

# %% [markdown]
# ## 3. What loss may each domain expect, and how sure is that?
# The best fit's; the table above has the mean over the law's draws, which a split has to serve.

# %%
split = now.advice.split
print(f"at the split that law {stamp.version} advised of {format_flops(now.advice.budget_flops)}:")
for domain, tokens in split.specialize_tokens.items():
    found = law.predict(
        domain,
        n_params=split.n_params,
        pretrain_tokens=split.pretrain_tokens,
        specialize_tokens=tokens,
        version=stamp.version,  # by the law that the split is of, though a newer one may be there by now
    )
    print(f"{domain:<12} {found.mean:.3f} nats/token, 90 % interval {found.low:.3f} to {found.high:.3f}")

# %% [markdown]
# ## 4. What if one domain counted three times as much as the others?

# %%
favourite = next(iter(split.specialize_tokens))
tilted = law.advise(weights={favourite: 3.0}).advice.split
print(
    f"{favourite}: {format_count(split.specialize_tokens[favourite])} tokens now, "
    f"{format_count(tilted.specialize_tokens[favourite])} then; pretraining {format_count(split.pretrain_tokens)} now, "
    f"{format_count(tilted.pretrain_tokens)} then"
)

# %% [markdown]
# ## 5. I train a model of my own. Should it go on?
# It is at the advised split and a tenth above the loss that the law expects there; nothing is stored of it.

# %%
expected = law.predict(
    favourite,
    n_params=split.n_params,
    pretrain_tokens=split.pretrain_tokens,
    specialize_tokens=split.specialize_tokens[favourite],
)
for excess in (0.0, 0.1):
    mine = Observation(
        n_params=split.n_params,
        pretrain_tokens=round(split.pretrain_tokens),
        specialize_tokens=round(split.specialize_tokens[favourite]),
        domain=favourite,
        loss=float(expected.mean) * (1 + excess),
    )
    answer = law.should_go_on(mine)
    print(f"{mine.loss:.3f}: {'go on' if answer.go_on else 'stop'}, {answer.why}")

# %% [markdown]
# ## The picture
# The best loss against the share of the tokens in pretraining, its 90 % interval, and what was measured of it. It is a
# Vega-Lite specification: a notebook shows it by itself with `altair.Chart.from_dict`.

# %%
curve = law.curve()
picture = curve_picture(now.advice, curve, width=710, readings=curve.points, moved=curve.moved)
PICTURE.write_bytes(png_of(picture))
print(f"picture: {PICTURE}")
