"""Every way to compose a model from lines, and what must hold of each."""

import re

import pyro
import torch
from pyro.infer import Trace_ELBO

import pyro_vae as pv

from .advice import assignments, is_clear
from .families import GUIDES, LIKELIHOODS, PRIORS

PLAIN = [
    "Normal", "Normal(loc=learned, scale=learned)", "Laplace(scale=learned)", "StudentT(df=4)",
    "Cauchy", "Logistic", "Gumbel", "MultivariateNormal(scale_tril=learned)",
    "Uniform(low=0, high=1)",
    "LogNormal", "Gamma(concentration=2)", "Exponential", "HalfNormal", "HalfCauchy", "Beta",
    "Kumaraswamy", "Dirichlet(concentration=2)", "VonMises", "Bernoulli(logits=learned)",
    "OneHotCategorical",
    "Categorical(categories=3)", "Poisson", "Geometric", "VonMisesFisher", "ProjectedNormal",
    "SpikeAndSlab(logits=learned, scale=learned)", "Horseshoe", "Delta", "Binomial(total_count=3)",
]  # fmt: skip
TRANSFORMS = [
    "SigmoidTransform", "SoftplusTransform", "ExpTransform", "StickBreakingTransform", "Sticks",
    "Interval(0, 2)", "TanhTransform", "[AffineTransform(loc=1, scale=2), ExpTransform]",
]  # fmt: skip
NETWORKS = ["MLP([4])", "MLP([4, 4], activation=Tanh)", "MLP([])"]


def nest(choose, depth, of):
    """A line of a family, or structure around one."""
    kind = choose(["plain"] * 3 + ["mixture", "transformed", "flow"]) if depth else "plain"
    if kind == "mixture":
        return f"Mixture({nest(choose, depth - 1, of)}, components={choose([1, 3])})"
    if kind == "transformed":
        return f"Transformed({nest(choose, depth - 1, of)}, {choose(TRANSFORMS)})"
    if kind == "flow":
        base = choose(["", "", f", base={nest(choose, depth - 1, of)}"])
        return f"Flow({choose(['NSF', 'MAF', 'RealNVP'])}, transforms=1, hidden_features=[4]{base})"
    return choose(of)


def a_prior(choose):
    special = [
        "VampPrior(components=2, start=random)", "VampPrior(components=2)",
        "Resampled(Normal, hidden=[4])", "Resampled(Laplace(scale=learned), hidden=[4])",
        "AutoregressiveBernoulli", "AutoregressiveBernoulli([4])",
        "Hierarchy(Normal)", "GaussianProcess(index=[0, 1, 2])",
    ]  # fmt: skip
    return choose([nest(choose, 2, [*PLAIN, *PRIORS]), nest(choose, 1, PLAIN), choose(special)])


def a_guide(choose):
    special = [
        "DeltaNormal(rate=0.1)", "SemiAmortized(Normal, steps=2)", "SemiAmortized(Gamma, steps=1)",
        "BottomUp(Normal)", "TopDown(Normal)", "Ladder", "TopDown(Laplace)",
        "BottomUp([Normal, Gamma])",
        "SemiAmortized(Mixture(Normal, components=2), steps=1)",
    ]  # fmt: skip
    return choose([nest(choose, 2, [*PLAIN, *GUIDES]), nest(choose, 1, PLAIN), choose(special)])


def a_likelihood(choose):
    return choose([*LIKELIHOODS] * 2 + [nest(choose, 2, [*LIKELIHOODS])])


def fitting_pair(choose):
    """A prior and a guide that belong together, so that what is built is often enough drawn."""
    pairs = [(prior, guide) for prior, (guide, _) in PRIORS.items()]
    pairs += [(prior, guide) for guide, (prior, _) in GUIDES.items()]
    return choose(pairs)


def draw_case(choose):
    """The arguments of a model, by ``choose(list)``."""
    prior, guide = a_prior(choose), a_guide(choose)
    if choose([True, True, False]):
        prior, guide = fitting_pair(choose)
    case = {
        "prior": prior,
        "guide": guide,
        "likelihood": a_likelihood(choose),
        "x_shape": choose([3, 3, 4, (2, 3), (1, 4, 4)]),
        "encoder": choose(NETWORKS),
        "decoder": choose(NETWORKS),
        "missing": choose([False, False, True]),
    }
    latent = choose(["plain", "plain", "plain", "layers", "labels"])
    if latent == "layers":
        case["layers"] = choose([[3, 2], [2, 2, 2], [3]])
    else:
        case["latent_dim"] = choose([1, 2, 3, 3, (2, 3)] if latent == "plain" else [1, 2, 3])
    if latent == "labels":
        case["classes"] = choose([2, 3])
    return case


