# SPDX-License-Identifier: BSD-3-Clause
"""scikit-learn's own checks on the estimators and their main variants, with no expected failures."""

import pytest
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from skprojdict import (
    GatedDictionaryLearning,
    JumpReLUDictionaryLearning,
    MethodOfOptimalDirections,
    ProjectiveDictionaryLearning,
    ReLUDictionaryLearning,
    TopKDictionaryLearning,
)

# Every check fits many times: a few steps are enough for all of them.
SHORT = {"max_iter": 2, "random_state": 0}

ESTIMATORS = [
    ProjectiveDictionaryLearning(**SHORT),
    TopKDictionaryLearning(**SHORT),
    MethodOfOptimalDirections(**SHORT),
    ReLUDictionaryLearning(**SHORT),
    JumpReLUDictionaryLearning(**SHORT),
    GatedDictionaryLearning(**SHORT),
]
VARIANTS = [
    ProjectiveDictionaryLearning(tied=True, **SHORT),
    ProjectiveDictionaryLearning(tied="metric", **SHORT),
    ProjectiveDictionaryLearning(tied=True, encoder_loss="penalty", **SHORT),
    ProjectiveDictionaryLearning(penalty="ridge", **SHORT),
    ProjectiveDictionaryLearning(penalty="inverse_square", quota="normalize", **SHORT),
    ProjectiveDictionaryLearning(penalty="softplus", quota="penalize", encoder_loss="penalty", **SHORT),
    ProjectiveDictionaryLearning(
        penalty="inverse_square", quota="sum", selection="budget", dimension_budget=2.0, budget_measure="exact", **SHORT
    ),
    ProjectiveDictionaryLearning(selection="threshold", **SHORT),
    ProjectiveDictionaryLearning(selection="adaptive", n_refinements=1, **SHORT),
    ProjectiveDictionaryLearning(n_nonzero_coefs=None, **SHORT),
    ProjectiveDictionaryLearning(candidate_factor=2.0, n_refinements=1, solver="cg", **SHORT),
    ProjectiveDictionaryLearning(positive_code=True, overlap_penalty=0.01, prefix_sizes=(1,), **SHORT),
    ProjectiveDictionaryLearning(sparse_output=True, **SHORT),
    ProjectiveDictionaryLearning(target="y", **SHORT),
    TopKDictionaryLearning(target="y", **SHORT),
    TopKDictionaryLearning(tied=True, n_nonzero_coefs=None, **SHORT),
    TopKDictionaryLearning(sparse_output=True, **SHORT),
    TopKDictionaryLearning(selection="batch", prefix_sizes=(1,), **SHORT),
    MethodOfOptimalDirections(coder="ols", algorithm="full", **SHORT),
    MethodOfOptimalDirections(update="ksvd", algorithm="full", **SHORT),
    MethodOfOptimalDirections(sparse_output=True, **SHORT),
]

# What scikit-learn runs on itself and leaves out of check_estimator (codebase survey of 1.9).
EXTRA_CHECKS = [
    "check_param_validation",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_set_output_transform_polars",
    "check_global_output_transform_pandas",
    "check_global_set_output_transform_polars",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
    "check_get_feature_names_out_error",
    "check_dataframe_column_names_consistency",
    "check_inplace_ensure_writeable",
]


def _needs_absent_device(check):
    """The accelerator that a check asks for, if it is not here; a CUDA build of torch makes such checks fail."""
    import torch

    keywords = str(getattr(check, "keywords", {}))
    if "cuda" in keywords and not torch.cuda.is_available():
        return "cuda"
    return "mps" if "mps" in keywords and not torch.backends.mps.is_available() else None


@parametrize_with_checks(ESTIMATORS + VARIANTS)
def test_sklearn_checks(estimator, check):
    if absent := _needs_absent_device(check):
        pytest.skip(f"{absent} device is not here")
    check(estimator)


# The set_output checks mix arrays and frames; the warning that follows is scikit-learn's own.
@pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names")
@pytest.mark.parametrize("estimator", ESTIMATORS + VARIANTS, ids=repr)
@pytest.mark.parametrize("name", EXTRA_CHECKS)
def test_checks_left_out_of_check_estimator(estimator, name):
    if name == "check_inplace_ensure_writeable" and not hasattr(estimator, "copy"):
        # The check is for estimators with a `copy` parameter; ours never write to X (check_readonly_memmap_input).
        assert "copy" not in estimator.get_params()
        assert "copy_X" not in estimator.get_params()
        return
    if "set_output" in name and estimator.sparse_output:
        estimator = type(estimator)(**{**estimator.get_params(), "sparse_output": False})
    getattr(estimator_checks, name)(type(estimator).__name__, estimator)


# All checks once more: for one neural estimator and the other one, as what is counted is the same for their kin.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", [ESTIMATORS[1], ESTIMATORS[2]], ids=lambda e: type(e).__name__)
def test_at_least_53_checks_pass_and_skips_name_absent_devices(estimator):
    results = check_estimator(estimator, on_fail=None, on_skip=None)
    by_status = {status: [r for r in results if r["status"] == status] for status in ("passed", "skipped", "xfail")}
    import torch

    # A CUDA build of torch without a device makes the CUDA checks fail instead of skip (scikit-learn#28280).
    absent = "cuda" if not torch.cuda.is_available() else "no such device"
    failed = [r for r in results if r["status"] == "failed" and absent not in str(r["exception"]).lower()]
    assert not failed, [(r["check_name"], r["exception"]) for r in failed]
    assert len(by_status["passed"]) >= 53
    assert not by_status["xfail"]
    devices = ("cuda", "cupy", "mps", "xpu", "dpnp")
    reasons = [str(r["exception"]).lower() for r in by_status["skipped"]]
    assert all(any(device in reason for device in devices) for reason in reasons), reasons


@pytest.mark.parametrize("estimator", ESTIMATORS + VARIANTS, ids=repr)
def test_tags_claim_no_leniency(estimator):
    tags = estimator.__sklearn_tags__()
    assert tags.array_api_support is not estimator.sparse_output  # CSR exists for NumPy only
    assert not tags.non_deterministic
    assert not tags.no_validation
