"""M2: a label as a latent that is known for some of the data."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO

import pyro_vae as pv
from pyro_vae.infer.engine.capture import capture
from pyro_vae.infer.estimators.soundness import check_and_nest
from pyro_vae.infer.training.binarize import binarize
from pyro_vae.model.joint import Joint

K, L, D = 3, 2, 5
LABELS = [2, -1, 0, -1]


def small(alpha=0.0, x_shape=D, **parts):
    """Two bits and a label of three classes: everything can be summed by hand."""
    told = dict(
        prior="Bernoulli(logits=learned)", guide="Bernoulli",
        labels="OneHotCategorical(logits=learned)", encoder=pv.MLP([6], activation="Tanh"),
        decoder=pv.MLP([6], activation="Tanh"), merge=pv.MLP([6], activation="Tanh"), seed=0,
    )  # fmt: skip
    vae = pv.M2(x_shape, L, K, alpha=alpha, **told | parts).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in vae.parameters():
            p.add_(torch.randn(p.shape, generator=generator, dtype=p.dtype), alpha=0.5)
    return vae


@pytest.fixture
def x():
    return torch.rand(4, D, generator=torch.Generator().manual_seed(2)).round().double()


def states(vae, x):
    """Each (y, z), log p(x, y, z) and log q(y, z|x) with q(y|x) the network's, ``(N,)`` each."""
    h = vae.encoder(x)
    p, q = vae.prior(), vae.approximation(h)
    for y in range(K):
        one_hot = torch.eye(K).double()[y].expand(len(x), K)
        for bits in itertools.product((0.0, 1.0), repeat=L):
            z = torch.tensor(bits).double().expand(len(x), L)
            both = torch.cat([one_hot, z], 1)
            likelihood = vae.decode(both).log_prob(x)
            log_p = p.first.logits.log_softmax(-1)[y] + p.given[0](one_hot).log_prob(z) + likelihood
            log_q_y = q.first.logits.log_softmax(-1)[:, y]
            yield y, log_p, log_q_y, q.given[0](one_hot).log_prob(z)


def by_hand(vae, x, labels):
    """The ELBO of each observation, and log p(x) or log p(x, y): sums over all states."""
    bound, joint = torch.zeros(len(x)).double(), [[] for _ in x]
    for y, log_p, log_q_y, log_q_z in states(vae, x):
        for i, label in enumerate(labels):
            if label in (-1, y):
                log_q = log_q_z[i] + (log_q_y[i] if label == -1 else 0)
                bound[i] = bound[i] + log_q.exp() * (log_p[i] - log_q)
                joint[i].append(log_p[i])
    return bound, torch.stack([torch.stack(terms).logsumexp(0) for terms in joint])


def gradient(vae, loss):
    return torch.cat([
        torch.zeros_like(p).flatten() if g is None else g.flatten()
        for p, g in zip(vae.parameters(), torch.autograd.grad(
            loss, list(vae.parameters()), allow_unused=True), strict=True)
    ])  # fmt: skip


def step(vae, estimator, data):
    """Minus the loss of one step, and minus its gradient."""
    made = pv.make_estimator(estimator)
    vae.zero_grad()
    loss = made.elbo.loss_and_grads(vae.model, made.wrap(vae.guide, data), data)
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in vae.parameters()]
    return -loss, -torch.cat([g.flatten() for g in grads])


@pytest.mark.slow
@pytest.mark.parametrize("labels", [LABELS, [-1] * 4, [0, 1, 2, 2]])
@pytest.mark.parametrize("alpha", [0.0, 3.0])
@pytest.mark.parametrize("particles", ["", "(num_particles=3)"])
def test_the_enumerated_elbo_and_its_gradient_are_the_sums_by_hand(x, labels, alpha, particles):
    vae = small(alpha)
    data = vae.labelled(x, labels)
    value, slopes = step(vae, f"TraceEnum_ELBO{particles}", data)
    exact = by_hand(vae, x, labels)[0].sum()
    log_q = vae.approximation(vae.encoder(x)).first.logits.log_softmax(-1)
    exact = exact + alpha * sum(log_q[i, y] for i, y in enumerate(labels) if y >= 0)
    assert value == pytest.approx(exact.item(), abs=1e-9)
    expected = gradient(vae, exact)
    assert torch.allclose(slopes, expected, atol=1e-9) and expected.abs().max() > 0.1


