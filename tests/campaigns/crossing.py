"""Every public function that evaluates, times every kind of model: an answer or a sentence.

``python tests/campaigns/crossing.py [--quick|--slow] [kind ...]`` prints faults and refusals.
"""

import os
import random
import re
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pandas as pd
import pyro
import sklearn.linear_model  # noqa: F401, whose first import draws from Python's generator
import torch
from scipy import sparse

import pyro_vae as pv
from helpers.advice import is_clear
from helpers.kinds import KINDS, Case, case_of

QUICK = {"seed": 0}
SLOW = 4  # seconds of a pair, from which on it is said
SECONDS = {"assess, labels", "report", "compare_estimators", "recommend_estimator"}
SECONDS |= {"train_estimators", "posterior", "bdmc", "bdmc, not given", "ais"}
LABELS = torch.arange(12) % 2


def report(case):
    folder = Path(tempfile.mkdtemp())
    case.vae.save(folder)
    return pv.write_report(
        folder, vae=case.vae, data=many(case), num_samples=20, steps=2
    ).read_text()


def saved(case):
    folder = Path(tempfile.mkdtemp())
    vae = pv.load(case.vae.save(folder))
    assert torch.equal(pv.elbo(vae, case.x, seed=0), pv.elbo(case.vae, case.x, seed=0))


def figure(ax):
    import matplotlib.pyplot as plt

    figure = ax.figure
    figure.canvas.draw()
    assert not plt.get_fignums(), "a figure is left open"


def there_and_back(case):
    coded = pv.compress(case.vae, case.x)
    back = pv.decompress(case.vae, pv.Compressed.from_bytes(bytes(coded)))
    x = case.x
    if isinstance(x, torch.Tensor):
        assert torch.equal(back, torch.as_tensor(x).to(back))
    if isinstance(x, pd.DataFrame):
        pd.testing.assert_frame_equal(back, x, check_dtype=False)


