"""The law L(N, D, D'): its forms, the fit of a form to a table of runs, and what the runs leave uncertain."""

from raysplit.law.check import check_form
from raysplit.law.cooldown import with_cooldown
from raysplit.law.fit import fit_form
from raysplit.law.form import Form, Parameter
from raysplit.law.forms import FORMS
from raysplit.law.law import Calibration, Law, Prediction, Support
from raysplit.law.posterior import DEFAULT_FORMS, EXACT, fit_law
from raysplit.law.repetition import Repetition, with_repetition
from raysplit.law.status import Fit, FitStatus
from raysplit.law.warm import WarmStart

__all__ = [
    "DEFAULT_FORMS",
    "EXACT",
    "FORMS",
    "Calibration",
    "Fit",
    "FitStatus",
    "Form",
    "Law",
    "Parameter",
    "Prediction",
    "Repetition",
    "Support",
    "WarmStart",
    "check_form",
    "fit_form",
    "fit_law",
    "with_cooldown",
    "with_repetition",
]