@pytest.mark.slow
def test_evidence_and_elbo_are_those_of_x_and_the_known_labels(x):
    vae = small(alpha=3.0)  # which the ELBO that is reported leaves out
    data = vae.labelled(x, LABELS)
    bound, log_p = (t.detach() for t in by_hand(vae, x, LABELS))
    found = pv.log_evidence(vae, data, num_samples=4000, seed=0)
    z = (found.log_evidence + found.standard_error**2 / 2 - log_p) / found.standard_error
    assert z.abs().max() < 5 and (bound < log_p).all()
    draws = torch.stack([pv.elbo(vae, data, num_samples=500, seed=s) for s in range(20)])
    z = (draws.mean(0) - bound) / (draws.std(0) / 20**0.5)
    assert z.abs().max() < 5 and (log_p - bound > 0.05).all()


@pytest.mark.slow
@pytest.mark.parametrize("line", ["Trace_ELBO", "RLOO(num_particles=3)"])
def test_sampled_gradients_agree_with_the_enumerated_one(x, line):
    vae = small(alpha=2.0)
    data = vae.labelled(x, LABELS)
    _, exact = step(vae, "TraceEnum_ELBO", data)
    made = pv.make_estimator(line)
    guide = made.wrap(vae.guide, data)
    draws = []
    for _ in range(100):
        vae.zero_grad()
        made.elbo.loss_and_grads(vae.model, guide, data)
        draws.append(-torch.cat([p.grad.flatten() for p in vae.parameters()]))
    draws = torch.stack(draws)
    error = draws.std(0) / len(draws) ** 0.5
    z = (draws.mean(0) - exact) / error.clamp_min(1e-12)
    assert z[error > 1e-9].abs().max() < 5
    assert torch.allclose(draws.mean(0)[error <= 1e-9], exact[error <= 1e-9], atol=1e-7)


def test_gradients_reach_every_parameter_with_a_normal_latent(x):
    vae = small(prior="Normal(loc=learned)", guide="Normal")
    data = vae.labelled(x, LABELS)
    elbo, guide = TraceEnum_ELBO(), pv.make_estimator("TraceEnum_ELBO").wrap(vae.guide, data)
    elbo.loss_and_grads(vae.model, guide, data)
    assert all(p.grad is not None and (p.grad != 0).any() for p in vae.parameters())


def test_its_sites_are_y_and_z_and_the_guide_of_z_reads_y(x):
    vae = small(prior="Normal", guide="Normal")
    data = vae.labelled(x, LABELS)
    guide = pyro.poutine.trace(vae.guide).get_trace(data)
    model = pyro.poutine.trace(pyro.poutine.replay(vae.model, guide)).get_trace(data)
    for trace in (guide, model):
        sites = {n: s for n, s in trace.nodes.items() if n in vae.latents.sites}
        assert {n: tuple(s["value"].shape) for n, s in sites.items()} == {"y": (4, K), "z": (4, L)}
        assert isinstance(sites["y"]["fn"], dist.OneHotCategorical)
    assert (guide.nodes["y"]["value"].argmax(1)[::2] == torch.tensor([2, 0])).all()
    means = vae.encode(data).given[0](torch.eye(K).double()[:, None]).mean
    assert means.shape == (K, 4, L) and (means[0] - means[1]).abs().min() > 1e-3
    assert vae.model().shape == (1, D)


def test_a_draw_that_denies_the_label_is_ruled_out(x):
    vae = small()
    data = vae.labelled(x, [0] * 4)
    for y, ruled_out in ((0, False), (1, True)):
        told = {"y": torch.eye(K).double()[[y] * 4], "z": torch.zeros(4, L).double()}
        trace = pyro.poutine.trace(pyro.poutine.condition(vae.model, told)).get_trace(data)
        assert (trace.log_prob_sum() < -1e4) == ruled_out
        z = torch.cat([told["y"], told["z"]], 1)[None]
        assert ((Joint(vae, data).log_joint(z) < -1e4) == ruled_out).all()
    found = pv.log_evidence(vae, data, num_samples=2000, wide=0.5, num_simulated=0, seed=0)
    log_p = by_hand(vae, x, [0] * 4)[1].detach()
    assert ((found.log_evidence - log_p) / found.standard_error).abs().max() < 5


