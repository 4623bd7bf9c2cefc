# SPDX-License-Identifier: BSD-3-Clause
"""Methods that the neural estimators have with ``target="y"``: prediction from X alone, projection with y known."""

from sklearn.utils.metaestimators import available_if

from ._array import array_namespace, take_along_rows
from ._base import _BaseDictionary
from ._validation import validate_second_view
from .solvers.predict import regressed_coefs, scaled_coefs


def _second_view(estimator):
    if estimator.target == "y":
        return True
    raise AttributeError(
        f"{type(estimator).__name__} has this method with target='y' only; target={estimator.target!r}"
    )


class _SecondViewDictionary(_BaseDictionary):
    """A dictionary that may have a second view: X selects the atoms of y."""

    target: str
    predict_mode: str
    skip: bool = False
    _flat_target: bool  # y was 1-d at fit

    @available_if(_second_view)
    def predict(self, X):
        """Reconstruct y from X alone: ``inverse_transform(transform(X))``, and with ``skip=True`` what the skip adds.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)

        Returns
        -------
        y : array of shape (n_samples, n_targets), or (n_samples,) where the fitted y was 1-d
        """
        X = self._validate_fitted(X, "predict")
        prediction = self._decode(X, self._chunks(X, None), self._beside(X))
        return prediction[:, 0] if self._flat_target else prediction

    @available_if(_second_view)
    def project(self, X, y):
        """Codes with y known: y projected on the atoms that X selects (the paper's projection, an oracle).

        With ``skip=True`` what the skip leaves over of y is projected.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
        y : array of shape (n_samples, n_targets)

        Returns
        -------
        codes : array or CSR of shape (n_samples, n_components)
        """
        X, Y = self._validate_pair(X, y, "project")
        return self._assemble(X, self._chunks(X, Y))

    @available_if(_second_view)
    def score_projection(self, X, y):
        """Explained variance of y by its projection on the atoms that X selects: an upper bound, not a prediction.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
        y : array of shape (n_samples, n_targets)

        Returns
        -------
        score : float
        """
        X, Y = self._validate_pair(X, y, "score_projection")
        return self._explained(Y, self._chunks(X, Y), self._beside(X))

    def score(self, X, y=None):
        """Share of variance explained: of X by its reconstruction, or with ``target="y"`` of y by ``predict(X)``.

        ``1 - sum ||y - y_hat||^2 / sum ||y - mean(y)||^2`` with the mean of the scored rows (variance-weighted R^2). A
        larger ``n_components`` or ``n_nonzero_coefs`` always scores higher: to choose them, search by a downstream
        score, or by one that charges for active features.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
        y : array of shape (n_samples, n_targets), default=None
            Ignored with ``target="X"``.

        Returns
        -------
        score : float
            NaN with a warning for a single row.
        """
        if self.target == "X":
            return super().score(X)
        X, Y = self._validate_pair(X, y, "score")
        return self._explained(Y, self._chunks(X, None), self._beside(X))

    # ---- what predicts

    def _prediction_parts(self):
        """Which parts of the weights predict the second view: keywords of :func:`fresh_weights`."""
        two = self.target == "y"
        return {
            "head": two and self.predict_mode == "regressed",
            "head_scale": two and self.predict_mode == "additive",
            "surrogate": two and self.predict_mode == "surrogate",
            "skip": two and self.skip,
        }

    def _target(self, X, Y):
        """What the atoms of a chunk of rows are to explain, in training units; None where nobody knows it."""
        if self.target == "X":
            Y = X
        elif Y is not None:
            Y = Y - self._skipped(X) if self.skip else Y
        elif self.predict_mode == "surrogate":
            return ((X - self.encoder_mean_) @ self.surrogate_components_.T + self.surrogate_bias_) / self.scale_
        if Y is None:
            return None
        target = Y - self.mean_
        target /= self.scale_
        return target

    def _predicted(self, inputs, scores, support):
        """Coefficients that X alone predicts for a support, in training units."""
        if self.predict_mode == "regressed":
            maps = self.coef_components_, self.coef_bias_
            return regressed_coefs(inputs, support, *maps, chunk_size=self.chunk_size)
        selected = take_along_rows(scores, support.indices)
        return scaled_coefs(support, selected, self.coef_scale_)

    def _module_mode(self):
        """How the torch module gets its coefficients: None where the rows themselves are projected."""
        return self.predict_mode if self.target == "y" else None

    def _skipped(self, X):
        """What the linear skip makes of rows X."""
        return (X - self.encoder_mean_) @ self.skip_components_.T

    def _beside(self, X):
        """What is added to decoded codes, as a function of a slice of rows; None where nothing is."""
        if self.target == "X" or not self.skip:
            return None
        xp, dtype = array_namespace(self.components_), self.components_.dtype
        return lambda rows: self._skipped(xp.astype(X[rows, ...], dtype))

    def _check_targets(self, Y):
        if Y.shape[1] != self.components_.shape[1]:
            raise ValueError(
                f"y has {Y.shape[1]} columns, but {type(self).__name__} was fitted on {self.components_.shape[1]}."
            )

    def _validate_pair(self, X, y, method):
        X = self._validate_fitted(X, method)
        Y = validate_second_view(self, X, y)
        self._check_targets(Y)
        return X, Y

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        if self.target == "y":
            tags.target_tags.required = True
            tags.target_tags.multi_output = True
        return tags
