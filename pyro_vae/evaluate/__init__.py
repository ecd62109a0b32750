"""What a trained model is worth: bounds on log p(x), and what its gradient estimators cost."""

from .annealed import Sandwich, ais, bdmc
from .arviz import to_arviz
from .assessment import Assessment, assess
from .bounds import elbo
from .calibration import Calibration, calibration
from .compression import Compressed, compress, decompress, rate_distortion
from .draws import elbo_draws
from .evidence import Evidence, log_evidence
from .gaps import gaps
from .labelled import FactorScores, factor_scores, label_scores
from .latents import LatentSummary, latent_summary
from .outliers import outlier_scores
from .posterior import posterior
from .training import train_estimators
from .variance import as_table, compare_estimators

__all__ = [
    "Assessment", "Calibration", "Compressed", "Evidence", "FactorScores", "LatentSummary",
    "Sandwich", "ais", "as_table", "assess", "bdmc", "calibration", "compare_estimators",
    "compress", "decompress", "elbo", "elbo_draws", "factor_scores", "gaps", "label_scores",
    "latent_summary", "log_evidence", "outlier_scores", "posterior", "rate_distortion", "to_arviz",
    "train_estimators",
]  # fmt: skip
