"""Every public function that evaluates a model on data, cheap and comparable."""

import pyro_vae as pv

QUICK = {"seed": 0}
# From a model and bits ``(N, 4)`` to figures that ``==`` compares.
EVALUATIONS = {
    "encode": lambda vae, x: vae.encode(x).mean.tolist(),
    "reconstruct": lambda vae, x: vae.reconstruct(x).tolist(),
    "refine": lambda vae, x: vae.refine(x, steps=1, seed=0).mean.tolist(),
    "impute": lambda vae, x: vae.impute(x, num_samples=2, sweeps=1, seed=0).tolist(),
    "check": lambda vae, x: vae.check(x).tolist(),
    "elbo": lambda vae, x: pv.elbo(vae, x, **QUICK).tolist(),
    "log_evidence": lambda vae, x: pv.log_evidence(
        vae, x, num_samples=30, **QUICK
    ).log_evidence.tolist(),
    "elbo_draws": lambda vae, x: str(
        pv.elbo_draws(vae, x, num_draws=4, **QUICK)["posterior"].mean()
    ),
    "latent_summary": lambda vae, x: str(pv.latent_summary(vae, x, **QUICK).totals),
    "gaps": lambda vae, x: str(pv.gaps(vae, x, steps=1, num_samples=4, **QUICK)),
    "ais": lambda vae, x: pv.ais(
        vae, x, temperatures=2, chains=2, leapfrog=1, **QUICK
    ).log_evidence.tolist(),
    "sumo": lambda vae, x: pv.sumo(vae, x, num_repeats=3, **QUICK).log_evidence.tolist(),
    "outlier_scores": lambda vae, x: str(pv.outlier_scores(vae, x, x, num_samples=4, **QUICK)),
    "rate_distortion": lambda vae, x: str(pv.rate_distortion(vae, x, num_samples=4, **QUICK)),
    "compare_estimators": lambda vae, x: str(
        pv.compare_estimators(vae, x, ["Trace_ELBO"], num_draws=4, burn_in=1, **QUICK)[
            "value_mean"
        ].to_numpy()
    ),
    "label_scores": lambda vae, x: str(
        pv.label_scores(vae, x, [i % 2 for i in range(60)], neighbors=2, folds=2, **QUICK)
    ),
    "to_arviz": lambda vae, x: str(pv.to_arviz(vae, x, num_samples=4, **QUICK)["posterior"]),
    "train_estimators": lambda vae, x: str(
        pv.train_estimators(vae, x, ["Trace_ELBO"], epochs=1, seed=0)["elbo_train"].to_numpy()
    ),
}
