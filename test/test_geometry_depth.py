"""The depth of a network, bent to triangulated points."""

import cv2
import numpy as np
import pytest

from depth_pose_ros.geometry.depth_correction import corrected

SHAPE, COARSE = (48, 160), (39, 128)


@pytest.fixture
def street():
    """True depth (48, 160), and what a network makes of it: a smooth error, stronger for what is far."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] / np.array(SHAPE)[:, None, None]
    truth = 4.0 + 30.0 * np.exp(-6.0 * np.abs(x - 0.5)) * (1.2 - y)
    truth[20:35, 30:60] = 5.0  # a car
    error = 0.5 * np.sin(2.0 * x) - 0.4 * y + 0.2 * np.log(truth)
    return truth.astype(np.float32), (truth * np.exp(error)).astype(np.float32)


def points_of(truth, share=0.1, unit=3.0, noise=0.05, seed=0):
    """Some cells of the truth, in another unit, as an odometry triangulates them."""
    rng = np.random.default_rng(seed)
    points = unit * cv2.resize(truth, COARSE[::-1], interpolation=cv2.INTER_NEAREST).astype(np.float64)
    points *= np.exp(rng.normal(0.0, noise, COARSE))
    points[rng.random(COARSE) > share] = np.nan
    return points


def error_of(depth, truth):
    """Median absolute error of the log, the unit being free."""
    error = np.log(depth / truth)
    return float(np.median(np.abs(error - np.median(error))))


def test_smooth_errors_are_taken_away(street):
    truth, network = street
    depth = corrected(network, points_of(truth))
    assert depth.dtype == np.float32 and depth.shape == network.shape
    assert error_of(network, truth) > 0.15 and error_of(depth, truth) < 0.05


def test_the_edges_stay_those_of_the_network(street):
    truth, network = street
    step = np.log(truth[27, 60] / truth[27, 59])
    depth = corrected(network, points_of(truth))
    assert np.log(depth[27, 60] / depth[27, 59]) == pytest.approx(step, abs=0.15) and step > 0.5


def test_the_unit_is_not_that_of_the_points(street):
    truth, network = street
    one, other = corrected(network, points_of(truth)), corrected(network, points_of(truth, unit=0.01))
    np.testing.assert_allclose(one, other, rtol=1e-5)
    assert abs(np.median(np.log(one / network))) < 0.1


def test_wrong_points_among_right_ones_do_little(street):
    truth, network = street
    points = points_of(truth)
    wrong = np.random.default_rng(1).random(COARSE) < 0.2
    points[wrong] *= 8.0
    assert error_of(corrected(network, points), truth) < 0.07


def test_where_there_are_no_points_little_is_changed(street):
    truth, network = street
    points = points_of(truth, share=0.5)
    points[:, 40:] = np.nan  # in the left third alone
    change = np.log(corrected(network, points) / network)
    assert np.abs(change[:, 120:]).max() < 0.5 * np.abs(change[:, :50]).max() + 0.1


@pytest.mark.parametrize("points", ["none", "few", "contradiction"])
def test_without_points_to_believe_the_depth_stays_as_it_is(street, points):
    truth, network = street
    given = {
        "none": None,
        "few": points_of(truth, share=0.004),
        "contradiction": points_of(truth, noise=1.2),
    }[points]
    assert corrected(network, given) is network


def test_what_is_unknown_stays_unknown(street):
    truth, network = street
    network[:, :20] = np.nan
    depth = corrected(network, points_of(truth))
    np.testing.assert_array_equal(np.isnan(depth), np.isnan(network))
    assert error_of(depth[:, 20:], truth[:, 20:]) < 0.06


def test_depth_without_contrast_is_bent_too(street):
    truth, _ = street
    flat = np.full(SHAPE, 7.0, np.float32)
    gentle = truth ** np.float32(0.4)
    assert error_of(corrected(flat, points_of(gentle)), gentle) < 0.7 * error_of(flat, gentle)