def test_labels_teach_the_classifier_by_alpha_alone(x):
    """The ELBO of a labelled observation does not hold q(y|x): Kingma et al. (2014), equation 9."""
    for alpha in (0.0, 1.0):
        pyro.clear_param_store()
        vae = small(alpha)
        data = vae.labelled(x, [0, 1, 2, 2])
        Trace_ELBO().loss_and_grads(vae.model, vae.guide, data)
        head = vae.approximation.label.sources["logits"].head.weight.grad
        assert bool((head is not None) and (head != 0).any()) == (alpha > 0)


@pytest.mark.slow
def test_the_step_can_be_made_a_graph(x):
    vae = small(alpha=1.0, prior="Normal", guide="Normal")
    data, made = vae.labelled(x, LABELS), pv.make_estimator("Trace_ELBO")
    guide = made.wrap(vae.guide, data)
    graph = capture(made.elbo, vae.model, guide, data)
    torch.manual_seed(0)
    loss, *gradients = graph.module(data, *graph.live)
    torch.manual_seed(0)
    assert made.elbo.loss_and_grads(vae.model, guide, data) == pytest.approx(loss.item())
    for parameter, found in zip(graph.parameters.values(), gradients, strict=True):
        assert torch.allclose(parameter.grad, found)


@pytest.mark.parametrize("line", ["VIMCO", "RWS", "CUBO(gradient=score)", "TVO(gradient=score)"])
def test_the_classification_term_counts_the_right_way_or_is_refused(x, line):
    """Of labelled data q(y|x) is in that term alone, so its gradient is known under any bound."""
    vae = small(alpha=2.0)
    data, made = vae.labelled(x, [0, 1, 2, 2]), pv.make_estimator(line)
    if line in ("RWS", "CUBO(gradient=score)"):
        with pytest.raises(ValueError, match="the factor 'classification' of this guide"):
            check_and_nest(made, vae.model, vae.guide, data)
        vae.alpha = 0.0
        check_and_nest(made, vae.model, vae.guide, data)
        return
    check_and_nest(made, vae.model, vae.guide, data)
    step(vae, line, data)
    head = vae.approximation.label.sources["logits"].head.weight
    log_q = (
        vae.approximation(vae.encoder(x)).first.logits.log_softmax(-1)[range(4), [0, 1, 2, 2]].sum()
    )
    assert torch.allclose(-head.grad, 2 * torch.autograd.grad(log_q, head)[0])


def test_data_hold_x_beside_the_label(x):
    vae = small()
    data = vae.labelled(x, torch.tensor([2, math.nan, 0, -1]))
    cells, known = vae.record.cells(data), vae.record.part(data, "label")
    assert torch.equal(cells, x)
    assert known.tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert torch.equal(vae.as_data(data.numpy()), data)
    assert torch.equal(vae.as_data(x.numpy()), vae.labelled(x, [-1] * 4))
    assert torch.equal(binarize(data)[:, D:], known)  # fresh bits leave labels as they are
    assert torch.equal(vae.classify(data).probs, vae.classify(x).probs)
    q = vae.encode(data)
    assert q.first.probs[0].tolist() == [0, 0, 1] and q.sample().shape == (4, K + L)
    assert vae.reconstruct(data).shape == vae.sample(4).shape == x.shape


def test_bad_labels_and_data_are_refused(x):
    vae = small()
    for labels, message in {(0, 1): "a label for each observation", (0, 1, 3, 0): "from 0 to 2",
                            (0, 1, 0.5, 0): "from 0 to 2"}.items():  # fmt: skip
        with pytest.raises(ValueError, match=message):
            vae.labelled(x, labels)
    with pytest.raises(ValueError, match="one-hot"):
        vae.as_data(torch.cat([x, torch.ones(4, K)], 1))
    with pytest.raises(ValueError, match="expected x of shape"):
        vae.as_data(x[:, :3])
    with pytest.raises(ValueError, match="Bernoulli needs 0 or 1"):
        vae.check(vae.labelled(x / 3, LABELS))
    with pytest.raises(ValueError, match="at least 2, got 1"):
        pv.M2(D, L, 1)
    with pytest.raises(ValueError, match="VampPrior is made of"):
        pv.M2(D, L, K, prior="VampPrior(components=3)")
    with pytest.raises(ValueError, match="alpha"):
        pv.M2(D, L, 2, alpha=-1)


