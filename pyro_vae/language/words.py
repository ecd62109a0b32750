"""Names that people type, and ours for the same thing: answers of error messages."""

import difflib
import re
from collections.abc import Iterable, Mapping

__all__ = ["OPTIMIZERS", "nearest", "where"]

FAMILIES = {
    "Normal": "gaussian diagonalnormal diagonalgaussian diagnormal diaggaussian isotropic n "
    "standardnormal stdnormal mse l2 multivariatenormaldiag factorizednormal squarederror",
    "Bernoulli": "bce binarycrossentropy sigmoid binary logit bits bcewithlogits",
    "Laplace": "l1 mae doubleexponential",
    "Categorical": "ce crossentropy softmax cat multiclass nominal",
    "OneHotCategorical": "onehot softmax vq vqvae discrete",
    "OrderedLogistic": "ordinal ordered",
    "StudentT": "student t tdistribution",
    "Poisson": "count counts",
    "NegativeBinomial": "nb negbinomial count counts gammapoisson",
    "ZeroInflatedNegativeBinomial": "zinb",
    "ZeroInflatedPoisson": "zip",
    "MultivariateNormal": "mvn fullrank fullranknormal multivariategaussian fullcovariance",
    "LowRankMultivariateNormal": "lowrank",
    "VonMisesFisher": "vmf sphere hyperspherical",
    "LogNormal": "loggaussian",
    "ContinuousBernoulli": "cb",
    "DiscretizedLogistic(components=5)": "dmol mol dmll discretizedmixtureoflogistics "
    "mixtureoflogistics logisticmixture discretizedlogisticmixture quantizedlogistic pixelcnn",
    "OptimalNormal": "sigmavae optimalsigma sigma optimalscale",
    "Dequantized(Normal)": "dequantization uniformdequantization dequantizednormal",
    "Mixture(Normal, components=10)": "gmm mog mixtureofgaussians gaussianmixture mixturenormal "
    "mixtureofnormals mixturesamefamily",
    "Flow(NSF)": "nsf flow normalizingflow spline",
    "Flow(MAF)": "maf iaf autoregressiveflow",
    "Flow(RealNVP)": "realnvp nvp glow coupling",
    "VampPrior": "vamp",
}
ESTIMATORS = {
    "Trace_ELBO": "elbo vae svi vi elboloss pathwise reparam reparameterization sgvb vanilla",
    "RenyiELBO": "iwae iwelbo miwae importanceweighted vr",
    "DReG": "iwae iwelbo",
    "Trace_ELBO(gradient=stl)": "stl stickingthelanding",
    "Trace_ELBO(gradient=score)": "reinforce scorefunction bbvi score likelihoodratio",
    "TraceGraph_ELBO(gradient=score, baseline=neural)": "nvil",
    "Trace_ELBO(gradient=concrete)": "gumbel gumbelsoftmax concrete relaxed",
    "Trace_ELBO(gradient=reinmax)": "reinmax",
    "Trace_ELBO(gradient=gumbel_rao)": "gumbelrao raogumbel raoblackwellized",
    "Trace_ELBO(gradient=gapped)": "gst gappedstraightthrough",
    "TraceMeanField_ELBO": "meanfield analytic analytickl closedform",
    "TraceEnum_ELBO": "enum enumeration exact enumerate",
    "RWS": "wakesleep reweightedwakesleep",
}
NETWORKS = {
    "MLP": "linear dense fc fullyconnected feedforward sequential ffn",
    "ConvEncoder": "cnn conv conv2d convnet",
    "ConvDecoder": "cnn conv conv2d deconv convtranspose",
    "ResNet": "resnet wideresnet wrn residual residualnetwork",
    "GRU": "lstm rnn recurrent bilstm bigru gatedrecurrentunit",
    "Transformer": "attention selfattention transformerencoder transformerdecoder",
    "DeepSet": "deepsets sets pointnet",
}
OPTIMIZERS = {
    name: name.lower() for name in ("Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "NAdam")
}
SCHEDULES = {
    "cosine": "cosineannealing cosineannealinglr cos onecycle onecyclelr",
    "exponential": "exp exponentiallr decay",
    "linear": "linearlr warmup anneal annealing ramp step constant",
    "cyclical": "cyclic cycliclr cycle",
}
ARGUMENTS = {
    "lr": "learningrate eta steplr",
    "epochs": "nepochs numepochs maxepochs iterations niter",
    "batch_size": "batch bs minibatch minibatchsize",
    "beta": "klweight klcoef weightkl kl",
    "validation": "val valid validationdata xval testdata validationset evaldata",
    "patience": "earlystopping earlystop",
    "seed": "randomstate rng randomseed manualseed",
    "num_samples": "nsamples samples k n",
    "num_particles": "nparticles k",
    "progress": "verbose progressbar",
    "optimizer": "optim",
    "callbacks": "callback hooks",
    "estimator": "loss elbo objective lossfn",
    "latent_dim": "zdim nlatent latentsize latentdims latent zsize nz",
    "x_shape": "inputdim inputshape datadim infeatures nfeatures xdim xsize inputsize",
    "likelihood": "decoderdist outputdist reconstructionloss reconloss px pxz",
    "guide": "posterior q qz variationalfamily approximateposterior",
    "prior": "pz priordist",
    "missing": "nan mask missingdata",
    "out": "outdir output outputdir folder path savedir",
    "resume": "resumefrom checkpoint restart",
}
FUNCTIONS = {
    "fit": "train trainer training svi learn",
    "VAE": "betavae vae model autoencoder vanillavae model",
    "M2": "ssvae semisupervised",
    "log_evidence": "nll loglik loglikelihood marginallikelihood evidence logpx",
    "load": "restore loadmodel",
    "load_data": "dataset mnist datasets data",
    "MLP": "linear dense network",
    "ConvEncoder": "cnn conv",
    "assess": "evaluate summary report",
}
ROLES = {"likelihood": FAMILIES, "estimator": ESTIMATORS, "optimizer": OPTIMIZERS, "lr": SCHEDULES}


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the names nearest to ``name``, or all where they are few."""
    known = sorted(known)
    lower = {k.lower(): k for k in known}
    tables = (FAMILIES, ESTIMATORS, NETWORKS, SCHEDULES, ARGUMENTS, FUNCTIONS)
    meant = [line for table in tables for line in _meant(name, table)]
    close = [line for line in dict.fromkeys(meant) if line.split("(")[0] in known]
    if not close:
        found = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.6)
        close = [lower[k] for k in found]
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; it has {', '.join(known)}" if 0 < len(known) <= 12 else ""


def where(name: str, known: Iterable[str]) -> str:
    """Of a name that a package lacks, the end of the message: what is meant, and how it is said."""
    known = list(known)
    if _meant(name, FUNCTIONS):
        return nearest(name, known)
    said = [f"{role}={line!r}" for role, table in ROLES.items() for line in _lines(name, table)]
    return f"; did you mean {' or '.join(said)}?" if said else nearest(name, known)


def _meant(name: str, table: Mapping[str, str]) -> list[str]:
    """The lines of a table whose words have this name."""
    word = re.sub(r"[^a-z0-9]", "", name.lower())
    return [line for line, words in table.items() if word in words.split()]


def _lines(name: str, table: Mapping[str, str]) -> list[str]:
    """The lines of a table that have this name, or mean it."""
    return [line for line in table if line == name] or _meant(name, table)
