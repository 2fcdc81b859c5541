"""How near a restored image is to the true one. Nothing loops over images.

Shapes: N images, H rows, W columns, C channels; pixels in [0, 1].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

#: Side of the window of SSIM.
WINDOW = 7


def mse(truth_NHWC: NDArray[np.floating], restored_NHWC: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean squared error of each image, (N,)."""
    return np.square(truth_NHWC - restored_NHWC, dtype=np.float64).mean(axis=(1, 2, 3))


def psnr(truth_NHWC: NDArray[np.floating], restored_NHWC: NDArray[np.floating]) -> NDArray[np.float64]:
    """Peak signal to noise of each image in decibels, (N,); 100 where the error is below 1e-10."""
    return -10 * np.log10(mse(truth_NHWC, restored_NHWC).clip(min=1e-10))


def ssim(truth_NHWC: NDArray[np.floating], restored_NHWC: NDArray[np.floating]) -> NDArray[np.float64]:
    """Structural similarity of each image, (N,): means over channels and over all whole windows of 7 pixels (Wang et
    al. 2004, with a uniform window and sample covariances); the window shrinks to smaller images."""
    side = min(WINDOW, *truth_NHWC.shape[1:3])
    side -= 1 - side % 2
    size, count = (1, side, side, 1), side * side
    x, y = truth_NHWC.astype(np.float64), restored_NHWC.astype(np.float64)
    mean_x, mean_y = uniform_filter(x, size), uniform_filter(y, size)
    sample = count / max(count - 1, 1)
    var_x = sample * (uniform_filter(x * x, size) - mean_x**2)
    var_y = sample * (uniform_filter(y * y, size) - mean_y**2)
    both = sample * (uniform_filter(x * y, size) - mean_x * mean_y)
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    similar = top / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    edge = side // 2
    whole = similar[:, edge : similar.shape[1] - edge, edge : similar.shape[2] - edge]
    return whole.mean(axis=(1, 2, 3))
