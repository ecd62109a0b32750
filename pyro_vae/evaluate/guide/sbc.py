"""Simulation-based calibration by simuk of ArviZ, by draws of the guide in a sampler's place."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...core.checks import whole
from ...core.seeding import seeded
from ...model.entry import of_face
from ...model.face import Densities, Face
from ...model.joint import reading

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["SimukAdapter", "SimukParams", "simuk_sbc"]

OBSERVED = "observations"  # the name of the simulated data


class SimukParams(NamedTuple):
    """What simuk takes from one step of its run to the next."""

    observed_vars: list[str]
    var_names: list[str]
    ref_params: "xr.Dataset"


class SimukAdapter:
    """A model and its guide with the face of simuk's ``BackendAdapter``.

    A reference is a draw of the model: all latent variables, and the observations of a program, or
    one of a VAE. Its posterior draws are the guide's at these observations.

    Args:
        vae: a VAE, or a program whose guide reads its data.
        num_samples: draws of the guide for each reference, where ``sample_kwargs`` says no other.
    """

    def __init__(self, vae: Face, num_samples: int = 99) -> None:
        self.vae, self.num_samples = vae, num_samples
        given = vae.observations
        self.rows, self.count = (1, 1) if given is None else (len(given), vae.count(given))
        self.observed_vars = [OBSERVED]
        ((z, x),) = self._simulate(1, 0)
        self.var_names = [*self._values(x, lambda joint: joint.at(z))]

    def get_prior_predictive_samples(self, num_samples: int, seeds: Any) -> Any:  # noqa: ANN401
        """Draws of the latent variables and of the observations, with the dimension ``sample``."""
        drawn = self._simulate(num_samples, int(seeds[0]))
        each = [self._values(x, lambda joint, z=z: joint.at(z)) for z, x in drawn]
        values = {name: np.concatenate([one[name] for one in each]) for name in self.var_names}
        x = np.stack([x.cpu().numpy() for _, x in drawn])
        return _dataset(values), _dataset({OBSERVED: x})

    def get_posterior_samples(
        self,
        simulation_parameters: SimukParams,
        replicated_data: Mapping[str, np.ndarray],
        sample_kwargs: Mapping[str, Any],
        seed: int,
        method: str,
        simulation_idx: int,
    ) -> "xr.Dataset":
        """Draws of the guide at simulated observations."""
        if method != "prior":
            raise NotImplementedError("simuk's posterior calibration needs a sampler: use prior")
        x = self.vae.as_data(torch.as_tensor(np.array(replicated_data[OBSERVED])))
        n = whole("num_samples", sample_kwargs.get("num_samples", self.num_samples))
        with seeded(int(seed)):
            return _dataset(self._values(x, lambda joint: joint.draw(n)))

    def compute_single_rank(
        self,
        transform: Callable,
        name: str,
        posterior: "xr.Dataset",
        simulation_idx: int,
        ref_params: "xr.Dataset",
    ) -> np.ndarray:
        """How many draws of a variable are below its reference."""
        drawn = np.array([transform(name, value) for value in posterior[name].values])
        true = transform(name, ref_params[name].isel(sample=simulation_idx).values)
        return (drawn < true).sum(0)

    def simulation_params_no_simulator(
        self, ref_params: "xr.Dataset", predictive: "xr.Dataset"
    ) -> SimukParams:
        """What the run is of."""
        return SimukParams(self.observed_vars, self.var_names, ref_params)

    def simulation_params_from_simulator(self, *_: object) -> SimukParams:
        """The model is its own simulator."""
        raise NotImplementedError("the model draws its own observations: leave simulator out")

    def get_posterior_predictive_samples(self, *_: object) -> None:
        """Refused."""
        raise NotImplementedError("simuk's posterior calibration needs a sampler: use prior")

    def subsample(self, ref_params: Any, predictive: Any, seed: Any, size: int) -> Any:  # noqa: ANN401
        """As many as asked for are drawn."""
        return ref_params, predictive

    def replicate(self, predictive: Any, idx: int, simulation_params: Any) -> Any:  # noqa: ANN401
        """The observations of one reference."""
        return {OBSERVED: predictive[OBSERVED].isel(sample=idx).values}

    def stop_if_cant_run_without_simulator(self) -> None:
        """Raise where the model cannot be drawn from."""
        if self.vae.why_not_drawn:
            raise ValueError(f"observations cannot be drawn: {self.vae.why_not_drawn}")

    def _simulate(self, num: int, seed: int) -> list[tuple[Any, Tensor]]:
        with reading(self.vae, seed), torch.no_grad():
            return list(self.vae.simulate(num * self.count, self.vae.observations, self.rows))

    def _values(self, x: Tensor, of: Callable[[Densities], Any]) -> dict[str, np.ndarray]:
        """Latent variables by name, ``(S, ...)``."""
        with reading(self.vae, None), torch.no_grad():
            z = of(self.vae.densities()(x))
        found = {"z": z} if isinstance(z, Tensor) else z.values
        return {name: value.cpu().numpy() for name, value in found.items()}


@of_face
def simuk_sbc(
    vae: Face,
    num_simulations: int = 1000,
    *,
    num_samples: int = 99,
    transform: Callable | None = None,
    seed: int | None = None,
) -> Any:  # noqa: ANN401
    """simuk's ``SBC`` of a model and its guide, ready for ``run_simulations()``.

    simuk knows PyMC's, Bambi's and NumPyro's models alone; this gives it a :class:`SimukAdapter`.
    :func:`calibration` is the same without simuk, with tests and bands.

    Args:
        vae: a trained model, or a :class:`Program` whose guide reads its data.
        num_simulations: how many references to draw.
        num_samples: draws of the guide for each.
        transform: from a variable's name and value to what is ranked; the value by default.
        seed: of all draws.

    Returns:
        ``simuk.SBC``: ``run_simulations()`` leaves ranks in ``simulations``, group ``prior_sbc``.

    Raises:
        ImportError: simuk is not installed, or has no adapters.
        ValueError: the model cannot be drawn from.

    References:
        Talts et al. (2018), arXiv:1804.06788.
    """
    num_simulations = whole("num_simulations", num_simulations)
    num_samples = whole("num_samples", num_samples)
    seed = None if seed is None else whole("seed", seed, 0)
    try:
        from simuk import SBC
        from simuk.adapters import backend_adapter as _  # noqa: F401
    except ImportError as problem:
        raise ImportError(
            f"simuk_sbc needs simuk with its backend adapters ({problem}): pip install simuk, or "
            "use calibration, which needs nothing"
        ) from None
    adapter = SimukAdapter(vae, num_samples)
    adapter.stop_if_cant_run_without_simulator()
    sbc = SBC.__new__(SBC)  # whose __init__ takes no other models
    sbc.num_simulations, sbc.seed = num_simulations, seed
    sbc.__dict__.update(
        engine="pyro-ppl", model=vae, adapter=adapter, method="prior", simulator=None,
        sample_kwargs={}, progress_bar=False, keep_fits=True, posteriors=None,
        simulations={name: [] for name in adapter.var_names}, _simulations_complete=0,
        _seeds=sbc._get_seeds(), _transform=transform or (lambda name, value: value),
    )  # fmt: skip
    return sbc


def _dataset(values: Mapping[str, np.ndarray]) -> "xr.Dataset":
    import xarray as xr

    return xr.Dataset(
        {
            name: (("sample", *(f"{name}_dim_{i}" for i in range(value.ndim - 1))), value)
            for name, value in values.items()
        }
    )
