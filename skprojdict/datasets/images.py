# SPDX-License-Identifier: BSD-3-Clause
"""Patches of real photographs."""

from numbers import Integral, Real

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import uniform_filter
from sklearn.datasets import load_sample_images
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, validate_params

__all__ = ["load_image_patches"]

# Rec. 601 weights of red, green and blue in perceived brightness.
_LUMINANCE = np.array([0.299, 0.587, 0.114])


@validate_params(
    {
        "patch_size": [tuple, list],
        "n_patches": [Interval(Integral, 1, None, closed="left")],
        "images": ["array-like", None],
        "columns": [tuple, list],
        "min_std": [Interval(Real, 0, None, closed="left")],
        "remove_mean": ["boolean"],
        "random_state": ["random_state"],
        "return_positions": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def load_image_patches(
    patch_size=(8, 8),
    *,
    n_patches=20_000,
    images=None,
    columns=(0.0, 1.0),
    min_std=0.02,
    remove_mean=True,
    random_state=None,
    return_positions=False,
):
    """Draw patches of gray photographs, without repetition.

    By default the photographs are the two that ship with scikit-learn (a Chinese temple and a flower, 427 x 640
    pixels). Patches overlap, so a held-out set must come from another part of the photographs: see ``columns``.

    Parameters
    ----------
    patch_size : tuple of (int, int), default=(8, 8)
        Height and width in pixels.
    n_patches : int, default=20_000
        How many patches to draw, from all images together.
    images : list of arrays, default=None
        Arrays of shape (height, width) or (height, width, 3), integers from 0 to 255 or floats from 0 to 1. None takes
        scikit-learn's two photographs (which needs Pillow to read).
    columns : tuple of (float, float), default=(0.0, 1.0)
        The vertical strip of every image to draw from, as fractions of its width. Disjoint strips share no pixel:
        ``(0.0, 0.75)`` to train and ``(0.75, 1.0)`` to test.
    min_std : float, default=0.02
        Patches whose gray values have a smaller standard deviation are dropped (white is 1): sky teaches nothing.
    remove_mean : bool, default=True
        Whether to subtract from every patch its own mean.
    random_state : int, RandomState instance or None, default=None
        Decides which patches are drawn.
    return_positions : bool, default=False
        Whether to return where the patches were as well.

    Returns
    -------
    patches : ndarray of shape (n_patches, height * width), float32
        Gray values between 0 and 1, less the patch's mean if ``remove_mean``.
    positions : ndarray of shape (n_patches, 3), int64
        Image, row and column of the upper left pixel. Only if ``return_positions``.

    Raises
    ------
    ValueError
        If an image is smaller than a patch, or there are fewer patches than asked for.

    Examples
    --------
    >>> from skprojdict.datasets import load_image_patches
    >>> load_image_patches((8, 8), n_patches=1000, random_state=0).shape
    (1000, 64)
    """
    height, width = patch_size
    if min(height, width) < 1:
        raise ValueError(f"patch_size must be two positive integers; got {patch_size!r}.")
    first, last = columns
    if not 0.0 <= first < last <= 1.0:
        raise ValueError(f"columns must be fractions of the width, 0 <= first < last <= 1; got {columns!r}.")
    strips, candidates = [], []
    for number, image in enumerate(load_sample_images().images if images is None else images):
        gray = _gray(image, number)
        offset = round(first * gray.shape[1])
        gray = gray[:, offset : round(last * gray.shape[1])]
        if gray.shape[0] < height or gray.shape[1] < width:
            raise ValueError(
                f"images[{number}] leaves {gray.shape[0]} x {gray.shape[1]} pixels for patches of {height} x {width}: "
                "use smaller patches, larger images or wider columns."
            )
        rows, cols = np.nonzero(_patch_std(gray, height, width) >= min_std)
        strips.append(sliding_window_view(gray, (height, width)))
        candidates.append(np.stack([np.full(rows.size, number), rows, cols, cols + offset], axis=1))
    positions = np.concatenate(candidates) if candidates else np.empty((0, 4), dtype=np.int64)
    if positions.shape[0] < n_patches:
        raise ValueError(
            f"n_patches={n_patches}, but the images have only {positions.shape[0]} patches of {height} x {width} with "
            f"a standard deviation of at least min_std={min_std}: lower n_patches or min_std."
        )
    chosen = check_random_state(random_state).choice(positions.shape[0], size=n_patches, replace=False)
    positions = positions[chosen]
    patches = np.empty((n_patches, height, width), dtype=np.float32)
    for number, windows in enumerate(strips):
        here = positions[:, 0] == number
        patches[here] = windows[positions[here, 1], positions[here, 2]]
    patches = patches.reshape(n_patches, -1)
    if remove_mean:
        patches -= patches.mean(axis=1, keepdims=True)
    return (patches, positions[:, [0, 1, 3]]) if return_positions else patches


def _gray(image, number):
    image = np.asarray(image)
    if image.ndim not in {2, 3} or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(
            f"images[{number}] must have shape (height, width) or (height, width, 3); got {image.shape}: drop an "
            "alpha channel, or pass images one at a time."
        )
    gray = image @ _LUMINANCE if image.ndim == 3 else image
    return (gray / 255.0 if image.dtype.kind in "ui" else gray).astype(np.float32)


def _patch_std(gray, height, width):
    """Compute the standard deviation of every patch, by its upper left pixel, without copying one: two box filters."""
    gray = gray.astype(np.float64)
    # The filter's value belongs to the middle of its box; only boxes inside the image are kept.
    inside = (
        slice(height // 2, height // 2 + gray.shape[0] - height + 1),
        slice(width // 2, width // 2 + gray.shape[1] - width + 1),
    )
    mean = uniform_filter(gray, (height, width))[inside]
    mean_square = uniform_filter(gray * gray, (height, width))[inside]
    return np.sqrt(np.maximum(mean_square - mean * mean, 0.0))