def test_it_is_saved_and_loaded(x, tmp_path):
    vae = small(alpha=2.0)
    again = pv.load(vae.save(tmp_path))
    assert isinstance(again, pv.M2) and again.describe() == vae.describe()
    assert torch.equal(again.classify(x).probs, vae.classify(x).probs)
    data = vae.labelled(x, LABELS)
    assert torch.equal(pv.elbo(again, data, seed=0), pv.elbo(vae, data, seed=0))


class Merge(torch.nn.Module):
    """A class of the user's: it has no line."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.LazyLinear(7)

    def forward(self, h):
        return self.layer(h).relu()


def test_a_class_of_ones_own_is_given_again(x, tmp_path):
    vae = pv.M2(D, L, K, merge=Merge(), encoder=pv.MLP([5]), decoder=pv.MLP([5]), seed=0)
    vae.save(tmp_path)
    with pytest.raises(
        ValueError, match=r"the merge of this model .*Merge\): load\(folder, merge="
    ):
        pv.load(tmp_path)
    data = vae.eval().labelled(x, LABELS)
    again = pv.load(tmp_path, merge=Merge())
    assert torch.equal(pv.elbo(again, data, seed=0), pv.elbo(vae, data, seed=0))
    plain = pv.VAE(D, L, encoder=pv.MLP([5]), decoder=pv.MLP([5]), seed=0)
    with pytest.raises(ValueError, match="unknown part merge"):
        pv.load(plain.save(tmp_path / "plain"), merge=Merge())


@pytest.mark.slow
def test_images_missing_cells_and_particles():
    image = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    image[0, 0, 0] = math.nan
    vae = pv.M2(
        (1, 4, 4), 2, 3, likelihood="ContinuousBernoulli", guide="MultivariateNormal",
        encoder="ConvEncoder([4])", decoder="ConvDecoder([4])", missing=True, alpha=1.0, seed=0,
    )  # fmt: skip
    data = vae.labelled(image, [0, 1, 2, -1, -1, -1])
    before = {k: v.clone() for k, v in vae.named_parameters()}
    pv.fit(vae, data, estimator="TraceEnum_ELBO(num_particles=2)", epochs=2, batch_size=4)
    assert all(not torch.equal(before[k], v) for k, v in vae.named_parameters())
    assert vae.reconstruct(data).shape == image.shape


@pytest.mark.slow
def test_enumeration_learns_from_few_labels_what_sampling_does_not():
    """benchmarks/semisupervised.py, briefly: digits, 100 labels."""
    digits = pv.load_data("digits")
    x, labels = digits.train.flatten(1), digits.train_labels
    some = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:100]
    few = torch.full_like(labels, -1)
    few[some] = labels[some]
    right = {}
    for line, alpha in (("Trace_ELBO", 0.0), ("TraceEnum_ELBO", 0.0), ("TraceEnum_ELBO", 10.0)):
        vae = pv.M2(64, 10, 10, alpha=alpha, encoder="MLP([100])", decoder="MLP([100])", seed=0)
        data = vae.labelled(x, few)
        data = torch.cat([data, data[some].repeat(4, 1)])
        pv.fit(vae, data, estimator=line, epochs=4, lr=6e-3, binarize="dynamic")
        answers = vae.classify(digits.test.flatten(1)).probs.argmax(1)
        right[line, alpha] = (answers == digits.test_labels).double().mean().item()
    assert right["TraceEnum_ELBO", 0.0] > right["Trace_ELBO", 0.0] + 0.15
    assert right["TraceEnum_ELBO", 10.0] > 0.75


def test_arviz_holds_the_data_without_their_labels(x):
    vae = small()
    data = pv.to_arviz(vae, vae.labelled(x, LABELS), 20, seed=0)
    assert (data.observed_data["x"].values == x.numpy()).all()
    y = data.posterior["z"].values[..., :K]  # both latents side by side, known labels kept
    assert (y[:, :, 0, 2] == 1).all() and (y[:, :, 2, 0] == 1).all()


def test_category_numbers_of_z_reach_the_decoder_as_one_hot_vectors(x):
    line = "Categorical(categories=3)"
    vae = small(prior=line, guide=line)
    assert vae.latents.categories == (0, 3) and vae.latents.coordinates[-1] == "z[1]"
    both = torch.tensor([[0.0, 1, 0, 2, 0]]).double()
    read = vae.latents.features(both, torch.float64)
    assert read.tolist() == [[0, 1, 0, 0, 0, 1, 1, 0, 0]]
    data = vae.labelled(x, LABELS)
    assert pv.fit(vae, data, estimator="TraceEnum_ELBO", epochs=1).history.elbo_train.notna().all()
    assert pv.log_evidence(vae, data, num_samples=5, seed=0).log_evidence.isfinite().all()


BAD_PARTS = {
    "a committed rate": (
        dict(prior="Normal(scale=learned)", guide="DeltaNormal(rate=0.1)"),
        r"commits to a rate against N\(0, 1\): use prior='Normal'",
    ),
    "another support": (
        dict(prior="Gamma", guide="Normal"),
        r"at z the guide Normal draws .* guide='Transformed\(Normal, SoftplusTransform\)'",
    ),
    "a word for a number": (dict(alpha="1"), "alpha is a number of at least 0, got '1'"),
    "a truth": (dict(alpha=True), "alpha is a number of at least 0, got True"),
    "a negative number": (dict(alpha=-1), "alpha is a number of at least 0, got -1"),
}


@pytest.mark.parametrize("name", BAD_PARTS)
def test_parts_that_do_not_fit_are_refused_as_in_a_vae(name):
    options, message = BAD_PARTS[name]
    with pytest.raises(ValueError, match=message):
        pv.M2(D, L, K, **options)


def test_the_guide_that_is_advised_builds():
    vae = pv.M2(D, L, K, prior="Gamma", guide="Transformed(Normal, SoftplusTransform)", seed=0)
    assert vae.sample(3, seed=0).shape == (3, D)


BESIDE = pv.Record([pv.Block("x", D), pv.Block("c", 3, "context"), pv.Block("w", role="weight")])


def beside(vae, x, labels, weights):
    c = torch.rand(len(x), 3, generator=torch.Generator().manual_seed(3)).double()
    return vae.labelled({"x": x, "c": c, "w": torch.tensor(weights)}, labels)


def test_a_weight_of_2_beside_a_label_is_the_observation_twice(x):
    vae = small(3.0, x_shape=BESIDE)
    once = beside(vae, x[:2], LABELS[:2], [2.0, 3.0])
    rows = beside(vae, x[:2], LABELS[:2], [1.0, 1.0])
    for found, expected in zip(
        step(vae, "TraceEnum_ELBO", once),
        step(vae, "TraceEnum_ELBO", rows[[0, 0, 1, 1, 1]]),
        strict=True,
    ):
        torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected))


def test_a_condition_beside_a_label_is_read_by_both_and_saved(x, tmp_path):
    vae = small(x_shape=BESIDE)
    data = beside(vae, x, LABELS, [1.0] * 4)
    other = vae.labelled({"x": x, "c": torch.zeros(4, 3), "w": torch.ones(4)}, LABELS)
    assert not torch.equal(vae.classify(data).probs, vae.classify(other).probs)
    z = vae.encode(data).sample()
    assert not torch.equal(vae.decode(z, data).mean, vae.decode(z, other).mean)
    again = pv.load(vae.save(tmp_path / "m2"))
    assert torch.equal(pv.elbo(again, data, seed=0), pv.elbo(vae, data, seed=0))


@pytest.mark.parametrize("name", ["condition", "offset", "weight"])
def test_what_is_said_by_a_word_elsewhere_is_a_block_here(name):
    with pytest.raises(ValueError, match=rf"M2 takes {name}= as a block: M2\(Record") as refused:
        small(**{name: "age"})
    advised = str(refused.value).split(": ", 1)[1].split(";")[0]
    vae = eval(advised, {name: getattr(pv, name) for name in ("M2", "Record", "Block")})
    assert vae.record.has("context") and vae.record.has("label")
