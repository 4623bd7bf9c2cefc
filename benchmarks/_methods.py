# SPDX-License-Identifier: BSD-3-Clause
"""The rows of the tables: ours, and the peers."""

from fnmatch import fnmatch

from _cells import Method

RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
# Every entry of a sign descent moves by the whole rate at every step.
SIGN_RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)

FIDELITY_REFINEMENTS = (0, 1, 3)
OMP_ROWS = 1024


def projective(key, label, parameters=None, refinements=FIDELITY_REFINEMENTS, omp_rows=None):
    options = {"parameters": parameters or {}, "refinements": list(refinements), "omp_rows": omp_rows}
    return Method(key, label, "_ours:estimator", options)


def topk():
    return Method(
        "ours-topk", "TopKDictionaryLearning, defaults", "_ours:estimator", {"name": "TopKDictionaryLearning"}
    )


# The literal forms select k at once and let the penalty alone train the encoder, as the paper does.
_LITERAL = {"encoder_loss": "penalty", "candidate_factor": 1.0}

OURS = (
    projective("ours", "projective, defaults", omp_rows=OMP_ROWS),
    projective("ours-plain", "projective, candidate_factor=1", {"candidate_factor": 1.0}),
    projective("ours-refined", "projective, n_refinements=1 at fit too", {"n_refinements": 1}),
    projective("ours-fixed", 'projective, selection="top_k"', {"selection": "top_k"}),
    projective("ours-metric", "tied in a learned metric", {"tied": "metric"}, omp_rows=OMP_ROWS),
    projective("ours-tied", "tied, regressing", {"tied": True}, omp_rows=OMP_ROWS),
    topk(),
    projective("paper-4", "tied, exact (paper, section 4)", {"tied": True, **_LITERAL}),
    projective("paper-4-candidates", "tied, exact, 2 k candidates", {"tied": True, "encoder_loss": "penalty"}),
    projective(
        "paper-6-normalize",
        "lambda = e^-2, scores at fixed norm (paper, section 6)",
        {"penalty": "inverse_square", "quota": "normalize", **_LITERAL},
    ),
    projective(
        "paper-6-literal", "lambda = e^-2, no quota (paper, literal)", {"penalty": "inverse_square", **_LITERAL}
    ),
)


def peer(key, label, function, distribution, rates=RATES, rival=False, cost_in_k=False, **options):
    module = "classical" if function in {"spams", "scikit_learn"} else "autoencoders"
    return Method(key, label, f"{module}:{function}", options, (distribution,), tuple(rates), rival, cost_in_k)


PEERS = (
    peer("sparsify", "sparsify TopK, Adam", "sparsify", "eai-sparsify", rival=True),
    peer(
        "sparsify-signum",
        "sparsify TopK, signum",
        "sparsify",
        "eai-sparsify",
        SIGN_RATES,
        rival=True,
        optimizer="signum",
    ),
    peer("dl-topk", "dictionary_learning TopK", "dictionary_learning", "dictionary-learning", rival=True),
    peer(
        "dl-batchtopk",
        "dictionary_learning BatchTopK",
        "dictionary_learning",
        "dictionary-learning",
        rival=True,
        kind="batchtopk",
    ),
    peer("saelens-topk", "SAELens TopK", "sae_lens", "sae-lens", rival=True),
    peer("overcomplete-topk", "overcomplete TopK", "overcomplete", "Overcomplete", rival=True),
    peer("saelens-mp", "SAELens matching pursuit", "sae_lens", "sae-lens", cost_in_k=True, kind="mp"),
    peer("overcomplete-mp", "overcomplete MpSAE", "overcomplete", "Overcomplete", cost_in_k=True, kind="mp"),
    peer("overcomplete-omp", "overcomplete OMPSAE", "overcomplete", "Overcomplete", cost_in_k=True, kind="omp"),
    peer("spams", "SPAMS trainDL (l0), OLS coder", "spams", "spams-bin", (), cost_in_k=True),
    peer("spams-l1", "SPAMS trainDL (l1), OLS coder", "spams", "spams-bin", (), mode="l1"),
    peer("scikit-learn", "scikit-learn MiniBatchDictionaryLearning, OMP coder", "scikit_learn", "scikit-learn", ()),
)


RECOVERY_OURS = (
    projective("ours", "projective, defaults", refinements=(0, 1)),
    projective(
        "ours-plain",
        "projective, candidate_factor=1, refined_share=0",
        {"candidate_factor": 1.0, "refined_share": 0.0},
        refinements=(0,),
    ),
    projective("ours-fixed", 'projective, selection="top_k"', {"selection": "top_k"}, refinements=(0, 1)),
    projective(
        "ours-apart",
        'projective, tied="metric", overlap_penalty=0.3',
        {"tied": "metric", "overlap_penalty": 0.3},
        refinements=(0, 1),
    ),
    projective(
        "ours-prefixes",
        "projective, nested prefixes and overlap penalty",
        {"prefix_sizes": [32, 64, 128, 256], "overlap_penalty": 0.02},
        refinements=(0, 1),
    ),
    topk(),
)
RECOVERY_PEERS = tuple(
    method for method in PEERS if method.key in {"sparsify", "dl-topk", "dl-batchtopk", "saelens-mp"}
)


def chosen(methods, only):
    """Methods whose key matches one of the patterns ``only``; all where that is empty."""
    found = [method for method in methods if not only or any(fnmatch(method.key, pattern) for pattern in only)]
    if not found:
        raise SystemExit(f"--only {' '.join(only)} matches none of: {' '.join(method.key for method in methods)}")
    return found
