# %% [markdown]
# # From a W&B export to a decision
#
# You have trained small models and logged them with W&B: how should the next budget be split? Nothing is trained here,
# and Ray is not needed.
#
# The table beside this notebook is what W&B's export button gives. Its losses are of real runs, a part of raysplit's
# measured surface (`benchmarks/data/surface-2026-11-23.csv`): four sizes, two domains. Names and layout are W&B's. A
# notebook as a script: run the cells in an editor that knows `# %%`, or run it whole.

# %%
import os
from pathlib import Path

import numpy as np

from raysplit.design.suggest import render_suggestions, suggest
from raysplit.imports import import_runs
from raysplit.pictures import curve_picture
from raysplit.pictures.images import png_of
from raysplit.quantities import format_count
from raysplit.split import Problem, advise, fit_for_decision, loss_curve, render_advice
from raysplit.split.price import price_of

EXPORT = Path(os.environ.get("EXPORT", "notebooks/wandb_export.csv"))
PICTURE = Path(os.environ.get("PICTURE", "split.png"))

# %% [markdown]
# ## 1. What was taken for what?
# Columns are guessed by their names and shown. Runs that did not end well are left out and named. Look at this once: a
# training loss in place of a held-out one would make every answer below wrong.

# %%
imported = import_runs(EXPORT)
for field, choice in imported.choices.items():
    print(f"{field:<18} {choice.source}")
for reason, names in imported.skipped.items():
    print(f"left out: {reason}: {', '.join(names)}")
runs = imported.runs
print(f"{len(runs)} runs, domains {', '.join(sorted(runs['domain'].unique()))}")

# %% [markdown]
# ## 2. How should 1.5e12 FLOPs be split?
# W&B does not know what a token cost, so it counts 6 N.

# %%
price, _ = price_of(runs)
domains = tuple(sorted(runs["domain"].unique()))
problem = Problem(
    budget_flops=1.5e12,
    sizes=price.of(sorted(runs["n_params"].unique())),
    domains=domains,
    weights=[1.0] * len(domains),
    price=price.source,
)
law, choice = fit_for_decision(runs, problem)
advice = advise(law, problem)
print(choice.sentence)
print()
print(render_advice(advice))

# %% [markdown]
# ## 3. How flat is the optimum?
# The best loss against the share of the tokens in pretraining, with its interval and what was measured of it.

# %%
curve = loss_curve(law, problem, n_params=advice.split.n_params, shares=np.linspace(0.05, 0.95, 46))
PICTURE.write_bytes(png_of(curve_picture(advice, curve, width=710)))
print(f"picture: {PICTURE}")

# %% [markdown]
# ## 4. Which runs would make it surer?
# Priced from initialisation, the most useful for its price first.

# %%
print(render_suggestions(suggest(law, runs, problem, price, n_runs=3)))

# %% [markdown]
# ## The decision
# A range of shares is as good as the best one. So the choice within it may be made by convenience.

# %%
low, high = advice.flat
print(
    f"Train N = {format_count(advice.split.n_params)} on {format_count(advice.split.pretrain_tokens)} tokens of the "
    f"mixture; anything from {low:.0%} to {high:.0%} of the tokens in pretraining costs at most 0.5 % more loss."
)
