"""A distribution over the codes of a trained autoencoder, fitted afterwards, so that it can generate.

`CodeMemory` keeps the codes of the last training examples in the checkpoint. What is fitted to them is a function of
these alone: it is computed when first asked for, and never depends on when or how often that is.

- `gaussian`: their mean and covariance.
- `gmm`: a mixture of Gaussians with full covariances, by expectation-maximisation (Dempster et al. 1977), as the
  ex-post density of Ghosh et al. 2020 (arXiv:1903.12436).
- `flow`: RealNVP couplings with mixings between them (`flow.py`), by two hundred steps of Adam: a second or two.
- `prior`: N(0, I), which suits codes that were trained towards it.
"""

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from genai_cli.nn.flow import ActNorm, Chain, ChannelMixing, Coupling, first_half, point_network
from genai_cli.nn.gaussians import log_standard_normal
from genai_cli.nn.random import RowRandom
from genai_cli.nn.ranks import gather_over_ranks

LatentName = Literal["gaussian", "gmm", "flow", "prior"]
NUM_COMPONENTS = 10
NUM_ITERATIONS = 50
RIDGE = 1e-3  # of the codes' mean variance, added to every covariance: no component shrinks to a point


class GaussianMixture(NamedTuple):
    """Weights, means and the Cholesky factors of covariances of K Gaussians in D dimensions."""

    weight: Tensor  # (K,)
    mean: Tensor  # (K, D)
    factor: Tensor  # (K, D, D), lower triangular

    def log_prob(self, x: Tensor) -> Tensor:
        """Of each component together with its weight, (N, D) to (N, K)."""
        centred = (x - self.mean[:, None]).transpose(1, 2)  # (K, D, N)
        whitened = torch.linalg.solve_triangular(self.factor, centred, upper=False)
        log_det = self.factor.diagonal(dim1=1, dim2=2).log().sum(1)  # (K,), of the factor
        log_normal = -0.5 * whitened.square().sum(1) - (log_det + 0.5 * x.shape[1] * math.log(2 * math.pi))[:, None]
        return (log_normal + self.weight.log()[:, None]).T

    def draw(self, random: RowRandom) -> Tensor:
        """(random.size, D)."""
        k = random.categorical(self.weight.log().to(random.device).expand(random.size, -1)).cpu()  # (B,)
        noise = random.normal(self.mean.shape[1]).cpu().double()
        return self.mean[k] + torch.einsum("bij,bj->bi", self.factor[k], noise)


