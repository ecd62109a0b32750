"""What an error advises builds: "did you mean X", ``guide='...'``, "use X", "for example k=3"."""

import re

import pytest
import torch

import pyro_vae as pv
from helpers.advice import additions, assignments, is_clear, suggestions, uses
from pyro_vae.families.networks import NETWORKS

MODEL = ("x_shape", "latent_dim", "layers", "classes", "prior", "likelihood", "guide", "encoder",
         "decoder", "missing", "labels", "merge")  # fmt: skip
PLAIN = {"x_shape": 4, "latent_dim": 2, "likelihood": "Normal", "encoder": "MLP([3])",
         "decoder": "MLP([3])"}  # fmt: skip
BITS = {"likelihood": "Bernoulli", "prior": "Bernoulli", "guide": "Bernoulli"}
ONE_HOT = {"prior": "OneHotCategorical", "guide": "OneHotCategorical"}
COUNTS = {"prior": "Poisson", "guide": "Poisson"}
LAYERS = {"latent_dim": None, "layers": [3, 2]}

BAD = [
    # Names, and names of parameters, that are nearly right.
    {"prior": "Nomral"}, {"prior": "normal"}, {"prior": "Gama"}, {"prior": "StudenT(df=4)"},
    {"prior": "Normal(lok=learned)"}, {"prior": "Normal(loc=leaned)"}, {"guide": "Nromal"},
    {"guide": "Normal(scal=learned)"}, {"guide": "Laplac"}, {"guide": "LogNorml", "prior": "Gamma"},
    {"likelihood": "Bernouli"}, {"likelihood": "bernoulli"}, {"likelihood": "StudentT(dof=4)"},
    {"likelihood": "NegativeBinomal"}, {"likelihood": "Poison"}, {"likelihood": "Categoricl"},
    {"likelihood": "Normal(scale=learnt)"}, {"likelihood": "ContinuousBernouli"},
    {"prior": "Mixtur(Normal, components=3)"}, {"prior": "Mixture(Nomral, components=3)"},
    {"prior": "Mixture(Normal, component=3)"}, {"prior": "VampPriors"},
    {"prior": "Resample(Normal)"}, {"prior": "VampPrior(component=3)"},
    {"prior": "Resampled(Nomral)"}, {"prior": "Flow(NFS)"}, {"prior": "Flow(NSF, transform=2)"},
    {"prior": "Flow(GMM)"}, {"prior": "Flow(GF)"}, {"guide": "Flow(IFA)"},
    {"guide": "Flow(RealNPV)"}, {"prior": "GaussianProces(index=[0, 1])"},
    {"prior": "GaussianProcess(kernel=matern, index=[0, 1])"},
    {"guide": "Transformd(Normal, SigmoidTransform)", "prior": "Beta"},
    {"guide": "Transformed(Normal, SigmodTransform)", "prior": "Beta"},
    {"guide": "Transformed(Normal, Stick)", "prior": "Dirichlet"},
    {"guide": "SemiAmortised(Normal)"}, {"guide": "SemiAmortized(Normal, step=3)"},
    {"guide": "DeltaNorml(rate=0.1)"}, {"guide": "DeltaNormal(rat=0.1)"}, {"encoder": "MPL([3])"},
    {"encoder": "MLP([3], activation=Reul)"}, {"decoder": "MLP(hiden=[2])"},
    {"encoder": "MLP([3], activaton=Tanh)"}, {"encoder": "ConvEncodr([4, 4])"},
    {"encoder": "ConvEncoder"}, {"decoder": "ConvDecoder"},
    {"encoder": "Corupted(MLP([3]), noise=0.1)"},
    # What is needed and not said.
    {"likelihood": "Categorical"}, {"likelihood": "OrderedLogistic"}, {"likelihood": "Binomial"},
    {"likelihood": "LowRankMultivariateNormal"}, {"likelihood": "NegativeBinomial"},
    {"likelihood": "Multinomial"}, {"prior": "Mixture(components=3)"},
    {"prior": "Transformed(Normal)"}, {"likelihood": "RelaxedBernoulli"},
    {"guide": "Categorical", "prior": "Categorical(categories=3)"},
    # A guide that does not live where the prior does.
    *({"prior": prior, "guide": "Normal"} for prior in (
        "Gamma", "Beta", "Dirichlet", "Bernoulli", "OneHotCategorical", "Poisson", "Geometric",
        "HalfNormal", "VonMisesFisher", "ProjectedNormal", "Uniform(low=-1, high=3)",
        "SpikeAndSlab(logits=learned, scale=learned)", "Categorical(categories=3)",
        "Binomial(total_count=3)", "Mixture(Gamma, components=2)", "AutoregressiveBernoulli",
        "Transformed(Normal, SigmoidTransform)", "Transformed(Normal, StickBreakingTransform)",
        "LogNormal", "Kumaraswamy", "Mixture(Bernoulli, components=2)", "Flow(NCSF, transforms=1)",
        "Mixture(VonMises, components=2)", "Uniform(low=0.1, high=0.7)",
    )),
    {"prior": "Normal", "guide": "Gamma"}, {"prior": "Laplace", "guide": "Bernoulli"},
    {"prior": "Laplace", "guide": "DeltaNormal(rate=0.1)"},
    {"prior": "VampPrior(components=2, start=random)", "guide": "SemiAmortized(Normal, steps=1)"},
    {"classes": 3, "prior": "Gamma"}, {"classes": 3, "prior": "Beta"},
    {"classes": 3, "prior": "Categorical(categories=3)"},
    {"classes": 3, "labels": "OneHotCategoricl"},
    # Layers.
    {**LAYERS, "prior": "Gamma", "guide": "Normal"}, {**LAYERS, "prior": "Beta", "guide": "Normal"},
    {**LAYERS, "guide": "BottomUpp(Normal)"}, {**LAYERS, "prior": "Hierachy(Normal)"},
    {**LAYERS, "guide": "TopDown(Nomral)"}, {**LAYERS, "guide": "Ladder(scal=learned)"},
    {**LAYERS, "prior": "VampPrior(components=2, start=random)", "guide": "Flow(NSF)"},
    {**LAYERS, "prior": "Hierarchy([Gamma, Gamma])", "guide": "Ladder"}, {"guide": "TopDown"},
    {**LAYERS, "prior": "Gamma", "guide": "Ladder"}, {**LAYERS, "guide": "DeltaNormal(rate=0.1)"},
    # Estimators, by themselves and with a guide that they do not serve.
    {"estimator": "TraceELBO"}, {"estimator": "IWAE"}, {"estimator": "Trace_Elbo"},
    {"estimator": "Trace_ELBO(num_particle=3)"}, {"estimator": "TraceGraph_ELBO(gradient=scor)"},
    {"estimator": "RenyiELBO(alpha=1)"}, {"estimator": "RenyiELBO(gradient=stl)"},
    {"estimator": "RenyiELBO(gradient=score)"}, {"estimator": "DReG(gradient=score)"},
    {"estimator": "GDReG(gradient=score)"}, {"estimator": "RLOO(gradient=pathwise)"},
    {"estimator": "VIMCO(gradient=stl)"}, {"estimator": "ARM(gradient=pathwise)"},
    {"estimator": "TraceGraph_ELBO(gradient=stl)"},
    {"estimator": "TraceMeanField_ELBO(gradient=stl)"},
    {"estimator": "TraceEnum_ELBO(gradient=stl)"}, {"estimator": "TVO(gradient=stl)"},
    {"estimator": "Trace_ELBO(baseline=neural)"}, {"estimator": "RLOO(baseline=decaying)"},
    {"estimator": "DReG(gradient=concrete)"}, {"estimator": "RLOO(gradient=measure_valued)"},
    {"estimator": "Trace_ELBO(temperature=0.5)"}, {"estimator": "TraceGraph_ELBO(baseline=neurl)"},
    {**BITS, "estimator": "Trace_ELBO(gradient=pathwise)"}, {**BITS, "estimator": "DReG"},
    {**BITS, "estimator": "Trace_ELBO(gradient=stl)"}, {**BITS, "estimator": "RenyiELBO"},
    {**BITS, "estimator": "TraceMeanField_ELBO"}, {**BITS, "estimator": "GDReG"},
    {**BITS, "estimator": "MeasureValued"}, {"estimator": "ARM"}, {"estimator": "DisARM"},
    {"estimator": "REBAR"}, {"estimator": "RELAX"}, {"estimator": "MuProp"},
    {"estimator": "DoubleCV"}, {"estimator": "TraceEnum_ELBO"},
    {"estimator": "Trace_ELBO(gradient=concrete)"}, {**ONE_HOT, "estimator": "ARM"},
    {**COUNTS, "estimator": "REBAR"}, {**COUNTS, "estimator": "DReG"},
    {**COUNTS, "estimator": "TraceEnum_ELBO"}, {"guide": "Laplace", "estimator": "MeasureValued"},
    {"guide": "Laplace", "prior": "StudentT(df=4)", "estimator": "TraceMeanField_ELBO"},
    {"guide": "Mixture(Laplace, components=2)", "estimator": "Trace_ELBO(gradient=pathwise)"},
    {"guide": "Mixture(Normal, components=2)", "estimator": "Trace_ELBO(gradient=stl)"},
    {"guide": "Delta", "estimator": "RLOO"},
    {"guide": "Delta", "estimator": "Trace_ELBO(gradient=stl)"},
    {**LAYERS, "estimator": "TraceMeanField_ELBO"}, {**LAYERS, "estimator": "GDReG"},
    {"prior": "Flow(NSF, transforms=1)", "estimator": "GDReG"},
    {"prior": "Mixture(Normal(loc=learned), components=2)", "estimator": "GDReG"},
    # Training.
    {"optimizer": "Adm"}, {"optimizer": "adam"}, {"optimizer": "Adam(epz=1e-8)"},
    {"lr": "cosin(1e-3)"}, {"optimizer": "SGD(momentun=0.9)"}, {"beta": "liner(0, 1, epochs=1)"},
    {"lr": "exponental(1, 0.5)"}, {"beta": "linear(0, 1, epoch=1)"},
    {"beta": 0.5, "estimator": "RenyiELBO"}, {"optimizer": "LBFGS"},
]  # fmt: skip


