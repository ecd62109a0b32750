"""The VAE: ``model(x)`` and ``guide(x)``, two ordinary Pyro functions over three families."""

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import pyro
import pyro.distributions as dist
import safetensors
import torch
from numpy.typing import ArrayLike
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..core.seeding import seeded
from ..core.toml import write_toml
from ..distributions import Layered, draw_sites
from ..families.guides import refine, suggest_guide
from ..families.layers import check_layers, layer_sizes
from ..families.likelihoods import check_support, drop_missing, fill
from ..families.networks import MLP, batched, build_network, make_network, spec_of
from ..families.part import Ends, Part, connect
from ..families.registry import make_layers, make_part
from ..families.support import describe_constraint, innermost, same_support, support_of
from ..language.spec import Spec
from .imputation import imputed

__all__ = ["VAE", "load"]

DESCRIPTION, WEIGHTS = "model.toml", "model.safetensors"


class VAE(nn.Module):
    r"""A variational autoencoder: a prior p(z), a likelihood p(x|z) and a guide q(z|x).

    .. math:: \log p(x) \ge E_{q(z|x)}[\log p(x|z)] - KL(q(z|x) \| p(z))

    Args:
        x_shape: the shape of one datum, ``(784,)`` or ``(1, 28, 28)``; a number for a vector.
        latent_dim: the shape of one z; a number for a vector.
        layers: in its place, the widths of stochastic layers, from x upward: ``[100, 50]``. The
            sites are ``z1``, ``z2`` ..., z is all of them side by side, the decoder reads ``z1``.
            A prior's line is then of the top layer (:class:`Hierarchy` says more), a guide's of
            each layer, going up (:class:`BottomUp`); :class:`TopDown` and :class:`Ladder` go down.
        prior: a line such as ``"Normal"``, or any module with ``forward() -> distribution``.
        likelihood: a line, or a module with ``forward(features) -> distribution``.
        guide: a line, or a module with ``forward(features) -> distribution``.
        encoder: from x to features; ``MLP([200, 200])`` where it is not given.
        decoder: from z to features; ``MLP([200, 200])`` where it is not given.
        missing: whether x may hold NaN. Those cells drop out of the likelihood, and the encoder
            reads x with zeros there, beside a mask of the observed cells (twice the channels).
        seed: of the initial weights; the global generator's state where it is not given.

    Raises:
        SpecError: an unknown family or parameter, or a number outside its constraint.
        ValueError: guide and prior live on different sets, or shapes that do not fit.

    References:
        Kingma & Welling (2014), arXiv:1312.6114; Rezende et al. (2014), arXiv:1401.4082.

    >>> vae = VAE((784,), latent_dim=50, likelihood="Bernoulli", encoder=MLP([200]), seed=0)
    >>> vae.sample(3, seed=0).shape
    torch.Size([3, 784])
    """

    # What a line, or a class of the user's, says: the argument, and the module that it made.
    ROLES: ClassVar[dict[str, str]] = {
        "prior": "prior", "likelihood": "likelihood", "guide": "posterior",
        "encoder": "encoder", "decoder": "decoder",
    }  # fmt: skip

    def __init__(
        self,
        x_shape: int | tuple[int, ...],
        latent_dim: int | tuple[int, ...] | None = None,
        *,
        layers: Sequence[int] | None = None,
        prior: str | Spec | nn.Module = "Normal",
        likelihood: str | Spec | nn.Module = "Bernoulli",
        guide: str | Spec | nn.Module = "Normal",
        encoder: str | Spec | nn.Module | None = None,
        decoder: str | Spec | nn.Module | None = None,
        missing: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.x_shape = _shape(x_shape, "x_shape")
        if (latent_dim is None) == (layers is None):
            raise ValueError("say latent_dim=50, or for stochastic layers layers=[100, 50]")
        sizes = () if layers is None else layer_sizes(layers)
        self.layers = sizes if len(sizes) > 1 else ()
        latent_dim = sum(sizes) if latent_dim is None else latent_dim
        self.z_shape = _shape(latent_dim, "latent_dim")
        self.missing = missing
        with seeded(seed):
            self.encoder = make_network(MLP() if encoder is None else encoder, "encoder")
            self.decoder = make_network(MLP() if decoder is None else decoder, "decoder")
            if self.encoder is self.decoder:
                raise ValueError("encoder and decoder are one module: give each its own")
            x, z = torch.zeros(1, *self.x_shape), torch.zeros(1, *self.z_shape)
            h_x = build_network(self.encoder, self._see(x, x == 0), self.x_shape, "encoder")
            ends = Ends(self.z_shape, "guide", h_x, self.layers, self.encoder)
            if self.layers:
                self.prior, self.posterior = make_layers(prior, guide, ends, self.decoder)
            else:
                self.posterior = make_part(guide, ends)
            q = self.posterior(torch.zeros(1, *h_x))
            self.categories = _categories(q)
            h_z = build_network(self.decoder, self._real(self._lowest(z)), self.x_shape, "decoder")
            self.likelihood = make_part(likelihood, Ends(self.x_shape, "likelihood", h_z))
            p_x = self.likelihood(torch.zeros(1, *h_z))
            if not self.layers:
                self.prior = make_part(prior, Ends(self.z_shape, "prior"))
            ends = replace(
                ends, encode=self.encode, x_shape=self.x_shape, x_support=support_of(p_x)
            )
            connect(self.prior, replace(ends, role="prior", partner=self.posterior))
            connect(self.posterior, replace(ends, partner=self.prior))
        self._check_families(self.prior(), q, p_x)

    # The two functions of Pyro's.

    def model(self, x: Tensor | None = None) -> Tensor:
        """p(x, z) = p(z) p(x|z): :attr:`sites` (``z``) and ``x`` in the plate ``data``.

        Args:
            x: ``(B, *x_shape)``; ``None`` draws one datum.
        """
        self._register("prior", "decoder", "likelihood")
        with pyro.plate("data", 1 if x is None else len(x)):
            z = draw_sites(self.prior())
            p, x = self._observe(self.decode(z), x)
            return pyro.sample("x", p, obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """q(z|x): :attr:`sites` (``z``) in the plate ``data``.

        Args:
            x: ``(B, *x_shape)``.
        """
        self._register("encoder", "posterior")
        with pyro.plate("data", len(x)):
            return draw_sites(self.encode(x))

    def start_from(self, x: Tensor) -> None:
        """Give data to what starts from data (a VampPrior's pseudo-inputs), once.

        ``fit`` does so; with ``SVI`` it is yours to do. A second call changes nothing.

        Args:
            x: training data, ``(N, *x_shape)``.
        """
        for part in self.modules():
            if isinstance(part, Part):
                part.start_from(x)

    # What users ask of a trained model.

    def encode(self, x: Tensor) -> dist.TorchDistribution:
        """q(z|x) for x of shape ``(B, *x_shape)``: batch shape ``(B,)``, event shape of z."""
        features = self._read(x)
        if isinstance(self.posterior, Part):
            features = self.posterior.improve(features, lambda z: self._log_joint(x, z))
        return self.posterior(features)

    def decode(self, z: Tensor) -> dist.TorchDistribution:
        """p(x|z) for z of shape ``(..., *z_shape)``: batch shape ``(...)``, event shape of x."""
        z, read = self._lowest(z), lambda z: self.decoder(self._real(z))
        return self.likelihood(batched(read, z, len(self.z_shape)))

    def refine(
        self,
        x: Tensor | ArrayLike,
        *,
        steps: int = 100,
        lr: float = 0.05,
        num_particles: int = 8,
        seed: int | None = None,
    ) -> dist.TorchDistribution:
        r"""q(z|x) improved for each datum by steps on its own ELBO, from the encoder's answer.

        The difference in ELBO is what amortization cost. The weights stay as they are.

        Args:
            x: ``(B, *x_shape)``.
            steps: of Adam, on the encoder's features of each datum; the rate falls to 0.
            lr: the learning rate.
            num_particles: draws of z a step.
            seed: of the draws.

        Returns:
            A distribution of batch shape ``(B,)``, as :meth:`encode` gives.

        Raises:
            ValueError: a guide without a reparameterized sampler, or data that are not the model's.

        References:
            Cremer, Li & Duvenaud (2018), arXiv:1801.03558; Kim et al. (2018), arXiv:1802.02550.
        """
        x = self.as_data(x)
        with seeded(seed):
            with torch.no_grad():
                features = self._read(x)
            return refine(
                self.posterior, features, lambda z: self._log_joint(x, z),
                steps=steps, lr=lr, num_particles=num_particles,
            )  # fmt: skip

    @torch.no_grad()
    def reconstruct(self, x: Tensor | ArrayLike) -> Tensor:
        """The mean of p(x|z) at the mean of q(z|x), ``(B, *x_shape)``.

        Where a family has no mean, its mode or a median of draws stands for it.
        """
        return point(self.decode(point(self.encode(self.as_data(x)))))

    @torch.no_grad()
    def impute(
        self,
        x: Tensor | ArrayLike,
        *,
        draws: int | None = None,
        num_samples: int = 1000,
        sweeps: int = 20,
        seed: int | None = None,
    ) -> Tensor:
        r"""x with its NaN cells filled from the model, given the cells that are there.

        .. math:: p(x_{mis} \mid x_{obs}) = \int p(x_{mis} \mid z)\, p(z \mid x_{obs})\, dz

        With ``VAE(..., missing=True)`` draws of the guide, which sees what is missing, are weighted
        by :math:`p(x_{obs} \mid z)\, p(z) / q(z \mid x_{obs})`. Where the encoder knows complete
        data only, that many chains alternate z, proposed by the guide and accepted or rejected, and
        the missing cells. Both are exact in the limit of many draws, or of many sweeps.

        Args:
            x: ``(N, *x_shape)``, with NaN.
            draws: so many draws of the missing cells, not their mean.
            num_samples: K, draws of z or chains for each datum.
            sweeps: of the chains.
            seed: of the draws.

        Returns:
            ``(N, *x_shape)``, the missing cells at their mean, or ``(draws, N, *x_shape)``; the
            others as they are.

        Raises:
            ValueError: cells that are not independent given z, or without a mean.

        References:
            Mattei & Frellsen (2018), arXiv:1802.04826, and (2019), arXiv:1812.02633; Rezende et al.
            (2014), arXiv:1401.4082.

        >>> vae = VAE(3, latent_dim=2, likelihood="Normal", missing=True, seed=0)
        >>> x = torch.tensor([[1.0, float("nan"), 2.0]])
        >>> vae.impute(x, seed=0).isnan().any(), vae.impute(x, draws=5, seed=0).shape
        (tensor(False), torch.Size([5, 1, 3]))
        """
        x = self._array(x)
        with seeded(seed):
            return imputed(self, x, draws=draws, num_samples=num_samples, sweeps=sweeps)

    @torch.no_grad()
    def sample(
        self, num_samples: int = 1, *, mean: bool = False, seed: int | None = None
    ) -> Tensor:
        """Draws of x from p(x), ``(num_samples, *x_shape)``.

        Args:
            num_samples: how many.
            mean: give the mean of p(x|z) for each drawn z, not a draw of x.
            seed: of the draws.
        """
        with seeded(seed):
            p = self.decode(self.prior().expand([num_samples]).sample())
            return point(p) if mean else p.sample()

    @torch.no_grad()
    def interpolate(self, start: Tensor, end: Tensor, steps: int = 8) -> Tensor:
        """Means of p(x|z) on the straight line between two encoded data.

        Args:
            start: one datum, ``(*x_shape)``.
            end: another.
            steps: how many points, the ends included.

        Returns:
            ``(steps, *x_shape)``.
        """
        if self.categories:
            raise ValueError("z is categorical: there is no line between two categories")
        z = point(self.encode(self.as_data(torch.stack([start, end]))))
        weight = torch.linspace(0, 1, steps, dtype=z.dtype, device=z.device)
        weight = weight.reshape(-1, *[1] * len(self.z_shape))
        return point(self.decode(z[0] + weight * (z[1] - z[0])))

    # The boundary: what comes in is checked once.

    def as_data(self, x: Tensor | ArrayLike) -> Tensor:
        """x as a tensor of this model's type on its device, its shape checked.

        Raises:
            ValueError: empty, not numbers, of another shape than ``(N, *x_shape)``, or with NaN
                where the model was not told of missing cells.
        """
        x = self._array(x)
        if not self.missing and x.isnan().any():
            raise ValueError("x holds NaN: VAE(..., missing=True) takes NaN as a missing cell")
        return x

    def _array(self, x: Tensor | ArrayLike) -> Tensor:
        like = next((p for p in self.parameters()), torch.zeros(()))
        to_numpy = getattr(x, "to_numpy", None)  # a data frame's; the array may be read-only
        try:
            x = x if to_numpy is None else to_numpy(copy=True)
            x = torch.as_tensor(x).to(dtype=like.dtype, device=like.device)  # pyright: ignore
        except (TypeError, ValueError, RuntimeError) as problem:
            raise ValueError(f"x must be an array of numbers, got {type(x).__name__}") from problem
        if x.ndim == 0 or x.shape[1:] != self.x_shape:
            expected = ", ".join(map(str, ("N", *self.x_shape)))
            raise ValueError(
                f"expected x of shape ({expected}), got {tuple(x.shape)}: "
                f"reshape x, or make VAE({tuple(x.shape[1:])}, ...)"
            )
        if len(x) == 0:
            raise ValueError(f"x is empty: shape {tuple(x.shape)}; give at least one datum")
        return x

    def _cells(self, x: Tensor) -> Tensor:
        """What of the data the likelihood is of."""
        return x

    def _with_cells(self, x: Tensor, cells: Tensor) -> Tensor:
        """The data with other cells."""
        return cells

    @torch.no_grad()
    def check(self, x: Tensor | ArrayLike) -> Tensor:
        """:meth:`as_data`, and every cell in the support of the likelihood.

        Raises:
            ValueError: data outside the support, with the first such value.
        """
        x = self.as_data(x)
        self._check_support(x)
        return x

    # Saved as weights and a readable description; nothing is unpickled.

    def describe(self) -> dict[str, Any]:
        """What makes this model again: the arguments of :class:`VAE`, as plain values."""
        lines = {role: _line(self.get_submodule(path)) for role, path in self.ROLES.items()}
        dtype = str(next((p.dtype for p in self.parameters()), torch.float32))
        latent = {"layers": self.layers} if self.layers else {"latent_dim": list(self.z_shape)}
        return {
            "x_shape": list(self.x_shape), **latent, **lines,
            "missing": self.missing, "dtype": dtype.removeprefix("torch."),
        }  # fmt: skip

    @classmethod
    def _described(cls, about: dict[str, Any]) -> dict[str, Any]:
        """The arguments again, from what :meth:`describe` wrote."""
        sizes = {k: tuple(about[k]) for k in ("x_shape", "layers", "latent_dim") if k in about}
        return sizes | {k: about[k] for k in (*cls.ROLES, "missing")}

    def save(self, folder: str | Path) -> Path:
        """Write ``model.toml`` and ``model.safetensors`` into a folder, which is made."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_toml(folder / DESCRIPTION, self.describe(), "a VAE of pyro_vae: pv.load(folder)")
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()},
            folder / WEIGHTS,
        )
        return folder

    def _check_support(self, x: Tensor) -> None:
        spec = spec_of(self.likelihood)
        name = spec.name if spec else type(self.likelihood).__name__
        with seeded(0):
            z = self.prior().expand([1]).sample()
            check_support(self._cells(x), self.decode(z), name)

    def _observe(
        self, p: dist.TorchDistribution, x: Tensor | None
    ) -> tuple[dist.TorchDistribution, Tensor | None]:
        x = None if x is None else self._cells(x)
        if x is None or not self.missing:
            return p, x
        mask = ~x.isnan()
        return drop_missing(p, mask), fill(x, mask, p.support)  # pyright: ignore[reportArgumentType]

    def _log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) for z of shape ``(K, B, *z_shape)``."""
        p, filled = self._observe(self.decode(z), x)
        return self.prior().log_prob(z) + p.log_prob(cast("Tensor", filled))

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of the latent sites, whose values side by side are z."""
        return tuple(f"z{i + 1}" for i in range(len(self.layers))) or ("z",)

    def _lowest(self, z: Tensor) -> Tensor:
        """What of z the decoder reads: all of it, or the layer next to x."""
        return z[..., : self.layers[0]] if self.layers else z

    def _read(self, x: Tensor) -> Tensor:
        """The encoder's features."""
        return self.encoder(self._see(x, ~x.isnan()) if self.missing else x)

    def _see(self, x: Tensor, mask: Tensor) -> Tensor:
        """What the encoder reads: x, and where cells may be missing, their mask beside it."""
        return torch.cat([torch.where(mask, x, 0.0), mask.to(x.dtype)], 1) if self.missing else x

    def _real(self, z: Tensor) -> Tensor:
        """What the decoder reads: z, as one-hot vectors where z holds category numbers."""
        if not self.categories:
            return z
        parts = (self.decoder, self.likelihood) if hasattr(self, "likelihood") else (self.decoder,)
        dtype = next((p.dtype for m in parts for p in m.parameters()), torch.get_default_dtype())
        return nn.functional.one_hot(z.long(), self.categories).to(dtype).flatten(1)

    def _register(self, *names: str) -> None:
        """Tell Pyro of the parameters; two models under one name would share them silently."""
        for name in names:
            for key, value in getattr(self, name).named_parameters(name):
                if value.requires_grad and pyro.param(key, value).data_ptr() != value.data_ptr():
                    raise ValueError(
                        f"Pyro's parameter store holds another model's {key!r}, so this one would "
                        "not be trained: call pyro.clear_param_store(), or work within "
                        "`with pyro.get_param_store().scope():`"
                    )

    def _check_families(
        self, p: dist.TorchDistribution, q: dist.TorchDistribution, x: dist.TorchDistribution
    ) -> None:
        _check_event(p, self.z_shape, "prior")
        _check_event(q, self.z_shape, "guide")
        _check_event(x, self.x_shape, "likelihood")
        if isinstance(p, Layered) and isinstance(q, Layered):
            check_layers(p, q)
        elif same_support(p, q) is False:
            prior = _line(self.prior)
            raise ValueError(
                f"the guide {_line(self.posterior)} draws {describe_constraint(q.support)}, "
                f"the prior {prior} {describe_constraint(p.support)}: choose a guide with the "
                f"prior's support, {suggest_guide(p, prior.split('(')[0])}"
            )
        if self.missing and innermost(x).event_dim:
            raise ValueError("missing cells need a likelihood of independent cells")


def load(folder: str | Path, **modules: nn.Module) -> VAE:
    """Read what :meth:`VAE.save` wrote.

    Args:
        folder: with ``model.toml`` and ``model.safetensors``.
        modules: ``encoder=``, ``prior=`` ...: those that are classes of your own.

    Raises:
        ValueError: a damaged or foreign checkpoint, or a class of your own that is not given.
    """
    folder = Path(folder)
    for path in (folder / DESCRIPTION, folder / WEIGHTS):
        if not path.is_file():
            raise ValueError(f"{folder} holds no saved model: {path} is missing")
    try:
        about = tomllib.loads((folder / DESCRIPTION).read_text())
        weights = load_file(folder / WEIGHTS)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, safetensors.SafetensorError) as problem:
        raise ValueError(f"{folder} holds a damaged model: {problem}") from problem
    made = VAE
    if "classes" in about:
        from .semisupervised import M2 as made
    roles = made.ROLES
    latent = "layers" if "layers" in about else "latent_dim"
    missing = {"x_shape", latent, *roles, "missing", "dtype"} - set(about)
    if missing:
        raise ValueError(f"{folder / DESCRIPTION} lacks {', '.join(sorted(missing))}")
    if unknown := set(modules) - set(roles):
        raise ValueError(f"unknown part {', '.join(sorted(unknown))}; there are {', '.join(roles)}")
    for role in roles:
        if role in modules:
            about[role] = modules[role]
        elif str(about[role]).startswith("custom "):
            raise ValueError(
                f"the {role} of this model is a class of your own ({about[role][7:]}): "
                f"load(folder, {role}=...)"
            )
    dtype = getattr(torch, str(about["dtype"]), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{folder / DESCRIPTION} names an unknown dtype {about['dtype']!r}")
    vae = made(**made._described(about)).to(dtype)
    try:
        vae.load_state_dict(weights)
    except RuntimeError as problem:
        raise ValueError(f"{folder / WEIGHTS} does not fit the description: {problem}") from None
    return vae.eval()


def point(distribution: dist.TorchDistribution) -> Tensor:
    """One value for a distribution: its mean, else its mode, else the median of 101 draws."""
    for name in ("mean", "mode"):
        try:
            value = getattr(distribution, name)
        except (NotImplementedError, AttributeError):
            continue
        if value.isfinite().all():
            return value
    with seeded(0):
        return distribution.sample(torch.Size([101])).median(0).values


def _check_event(d: dist.TorchDistribution, shape: tuple[int, ...], name: str) -> None:
    if d.event_shape != shape:
        raise ValueError(
            f"the {name} has events of shape {tuple(d.event_shape)}, expected {shape}: "
            "declare the dimensions of one draw by .to_event()"
        )


def _categories(guide: dist.TorchDistribution) -> int:
    """The number of categories where z holds category numbers, else 0."""
    base = innermost(guide)
    return cast("Tensor", base.logits).shape[-1] if isinstance(base, dist.Categorical) else 0


def _line(module: nn.Module) -> str:
    spec = spec_of(module)
    return str(spec) if spec else f"custom {type(module).__module__}.{type(module).__qualname__}"


def _shape(value: int | tuple[int, ...], name: str) -> tuple[int, ...]:
    shape = (value,) if isinstance(value, int) else tuple(value)
    if not shape or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(f"{name} must be a positive whole number or a tuple of them, got {value}")
    return shape