FUNCTIONS: dict[str, Callable[[Case], Any]] = {
    "describe": lambda c: str(c.vae.describe()),
    "repr": lambda c: repr(c.vae),
    "citation": lambda c: pv.citation(c.vae),
    "as_data": lambda c: c.vae.as_data(c.x),
    "check": lambda c: c.vae.check(c.x),
    "elbo": lambda c: pv.elbo(c.vae, c.x, num_samples=3, **QUICK),
    "elbo_draws": lambda c: pv.elbo_draws(c.vae, c.x, num_draws=4, **QUICK),
    "log_evidence": lambda c: evidence(c),
    "summary of evidence": lambda c: pv.log_evidence(
        c.vae, c.x, num_samples=40, seed=0
    ).summary(),
    "sumo": lambda c: pv.sumo(c.vae, c.x, num_repeats=3, **QUICK),
    "ais": lambda c: pv.ais(c.vae, c.x, temperatures=2, chains=2, leapfrog=1, **QUICK),
    "bdmc": lambda c: pv.bdmc(
        c.vae, 4, given=c.x, temperatures=2, chains=2, leapfrog=1, **QUICK
    ),
    "bdmc, not given": lambda c: pv.bdmc(
        c.vae, 4, temperatures=2, chains=2, leapfrog=1, **QUICK
    ),
    "outlier_scores": lambda c: pv.outlier_scores(c.vae, c.x, c.x, num_samples=20, **QUICK),
    "gaps": lambda c: pv.gaps(c.vae, c.x, steps=2, num_samples=20, **QUICK),
    "assess, labels": lambda c: pv.assess(
        c.vae, many(c), many_labels(c), num_samples=40, steps=2, **QUICK
    ),
    "calibration": lambda c: pv.calibration(c.vae, 20, given=c.x, num_samples=9, **QUICK),
    "calibration, not given": lambda c: pv.calibration(c.vae, 20, num_samples=9, **QUICK),
    "posterior": lambda c: pv.posterior(
        c.vae, head(c, 1), num_samples=4, warmup=2, chains=1, **QUICK
    ),
    "posterior, metropolis": lambda c: pv.posterior(
        c.vae, head(c, 1), method="metropolis", num_samples=6, warmup=3, **QUICK
    ),
    "predictive_check": lambda c: pv.predictive_check(c.vae, many(c), num_samples=20, **QUICK),
    "imputation_check": lambda c: pv.imputation_check(
        c.vae, many(c), draws=19, num_samples=20, **QUICK
    ).table,
    "to_arviz": lambda c: pv.to_arviz(c.vae, c.x, 4, evidence_samples=20, **QUICK),
    "latent_summary": lambda c: pv.latent_summary(c.vae, c.x, **QUICK),
    "label_scores": lambda c: pv.label_scores(
        c.vae, c.x, LABELS[: c.rows], neighbors=2, folds=2, **QUICK
    ),
    "factor_scores": lambda c: pv.factor_scores(c.vae, c.x, LABELS[: c.rows, None], **QUICK),
    "attribute_step": lambda c: pv.attribute_step(c.vae, c.x, LABELS[: c.rows]),
    "move": lambda c: pv.move(c.vae, c.x, torch.zeros(c.vae.z_shape) + 0.1),
    "rate_distortion": lambda c: pv.rate_distortion(c.vae, c.x, num_samples=2, **QUICK),
    "bits_per_dimension": lambda c: pv.bits_per_dimension(c.vae, torch.tensor(-5.0)),
    "compare": lambda c: pv.compare({"a": c.vae, "b": c.vae}, c.x, num_samples=20, **QUICK),
    "stack": lambda c: pv.stack([c.vae, c.vae], [0.5, 0.5]).log_evidence(
        c.x, num_samples=20, seed=0
    ),
    "stack, sample": lambda c: pv.stack([c.vae, c.vae], [0.5, 0.5]).sample(3, seed=0),
    "stack, given": lambda c: pv.stack([c.vae, c.vae], [0.5, 0.5]).sample(
        3, given=c.given, seed=0
    ),
    "compare_estimators": lambda c: pv.compare_estimators(
        c.vae, c.x, ["Trace_ELBO"], num_draws=4, burn_in=1, **QUICK
    ),
    "recommend_estimator": lambda c: pv.recommend_estimator(
        c.vae, many(c), ["Trace_ELBO"], seconds=0.3, batch_size=5, **QUICK
    ),
    "train_estimators": lambda c: pv.train_estimators(
        c.vae, c.x, ["Trace_ELBO"], epochs=1, batch_size=5, **QUICK
    ),
    "fit_prior": lambda c: pv.fit_prior(
        c.vae, c.x, "Mixture(Normal(loc=learned), components=2)", epochs=1, batch_size=5,
        validation=0.3,
    ).history,
    "compress": there_and_back,
    "loadings": lambda c: pv.loadings(c.vae),
    "rates": lambda c: pv.rates(c.vae, c.x, num_samples=2, **QUICK),
    "differential_expression": lambda c: pv.differential_expression(
        c.vae, c.x, LABELS.bool().numpy(), ~LABELS.bool().numpy(), draws=9, **QUICK
    ),
    "topics": lambda c: pv.topics(c.vae, top=2),
    "topics, documents": lambda c: pv.topics(c.vae, [*"vwxyz"], c.x, top=2),
    "perplexity": lambda c: pv.perplexity(c.vae, c.x, num_samples=20, **QUICK),
    "perplexity, fitted": lambda c: pv.perplexity(
        c.vae, c.x, num_samples=40, proposal="auto", **QUICK
    ),
    "encode": lambda c: encoded(c),
    "refine": lambda c: c.vae.refine(c.x, steps=2, seed=0).batch_shape,
    "reconstruct": lambda c: like(c, c.vae.reconstruct(c.x)),
    "impute": lambda c: like(c, c.vae.impute(c.x, num_samples=20, sweeps=1, seed=0)),
    "impute, draws": lambda c: c.vae.impute(c.x, draws=3, num_samples=20, sweeps=1, seed=0),
    "impute, mode": lambda c: c.vae.impute(c.x, point="mode", num_samples=20, sweeps=1, seed=0),
    "imputations": lambda c: c.vae.imputations(c.x, num_samples=20, sweeps=1, seed=0).summary(),
    "sample": lambda c: c.vae.sample(3, seed=0),
    "sample, mean": lambda c: c.vae.sample(3, mean=True, seed=0),
    "sample, given": lambda c: c.vae.sample(3, given=c.given, seed=0),
    "sample, given x": lambda c: c.vae.sample(3, given=c.x, seed=0),
    "interpolate": lambda c: c.vae.interpolate(*(c.ends or (c.x, c.x)), steps=3),
    "counterfactual": lambda c: c.vae.counterfactual(c.x, c.do, num_samples=20, sweeps=1, seed=0),
    "forecast": lambda c: c.vae.forecast(c.x, [4.0, 5.0], num_samples=20, seed=0),
    "forecast, frame": lambda c: c.vae.forecast(
        c.x, pd.DataFrame({"subject": ["p"], "time": [9.0]}), num_samples=20, seed=0
    ),
    "forecast, draws": lambda c: c.vae.forecast(c.x, [4.0], draws=2, seed=0),
    "save, load": saved,
    "report": report,
    "plots.reconstructions": lambda c: figure(pv.plots.reconstructions(c.vae, c.x)),
    "plots.samples": lambda c: figure(pv.plots.samples(c.vae, 4)),
    "plots.samples, given": lambda c: figure(pv.plots.samples(c.vae, 4, given=c.x)),
    "plots.samples_by": lambda c: figure(pv.plots.samples_by({"a": c.vae}, 4)),
    "plots.traversals": lambda c: figure(
        pv.plots.traversals(c.vae, (c.ends or (c.x, c.x))[0], steps=3)
    ),
    "plots.interpolations": lambda c: figure(
        pv.plots.interpolations(c.vae, *(c.ends or (c.x, c.x)), steps=3)
    ),
    "plots.latent_space": lambda c: figure(pv.plots.latent_space(c.vae, c.x)),
    "plots.latent_space, labels": lambda c: figure(
        pv.plots.latent_space(c.vae, c.x, LABELS[: c.rows])
    ),
    "plots.attribute_arithmetic": lambda c: figure(
        pv.plots.attribute_arithmetic(c.vae, c.x, LABELS[: c.rows], source=0, target=1, steps=2)
    ),
    "plots.predictive_check": lambda c: figure(
        pv.plots.predictive_check(c.vae, c.x, num_replicates=2)
    ),
    "plots.reconstructed_rolls": lambda c: figure(pv.plots.reconstructed_rolls(c.vae, c.x)),
    "plots.topics": lambda c: figure(pv.plots.topics(c.vae, top=2)),
    "plots.khat": lambda c: figure(
        pv.plots.khat(pv.log_evidence(c.vae, c.x, num_samples=40, seed=0))
    ),
    "plots.latent_kl": lambda c: figure(pv.plots.latent_kl(pv.latent_summary(c.vae, c.x, seed=0))),
    "plots.posterior": lambda c: figure(
        pv.plots.posterior(
            pv.posterior(c.vae, head(c, 1), method="metropolis", num_samples=6, warmup=3, seed=0)
        )
    ),
    "plots.calibration": lambda c: figure(
        pv.plots.calibration(pv.calibration(c.vae, 20, given=c.x, num_samples=9, seed=0))
    ),
    "plots.images": lambda c: figure(pv.plots.images(c.x)),
    "plots.associations": lambda c: figure(pv.plots.associations(c.x, c.vae.sample(20, seed=0))),
    "fit": lambda c: pv.fit(  # the last, for it trains
        c.vae, c.x, epochs=1, batch_size=5, validation=0.2, progress=False, compile=False
    ),
}  # fmt: skip


