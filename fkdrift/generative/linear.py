"""Models that are solved exactly: what the learned ones are checked with.

Probabilistic principal components,  z ~ N(0, 1),  x | z ~ N(W z + m, s2):  the most likely W spans the leading
eigenvectors u_i of the covariance of the data, W = (u_i sqrt(lambda_i - s2))_i, with s2 the mean of the others.  Its
posterior is Gaussian, so that a linear VAE reaches log p(x), for every z; unit i carries KL_i = ln(lambda_i / s2) / 2
on average, and none at all where lambda_i <= s2: that is posterior collapse.

A linear-Gaussian chain,  z_{t-1} | z_t ~ N(A_t z_t + b_t, S_t):  its marginals are Gaussian, and Bayes' rule reverses
every step.

References: Tipping and Bishop, J. R. Stat. Soc. B 61, 611 (1999); Lucas et al., Don't blame the ELBO, NeurIPS 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fkdrift.densities.kernels import DiagonalGaussian, FullGaussian
from fkdrift.errors import BadParameter
from fkdrift.generative.markov import MarkovAutoencoder
from fkdrift.generative.vae import VAE


@dataclass(frozen=True)
class PrincipalComponents:
    """Probabilistic principal components.

    Args:
        mean: m, (n,).
        loadings: W, (n, n_latents), with orthogonal columns until `rotated`.
        noise: s2, the variance that is left.
        eigenvalues: of the covariance, (n,), falling.

    Example:
        >>> x = torch.randn(1000, 3, generator=g) * torch.tensor([3.0, 1.0, 1.0])
        >>> model = principal_components(x, n_latents=1)
        >>> model.eigenvalues, model.log_prob(x).mean()
        (tensor([8.9506, 1.0176, 1.0023]), tensor(-5.3625))
    """

    mean: Tensor
    loadings: Tensor
    noise: float
    eigenvalues: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) = log N(x; m, W W^T + s2), (batch,), nats."""
        covariance = self.loadings @ self.loadings.T + self.noise * torch.eye(len(self.mean), dtype=x.dtype)
        return torch.distributions.MultivariateNormal(self.mean, covariance).log_prob(x)

    def rotated(self, R: Tensor) -> PrincipalComponents:
        """The same p(x) and p(z) with another joint: W R for an orthogonal R (n_latents, n_latents)."""
        return replace(self, loadings=self.loadings @ R)

    @property
    def unit_kl(self) -> Tensor:
        """ln(lambda_i / s2) / 2, or 0: mean KL of each latent of the best linear VAE with this noise, (n_latents,)."""
        return (self.eigenvalues[: self.loadings.shape[1]] / self.noise).log().clamp_min(0) / 2

    def vae(self, full: bool = True) -> VAE:
        """The VAE with exactly these distributions, z | x ~ N(M^-1 W^T (x - m), s2 M^-1) with M = W^T W + s2.

        Args:
            full: with a full covariance; a diagonal one is exact as long as M is diagonal, as it is before a rotation.
        """
        W = self.loadings
        n_latents = W.shape[1]
        M = W.T @ W + self.noise * torch.eye(n_latents, dtype=W.dtype)
        gain = torch.linalg.solve(M, W.T)
        read = affine(gain, -gain @ self.mean)
        covariance = self.noise * torch.linalg.inv(M)
        encoder: FullGaussian | DiagonalGaussian
        if full:
            encoder = FullGaussian(read, n_latents, scale_tril=torch.linalg.cholesky(covariance))
        else:
            encoder = DiagonalGaussian(read, n_latents, scale=covariance.diagonal().sqrt())
        width = torch.tensor(self.noise, dtype=W.dtype).sqrt()
        return VAE(encoder, DiagonalGaussian(affine(W, self.mean), len(W), scale=width), n_latents).to(W.dtype)


