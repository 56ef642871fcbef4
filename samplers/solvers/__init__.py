"""Solvers: rows only. Each function turns a path and a descending schedule into a Plan.

Letters, here and everywhere: x the state, denoised the model's estimate of x0, alpha and sigma the signal and
noise levels, lam = log(alpha / sigma) the half log-SNR, h a step in lam, s the level a step comes from, t the
level it goes to, eta the stochasticity.
"""