def head(case, n):
    """The first observations, in the form of all."""
    x = case.x
    if isinstance(x, dict):
        return {k: v[:n] for k, v in x.items()}
    if isinstance(x, pd.DataFrame) and "subject" in x:
        return x[x.subject == "p"]
    return x if x is None or not hasattr(x, "__getitem__") else x[:n]


def many(case):
    """The observations five times."""
    x = case.x
    if isinstance(x, dict):
        return {k: v * 5 if isinstance(v, list) else torch.cat([v] * 5) for k, v in x.items()}
    if isinstance(x, pd.DataFrame):
        parts = [x.assign(subject=x.subject + str(i)) if "subject" in x else x for i in range(5)]
        return pd.concat(parts, ignore_index=True)
    if isinstance(x, torch.Tensor):
        return torch.cat([x] * 5)
    if isinstance(x, pv.Counts) or sparse.issparse(x):
        return x[[*range(case.rows)] * 5]
    return x * 5 if isinstance(x, list) else x


def many_labels(case):
    """Labels of :func:`many`."""
    return LABELS[: case.rows].repeat(1 if many(case) is case.x else 5)


def evidence(case):
    found = pv.log_evidence(case.vae, case.x, num_samples=40, seed=0)
    assert found.log_evidence.shape == (case.rows,)
    return found


