"""Small chains of latent variables whose exact likelihoods are known, for the tests of the coder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Binomial, Distribution, Independent, MultivariateNormal, Normal


class LinearGaussian(nn.Module):
    """x = W z + s e with z and e standard normal, and its exact posterior, which has a full covariance."""

    n_steps = 1

    def __init__(self, dim: int = 5, latent: int = 2, s: float = 0.5, seed: int = 0) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(dim, latent, generator=torch.Generator().manual_seed(seed)))
        self.s = s

    def posterior(self, t: int, z: Tensor) -> Distribution:
        precision = torch.eye(self.W.shape[1]).to(z) + self.W.T @ self.W / self.s**2
        covariance = torch.linalg.inv(precision)
        return MultivariateNormal(z @ self.W @ covariance / self.s**2, covariance)

    def generative(self, t: int, z: Tensor) -> Distribution:
        return Independent(Normal(z @ self.W.T, self.s), 1)

    def prior(self, n: int) -> Distribution:
        return Normal(self.W.new_zeros(n, self.W.shape[1]), self.W.new_ones(n, self.W.shape[1]))

    def exact(self) -> MultivariateNormal:
        """p(x)."""
        W = self.W.detach().double()
        return MultivariateNormal(W.new_zeros(len(W)), W @ W.T + self.s**2 * torch.eye(len(W)).double())


class Correlated(nn.Module):
    """A normal density with the covariance of LinearGaussian, coded without latents."""

    n_steps = 0

    def __init__(self, model: LinearGaussian) -> None:
        super().__init__()
        self.register_buffer("covariance", model.exact().covariance_matrix)

    def posterior(self, t: int, z: Tensor) -> Distribution:
        raise NotImplementedError

    def generative(self, t: int, z: Tensor) -> Distribution:
        raise NotImplementedError

    def prior(self, n: int) -> Distribution:
        return MultivariateNormal(self.covariance.new_zeros(n, len(self.covariance)), self.covariance)


class Autoregression(nn.Module):
    """x -> z_1 -> z_2 -> z_3 with z_{t+1} = a z_t + sqrt(1 - a^2) e both ways, x = z_1 + s e: exact reversal."""

    n_steps = 3

    def __init__(self, dim: int = 4, a: float = 0.8, s: float = 0.3) -> None:
        super().__init__()
        self.a, self.s, self.dim = nn.Parameter(torch.tensor(a)), s, dim

    def posterior(self, t: int, z: Tensor) -> Distribution:
        if t == 1:
            return Normal(z / (1 + self.s**2), torch.full_like(z, self.s / (1 + self.s**2) ** 0.5))
        return self._step(z)

    def generative(self, t: int, z: Tensor) -> Distribution:
        return Normal(z, torch.full_like(z, self.s)) if t == 1 else self._step(z)

    def prior(self, n: int) -> Distribution:
        return Normal(self.a.new_zeros(n, self.dim), self.a.new_ones(n, self.dim))

    def exact(self) -> MultivariateNormal:
        """p(x)."""
        return MultivariateNormal(torch.zeros(self.dim).double(), (1 + self.s**2) * torch.eye(self.dim).double())

    def _step(self, z: Tensor) -> Distribution:
        return Normal(self.a * z, (1 - self.a.square()).sqrt() * torch.ones_like(z))


class Network(nn.Module):
    """A diagonal encoder and a network that decodes to bits, or to counts 0 ... 16."""

    n_steps = 1

    def __init__(self, dim: int = 20, latent: int = 4, counts: int = 1, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = nn.Sequential(nn.Linear(dim, 32), nn.Tanh(), nn.Linear(32, latent))
            self.decoder = nn.Sequential(nn.Linear(latent, 32), nn.Tanh(), nn.Linear(32, dim))
        self.widths = torch.tensor([0.02, 0.1, 0.5, 1.0])
        self.counts, self.latent = counts, latent

    def posterior(self, t: int, z: Tensor) -> Distribution:
        return Normal(self.encoder(z / self.counts), self.widths.to(z).expand(len(z), -1), validate_args=False)

    def generative(self, t: int, z: Tensor) -> Distribution:
        logits = 3 * self.decoder(z)
        return Bernoulli(logits=logits) if self.counts == 1 else Binomial(self.counts, logits=logits)

    def prior(self, n: int) -> Distribution:
        weight = self.encoder[0].weight
        return Normal(weight.new_zeros(n, self.latent), weight.new_ones(n, self.latent))

    def draw(self, n: int, seed: int = 0) -> Tensor:
        """Data from the model, (n, dim)."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            return self.generative(1, self.prior(n).sample()).sample()