def observations(case):
    draws = torch.rand(8, 4, generator=torch.Generator().manual_seed(0))
    return {"Bernoulli": draws.round()}.get(case["likelihood"].split("(")[0], draws)


def attempt(case):
    """Make the model, and train it for an epoch where the case is of training."""
    said = {k: case[k] for k in MODEL if case.get(k) is not None}
    vae = (pv.M2 if "classes" in case else pv.VAE)(said.pop("x_shape"), **said, seed=0)
    training = {k: v for k, v in case.items() if k not in MODEL}
    if training:
        pv.fit(vae, observations(case), epochs=1, batch_size=8, progress=False, **training)


ANSWERS = {}


def answer(case):
    """The error that a case ends with, or None; each case is tried once."""
    key = str(sorted(case.items()))
    if key not in ANSWERS:
        try:
            ANSWERS[key] = attempt(case)
        except Exception as error:
            ANSWERS[key] = error.with_traceback(None)
    return ANSWERS[key]


def next_cases(case, message):
    """What the message advises: of each advice the ways to take it, one of which is to build."""
    lines = {role: line for role, line in case.items() if isinstance(line, str)}
    for role, advised in assignments(message).items():
        yield from ([case | {role: line}] for line in advised)
    word, names = suggestions(message)
    for role, line in lines.items():
        for name in names if re.search(rf"\b{word}\b", line) else ():
            ways = (rf"\b{word}\b", rf"\b{word}\b(\((?:[^()]|\([^()]*\))*\))?")
            yield [case | {role: re.sub(way, name, line, count=1)} for way in ways]
    for role, line in additions(message, lines):
        yield [case | {role: line}]
    for rule in re.findall(r"(?:use|or) gradient=(\w+)", message):
        yield [case | {"estimator": re.sub(r"gradient=\w+", f"gradient={rule}", case["estimator"])}]
    for line in uses(message):
        if line.split("(")[0] in pv.ESTIMATORS:
            yield [case | {"estimator": line}]
        elif line.split("(")[0] in NETWORKS:
            yield from ([case | {r: line}] for r, said in lines.items() if said.startswith("Conv"))
        else:
            for role in [role for role, said in lines.items() if said.startswith("Flow(")]:
                flow = re.sub(r"(?<=Flow\()\w+", line, lines[role], count=1)
                yield [case | {role: line if "(" in line else flow}]