def encoded(case):
    q = case.vae.encode(case.x)
    assert q.batch_shape == (case.rows,)
    return list(vars(getattr(q, "base_dist", q)).values())


def like(case, answer):
    """An answer, which has the type, the index and the columns of x."""
    x = case.x
    if isinstance(x, pd.DataFrame):
        assert isinstance(answer, pd.DataFrame), f"a {type(answer).__name__} for a frame"
        assert answer.index.equals(x.index), "another index"
        assert [*answer] == [n for n in x if n in answer], "other columns"
        kinds = {n: (x[n].dtype, answer[n].dtype) for n in answer}
        other = {n: k for n, k in kinds.items() if k[0] != k[1]}
        assert not other, f"other types, {other}"
    if isinstance(x, list):
        sizes = [1 if isinstance(row, str) else len(row) for row in (*answer, *x)]
        assert isinstance(answer, list) and sizes[: len(x)] == sizes[len(x) :], "other lengths"
    if isinstance(x, torch.Tensor):
        assert answer.shape == (case.rows, *case.vae.x_shape), f"shape {tuple(answer.shape)}"
    return answer


def tensors(value, depth=0):
    """The arrays of an answer, with their names."""
    if isinstance(value, torch.Tensor | np.ndarray):
        yield "", value
    elif hasattr(value, "groups") and not isinstance(value, torch.Size):
        names = value.groups() if callable(value.groups) else value.groups
        for name in names:
            if name != "/":
                yield from tensors(value[name], depth)
    elif hasattr(value, "data_vars"):
        yield from ((str(k), v.values) for k, v in value.data_vars.items())
    elif isinstance(value, pd.DataFrame):
        yield from ((str(n), value[n].to_numpy()) for n in value if value[n].dtype.kind == "f")
    elif isinstance(value, pd.Series):
        yield "", value.to_numpy()
    elif isinstance(value, float | int):
        yield "", np.array(value)
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from ((f"{name}.{n}", a) for n, a in tensors(part, depth + 1))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors(part, depth + 1)
    elif depth < 3 and type(value).__module__.startswith("pyro_vae"):
        for name, part in getattr(value, "__dict__", {}).items():
            if not isinstance(part, torch.nn.Module):
                yield from ((f"{name}.{n}", a) for n, a in tensors(part, depth + 1))


# Figures that need not be there: of few draws, or of what does not vary.
NOT_FINITE = (
    "khat",
    "k_hat",
    "ess",
    "snr",
    "cosine",
    "bias",
    "r_hat",
    "rise",
    "variance",
    "validation",
    "mean_shift",
    "sd_ratio",
    "work",
    "totals",
    "simulated",
    "dimensions.",  # of marginals that a prior does not have
)


# What holds the holes of x, or NaN after the end of a sequence.
HOLED = {"as_data", "check", "to_arviz"}
PADDED = {"sequences", "tokens", "texts", "LinearMixed", "GaussianProcess"}


def fault_of(answer) -> str:
    """What is wrong with the numbers of an answer: infinities, NaN, a graph."""
    for name, array in tensors(answer):
        if isinstance(array, torch.Tensor) and array.requires_grad:
            return f"{name or 'the answer'} has a graph"
        values = array.numpy(force=True) if isinstance(array, torch.Tensor) else array
        if values.dtype.kind != "f" or any(word in name.lower() for word in NOT_FINITE):
            continue
        if not np.isfinite(values).all():
            return f"{name or 'the answer'} holds {(~np.isfinite(values)).mean():.0%} NaN or inf"
    return ""