class CodeMemory(nn.Module):
    """The codes of the last `capacity` training examples of all ranks, and what is fitted to them."""

    codes: Tensor  # (capacity, dim)
    count: Tensor  # () int64: rows ever written; the next one goes to count mod capacity

    def __init__(self, dim: int, *, capacity: int = 4096):
        super().__init__()
        self.register_buffer("codes", torch.zeros(capacity, dim))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self._fitted: tuple[object, GaussianMixture | CodeFlow] | None = None

    @torch.no_grad()
    def update(self, codes: Tensor) -> None:
        """Take in the codes (B, D) of every rank, in training alone."""
        if not self.training:
            return
        capacity = len(self.codes)
        codes = gather_over_ranks(codes.detach().float())[-capacity:]
        places = (self.count + torch.arange(len(codes), device=codes.device)) % capacity
        self.codes[places] = codes
        self.count += len(codes)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Of a checkpoint from before its model remembered codes, none."""
        if not any(key.startswith(prefix) for key in state):
            state |= {prefix + name: torch.zeros_like(buffer) for name, buffer in self.named_buffers()}
        super()._load_from_state_dict(state, prefix, *rest)

    def remembered(self) -> Tensor:
        """(N, D), N <= capacity."""
        return self.codes[: int(self.count.clamp(max=len(self.codes)))]

    def draw(self, random: RowRandom, latent: LatentName) -> Tensor:
        """(random.size, D). Before any code was seen, from N(0, I)."""
        if latent == "prior" or self.count == 0:
            return random.normal(self.codes.shape[1])
        return self._fit(latent).draw(random).float().to(random.device)

    def _fit(self, latent: LatentName) -> "GaussianMixture | CodeFlow":
        key = (latent, self.codes.data_ptr(), self.codes._version)  # another when the codes have changed
        if self._fitted is None or self._fitted[0] != key:
            codes = self.remembered().cpu()  # wherever the model is: the same numbers on every device
            if latent == "flow":
                self._fitted = key, fit_flow(codes)
            else:
                self._fitted = key, fit_mixture(codes, 1 if latent == "gaussian" else NUM_COMPONENTS)
        return self._fitted[1]


class CodeFlow(NamedTuple):
    """An invertible map of codes to N(0, I)."""

    chain: Chain

    def log_prob(self, x: Tensor) -> Tensor:
        """(N, D) to (N,)."""
        z, log_det = self.chain(x)
        return log_standard_normal(z) + log_det

    def draw(self, random: RowRandom) -> Tensor:
        """(random.size, D)."""
        return self.chain.inverse(random.normal(self.chain.layers[0].mean.shape[0]).cpu())


@torch.inference_mode(False)
@torch.enable_grad()
def fit_flow(codes: Tensor, *, depth: int = 4, width: int = 64, steps: int = 200, batch_size: int = 256) -> CodeFlow:
    """Maximum likelihood of (N, D) by Adam, from weights and in an order that are the same every time."""
    codes = codes.clone()
    dim = codes.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = []
        for _ in range(depth):
            coupling = Coupling(first_half(dim, 1), point_network(dim, 2 * dim, width))
            layers += [ActNorm(dim), ChannelMixing(dim), coupling]
        flow = CodeFlow(Chain(layers))
        orders = [torch.randperm(len(codes)) for _ in range(math.ceil(steps * batch_size / len(codes)))]
    flow.chain(codes)  # sets the scales of activation norm
    optimizer = torch.optim.Adam(flow.chain.parameters(), lr=2e-3)
    for rows in torch.cat(orders)[: steps * batch_size].split(batch_size):
        optimizer.zero_grad()
        (-flow.log_prob(codes[rows]).mean() / dim).backward()
        optimizer.step()
    return CodeFlow(flow.chain.eval().requires_grad_(False))


@torch.no_grad()
def fit_mixture(x: Tensor, num_components: int, *, num_iterations: int = NUM_ITERATIONS) -> GaussianMixture:
    """Maximum likelihood of K Gaussians for (N, D), by expectation-maximisation from far-apart examples; float64."""
    x = x.double()
    num_components = min(num_components, len(x))
    ridge = RIDGE * x.var(0, correction=0).mean().clamp(min=1e-12) * torch.eye(x.shape[1], dtype=x.dtype)
    centres = x[_far_apart(x, num_components)]
    share = torch.cdist(x, centres).argmin(1)
    share = torch.nn.functional.one_hot(share, num_components).to(x)  # (N, K), responsibilities
    mixture = _maximise(x, share, ridge)
    if num_components == 1:
        return mixture
    for _ in range(num_iterations):
        share = mixture.log_prob(x).softmax(1)
        mixture = _maximise(x, share, ridge)
    return mixture


def _maximise(x: Tensor, share: Tensor, ridge: Tensor) -> GaussianMixture:
    """The best weights, means and covariances for given responsibilities (N, K)."""
    total = share.sum(0).clamp(min=1e-9)  # (K,)
    mean = (share.T @ x) / total[:, None]
    centred = x - mean[:, None]  # (K, N, D)
    covariance = torch.einsum("nk,kni,knj->kij", share, centred, centred) / total[:, None, None]
    return GaussianMixture(total / total.sum(), mean, torch.linalg.cholesky(covariance + ridge))


def _far_apart(x: Tensor, count: int) -> list[int]:
    """Indices of `count` examples: the one farthest from the mean, then ever the one farthest from those chosen."""
    chosen = [int((x - x.mean(0)).square().sum(1).argmax())]
    nearest = (x - x[chosen[0]]).square().sum(1)
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (x - x[chosen[-1]]).square().sum(1))
    return chosen
