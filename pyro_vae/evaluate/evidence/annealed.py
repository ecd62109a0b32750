"""log p(x) by annealed importance sampling, and from both sides on data drawn from the model."""

from dataclasses import replace
from typing import Literal

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...core.acting import differentiates
from ...core.checks import whole
from ...model.entry import of_face
from ...model.face import Face
from ...model.joint import reading
from ..statistics import given_rows
from .importance import Evidence, Sandwich
from .paths import Path, Plan, joint_of

__all__ = ["ais", "bdmc"]


@of_face
@differentiates
def ais(
    vae: Face,
    x: Tensor | ArrayLike,
    *,
    temperatures: int = 1000,
    chains: int = 16,
    start: Literal["prior", "guide"] = "prior",
    leapfrog: int = 10,
    seed: int | None = None,
) -> Evidence:
    r"""log p(x) of each observation, by annealed importance sampling with Hamiltonian steps.

    .. math:: \log \hat p(x) = \log \frac1C \sum_c w_c, \quad
        w_c = \prod_{t=1}^T \left(\frac{p(x, z_{t-1})}{\pi_0(z_{t-1})}\right)^{\beta_t-\beta_{t-1}},
        \quad z_t \sim \mathrm{HMC}(z_{t-1}; \pi_0^{1-\beta_t} p(x, \cdot)^{\beta_t})

    where :math:`\pi_0` is the prior or the guide. It finds modes that the guide has missed, so it
    is what to ask where :func:`log_evidence` has a large k-hat. In expectation it is a lower bound
    that rises to log p(x) with the temperatures. Each observation and temperature has a step length
    of its own, tuned on a pilot run and then held, so that the bound is exact.

    Args:
        vae: a trained model, or a :class:`Program`, which carries its x; z continuous.
        x: ``(N, *x_shape)``.
        temperatures: T; one gradient per leapfrog step, chain and observation at each.
        chains: C, per observation.
        start: the distribution at which the path begins.
        leapfrog: leapfrog steps per temperature.
        seed: of the draws.

    Returns:
        :class:`Evidence`; its standard error is over the chains, by the delta method.

    Raises:
        ValueError: data that the model refuses, a discrete z, or a number that is too small.

    References:
        Neal (2001), Statistics and Computing 11; Wu et al. (2017), arXiv:1611.04273.

    >>> from pyro_vae import VAE
    >>> vae = VAE(2, latent_dim=1, likelihood="Normal", seed=0)
    >>> ais(vae, torch.zeros(3, 2), temperatures=20, leapfrog=2, seed=0).log_evidence.shape
    torch.Size([3])
    """
    plan = Plan(temperatures, chains, start, leapfrog)
    x = vae.check(x)
    vae.check_separate("ais")
    if start == "guide":
        vae.check_guide("ais(start='guide')")
    with reading(vae, seed):
        parts = [
            Path(joint_of(vae, some), plan).forward() for some in x.split(plan.room(vae.cells))
        ]
    return replace(Evidence.from_weights(torch.cat(parts, 1)), weights=vae.weights_of(x))


@of_face
@differentiates
def bdmc(
    vae: Face,
    num_data: int = 100,
    *,
    given: Tensor | ArrayLike | None = None,
    temperatures: int = 1000,
    chains: int = 16,
    start: Literal["prior", "guide"] = "prior",
    leapfrog: int = 10,
    seed: int | None = None,
) -> Sandwich:
    r"""log p(x) of data drawn from the model, from both sides: bidirectional Monte Carlo.

    The z that an observation was drawn with is an exact draw of its posterior. Annealing from there
    back to the start estimates 1 / p(x) without bias, and so bounds log p(x) from above in
    expectation; :func:`ais` bounds it from below. The gap between them bounds the error of both on
    data drawn from the model; on real data the error may be larger.

    Args:
        vae: a trained model, or a :class:`Program` whose guide reads its data; z continuous.
        num_data: how many observations to draw.
        given: observations whose context and offset are taken in turn, where the model reads any;
            of more than ``num_data`` as many at random.
        temperatures: as in :func:`ais`.
        chains: per observation and direction; those backwards share their first z.
        start: as in :func:`ais`.
        leapfrog: as in :func:`ais`.
        seed: of the draws.

    Returns:
        :class:`Sandwich`: ``x``, ``lower``, ``upper``, ``gap``, ``gap_error``.

    Raises:
        ValueError: a discrete z, a number that is too small, a model that reads a context or an
            offset without ``given``, or whose draws are no exact ones of a posterior, as those of
            ``Dequantized``, whose probabilities are estimates.

    References:
        Grosse, Ghahramani & Adams (2015), arXiv:1511.02543; Wu et al. (2017), arXiv:1611.04273.

    >>> from pyro_vae import VAE
    >>> vae = VAE(2, latent_dim=1, likelihood="Normal", seed=0)
    >>> bdmc(vae, 5, temperatures=20, leapfrog=2, seed=0).x.shape
    torch.Size([5, 2])
    """
    plan = Plan(temperatures, chains, start, leapfrog)
    num_data = whole("num_data", num_data, 2)
    vae.check_separate("bdmc")
    if start == "guide":
        vae.check_guide("bdmc(start='guide')")
    if why := vae.why_not_bounded:
        raise ValueError(
            f"bdmc bounds log p(x) by exact draws of z, and this model has none: {why}"
        )
    up, down, data = [], [], []
    with reading(vae, seed):
        given = given_rows(vae, given, num_data)
        for z, x in vae.simulate(num_data, given, plan.room(vae.cells)):
            joint = joint_of(vae, x)
            exact, path = joint.at(z)[0], Path(joint, plan)
            up.append(path.forward())
            down.append(path.backward(exact))
            data.append(x)
    x = torch.cat(data)
    lower, inverse = (Evidence.from_weights(torch.cat(parts, 1)) for parts in (up, down))
    upper = Evidence(-inverse.log_evidence, inverse.standard_error, inverse.khat, plan.chains)
    return Sandwich(x, lower, upper)