def principal_components(x: Tensor, n_latents: int, noise: float | None = None) -> PrincipalComponents:
    """The most likely principal components of data, for the given noise or the most likely one.

    Args:
        x: data (batch, n).
        n_latents: how many, fewer than n.
        noise: s2; None for the mean of the eigenvalues that are left out.

    Raises:
        BadParameter: as many latents as components, which leaves no noise.
    """
    n = x.shape[1]
    if not 0 < n_latents < n:
        raise BadParameter(f"n_latents = {n_latents} is not allowed: data of {n} components take from 1 to {n - 1}")
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    s2 = values[n_latents:].mean().item() if noise is None else noise
    loadings = vectors[:, :n_latents] * (values[:n_latents] - s2).clamp_min(0).sqrt()
    return PrincipalComponents(mean, loadings, s2, values)


@dataclass(frozen=True)
class LinearChain:
    """z_T ~ N(0, 1), z_{t-1} | z_t ~ N(A_t z_t + b_t, S_t), down to x = z_0.

    Args:
        steps: (A_t, b_t, S_t) for t = 1 ... T: (n_{t-1}, n_t), (n_{t-1},), (n_{t-1}, n_{t-1}).
    """

    steps: Sequence[tuple[Tensor, Tensor, Tensor]]

    @property
    def marginals(self) -> list[tuple[Tensor, Tensor]]:
        """Mean and covariance of z_0 ... z_T."""
        A = self.steps[-1][0]
        found = [(A.new_zeros(A.shape[1]), torch.eye(A.shape[1], dtype=A.dtype))]
        for A, b, S in reversed(self.steps):
            mean, covariance = found[-1]
            found.append((A @ mean + b, A @ covariance @ A.T + S))
        return found[::-1]

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), (batch,), nats."""
        return torch.distributions.MultivariateNormal(*self.marginals[0]).log_prob(x)

    def autoencoder(self) -> MarkovAutoencoder:
        """The Markov autoencoder with these decoders and their exact reversal

        q(z_t | z_{t-1}) = N(m_t + G (z_{t-1} - m_{t-1}), C_t - G A_t C_t),    G = C_t A_t^T C_{t-1}^{-1}.
        """
        marginals = self.marginals
        encoders, decoders = [], []
        for (A, b, S), (below, C_below), (mean, C) in zip(self.steps, marginals[:-1], marginals[1:], strict=True):
            G = torch.linalg.solve(C_below, A @ C).T
            covariance = C - G @ A @ C
            read, write = affine(G, mean - G @ below), affine(A, b)
            L = torch.linalg.cholesky((covariance + covariance.T) / 2)
            encoders.append(FullGaussian(read, len(C), scale_tril=L))
            decoders.append(FullGaussian(write, len(S), scale_tril=torch.linalg.cholesky(S)))
        A = self.steps[-1][0]
        return MarkovAutoencoder(encoders, decoders, A.shape[1]).to(A.dtype)


def copula(correlation: float) -> VAE:
    """One datum and one latent, both N(0, 1), with any correlation: q(z | x) = N(c x, 1 - c^2) reverses p(x | z).

    The marginals, the evidence and the ELBO are the same for every c, while the mutual information -ln(1 - c^2) / 2
    goes from nothing (collapse) to everything: the ELBO does not say which joint it finds.
    """
    c = torch.tensor(correlation, dtype=torch.float64)
    width = (1 - c.square()).sqrt()
    kernels = [DiagonalGaussian(affine(c.view(1, 1), c.new_zeros(1)), 1, scale=width) for _ in range(2)]
    return VAE(kernels[0], kernels[1], 1).double()


def affine(matrix: Tensor, offset: Tensor) -> nn.Linear:
    """x -> matrix x + offset as a layer."""
    layer = nn.utils.skip_init(nn.Linear, matrix.shape[1], matrix.shape[0], dtype=matrix.dtype)
    with torch.no_grad():
        layer.weight.copy_(matrix)
        layer.bias.copy_(offset)
    return layer