def build(case):
    """The model of a case."""
    case = {"seed": 1, **case}
    return (pv.M2 if "classes" in case else pv.VAE)(case.pop("x_shape"), **case)


def hold(case, folder):
    """What is wrong with a case: ``None`` where it is built and consistent, or clearly refused."""
    try:
        vae = build(case)
    except Exception as error:
        return refusal(case, error)
    try:
        return inconsistency(vae, case, folder)
    except Exception as error:
        if is_extreme(case) and isinstance(error, ValueError) and NOT_FINITE.search(str(error)):
            return None
        return f"is built, then fails: {type(error).__name__}: {first_line(error)}"


# What float32 cannot hold is no fault of a composition: draws of these families are huge, or lie at
# an edge where their density, or its slope, is not finite.
EXTREME = re.compile(
    "Cauchy|Horseshoe|InverseGamma|Exp|LogNormal|Weibull|SkewLogistic|Asymmetric|Geometric|Gamma"
    "|Kumaraswamy|Beta|Dirichlet|Sticks|Sigmoid|Tanh|Interval|Uniform|StickBreaking"
)
NOT_FINITE = re.compile("is not what it must be|finite density|invalid values")


def is_extreme(case):
    return any(EXTREME.search(case[role]) for role in ("prior", "guide", "likelihood"))


def first_line(error):
    return str(error).split("\n")[0][:300]


def refusal(case, error, depth=3):
    """What is wrong with an error: it is unclear, or what it advises does not build."""
    if not is_clear(error):
        return f"unclear: {type(error).__name__}: {first_line(error)}"
    for role, lines in assignments(str(error)).items():
        for line in lines if role in ("prior", "guide", "likelihood") else ():
            try:
                build(case | {role: line})
            except Exception as second:
                about = line.split("(")[0] in str(second)
                if str(second) == str(error) or about or not depth:
                    return f"advises {role}={line!r} ({first_line(error)}): {first_line(second)}"
                if problem := refusal(case | {role: line}, second, depth - 1):
                    return problem
    return None


def inconsistency(vae, case, folder):
    """Shapes, a finite ELBO of its own draws, a step's gradients, and the folder it saves."""
    n = 5
    x = vae.sample(n, seed=0)
    assert x.shape == (n, *vae.x_shape), f"draws of shape {tuple(x.shape)}"
    x = x.to(torch.get_default_dtype())
    if "classes" in case:
        x = vae.labelled(x, torch.arange(n) % (vae.classes + 1) - 1)
    if case.get("missing"):
        x.view(n, -1)[0, 0] = float("nan")
    vae.start_from(x)
    q = vae.encode(vae.check(x))
    assert q.batch_shape == (n,), f"q(z|x) has batch shape {tuple(q.batch_shape)}"
    z = q.sample()
    assert z.shape == (n, *q.event_shape), "draws of q(z|x)"
    p = vae.decode(z)
    assert (*p.batch_shape, *p.event_shape) == (n, *vae.x_shape), "p(x|z)"
    assert vae.prior().event_shape == q.event_shape, "prior and guide"
    found = pv.elbo(vae, x, num_samples=2, seed=0)
    if not found.isfinite().all() and not is_extreme(case):
        return f"its ELBO is {found.tolist()} at its own draws"
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(0)
        Trace_ELBO().loss_and_grads(vae.model, vae.guide, x)
    gradients = {k: v.grad for k, v in vae.named_parameters()}
    if wrong := [k for k, g in gradients.items() if g is not None and not g.isfinite().all()]:
        if is_extreme(case):
            return None
        return f"gradients that are not finite: {', '.join(wrong)}"
    if all(g is None or not g.any() for g in gradients.values()):
        return "no parameter has a gradient"
    again = pv.load(vae.eval().save(folder))
    if again.describe() != vae.describe():
        return f"describes itself as {vae.describe()}, once loaded as {again.describe()}"
    before, after = (pv.elbo(m, x, num_samples=2, seed=0) for m in (vae, again))
    if not torch.equal(before.nan_to_num(), after.nan_to_num()):
        return f"its ELBO is {before.tolist()}, once loaded {after.tolist()}"
    return None