def dead_ends(case, depth=4, tried=()):
    """What is advised and does not build, followed to the end."""
    if (error := answer(case)) is None:
        return []
    if not is_clear(error):
        return [f"{said(case)}: {type(error).__name__}: {str(error).splitlines()[:1]}"]
    message = str(error)
    after = list(next_cases(case, message))
    if tried and (message in tried or not after or not depth):
        return [f"{said(case)}: {message.splitlines()[0]}"]
    ends = []
    for ways in after:
        of_each = [dead_ends(way, depth - 1, (*tried, message)) for way in ways]
        ends += min(of_each, key=len)
    return ends


def said(case):
    return {k: v for k, v in case.items() if PLAIN.get(k) != v and v is not None}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", BAD, ids=lambda case: str(case)[1:-1].replace("'", ""))
@pytest.mark.slow
def test_what_an_error_advises_builds(case):
    ends = dead_ends(PLAIN | case)
    assert not ends, "\n".join(ends)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_most_of_the_table_is_refused_with_advice():
    """So that the test above tests something: what is taken, or advises nothing, is counted."""
    advice = 0
    for case in BAD:
        if error := answer(PLAIN | case):
            advice += bool(list(next_cases(PLAIN | case, str(error))))
    assert advice >= 80, advice
    assert len(BAD) >= 150