def state_of(case) -> tuple[list[Any], ...]:
    """Weights and buffers, modes, and gradients of a model."""
    tensors = [value.clone() for m in case.models for value in m.state_dict().values()]
    modes = [module.training for m in case.models for module in m.modules()]
    return tensors, modes, [p.grad is None for m in case.models for p in m.parameters()]


def generators() -> tuple[object, ...]:
    """The states of the global generators."""
    return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()


def changed(case, before, function) -> str:
    """What a call has left behind."""
    tensors, modes, none = state_of(case)
    same = zip(tensors, before[0], strict=True)
    if function != "fit" and not all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in same):
        return "weights or buffers were changed"
    if function != "fit" and none != before[2]:
        return "gradients are left"
    if function != "fit" and modes != before[1]:
        return "the mode was changed"
    if generators() != before[3]:
        return "a global generator was advanced"
    if pyro.poutine.runtime._PYRO_STACK or len(pyro.get_param_store()) != before[4]:
        return "Pyro's stack is not empty, or its store another one"
    return ""


def fault_of_refusal(error: Exception) -> str:
    """What is wrong with a refusal; empty where it is ours and clear."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    inner = Path(last.filename)
    where = f"{inner.parent.name}/{inner.name}:{last.lineno}"
    said = str(error)
    if isinstance(error, AttributeError) and re.match("a (Stack|Program) has no", said):
        return ""
    if isinstance(error, TypeError) and "has no argument" in said:
        return ""
    if not isinstance(error, ValueError) or "pyro_vae" not in inner.parts:
        return f"{type(error).__name__} at {where}"
    return "" if is_clear(error) else f"not clear, at {where}"


def attempt(kind: str, function: str) -> tuple[str, str]:
    """``answer``, ``refusal`` or ``fault``, and what it says."""
    try:
        case = case_of(kind)
    except Exception as error:
        return "fault", f"the kind itself cannot be made | {error}"
    before, said = (*state_of(case), generators(), len(pyro.get_param_store())), ""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            answer = FUNCTIONS[function](case)
            holed = function in HOLED or kind.split(",")[0] in PADDED
            holed |= kind == "table, bits of holes" and "sample" in function  # as its rows have
            wrong = "" if holed else fault_of(answer)
        except AssertionError as error:
            wrong = f"AssertionError {error}"
        except Exception as error:
            wrong, said = fault_of_refusal(error), str(error)
    wrong = wrong or changed(case, before, function)
    others = [str(w.message) for w in warned if "site-packages" in w.filename and not said]
    if not wrong and others:
        wrong = f"warns in another's words: {others[0]}"
    if wrong:
        return "fault", f"{wrong} | {said}" if said else wrong
    return ("refusal", said) if said else ("answer", "")


def pairs(kinds=None, which=""):
    """Each kind with each function; ``quick`` ones take no seconds, ``slow`` ones do."""
    wanted = {"": {True, False}, "quick": {False}, "slow": {True}}[which]
    functions = [name for name in FUNCTIONS if (name in SECONDS) in wanted]
    return [(kind, function) for kind in kinds or KINDS for function in functions]


def failures(some):
    """``(kind, function, what)`` of those pairs that fail."""
    for kind, function in some:
        outcome, what = attempt(kind, function)
        if outcome == "fault":
            yield kind, function, what


def main(kinds, which):
    counts, refused = Counter(), set()
    for kind, function in pairs(kinds, which):
        start = time.perf_counter()
        outcome, what = attempt(kind, function)
        counts[outcome] += 1
        if (seconds := time.perf_counter() - start) > SLOW:
            print(f"slow: {kind} x {function}, {seconds:.1f} s", flush=True)
        if outcome != "answer" and (function, what) not in refused:
            refused.add((function, what))
            print(f"{outcome}: {kind} x {function}\n    {what[:400]}", flush=True)
        if function == list(FUNCTIONS)[-1]:
            print(f"{kind}, and all before: {dict(counts)}", flush=True)
    print(f"{len(kinds or KINDS)} kinds, {len(FUNCTIONS)} functions: {dict(counts)}")


if __name__ == "__main__":
    flags = [word for word in sys.argv[1:] if word.startswith("--")]
    main([word for word in sys.argv[1:] if word not in flags], "".join(flags).strip("-"))
