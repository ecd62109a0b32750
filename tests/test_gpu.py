"""On a GPU, where there is one, everything runs as on a CPU; and reduced precision on both."""

import pyro
import pytest
import torch
from pyro.infer import SVI

import pyro_vae as pv
from pyro_vae import MLP, VAE
from pyro_vae.infer import ESTIMATORS, CompiledELBO, FusedOptim, make_estimator
from pyro_vae.infer.estimators.soundness import check_and_nest

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
X = torch.linspace(0, 1, 192).reshape(32, 6).mul(7).sin().gt(0).float()


def model(family="Normal"):
    return VAE(6, 3, prior=family, guide=family, encoder=MLP([16]), decoder=MLP([16]), seed=0)


def served(line, x):
    for family in ("Normal", "Bernoulli"):
        with pyro.get_param_store().scope():
            vae = model(family).to(x.device)
            try:
                check_and_nest(make_estimator(line), vae.model, vae.guide, x)
            except ValueError:
                continue
            return vae
    raise AssertionError(line)


@needs_gpu
@pytest.mark.parametrize("line", ESTIMATORS)
def test_every_estimator_trains_there_and_compares(line):
    x = X.cuda()
    vae = served(line, x)
    fit = pv.fit(vae, X, estimator=line, epochs=3, batch_size=10, progress=False)
    assert all(p.is_cuda and p.isfinite().all() for p in vae.parameters())
    assert fit.history.elbo_train.notna().all()
    found = pv.compare_estimators(vae, X, [line], num_draws=34, burn_in=2)
    assert found.grad_variance.sel(parameter="all").notnull().all()


@needs_gpu
@pytest.mark.parametrize("compile", [True, "reduce-overhead"])
def test_the_compiled_step_there_is_the_eager_one(compile):
    paths = {}
    for how in (False, compile):
        vae = model().cuda()
        history = pv.fit(vae, X, epochs=4, batch_size=10, compile=how, progress=False).history
        paths[how] = history.elbo_train
    assert torch.allclose(*(torch.tensor(path.to_numpy()) for path in paths.values()), rtol=1e-3)


@needs_gpu
def test_a_cuda_graph_steps_under_svi():
    vae, x = model().cuda(), X.cuda()
    elbo = CompiledELBO(pyro.infer.Trace_ELBO(), mode="reduce-overhead")
    svi = SVI(vae.model, vae.guide, FusedOptim(torch.optim.Adam, {"lr": 1e-2}), elbo)
    losses = [svi.step(x) for _ in range(200)]
    assert sum(losses[-20:]) < sum(losses[:20])


@needs_gpu
def test_what_is_asked_of_a_model_is_answered_there(tmp_path):
    vae = model().cuda()
    pv.fit(vae, X, epochs=1, out=tmp_path, progress=False)
    pv.fit(vae, X, epochs=2, resume=tmp_path, progress=False)
    vae.save(tmp_path)
    assert torch.equal(
        pv.load(tmp_path).encode(X).mean, vae.encode(X.cuda()).mean.cpu()
    ) or torch.allclose(
        pv.load(tmp_path).encode(X).mean, vae.encode(X.cuda()).mean.cpu(), atol=1e-5
    )
    assert vae.sample(4, seed=0).is_cuda
    assert vae.reconstruct(X).shape == X.shape
    assert pv.elbo(vae, X, seed=0).isfinite().all()
    assert pv.log_evidence(vae, X, num_samples=100, seed=0).log_evidence.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_reduced_precision_trains_about_as_well(precision, device):
    """The layers are rounded, so the weights differ; densities are not, so the ELBO is close."""
    found, weights = {}, {}
    for how in ("float32", precision):
        vae = model().to(device)
        history = pv.fit(vae, X, epochs=90, batch_size=32, lr=1e-2, precision=how).history
        found[how], weights[how] = history.elbo_train.iloc[-1], vae.encoder.layers[1].weight
    assert found[precision] > history.elbo_train.iloc[0] + 0.3
    assert found[precision] == pytest.approx(found["float32"], abs=0.05)
    rounded = precision == "bf16" or device == "cuda"
    assert torch.equal(*weights.values()) != rounded
    assert torch.get_float32_matmul_precision() == "highest"


def test_bf16_rounds_layers_and_nothing_else():
    features, locs = set(), set()

    class Watched(VAE):
        def guide(self, x):
            features.add(self.encoder(x).dtype)
            locs.add(self.approximate_posterior(x).base_dist.loc.dtype)
            return super().guide(x)

    vae = Watched(6, 3, encoder=MLP([4]), decoder=MLP([4]), seed=0)
    pv.fit(vae, X, epochs=1, precision="bf16", progress=False)
    assert features == {torch.bfloat16, torch.float32}  # in steps, and in evaluations
    assert locs == {torch.float32}
    assert all(p.dtype == torch.float32 for p in vae.parameters())


def test_an_unknown_precision_is_answered():
    with pytest.raises(ValueError, match="precision is 'float32', 'tf32' or 'bf16', got 'f16'"):
        pv.fit(model(), X, precision="f16")
